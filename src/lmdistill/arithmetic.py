"""Arithmetic written by models, valued exactly and never evaluated as code.

`value` reads `+ - * / ^ ( )`, signs, decimals, thousands commas, the signs `×`, `÷` and `−`, and gives an exact
fraction, or None for anything else: names, calls, divisions by zero, powers or nestings out of bounds. It never
raises, and its work is bounded by the limits below.
"""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 500
"""Characters an expression may have."""
DEEPEST = 50
"""Parentheses and signs that may be open at once."""
POWER = 64
"""The largest exponent."""
BITS = 4096
"""The size that a numerator or denominator may reach."""

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(rf"\s*(?:(\d+\.(?!\d)|{NUMBER})|(\*\*|[-+*/^()]))", re.ASCII)
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "∕": "/", "−": "-", "–": "-", "—": "-", "\u00a0": " "})


class _NoValue(Exception):
    """The text is not arithmetic, or out of bounds."""


def value(text: str) -> Fraction | None:
    """The exact value of an arithmetic expression, or None where the text is not one.

    >>> value("( 84.0 / 2.0 )"), value("1,200 - 0.5"), value("2 + 3 * 4"), value("-(3 - 5) ^ 2")
    (Fraction(42, 1), Fraction(2399, 2), Fraction(14, 1), Fraction(-4, 1))
    >>> value("8 / (3 - 3)"), value("2 * x"), value("9 ** 9 ** 9"), value("__import__('os')")
    (None, None, None, None)
    """
    if len(text) > LONGEST:
        return None
    try:
        return _Reader(text.translate(_SIGNS).strip()).whole()
    except _NoValue:
        return None


def equal(left: str, right: str) -> bool:
    """Whether both texts have a value and it is the same; unreadable text equals nothing, not even itself.

    >>> equal("(84 / 2)", "42.0"), equal("1 / 3", "2 / 6"), equal("x", "x")
    (True, True, False)
    """
    first = value(left)
    return first is not None and first == value(right)


def written(number: Fraction) -> str:
    """A value's one spelling: an integer, a finite decimal, or a fraction.

    >>> written(Fraction(42)), written(Fraction(-5, 2)), written(Fraction(1, 3)), written(Fraction(1, 200))
    ('42', '-2.5', '1/3', '0.005')
    """
    if number.denominator == 1:
        return str(number.numerator)
    rest, places = number.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest //= prime
            count += 1
        places = max(places, count)
    if rest != 1 or places > 30:
        return str(number)
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-places]}.{digits[-places:]}"


# --- expressions among words -----------------------------------------------------------------------------------------

_SCALES = frozenset(["dozen", "hundred", "thousand", "million", "billion", "half", "quarter", "third", "twice"])
_PIECE = re.compile(
    rf"(?P<number>{NUMBER})|(?P<sign>\*\*|[-+*/^()×÷−])|(?P<word>[^\W\d_]+(?:['’-][^\W\d_]+)*)|(?P<space>\s+)|."
)
_ASIDE = re.compile(r"\([^\W\d_]+(?: [^\W\d_]+)*\)")


def expressions(text: str) -> list[str] | None:
    """The arithmetic in a line of words: one expression for each distinct value, in order.

    Words after a number are its unit and are left away ('(8 eggs + 10 pans)' gives '(8 + 10)'), as are currency and
    per cent signs. None where arithmetic is mixed with unknowns ('2 * x', 'some - 8', '7x'), where a number is scaled
    by a word ('3 dozen'), or where an expression has no value.

    >>> expressions("she has 12 + 30 = 42 apples"), expressions("3 pears and 4 plums"), expressions("(some - 8)")
    (['12 + 30'], ['3', '4'], None)
    """
    found: dict[Fraction, str] = {}
    if len(text) > LONGEST:
        return None
    try:
        for side in _ASIDE.sub(" ", text.translate(_SIGNS)).split("="):
            for run in _runs(side):
                number = value(run)
                if number is None:
                    return None
                found.setdefault(number, run)
    except _NoValue:
        return None
    return list(found.values())


def _runs(text: str) -> list[str]:
    """Maximal runs of numbers and signs; raises _NoValue where a sign has a word for its operand."""
    runs: list[str] = []
    run = ""
    after = "start"  # what came last: start, number, unit, sign, word, other
    glued = False  # nothing stands between that and this piece
    for piece in _PIECE.finditer(text):
        kind, token = piece.lastgroup or "other", piece[0]
        if kind == "space":
            run, glued = run + " " if run else run, False
            continue
        if token in "$€£%\\":
            continue
        if kind == "word":
            if after == "sign" and not run.rstrip().endswith(")"):
                raise _NoValue
            if after in ("number", "unit"):
                if token.casefold() in _SCALES or (glued and len(token) == 1):
                    raise _NoValue
                kind = "unit"
            elif run:
                runs, run = [*runs, run], ""
        elif kind == "number":
            if glued and after == "word":
                raise _NoValue
            if after in ("number", "unit") or run.rstrip().endswith(")"):
                runs, run = [*runs, run], ""
            run += token
        elif kind == "sign":
            unary = token == "-" and text[piece.end() : piece.end() + 1].isdigit() and not glued
            if after == "word" and token != "(" and not unary:
                raise _NoValue
            run = (run.rstrip() if after == "unit" and token == ")" else run) + token
        elif run:
            runs, run = [*runs, run], ""
        after, glued = kind, True
    if after == "sign" and not run.rstrip().endswith(")"):
        raise _NoValue
    return [" ".join(each.split()) for each in [*runs, run] if each.strip()]


# --- the reader ------------------------------------------------------------------------------------------------------


class _Reader:
    """Recursive descent over: sum = product {+- product}; product = signed {*/ signed}; signed = [+-] power."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.at = 0
        self.depth = 0
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _NoValue
            self.tokens.append(match[1] or match[2])
            position = match.end()

    def whole(self) -> Fraction:
        result = self.sum()
        if self.at < len(self.tokens):
            raise _NoValue
        return result

    def next(self, *wanted: str) -> str | None:
        """Take the next token if it is one of those wanted."""
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def sum(self) -> Fraction:
        result = self.product()
        while sign := self.next("+", "-"):
            term = self.product()
            result = _bounded(result + term if sign == "+" else result - term)
        return result

    def product(self) -> Fraction:
        result = self.signed()
        while sign := self.next("*", "/"):
            factor = self.signed()
            if sign == "/" and factor == 0:
                raise _NoValue
            result = _bounded(result * factor if sign == "*" else result / factor)
        return result

    def signed(self) -> Fraction:
        sign = self.next("+", "-")
        if sign is None:
            return self.power()
        self.open()
        result = self.signed()
        self.depth -= 1
        return -result if sign == "-" else result

    def power(self) -> Fraction:
        base = self.atom()
        if not self.next("^", "**"):
            return base
        self.open()
        exponent = self.signed()
        self.depth -= 1
        if exponent.denominator != 1 or abs(exponent) > POWER or (base == 0 and exponent < 0):
            raise _NoValue
        return _bounded(base ** int(exponent))

    def atom(self) -> Fraction:
        if self.next("("):
            self.open()
            result = self.sum()
            if not self.next(")"):
                raise _NoValue
            self.depth -= 1
            return result
        if self.at < len(self.tokens) and self.tokens[self.at][0] in "0123456789.":
            self.at += 1
            return Fraction(self.tokens[self.at - 1].replace(",", "").rstrip("."))
        raise _NoValue

    def open(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _NoValue


def _bounded(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > BITS:
        raise _NoValue
    return number
