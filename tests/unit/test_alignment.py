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


def of(tokenizer: Any, text: str, *told: TokenLogprob, top: int = 2) -> list[dict[str, float]]:
    """The distributions over the student's tokens of a text, by the texts of those tokens, without what is nothing."""
    found = from_logprobs(told, tokenizer(text)["input_ids"], tokenizer, top=top)
    return [
        {
            tokenizer.decode([int(number)]): round(math.exp(value), 3)
            for number, value in zip(ids, values, strict=True)
            if value > -60
        }
        for ids, values in zip(found.ids, found.logprobs, strict=True)
    ]


def byte_pairs(words: str) -> Any:
    """A byte-level vocabulary like those of GPT-2 and Qwen, in which each of the words is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": ["<pad>", "</s>"], "initial_alphabet": alphabet, "show_progress": False}
    made.train_from_iterator([words] * 50, trainers.BpeTrainer(vocab_size=600, **options))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")


def test_a_byte_level_vocabulary_meets_words_of_any_script() -> None:
    # 'кот сидит café' word for word; the alternatives are 'дом' and 'né', one token each
    cyrillic = "\u043a\u043e\u0442 \u0441\u0438\u0434\u0438\u0442 \u0434\u043e\u043c caf\u00e9 n\u00e9"
    tokenizer = byte_pairs(cyrillic)
    cat, sits, house = cyrillic.split()[:3]
    assert len(tokenizer(f"{cat} {sits} caf\u00e9")["input_ids"]) == 3
    told = [
        TokenLogprob(word, math.log(0.6), ((word, math.log(0.6)), (other, math.log(0.4))))
        for word, other in ((cat, cat[:1]), (f" {sits}", f" {house}"), (" caf\u00e9", " n\u00e9"))
    ]
    found = of(tokenizer, f"{cat} {sits} caf\u00e9", *told)
    assert found[1] == {f" {sits}": 0.6, f" {house}": 0.4}
    assert found[2] == {" caf\u00e9": 0.6, " n\u00e9": 0.4}
    written = [  # a local teacher's own tokens, written byte by byte
        TokenLogprob(tokenizer.convert_ids_to_tokens(tokenizer(one.token)["input_ids"])[0], one.logprob, ())
        for one in told
    ]
    assert [list(own) for own in of(tokenizer, f"{cat} {sits} caf\u00e9", *written)] == [
        [cat], [f" {sits}"], [" caf\u00e9"]
    ]  # fmt: skip


def test_half_a_letter_is_a_token_too() -> None:
    tokenizer = byte_pairs("abc")  # knows no Cyrillic letter whole: two tokens for one
    letter = "\u043a"
    labels = tokenizer(letter)["input_ids"]
    assert len(labels) == 2
    found = from_logprobs([token(letter, (letter, -0.1), ("a", -2.4))], labels, tokenizer, top=2)
    assert found.ids[0].tolist() == [labels[0], tokenizer("a")["input_ids"][0]]
    assert found.ids[1, 0] == labels[1] and found.logprobs[1, 0] == pytest.approx(-1e-6)


def test_the_chosen_token_s_share_is_the_text_s_own_token() -> None:
    tokenizer = _vocabulary.build("word", ["Zebra horse the unbelievable in cat"], size=50, trim=True)
    told = TokenLogprob("Zeb", math.log(0.95), (("Zeb", math.log(0.95)), ("horse", math.log(0.05))))
    assert of(tokenizer, "Zebra", told, token("ra")) [0] == {"Zebra": 0.95, "horse": 0.05}  # fmt: skip
    begun = TokenLogprob("un", math.log(0.9), (("un", math.log(0.9)), ("in", math.log(0.1))))
    assert of(tokenizer, "unbelievable cat", begun, token("believable"), token(" cat"))[0] == {
        "unbelievable": 0.9, "in": 0.1
    }  # fmt: skip
    drawn = TokenLogprob("the", math.log(0.01), (("horse", math.log(0.98)), ("cat", math.log(0.01))))  # beyond the top
    assert of(tokenizer, "the", drawn, top=3)[0] == {"horse": 0.98, "the": 0.01, "cat": 0.01}
    assert of(tokenizer, "the", drawn, top=2)[0] == {"horse": 0.99, "the": 0.01}


def test_a_token_that_the_student_does_not_know_is_a_hard_target() -> None:
    tokenizer = pieces()
    labels = tokenizer("quagga")["input_ids"]
    assert labels[0] == tokenizer.unk_token_id
    found = from_logprobs([token("quagga", ("quagga", -0.7), ("cat", -0.7))], labels, tokenizer, top=2)
    assert found.ids[0, 0] == labels[0] and found.logprobs[0].tolist() == pytest.approx([-1e-6, -69.0])
