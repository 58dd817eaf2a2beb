"""Arithmetic is valued exactly, in bounds, and never evaluated as code."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.arithmetic import DEEPEST, LONGEST, equal, expressions, value, written


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("( 84.0 / 2.0 )", 42),  # 84 / 2
        ("2 + 3 * 4", 14),  # products first
        ("(2 + 3) * 4", 20),
        ("8 - 3 - 2", 3),  # from the left
        ("8 / 4 / 2", 1),
        ("2 ^ 3 ^ 2", 512),  # powers from the right: 2 ** 9
        ("-2 ^ 2", -4),  # the sign after the power
        ("2 ** -1", Fraction(1, 2)),
        ("- - 3", 3),
        ("5 * -2", -10),
        (".5 + 5.", Fraction(11, 2)),
        ("1,234,567", 1_234_567),
        ("3 × 4 ÷ 6 − 1", 1),
        ("0.1 + 0.2", Fraction(3, 10)),  # exactly, not 0.30000000000000004
        ("(" * 20 + "7" + ")" * 20, 7),
    ],
)
def test_value(text: str, number: int | Fraction) -> None:
    assert value(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "2 * x",
        "2 2",
        "(1",
        "1)",
        "()",
        "1 +",
        "* 2",
        "1 / 0",
        "0 ^ -1",
        "1 // 2",
        "1 % 2",
        "1e9",
        "0x10",
        "1_000",
        "12,34",
        "1,2345",
        "nan",
        "inf",
        "True",
        "__import__('os').system('true')",
        "9 ** 9 ** 9 ** 9",
        "2 ^ 0.5",
        "2 ^ 65",
        "٣ + ٤",  # digits of another script are not numbers here
        "(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1),
        "-" * (DEEPEST + 1) + "1",
        "1" * (LONGEST + 1),
        "999999999999 ^ 64 * 999999999999 ^ 64 * 999999999999 ^ 64",  # 64 * 40 bits three times: beyond BITS
    ],
)
def test_no_value(text: str) -> None:
    assert value(text) is None


def test_the_bounds_leave_room() -> None:
    assert value("(" * DEEPEST + "1" + ")" * DEEPEST) == 1
    assert value("2 ^ 64") == 2**64
    assert value("1" + " + 1" * 120) == 121


@pytest.mark.parametrize("text", ["(" * 499, "-" * 499, "9^" * 240 + "9", "(9^64)" * 80, "1/" * 240 + "7", "9" * 499])
def test_hostile_text_is_read_in_no_time(text: str) -> None:
    started = time.perf_counter()
    value(text)
    expressions(text)
    assert time.perf_counter() - started < 0.25


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    value(text)
    expressions(text)


@given(st.text(alphabet="0123456789.,+-*/^() x=$%", max_size=40))
@settings(max_examples=400)
def test_arithmetic_like_text_is_read_without_an_error(text: str) -> None:
    number = value(text)
    assert number is None or isinstance(number, Fraction)
    for each in expressions(text) or []:
        assert value(each) is not None


TREES = st.recursive(
    st.integers(0, 99).map(lambda n: (str(n), Fraction(n))),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda t: (
            f"({t[0][0]} {t[1]} {t[2][0]})",
            {"+": t[0][1] + t[2][1], "-": t[0][1] - t[2][1], "*": t[0][1] * t[2][1]}[t[1]],
        )
    ),
    max_leaves=12,
)


@given(TREES)
def test_agrees_with_exact_arithmetic(tree: tuple[str, Fraction]) -> None:
    assert value(tree[0]) == tree[1]


@given(st.fractions(max_denominator=10_000))
def test_written_reads_back(number: Fraction) -> None:
    assert value(written(number)) == number


def test_equal_is_by_value_and_nothing_unreadable_is_equal() -> None:
    assert equal("( 84.0 / 2.0 )", "42")
    assert equal("1 / 3", "2 / 6")
    assert not equal("1 / 3", "0.333")
    assert not equal("x", "x")
    assert not equal("1 / 0", "1 / 0")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("30 days", ["30"]),
        ("$42.50", ["42.50"]),
        ("70%", ["70"]),
        ("84 points / 2 rounds = 42 points per round", ["84 / 2"]),
        ("((8 action figures + 10 cabinets) * 4 shelves)", ["((8 + 10) * 4)"]),
        ("x = 14", ["14"]),
        ("42 (apples)", ["42"]),
        ("it is -8", ["-8"]),
        ("15 - 8 = 6", ["15 - 8", "6"]),  # a slip: two different values
        ("10 less than 20", ["10", "20"]),
        ("12kg", ["12"]),
        ("no number", []),
        ("(some - 8)", None),
        ("(2 * x)", None),
        ("(7x = 14)", None),
        ("3 dozen", None),
        ("(175, 5)", None),
        ("3 * (the number of bags)", None),
    ],
)
def test_expressions_among_words(text: str, found: list[str] | None) -> None:
    assert expressions(text) == found
