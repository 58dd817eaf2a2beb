"""Words and shingles, as several steps count them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_EAST = "\u3040-\u30ff\u3400-\u9fff"  # kana and Han are written without spaces: each character counts as a word
_WORD = re.compile(rf"[{_EAST}]|[^\W{_EAST}]+(?:['’.,][^\W{_EAST}]+)*")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])|\n+")
EMPTY = frozenset(
    """a an and answer answers are as be because but by choice correct final for given hence here i in is it its
    may must my of on option or question right should so solution that the then there therefore think
    this thus to true was we which will would yes""".split()  # noqa: SIM905
)
"""Words that carry no reason of their own."""


def words(text: str) -> list[str]:
    """Lower-case words and numbers; punctuation is left out.

    >>> words("It's 3.5 m, not 1,200!")
    ["it's", '3.5', 'm', 'not', '1,200']
    """
    return _WORD.findall(text.casefold())


def sentences(text: str) -> list[str]:
    """Sentences and lines, without empty ones.

    >>> sentences("He has 3.5 m. She has 4!\\nSo she wins.")
    ['He has 3.5 m.', 'She has 4!', 'So she wins.']
    """
    return [one.strip() for one in _SENTENCE.split(text) if one.strip()]


def shingles(items: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Runs of `size` neighbours, with repetition; the whole as one where it is shorter.

    >>> shingles(["a", "b", "c"], 2)
    [('a', 'b'), ('b', 'c')]
    """
    if not items:
        return []
    return [tuple(items[at : at + size]) for at in range(max(1, len(items) - size + 1))]
