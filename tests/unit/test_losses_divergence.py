"""Divergences: golden numbers, ends and limits, chunked against dense, sparse against dense."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmdistill.losses import divergence as d
from lmdistill.losses.divergence import Kind, Measure, between, bucket_logprobs, divergence, linear_divergence

KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.fixture(params=["kept", "again"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Gradients kept from the forward pass, or computed again in the backward pass; always in several chunks."""
    monkeypatch.setattr(d, "CHUNK", 40)
    monkeypatch.setattr(d, "PIECE", 20)
    if request.param == "again":
        monkeypatch.setattr(d, "KEPT_ELEMENTS", 0)
    return request.param


def logits(n: int, v: int, seed: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(n, v, generator=torch.Generator().manual_seed(seed))


def test_golden_numbers_by_hand() -> None:
    # P = (1/2, 1/4, 1/4), Q = (1/4, 1/4, 1/2):
    # KL(P||Q) = 1/2 log 2 + 0 + 1/4 log 1/2 = 1/4 log 2; KL(Q||P) is the same by symmetry;
    # M = (3/8, 1/4, 3/8): KL(P||M) = 1/2 log 4/3 + 1/4 log 2/3, and JSD the same.
    p, q = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.25, 0.25, 0.5]).log()
    assert float(between(q, p, Measure("forward_kl"))) == pytest.approx(math.log(2) / 4)
    assert float(between(q, p, Measure("reverse_kl"))) == pytest.approx(math.log(2) / 4)
    assert float(between(q, p, Measure("jsd"))) == pytest.approx(math.log(4 / 3) / 2 + math.log(2 / 3) / 4)
    assert float(between(q, p, Measure("total_variation"))) == pytest.approx(0.25)
    # skew 1/2: KL(P || M) with the same M; at 0 the plain KL.
    assert float(between(q, p, Measure("skewed_kl", skew=0.5))) == pytest.approx(
        math.log(4 / 3) / 2 + math.log(2 / 3) / 4
    )
    assert float(between(q, p, Measure("skewed_kl", skew=0.0))) == pytest.approx(math.log(2) / 4)


