"""Continued pretraining: what is left out can be put back, and parts sum to texts."""

from __future__ import annotations

import random
import re

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


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="noise in"):
        SpanCorruption(noise=0)
    with pytest.raises(ConfigError, match=r"causal_lm\.prefix"):
        CausalLM(prefix=1.0)
