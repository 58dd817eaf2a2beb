"""Texts as index terms: lower case, words, stop words, stems.

Words end where Unicode's word boundaries (UAX #29) lie, as Lucene's StandardTokenizer draws them: 3.5, u.s and don't
are one word each, an ideograph or a hiragana is one by itself, katakana stand together.
"""

from __future__ import annotations

import functools
import re
import unicodedata
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
_ASCII = re.compile(r"(?=_*[a-z0-9])[a-z0-9_]+(?:(?:(?<=[a-z])[.:'](?=[a-z])|(?<=[0-9])[.,;'](?=[0-9]))[a-z0-9_]+)*")
_ALONE = "\u3005-\u3007\u3021-\u3029\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Ideographs and hiragana."""
_KATAKANA = "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"


@functools.cache
def _word() -> re.Pattern[str]:
    """A word of a text in any script."""
    joined = (chr(code) for code in range(0x300, 0x10000))  # accents, vowel signs, joiners belong to what they follow
    marks = "".join(one for one in joined if unicodedata.category(one) in ("Mn", "Mc", "Me"))
    extend = f"{marks}\u200c\u200d"
    part = rf"(?:(?![{_ALONE}{_KATAKANA}])\w|[{extend}])"
    letter = rf"(?:[^\W\d_{_ALONE}{_KATAKANA}])"
    within = rf"(?<={letter})[{extend}]*[.:·'’․＇．](?={letter})|(?<=\d)[.,;'’٬＇．](?=\d)"
    rest = rf"(?=_*[^\W_]){part}+(?:(?:{within}){part}+)*"
    return re.compile(rf"[{_ALONE}][{extend}]*|[{_KATAKANA}][{_KATAKANA}{extend}]*|{rest}")


@dataclass(frozen=True)
class Words:
    """How a text becomes index terms; equal settings give equal terms for passages and queries."""

    stemming: Stemming = "porter"
    stop_words: StopWords = "lucene"

    def split(self, text: str) -> list[str]:
        """The words of a text, lower case, in order.

        >>> Words().split("The U.S. paid 3.5 or 1,000: don't; 心臓 を.")
        ['the', 'u.s', 'paid', '3.5', 'or', '1,000', "don't", '心', '臓', 'を']
        """
        lower = text.lower()
        return (_ASCII if lower.isascii() else _word()).findall(lower)

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
