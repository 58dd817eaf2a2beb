"""Alignment of two tokenizers: golden cases, and a teacher's few log-probabilities over the student's tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.alignment import align, from_logprobs
from lmdistill.errors import DataError
from lmdistill.students import _vocabulary
from lmdistill.types import TokenLogprob

TEXTS = ["the cat sat on a mat . dog ate it \u043a\u043e\u0442 \u4eba unbeliev able"]


@pytest.mark.parametrize(
    ("student", "teacher", "places"),
    [
        (["\u2581the", "\u2581cat"], ["the", " cat"], [0, 1]),  # other marks of a word's beginning
        (["\u2581un", "believ", "able"], ["unbelievable"], [0, None, None]),  # one token of the teacher, three of ours
        (["\u2581unbelievable"], ["un", "believ", "able"], [0]),  # one of ours, three of the teacher's
        (["a", "b", "c"], ["a", "X", "c"], [0, None, 2]),  # a token of which nothing is known
        (["a", "<unk>", "c"], ["a", "\U0001f600", "c"], [0, None, 2]),  # an unknown symbol
        (["\u043a\u043e", "\u0442"], ["\u043a\u043e\u0442"], [0, None]),  # another script
        (["a", "b"], ["a", "x", "y", "b"], [0, 3]),  # more on the teacher's side
        (["a", "x", "y", "b"], ["a", "b"], [0, None, None, 1]),  # more on ours
        ([], ["a"], []),
        (["a"], [], [None]),
    ],
)
def test_golden_cases(student: list[str], teacher: list[str], places: list[int | None]) -> None:
    assert align(student, teacher) == places


@given(words=st.lists(st.text("abc", min_size=1, max_size=3), max_size=8))
@settings(max_examples=50)
def test_a_text_is_aligned_with_itself(words: list[str]) -> None:
    assert align(words, words) == list(range(len(words)))


@given(
    one=st.lists(st.text("abc", min_size=1, max_size=3), max_size=6),
    other=st.lists(st.text("abc", min_size=1, max_size=3), max_size=6),
)
@settings(max_examples=80)
def test_places_go_forwards_and_pairs_begin_alike(one: list[str], other: list[str]) -> None:
    places = align(one, other)
    found = [place for place in places if place is not None]
    assert found == sorted(set(found))
    for token, place in zip(one, places, strict=True):
        assert place is None or token.startswith(other[place]) or other[place].startswith(token)


def token(text: str, *top: tuple[str, float]) -> TokenLogprob:
    return TokenLogprob(text, dict(top).get(text, math.log(0.5)), top)


def pieces() -> Any:
    return _vocabulary.build("word", TEXTS, size=100, trim=True)


def test_alternatives_of_the_student_s_vocabulary_are_renormalised() -> None:
    tokenizer = pieces()
    labels = tokenizer("the cat sat")["input_ids"]
    told = [
        token("the", ("the", math.log(0.6)), (" a", math.log(0.2)), (" zebra", math.log(0.1))),
        token(" cat", (" cat", math.log(0.9))),
        token(" jumped", (" jumped", -0.1)),
    ]
    found = from_logprobs(told, labels, tokenizer, top=3)
    vocabulary = tokenizer.get_vocab()
    assert found.targets.tolist() == labels and len(labels) == 4  # the end of sequence too
    # 'zebra' is no token of the student's: 0.6 and 0.2 become 3/4 and 1/4
    assert dict(zip(found.ids[0].tolist(), found.logprobs[0].tolist(), strict=True))[
        vocabulary["the"]
    ] == pytest.approx(math.log(0.75), abs=1e-5)
    assert math.exp(found.logprobs[0, 1]) == pytest.approx(0.25) and found.ids[0, 1] == vocabulary["a"]
    for row, word in ((1, "cat"), (2, "sat"), (3, "</s>")):  # one alternative, no match, the end: hard targets
        assert found.ids[row, 0] == vocabulary[word] and found.logprobs[row, 0] == pytest.approx(-1e-6)
    assert all(len(set(row)) == 3 for row in found.ids.tolist())
    assert (found.tail < -60).all()


def test_a_piece_of_the_teacher_s_token_is_the_student_s_own_token() -> None:
    tokenizer = pieces()
    labels = tokenizer("unbeliev able")["input_ids"]
    found = from_logprobs([token("unbelievable", ("unbelievable", -0.2), ("the", -2.0))], labels, tokenizer, top=2)
    vocabulary = tokenizer.get_vocab()
    assert found.ids[0].tolist() == [vocabulary["unbeliev"], vocabulary["the"]]
    assert math.exp(found.logprobs[0, 0]) == pytest.approx(math.exp(-0.2) / (math.exp(-0.2) + math.exp(-2.0)), rel=1e-4)
    assert found.ids[1, 0] == vocabulary["able"] and found.logprobs[1, 0] == pytest.approx(-1e-6)


def test_nothing_known_and_nonsense_are_refused() -> None:
    tokenizer = pieces()
    with pytest.raises(DataError, match="no log-probabilities"):
        from_logprobs([], [4, 1], tokenizer)
    for value in (0.7, math.nan):
        with pytest.raises(DataError, match="at most 0"):
            from_logprobs([TokenLogprob("the", value, (("the", value),))], tokenizer("the")["input_ids"], tokenizer)
