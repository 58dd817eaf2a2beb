"""What the question-writing tasks share: their input, and the part of a passage that an answer is about."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from lmdistill.chunking import sentences
from lmdistill.errors import ConfigError
from lmdistill.tasks._writing import Writing

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class QuestionWriting(Writing):
    """Settings of both: `passage_words` (0: the whole passage) leaves only the sentences that the answer is about.

    They have at most so many words, or are one longer sentence. Small students learn more from them than from the two
    ends of a page. The question is never looked at. Teachers read the shorter passage too.
    """

    passage_words: int = field(default=0, kw_only=True)

    answer_cue = "Question:"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.passage_words < 0:
            raise ConfigError(f"passage_words: 0 (all of it) or more was expected, got {self.passage_words}")

    def asked(self, passage: str, answer: str) -> str:
        """The input: 'passage; answer: answer' (KD4Gen's form)."""
        return f"{self.prefix}{about(passage, answer, self.passage_words)}; answer: {answer}"


def about(passage: str, answer: str, words: int) -> str:
    """The run of whole sentences, at most `words` words long (or one longer sentence), that an answer is about.

    A run's score is the sum, over the answer's words that it has, of one over how often the passage has them, and one
    more for each word where the answer stands in it letter for letter; of equals the longest and earliest is taken.

    >>> about("A hen sat. A fox came. The hen flew off. Night fell.", "the fox", 6)
    'A hen sat. A fox came.'
    >>> about("A hen sat. A fox came.", "the fox", 0)
    'A hen sat. A fox came.'
    """
    whole = " ".join(passage.split())
    if not words or len(whole.split()) <= words:
        return whole
    found = sentences(whole)
    lengths = [len(one.split()) for one in found]
    wanted = set(_words(answer))
    often = Counter(_words(whole))
    literal = " ".join(answer.split()).rstrip(".!?").casefold()
    best, chosen = (-1.0, 0, 0), whole
    for start in range(len(found)):
        end, length = start + 1, lengths[start]
        while end < len(found) and length + lengths[end] <= words:
            length += lengths[end]
            end += 1
        run = " ".join(found[start:end])
        score = sum(1 / often[word] for word in sorted(wanted & set(_words(run))))
        score += len(wanted) * (bool(literal) and literal in run.casefold())
        if (score, length, -start) > best:
            best, chosen = (score, length, -start), run
    return chosen


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
