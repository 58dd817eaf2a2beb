"""What stands after an answer cue, read as a line, a text, a choice or a value.

Every function here is total (any text gives a result, nothing raises) and none guesses: where a text names no answer,
or several, the answer is None and a reason says why.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from lmdistill import arithmetic

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\"'])|\s+\.(?=\s|$)")
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|\bcannot)\s+(?:be\s+|an?\s+|the\s+)?[\"'(]*$", re.IGNORECASE
)


class Found(NamedTuple):
    """An answer, or None and the reason; answers with the same `key` (the answer itself by default) are the same."""

    answer: str | None
    reason: str | None = None
    key: str | None = None


def line_in(said: str) -> Found:
    """The rest of the line after a cue, as it stands.

    >>> line_in("the blue one.\\nBecause").answer, line_in(" ").reason
    ('the blue one', 'nothing after the answer cue')
    """
    line = _first_line(said).rstrip(".").rstrip()
    if len(line) > 1 and line[0] in "\"'“‘" and line[-1] in "\"'”’":
        line = line[1:-1].strip().rstrip(".").rstrip()
    return Found(line) if line else Found(None, "nothing after the answer cue")


def text_in(said: str) -> Found:
    """All that follows a cue, for answers of several sentences."""
    plain = said.strip()
    return Found(plain) if plain else Found(None, "nothing after the answer cue")


# --- choices ---------------------------------------------------------------------------------------------------------

_LETTER = re.compile(
    r"""\(([A-Za-z])\)
    | (?<!\w)["'“‘]([A-Za-z])\.?["'”’](?!\w)
    | ^(?:(?:option|choice)\s+)?([A-Za-z])(?:[).:]*$|[).:](?=\s))""",
    re.IGNORECASE | re.VERBOSE,
)
_REASON = re.compile(r"[,;]?\s+(?:because|since|due\s+to)\b|,\s+(?:as|which|where|who|when|so)\b", re.IGNORECASE)
_WHOLE_LETTER = re.compile(r"^(?:option\s+|choice\s+)?\(?([A-Za-z])[).:]*(?:\s+(?P<rest>.*))?$", re.IGNORECASE)


def match_choice(answer: str, choices: Sequence[str]) -> str | None:
    """The one choice that an answer names, by letter or by text; None where it names none or several.

    >>> match_choice("(B)", ["red", "blue"]), match_choice("it is red", ["red", "blue"]), match_choice("z", ["red"])
    ('blue', 'red', None)
    """
    return choice_in(answer, choices).answer


def choice_in(said: str, choices: Sequence[str], *, lettered: bool = True, bare: bool = False) -> Found:
    """The one choice that a text names.

    A letter counts where it is marked as one ('(d)', 'd.', 'D' alone) and `lettered` holds; a choice's text counts as
    whole words, the longest first, and not after 'not'. A letter and a text that disagree are no answer. `bare` accepts
    nothing beside the choice.
    """
    line = _first_line(said)
    if not line:
        return Found(None, "nothing after the answer cue")
    texts = [folded(choice) for choice in choices]
    whole = folded(line)
    if whole and whole in texts:
        return Found(choices[texts.index(whole)])
    sentence = SENTENCE.split(line)[0]
    if lettered:
        for part in (line, sentence):
            index = _whole_letter(part, texts)
            if index is not None:
                return Found(choices[index])
    if bare:
        return Found(None, "no answer cue")
    if folded(sentence) in texts:
        return Found(choices[texts.index(folded(sentence))])
    clause = _REASON.split(sentence)[0]
    if (lettered and _letters(clause)) or _named(clause, texts):
        sentence = clause
    letters = _letters(sentence) if lettered else []
    if any(index >= len(choices) for index in letters):
        return Found(None, "a letter beyond the choices")
    named = _named(re.sub(r"\([A-Za-z]\)", " ", sentence) if letters else sentence, texts)
    if len({texts[index] for index in letters}) > 1:
        return Found(None, "names several choices")
    if letters:
        agree = texts[letters[0]] in named or _fits(sentence, texts[letters[0]])
        return Found(choices[letters[0]]) if agree else Found(None, "letter and text disagree")
    if len(named) == 1:
        return Found(choices[texts.index(named.pop())])
    return Found(None, "names several choices" if named else "answer is not one of the choices")


def _whole_letter(line: str, texts: Sequence[str]) -> int | None:
    """The choice of a line that is nothing but its letter, with or without its text."""
    match = _WHOLE_LETTER.match(line)
    if match and (line[:1] == "(" or match["rest"] is None or re.match(r"\w[).:]", line)):
        index = ord(match[1].lower()) - ord("a")
        if index < len(texts) and (not match["rest"] or folded(match["rest"]) == texts[index]):
            return index
    return None


def _letters(sentence: str) -> list[int]:
    found = []
    for match in _LETTER.finditer(sentence):
        if not _NEGATED.search(sentence[: match.start()]):
            found.append(ord((match[1] or match[2] or match[3]).lower()) - ord("a"))
    return found


def _fits(sentence: str, choice: str) -> bool:
    """Whether what follows a leading letter is nothing, a reason, or the choice in another spelling."""
    match = _LETTER.search(sentence)
    if match is None or re.search(r"\w", re.sub(r"option|choice", "", sentence[: match.start()], flags=re.IGNORECASE)):
        return True
    rest = folded(sentence[match.end() :].lstrip(" -–—:,."))
    if not rest or re.match(r"(?:for|is)\b", rest):
        return True
    return difflib.SequenceMatcher(None, rest, choice).ratio() >= 0.6


def _named(sentence: str, texts: Sequence[str]) -> set[str]:
    """The choices whose text stands in a sentence as whole words, longest first, each piece of text counted once."""
    text = " ".join(re.sub(r"[\"*`]", " ", sentence).split()).casefold()
    named = set()
    for choice in sorted(set(texts) - {""}, key=len, reverse=True):
        at = text.find(choice)
        while at >= 0:
            end = at + len(choice)
            if not (text[at - 1 : at].isalnum() or text[end : end + 1].isalnum()):
                if not _NEGATED.search(text[:at]):
                    named.add(choice)
                text = text[:at] + "\0" * len(choice) + text[end:]
            at = text.find(choice, end)
    return named


def folded(text: str | None) -> str:
    return " ".join((text or "").split()).strip(" .\"'*`,;:").casefold()


def _first_line(said: str) -> str:
    stripped = said.strip().strip("*`_").strip()
    return stripped.splitlines()[0].strip().strip("*`_").strip() if stripped else ""


# --- values ----------------------------------------------------------------------------------------------------------


def value_in(said: str) -> Found:
    """The one number or arithmetic expression that a text gives, its units and currency signs left away.

    Both sides of 'a = b' must agree. Unknowns ('2 * x'), scale words ('3 dozen') and several different numbers are no
    answer.

    >>> value_in("(84 / 2).").answer, value_in("$1,200 in all").answer, value_in("12 + 30 = 42 apples").answer
    ('(84 / 2)', '1,200', '12 + 30')
    >>> value_in("2 * x").reason, value_in("3 pears and 4 plums").reason
    ('not an arithmetic expression', 'gives several different numbers')
    """
    line = _first_line(said)
    if not line:
        return Found(None, "nothing after the answer cue")
    expressions = arithmetic.expressions(SENTENCE.split(line)[0])
    if not expressions:
        return Found(None, "not an arithmetic expression")
    if len(expressions) > 1:
        return Found(None, "gives several different numbers")
    return Found(expressions[0], key=canonical_value(expressions[0]))


def canonical_value(answer: str) -> str | None:
    """One spelling for all expressions of the same value; None where the text has none.

    >>> canonical_value("(84 / 2)"), canonical_value("42.0"), canonical_value("x")
    ('42', '42', None)
    """
    number = arithmetic.value(answer)
    return None if number is None else arithmetic.written(number)
