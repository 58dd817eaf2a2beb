"""Continued pretraining: what is left out can be put back, and parts sum to texts."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.errors import ConfigError
from lmdistill.objectives.causal_lm import CausalLM
from lmdistill.objectives.span_corruption import SENTINELS, SpanCorruption
from lmdistill.types import Document


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 900), st.integers(0, 99), st.floats(0.05, 0.9), st.floats(1, 9))
def test_marks_and_spans_put_together_are_the_text(words: int, seed: int, noise: float, span: float) -> None:
    text = " ".join(f"w{i}" for i in range(words))
    (view,) = SpanCorruption(noise=noise, span=span).views(Document("d", text), 0, random.Random(seed))
    pieces = re.split(r"<extra_id_(\d+)>", view.target)
    numbers, spans = [int(one) for one in pieces[1::2]], [piece.strip() for piece in pieces[2::2]]
    assert numbers == list(range(len(numbers))) and len(numbers) <= SENTINELS
    assert spans[-1] == "" and all(spans[:-1]), "every mark but the last stands for something"
    restored = view.source
    for number, own in zip(numbers[:-1], spans, strict=False):
        restored = restored.replace(f"<extra_id_{number}>", own, 1)
    assert restored.split() == text.split()
    hidden = sum(len(own.split()) for own in spans)
    assert hidden == min(max(1, round(noise * words)), words - 1)
    assert not re.search(r"<extra_id_\d+> <extra_id_\d+>", view.source), "a word stands between two spans"


def test_texts_too_short_to_hide_anything_are_left_out() -> None:
    assert SpanCorruption().views(Document("d", "one"), 0, random.Random(0)) == []
    assert SpanCorruption().views(Document("d", " "), 0, random.Random(0)) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=5), max_size=20), st.floats(0, 0.95), st.integers(0, 50))
def test_prefix_and_rest_are_the_text(words: list[str], prefix: float, seed: int) -> None:
    views = CausalLM(prefix=prefix).views(Document("d", " ".join(words)), 0, random.Random(seed))
    assert [f"{view.source} {view.target}".split() for view in views] == ([words] if words else [])
    assert all(view.target for view in views)


LONG = Document("d", " ".join(f"word{i % 50} is here" for i in range(40)))


def texts_of(item: Document) -> list[str]:
    (view,) = SpanCorruption().views(item, 0, random.Random(0))
    return [view.source, view.target, "plain words"] * 20


@pytest.mark.parametrize("vocabulary", ["word", "subword"])
def test_marks_are_one_token_each_in_vocabularies_from_scratch(vocabulary: str) -> None:
    from lmdistill.students.seq2seq import Seq2seq

    spec = Seq2seq(vocabulary=vocabulary, vocabulary_size=100)
    student = spec.open(texts_of(LONG))
    SpanCorruption().check(student, None, [LONG])
    source = "word1 is <extra_id_0> here"
    pieces = student.tokenizer.convert_ids_to_tokens(student.source_tokens(source))
    assert pieces.count("<extra_id_0>") == 1
    bare = spec.open(["word1 is here"] * 30)
    assert "<extra_id_0>" not in bare.tokenizer.get_vocab(), "who shows no marks has none"
    with pytest.raises(ConfigError, match="the student's vocabulary cuts <extra_id_0>"):
        SpanCorruption().check(bare, None, [LONG])


def test_a_decoder_is_told_to_go_on_with_texts_instead() -> None:
    from lmdistill.students.causal import Causal

    student = Causal().open(texts_of(LONG))
    with pytest.raises(ConfigError, match="this student is a decoder that has none; use 'causal_lm'"):
        SpanCorruption().check(student, None, [LONG])


@pytest.mark.real
def test_marks_of_the_real_vocabulary(real_data: Path) -> None:
    from lmdistill.students.seq2seq import Seq2seq

    path = str(real_data / "t5_sentencepiece" / "spiece.model")
    for trim in (True, False):
        student = Seq2seq(vocabulary=path, trim=trim).open(texts_of(LONG))
        SpanCorruption().check(student, None, [LONG])
        ids = student.source_tokens("here <extra_id_7> word1")
        assert student.tokenizer.convert_ids_to_tokens(ids) == ["\u2581here", "<extra_id_7>", "\u2581word", "1", "</s>"]


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="noise in"):
        SpanCorruption(noise=0)
    with pytest.raises(ConfigError, match=r"causal_lm\.prefix"):
        CausalLM(prefix=1.0)
