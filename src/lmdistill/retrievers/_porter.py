"""The Porter stemmer (M. F. Porter, "An algorithm for suffix stripping", 1980), as Lucene and Anserini use it."""

from __future__ import annotations

import functools
import re

STEP2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "abli": "able", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
STEP3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
STEP4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip


@functools.lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """The stem of a lower-case word; words of two letters or fewer stay as they are.

    >>> [stem(word) for word in ("caresses", "ponies", "relational", "hopping", "motoring", "happy", "sky")]
    ['caress', 'poni', 'relat', 'hop', 'motor', 'happi', 'sky']
    """
    if len(word) <= 2:
        return word
    word = _plural(word)
    word = _past(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _swapped(word, STEP2)
    word = _swapped(word, STEP3)
    word = _stripped(word)
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _short(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _shape(word: str) -> str:
    """Vowels and consonants: 'toy' -> 'cvc' (a y after a consonant is a vowel)."""
    shape = ""
    for i, letter in enumerate(word):
        vowel = letter in "aeiou" or (letter == "y" and i > 0 and shape[i - 1] == "c")
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """How many times a vowel group is followed by a consonant group."""
    return len(re.findall("v+c+", _shape(word)))


def _has_vowel(word: str) -> bool:
    return "v" in _shape(word)


def _double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _short(word: str) -> bool:
    """Consonant, vowel, consonant at the end, the last not w, x or y."""
    return _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"


def _plural(word: str) -> str:
    for suffix, instead in (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")):
        if word.endswith(suffix):
            return word[: len(word) - len(suffix)] + instead
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return _mended(rest) if _has_vowel(rest) else word
    return word


def _mended(rest: str) -> str:
    """What is left of a word whose -ed or -ing went: 'hopp' -> 'hop', 'fil' -> 'file'."""
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if _double(rest) and rest[-1] not in "lsz":
        return rest[:-1]
    return rest + "e" if _measure(rest) == 1 and _short(rest) else rest


def _swapped(word: str, suffixes: dict[str, str]) -> str:
    """The longest of the suffixes that fits is replaced, where something measurable stands before it."""
    fitting = max((suffix for suffix in suffixes if word.endswith(suffix)), key=len, default="")
    rest = word[: len(word) - len(fitting)]
    return rest + suffixes[fitting] if fitting and _measure(rest) > 0 else word


def _stripped(word: str) -> str:
    fitting = max((suffix for suffix in STEP4 if word.endswith(suffix)), key=len, default="")
    rest = word[: len(word) - len(fitting)]
    if not fitting or _measure(rest) <= 1 or (fitting == "ion" and rest[-1] not in "st"):
        return word
    return rest
