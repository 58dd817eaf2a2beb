"""Long texts as passages of whole sentences, and the signatures by which near-duplicates are found."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmdistill.errors import ConfigError

CHARACTERS_PER_WORD = 8
"""A text counts at least one word for so many characters: scripts without blanks, and lines of garbage, are cut too."""
BANDS, ROWS, SHINGLE = 4, 4, 3
"""MinHash of 3-word shingles: two texts meet in a band with a chance of J^4; at J = 0.9, 99 % meet in one of four."""

_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？])|\n\s*\n")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Chunking:
    """Passages of at most `words` words, made of whole sentences; `overlap` sentences of one begin the next.

    `words` 0 keeps every document whole.
    """

    words: int = 100
    overlap: int = 1

    def __post_init__(self) -> None:
        if self.words < 0 or self.overlap < 0:
            raise ConfigError(f"chunking: 0 or more words and overlap were expected, got {self.words}, {self.overlap}")


def size(text: str) -> int:
    """A text's length in words; see `CHARACTERS_PER_WORD`."""
    return max(len(text.split()), -(-len(text) // CHARACTERS_PER_WORD))


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space evened out.

    >>> sentences('He said "no." Then 3.5 cats ran! Why?')
    ['He said "no."', 'Then 3.5 cats ran!', 'Why?']
    """
    found, start = [], 0
    for match in _END.finditer(text):
        closing = match.group().rstrip()
        found.append(text[start : match.start()] + (closing if closing.strip() else ""))
        start = match.end()
    found.append(text[start:])
    return [" ".join(one.split()) for one in found if one.strip()]


def chunks(text: str, chunking: Chunking) -> Iterator[str]:
    """The passages of a text; nothing for an empty one.

    >>> list(chunks("One two. Three four. Five six.", Chunking(words=4, overlap=1)))
    ['One two. Three four.', 'Three four. Five six.']
    """
    if not text.strip():
        return
    if chunking.words == 0 or size(text) <= chunking.words:
        yield text.strip()
        return
    held: list[str] = []
    fresh = 0  # sentences of `held` that no passage has shown yet
    for sentence in _short(sentences(text), chunking.words):
        while held and sum(map(size, held)) + size(sentence) > chunking.words:
            if fresh:
                yield " ".join(held)
                held, fresh = held[len(held) - chunking.overlap :] if chunking.overlap else [], 0
            else:
                held = held[1:]
        held.append(sentence)
        fresh += 1
    if fresh:
        yield " ".join(held)


def _short(found: list[str], words: int) -> Iterator[str]:
    """Sentences, those over the limit cut at words, and words over the limit at characters."""
    for sentence in found:
        if size(sentence) <= words:
            yield sentence
            continue
        held: list[str] = []
        length = 0
        for word in sentence.split():
            for piece in _pieces(word, words * CHARACTERS_PER_WORD):
                if held and (len(held) == words or length + len(piece) + 1 > words * CHARACTERS_PER_WORD):
                    yield " ".join(held)
                    held, length = [], 0
                held.append(piece)
                length += len(piece) + 1
        yield " ".join(held)


def _pieces(word: str, limit: int) -> list[str]:
    return [word[i : i + limit] for i in range(0, len(word), limit)]


# --- near-duplicates -------------------------------------------------------------------------------------------------


def shingles(text: str) -> Any:
    """The distinct 3-word shingles of a text as hashes [n] uint64 (one, of all its words, for a shorter text)."""
    import numpy as np

    words = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], dtype=np.uint64)
    if len(words) < SHINGLE:
        words = np.concatenate([np.full(SHINGLE - len(words), 7, dtype=np.uint64), words])
    mixed = np.zeros(len(words) - SHINGLE + 1, dtype=np.uint64)
    for place in range(SHINGLE):
        mixed = _mixed(mixed ^ words[place : len(words) - SHINGLE + 1 + place])
    return np.unique(mixed)


def signature(text: str) -> Any:
    """[1 + BANDS] uint64: a hash of the words in order, and a hash for each band."""
    import numpy as np

    own = shingles(text)
    seeds = np.arange(1, BANDS * ROWS + 1, dtype=np.uint64)
    least = _mixed(own[None, :] ^ _mixed(seeds)[:, None]).min(axis=1).reshape(BANDS, ROWS)
    bands = np.zeros(BANDS, dtype=np.uint64)
    for row in range(ROWS):
        bands = _mixed(bands ^ least[:, row])
    words = " ".join(_WORD.findall(text.lower())).encode()
    exact = zlib.crc32(words) | zlib.adler32(words) << 32
    return np.concatenate([np.array([exact], dtype=np.uint64), bands])


def resemblance(one: str, other: str) -> float:
    """The share of common shingles (Jaccard), 1 for texts of equal words.

    >>> resemblance("the cat sat on the mat", "The cat sat on the mat!")
    1.0
    """
    import numpy as np

    a, b = shingles(one), shingles(other)
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _mixed(values: Any) -> Any:
    """A bijection of 64-bit numbers that scatters them (the finaliser of splitmix64)."""
    import numpy as np

    with np.errstate(over="ignore"):
        values = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
