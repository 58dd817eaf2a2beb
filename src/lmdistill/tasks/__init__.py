"""A task: inputs, what a right answer is, and how to read one out of free text.

A task is a frozen dataclass of settings; `examples(split)` opens the data. Splits are `train`, `valid` and `test`
(`unlabelled` where a task has such rows); selection happens on `valid`, never on `test`. `parse` is total: any text
gives a `Parsed`, whose `reason` says why no answer could be read. Answers are compared, never evaluated as code.

To add one: a file `tasks/NAME.py` with a frozen dataclass `Name(Task)` that has `examples`, and overrides of
`parse`, `is_correct`, `instruction` and `exemplars` where the defaults do not fit. `tests/contract/test_tasks.py`
tests it from then on.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lmdistill.types import Example, Parsed, Passage

SPLITS = ("train", "valid", "test", "unlabelled")

CUE = re.compile(
    r"(?:so,?|therefore,?|thus,?|hence,?)?\s*(?:the|my)?\s*(?:final\s+|correct\s+)?answer(?:\s+is|\s*:)\s*:?\s*",
    re.IGNORECASE,
)
LETTERED = re.compile(r"\(?([a-z])[).](?=\s|$|\.)|\(([a-z])\)|^([a-z])(?=[\s.,;:]*$)", re.IGNORECASE)


@dataclass(frozen=True)
class Exemplar:
    """A demonstration `(x, r, y)` for the teacher's prompt."""

    input: str
    rationale: str
    answer: str


class Task(ABC):
    """The contract; see the module's docstring."""

    metric: ClassVar[str] = "accuracy"
    answer_cue: ClassVar[str] = "So the answer is"
    """What the teacher is asked to write before its answer, and what a student that thinks aloud is taught to write."""

    @abstractmethod
    def examples(self, split: str) -> Sequence[Example]:
        """The examples of a split, lazily where the data is large.

        Raises:
            DataError: no such file, split, column; a label outside the choices; an empty or duplicate id.
        """

    @property
    def instruction(self) -> str:
        """What the teacher is told to do; one or two sentences."""
        return f"Think step by step, then end with '{self.answer_cue} ...'."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        """Demonstrations for the teacher's prompt; none by default."""
        return ()

    def shown(self, example: Example, answer: str) -> str:
        """How an answer is written out for a reader, for example with its letter: '(d) math problem'."""
        if answer in example.choices:
            return f"({chr(97 + example.choices.index(answer))}) {answer}"
        return answer

    def parse(self, example: Example, text: str) -> Parsed:
        """Read a rationale and an answer out of a completion; never raises."""
        return read_answer(text, example.choices)

    def canonical(self, answer: str) -> str:
        """The form under which equal answers are equal strings (votes are counted on it)."""
        return " ".join(answer.split()).strip().rstrip(".").casefold()

    def is_correct(self, example: Example, answer: str | None) -> bool:
        """Whether an answer is the gold one; False where there is no answer or no gold label."""
        if answer is None or example.label is None:
            return False
        return self.canonical(answer) == self.canonical(example.label)

    def passages(self) -> Sequence[Passage]:
        """The task's own knowledge base; empty where it has none."""
        return ()


class Generated(Task):
    """A task whose examples are made, and which can solve them in words: what the `scripted` teacher answers from."""

    @abstractmethod
    def explain(self, question: str, rng: random.Random, *, wrong: bool = False) -> tuple[str, str]:
        """A rationale in varied wording and its answer, read from the question's text alone.

        With `wrong`, a plausible mistake is made and carried through, so the answer is wrong too.

        Raises:
            ValueError: the text is no question of this task.
        """


def read_answer(text: str, choices: Sequence[str] = ()) -> Parsed:
    """Split a completion at its answer cue and match what follows to the choices, if there are any.

    The rationale is what stands before the cue. With choices, a letter ('(d)', 'd.') or the choice's own text counts;
    text that names no choice, or several, is not an answer.

    >>> read_answer("It adds up. So the answer is (b) blue.", ["red", "blue"])
    Parsed(rationale='It adds up.', answer='blue', reason=None)
    >>> read_answer("I am not sure.").reason
    'no answer cue'
    """
    body = text.strip()
    if not body:
        return Parsed("", None, "empty")
    cues = list(CUE.finditer(body))
    if not cues:
        return Parsed(body, None, "no answer cue")
    rationale = body[: cues[0].start()].strip()
    answer = body[cues[0].end() :].strip().splitlines()[0].strip() if body[cues[0].end() :].strip() else ""
    if not answer:
        return Parsed(rationale, None, "nothing after the answer cue")
    if choices:
        chosen = match_choice(answer, choices)
        return Parsed(rationale, chosen, None if chosen is not None else "answer is not one of the choices")
    return Parsed(rationale, answer.rstrip(".").strip(), None)


def match_choice(answer: str, choices: Sequence[str]) -> str | None:
    """The one choice that an answer names, by letter or by text; None where it names none or several.

    >>> match_choice("(B)", ["red", "blue"]), match_choice("it is red", ["red", "blue"]), match_choice("z", ["red"])
    ('blue', 'red', None)
    """
    plain = " ".join(answer.split()).strip().strip(".\"'").casefold()
    folded = [" ".join(choice.split()).casefold() for choice in choices]
    if plain in folded:
        return choices[folded.index(plain)]
    letter = LETTERED.match(answer.strip())
    if letter:
        index = ord((letter[1] or letter[2] or letter[3]).lower()) - ord("a")
        if index < len(choices):
            return choices[index]
    named = {
        choice for choice, text in zip(choices, folded, strict=True) if re.search(rf"\b{re.escape(text)}\b", plain)
    }
    longest = [a for a in named if not any(a != b and a.casefold() in b.casefold() for b in named)]
    return longest[0] if len(longest) == 1 else None
