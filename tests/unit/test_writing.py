"""How students sample: within the nucleus without a sort, and each input encoded once for all its samples."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TopPLogitsWarper

from lmdistill.students._noise import nucleus, within
from lmdistill.types import Sampling
from student_shapes import student as make


def kept(logits: torch.Tensor, top_p: float) -> list[set[int]]:
    """The tokens that transformers' own truncation leaves."""
    cut = TopPLogitsWarper(top_p)(torch.zeros(len(logits), 1, dtype=torch.long), logits)
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in cut]


@given(seed=st.integers(0, 10_000), top_p=st.sampled_from([0.05, 0.5, 0.9, 0.95]), spread=st.floats(0.2, 6.0))
@settings(max_examples=40, deadline=None)
def test_only_tokens_of_the_nucleus_are_drawn(seed: int, top_p: float, spread: float) -> None:
    torch.manual_seed(seed)
    logits = spread * torch.randn(6, 50)
    drawn = [nucleus(logits.softmax(-1), top_p).tolist() for _ in range(20)]
    for row, own in enumerate(kept(logits, top_p)):
        assert {tokens[row] for tokens in drawn} <= own


def test_tokens_of_the_nucleus_come_as_often_as_they_are_probable() -> None:
    # 0.5, 0.3, 0.15, 0.05 with top_p 0.9: the first three, as 0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95
    torch.manual_seed(1)
    rows = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).expand(20_000, 4)
    counts = Counter(nucleus(rows, 0.9).tolist())
    assert set(counts) == {0, 1, 3}
    for token, share in ((1, 0.5 / 0.95), (3, 0.3 / 0.95), (0, 0.15 / 0.95)):
        assert counts[token] / 20_000 == pytest.approx(share, abs=0.015)  # four standard errors
    assert set(nucleus(rows[:500], 0.4).tolist()) == {1}, "the first one alone reaches it"
    torch.manual_seed(1)
    assert Counter(nucleus(7 * rows, 0.9).tolist()) == counts, "a multiple of the probabilities says the same"


def test_top_k_and_temperature_act_before_the_nucleus() -> None:
    (draw,) = within(Sampling(temperature=0.5, top_p=0.99, top_k=2))["logits_processor"]
    torch.manual_seed(0)
    scores = torch.tensor([[2.0, 1.9, 1.8, 1.7]]).repeat(400, 1)
    chosen = draw(torch.zeros(400, 1, dtype=torch.long), scores).argmax(-1)
    assert set(chosen.tolist()) == {0, 1}
    assert float((chosen == 0).float().mean()) == pytest.approx(1 / (1 + math.exp(-0.2)), abs=0.1)


@pytest.mark.parametrize("shape", ["t5", "bart"])
def test_samples_of_an_input_are_encoded_once_and_are_the_same(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    student = make(shape)
    prompts = ["w1 w2 w3 w4 w5", "w9 w8", "w3 w3 w7"]
    sampling = Sampling(n=5, temperature=1.0, top_p=0.95, max_tokens=7)
    rows: list[int] = []
    encoder = student.model.get_encoder()
    encoder.register_forward_hook(lambda module, given, result: rows.append(len(result.last_hidden_state)))
    many = student.generate(prompts, sampling, seeds=[11, 22, 33])
    assert sum(rows) == 3, "three inputs, fifteen samples"
    single = [
        student.generate([prompt], Sampling(temperature=1.0, top_p=0.95, max_tokens=7), seeds=[seed + i])[0][0].text
        for prompt, seed in zip(prompts, (11, 22, 33), strict=True)
        for i in range(5)
    ]
    assert [one.text for own in many for one in own] == single and len(set(single)) > 10
    rows.clear()
    torch.manual_seed(4)
    written = student.generate_tokens([prompts[0]] * 4, Sampling(temperature=1.0, top_p=0.9, max_tokens=5))
    assert rows == [1] and len({tuple(row) for row in written}) > 1
    student.train()
    rows.clear()
    student.generate_tokens([prompts[0]] * 4, Sampling(temperature=1.0, top_p=0.9, max_tokens=5))
    assert rows == [4], "with dropout on, each sample has its own noise"


@pytest.mark.parametrize("shape", ["t5", "llama"])
def test_unseeded_samples_follow_from_the_running_generator(shape: str) -> None:
    student: Any = make(shape)
    told = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        told.append(student.generate_tokens(["w1 w2", "w3"], Sampling(temperature=1.0, top_p=0.95, max_tokens=8)))
    assert told[0] == told[1] != told[2]
