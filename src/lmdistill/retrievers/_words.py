"""Texts as index terms: lower case, words, stop words, stems."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lmdistill.retrievers._porter import stem

StopWords = Literal["none", "lucene", "english"]
Stemming = Literal["none", "porter"]

_LUCENE = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
LUCENE = frozenset(_LUCENE.split())
"""The 33 words that Lucene, and so Anserini and pyserini, leave out."""
_MORE = (
    "about above after again against all am any because been before being below between both can could did do does "
    "doing down during each few from further had has have having he her here hers herself him himself his how i its "
    "itself just me more most my myself nor now off once only other our ours ourselves out over own same she should so "
    "some than theirs them themselves those through too under until up very we were what when where which while who "
    "whom why would you your yours yourself yourselves"
)
ENGLISH = LUCENE | frozenset(_MORE.split())
_STOP: dict[StopWords, frozenset[str]] = {"none": frozenset(), "lucene": LUCENE, "english": ENGLISH}
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class Words:
    """How a text becomes index terms; equal settings give equal terms for passages and queries."""

    stemming: Stemming = "porter"
    stop_words: StopWords = "lucene"

    def split(self, text: str) -> list[str]:
        """The words of a text, lower case, in order."""
        return _WORD.findall(text.lower())

    def term(self, word: str) -> str:
        """The index term of a word; '' for a stop word."""
        bare = word[:-2] if word.endswith(("'s", "’s")) else word
        if bare in _STOP[self.stop_words]:
            return ""
        return stem(bare) if self.stemming == "porter" else bare

    def __call__(self, text: str) -> list[str]:
        """The terms of a text in order; repetitions stay.

        >>> Words()("The cat's toys, and 3 BIRDS!")
        ['cat', 'toi', '3', 'bird']
        """
        return [term for word in self.split(text) if (term := self.term(word))]