def test_forward_kl_is_torch_s() -> None:
    z, t = logits(5, 9, 0), logits(5, 9, 1)
    reference = torch.nn.functional.kl_div(z.log_softmax(-1), t.softmax(-1), reduction="none").sum(-1)
    assert torch.allclose(divergence(z, t), reference, atol=1e-6)
    entropy = -(t.softmax(-1) * t.log_softmax(-1)).sum(-1)
    assert torch.allclose(d.soft_cross_entropy(z, t), reference + entropy, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(
    values=st.lists(st.floats(-8, 8), min_size=4, max_size=4), other=st.lists(st.floats(-8, 8), min_size=4, max_size=4)
)
@settings(max_examples=40, deadline=None)
def test_nothing_from_itself_and_never_negative(kind: Kind, values: list[float], other: list[float]) -> None:
    z, t = torch.tensor(values), torch.tensor(other)
    assert float(divergence(z, z, Measure(kind))) == pytest.approx(0.0, abs=1e-6)
    assert float(divergence(z, t, Measure(kind))) >= -1e-6


def test_the_ends_of_the_generalised_jsd_are_the_two_kls() -> None:
    z, t = logits(6, 7, 2), logits(6, 7, 3)
    assert torch.equal(divergence(z, t, Measure("jsd", beta=0.0)), divergence(z, t, Measure("forward_kl")))
    assert torch.equal(divergence(z, t, Measure("jsd", beta=1.0)), divergence(z, t, Measure("reverse_kl")))
    small = 1e-3  # the limit of D / beta, in float32
    z, t = z / 2, t / 2
    near = divergence(z, t, Measure("jsd", beta=small)) / small
    assert torch.allclose(near, divergence(z, t), rtol=0.03, atol=2e-3)
    far = divergence(z, t, Measure("jsd", beta=1 - small)) / small
    assert torch.allclose(far, divergence(z, t, Measure("reverse_kl")), rtol=0.03, atol=2e-3)


def test_the_symmetric_jsd_is_symmetric_and_at_most_log_two() -> None:
    z, t = logits(6, 7, 4, 9.0), logits(6, 7, 5, 9.0)
    one, other = divergence(z, t, Measure("jsd")), divergence(t, z, Measure("jsd"))
    assert torch.allclose(one, other, atol=1e-6)
    assert float(one.max()) <= math.log(2) + 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("biased", [False, True])
def test_chunked_equals_dense(kind: Kind, biased: bool, both_ways: str) -> None:
    made = torch.Generator().manual_seed(7)
    n, width, v, w = 9, 4, 13, 5

    def leaves() -> list[Tensor]:
        made.manual_seed(7)
        return [
            torch.randn(n, width, generator=made).requires_grad_(),
            torch.randn(v, width, generator=made).requires_grad_(),
            torch.randn(v, generator=made).requires_grad_(),
        ]

    teacher_hidden, teacher_weight = torch.randn(n, w, generator=made), torch.randn(v + 3, w, generator=made)
    measure = Measure(kind, temperature=1.7, beta=0.3, skew=0.2)
    scale = torch.linspace(0.5, 2, n)
    h, weight, bias = leaves()
    dense = divergence(h @ weight.T + (bias if biased else 0), teacher_hidden @ teacher_weight.T, measure)
    (dense * scale).sum().backward()
    h2, weight2, bias2 = leaves()
    chunked = linear_divergence(
        h2, weight2, teacher_hidden, teacher_weight, measure, bias=bias2 if biased else None
    )  # fmt: skip
    (chunked * scale).sum().backward()
    assert torch.allclose(chunked, dense, atol=1e-5)
    for ours, theirs in ((h2, h), (weight2, weight), *([(bias2, bias)] if biased else [])):
        assert torch.allclose(ours.grad, theirs.grad, atol=2e-5)  # type: ignore[arg-type]


def test_chunks_follow_the_loss_alone_without_a_gradient(both_ways: str) -> None:
    h, weight = logits(9, 4, 0), logits(13, 4, 1)
    assert torch.allclose(
        linear_divergence(h, weight, h + 1, weight), divergence(h @ weight.T, (h + 1) @ weight.T), atol=1e-5
    )


def top_of(teacher_logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids [N, K] and log-probabilities [N, K + 1] of the top and the rest."""
    logp = teacher_logits.log_softmax(-1)
    best = logp.topk(k, -1)
    rest = (1 - best.values.exp().sum(-1, keepdim=True)).clamp(min=1e-30).log()
    return best.indices, torch.cat([best.values, rest], -1)


@pytest.mark.parametrize("kind", KINDS)
def test_all_tokens_named_is_the_whole_divergence(kind: Kind, both_ways: str) -> None:
    v = 11
    measure = Measure(kind)
    t = logits(8, v, 11)
    grads: list[Tensor] = []
    values: list[Tensor] = []
    for sparse in (False, True):
        h, weight = logits(8, 5, 12, 0.7).requires_grad_(), logits(v, 5, 13, 0.7).requires_grad_()
        if sparse:
            ids, known = top_of(t, v)
            value = between(bucket_logprobs(h, weight, ids), known, measure)
        else:
            value = divergence(h @ weight.T, t, measure)
        value.sum().backward()
        values.append(value.detach())
        assert h.grad is not None and weight.grad is not None
        grads += [h.grad, weight.grad]
    assert torch.allclose(values[0], values[1], atol=1e-5)
    assert torch.allclose(grads[0], grads[2], atol=2e-5) and torch.allclose(grads[1], grads[3], atol=2e-5)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_a_tail_is_a_bucket_with_its_own_gradient(k: int, both_ways: str) -> None:
    t = logits(8, 11, 21)
    ids, known = top_of(t, k)

    def plain(h: Tensor, weight: Tensor) -> Tensor:
        logq = (h @ weight.T).log_softmax(-1)
        rest = logq.exp().scatter(-1, ids, 0.0).sum(-1, keepdim=True).log()
        return torch.cat([logq.gather(-1, ids), rest], -1)

    found: list[Any] = []
    for make in (plain, lambda h, weight: bucket_logprobs(h, weight, ids)):
        h, weight = logits(8, 5, 22, 0.7).requires_grad_(), logits(11, 5, 23, 0.7).requires_grad_()
        value = between(make(h, weight), known)
        (value * torch.linspace(0.1, 3, 8)).sum().backward()
        found.append((value.detach(), h.grad, weight.grad))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=2e-5)
    whole = divergence(logits(8, 5, 22, 0.7) @ logits(11, 5, 23, 0.7).T, t)
    assert bool((found[1][0] <= whole + 1e-5).all()), "buckets can only hide differences"


def test_sorted_distance_knows_no_names() -> None:
    z = logits(4, 6, 31)
    mixed = z[:, torch.randperm(6, generator=torch.Generator().manual_seed(0))]
    assert torch.allclose(d.sorted_distance(z, mixed), torch.zeros(4), atol=1e-6)
    # (1, 0) against (1/2, 1/2) in a vocabulary of three: |1 - 1/2| + |0 - 1/2| = 1
    sure, torn = torch.tensor([[50.0, 0.0]]), torch.tensor([[20.0, 20.0, -30.0]])
    assert float(d.sorted_distance(sure, torn)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("settings_", [{"temperature": 0.0}, {"beta": 1.5}, {"skew": 1.0}])
def test_numbers_out_of_range_are_refused(settings_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings_))):
        Measure("jsd", **settings_)
