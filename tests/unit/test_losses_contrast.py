"""Contrastive losses: golden numbers worked by hand, scalar loops, and what must not have a gradient."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.losses import contrast
from lmdistill.losses.contrast import Scheme

VALUES = torch.tensor([[2.0, 1.0, 4.0], [3.0, 9.0, 0.5], [7.0, 7.0, 7.0]])
MASK = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])


def shares(scheme: Scheme, negative: bool = False, quality: torch.Tensor | None = None) -> list[list[float]]:
    found = contrast.scheme_weights(VALUES, MASK, scheme=scheme, negative=negative, quality=quality)
    return [[round(value, 4) for value in row] for row in found.tolist()]


def test_sequence_mean_counts_real_tokens() -> None:
    nll = torch.tensor([[1.0, 2.0, 6.0], [4.0, 100.0, 100.0], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    assert contrast.sequence_mean(nll, mask).tolist() == [3.0, 4.0, 0.0]


def test_schemes_pick_what_the_paper_says() -> None:
    # Positives: minmax takes the smallest loss, maxmin the largest; of negatives (loss - margin) the other way round.
    assert shares("minmax") == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert shares("maxmin") == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert shares("minmax", negative=True) == shares("maxmin")
    assert shares("maxmin", negative=True) == shares("minmax")
    assert shares("mean") == [[0.3333, 0.3333, 0.3333], [0.5, 0.5, 0], [0, 0, 0]]
    # Qualities 1, 1, 2 give quarters and a half; 3 and 1 give 3/4 and 1/4, whatever stands at the padding.
    quality = torch.tensor([[1.0, 1.0, 2.0], [3.0, 1.0, 9.0], [1.0, 1.0, 1.0]])
    assert shares("weighted_mean", quality=quality) == [[0.25, 0.25, 0.5], [0.75, 0.25, 0], [0, 0, 0]]


def test_sampling_takes_one_real_rationale_and_every_one_in_its_turn() -> None:
    seen = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        found = contrast.scheme_weights(VALUES, MASK, scheme="sampling", negative=False, generator=generator)
        assert found.sum(-1).tolist() == [1.0, 1.0, 0.0] and float(found[1, 2]) == 0
        seen.add(int(found[0].argmax()))
    assert seen == {0, 1, 2}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(0, 9), min_size=1, max_size=5), min_size=1, max_size=6))
def test_selection_equals_a_scalar_loop(rows: list[list[float]]) -> None:
    width = max(len(row) for row in rows)
    values = torch.tensor([[*row, *[math.nan] * (width - len(row))] for row in rows], dtype=torch.float32)
    mask = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
    for select, best in ((contrast.select_min, min), (contrast.select_max, max)):
        picked = select(values, mask).tolist()
        for row, index in zip(values.tolist(), picked, strict=True):
            real = [value for value in row if not math.isnan(value)]
            assert row[index] == best(real)
            assert index == real.index(best(real)), "of equal losses, the first"


def test_the_hinge_pushes_up_to_the_margin_and_no_further() -> None:
    nll = torch.tensor([0.5, 2.999, 3.0, 3.001, 40.0], requires_grad=True)
    pushed = contrast.hinge(nll, margin=3.0)
    assert pushed.tolist() == pytest.approx([2.5, 0.001, 0.0, 0.0, 0.0], abs=1e-5)
    pushed.sum().backward()
    assert nll.grad is not None and nll.grad.tolist() == [-1.0, -1.0, 0.0, 0.0, 0.0]
    # The paper's form: -min(l - delta, 0).
    assert torch.equal(pushed.detach(), -(nll.detach() - 3.0).clamp(max=0))


def test_judge_losses_by_hand() -> None:
    # logit 0 is s = 1/2; logit ln 3 is s = 3/4; one positive of each, one negative of logit -ln 3, s = 1/4.
    positive, negative = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[-math.log(3.0), 50.0]])
    both, first = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    value = {form: contrast.judge_loss(positive, negative, both, first, form=form).item() for form in ("paper", "bce")}
    # paper: -log((e^0.5 + e^0.75) / e^0.25) = 0.25 - log(1.648721 + 2.117000) = 0.25 - 1.325939
    assert value["paper"] == pytest.approx(-1.075939, abs=1e-5)
    # bce: mean(-log 1/2, -log 3/4) + (-log 3/4) = (0.693147 + 0.287682) / 2 + 0.287682
    assert value["bce"] == pytest.approx(0.778097, abs=1e-5)
    # infonce, on logits: -log((1 + 3) / (1 + 3 + 1/3)) = log(13/12)
    infonce = contrast.judge_loss(positive, negative, both, first, form="infonce").item()
    assert infonce == pytest.approx(math.log(13 / 12), abs=1e-5)


@pytest.mark.parametrize("form", ["paper", "infonce", "bce"])
def test_a_judge_learns_to_tell_them_apart_and_padding_teaches_nothing(form: contrast.JudgeLoss) -> None:
    positive = torch.tensor([[0.2, 5.0], [0.1, 0.3]], requires_grad=True)
    negative = torch.tensor([[0.4, 0.0], [7.0, 8.0]], requires_grad=True)
    good, bad = torch.tensor([[True, False], [True, True]]), torch.tensor([[True, True], [False, False]])
    loss = contrast.judge_loss(positive, negative, good, bad, form=form)
    loss.sum().backward()
    assert positive.grad is not None and negative.grad is not None
    assert float(positive.grad[0, 0]) < 0 and bool((negative.grad[0] > 0).all())
    assert float(positive.grad[0, 1]) == 0 and negative.grad[1].tolist() == [0, 0]
    assert (float(loss[1].detach()) == 0) == (form != "bce"), "without a bad rationale only bce says anything"


def scalar_mutual_information(predicted: list[list[list[float]]], explained: list[list[list[float]]]) -> float:
    """The released formula in plain loops: [B][T][V] logits, padding positions included."""

    def softmax(row: list[float]) -> list[float]:
        top = max(row)
        powers = [math.exp(value - top) for value in row]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for p_rows, e_rows in zip(predicted, explained, strict=True):
        p_soft, e_soft = [softmax(row) for row in p_rows], [softmax(row) for row in e_rows]
        size = len(p_soft[0])
        p = [max(row[v] for row in p_soft) for v in range(size)]
        e = [max(row[v] for row in e_soft) for v in range(size)]
        normaliser = math.log(sum(math.exp(value) for value in e))
        total += -sum(p[v] * (e[v] - normaliser) for v in range(size))
    return total / len(predicted)


def test_mutual_information_as_released_equals_a_scalar_loop() -> None:
    rng = random.Random(0)
    shape = {"predicted": (3, 2, 11), "explained": (3, 5, 11)}
    logits = {
        name: [[[rng.gauss(0, 3) for _ in range(v)] for _ in range(t)] for _ in range(b)]
        for name, (b, t, v) in shape.items()
    }
    pooled = {}
    for name, (b, t, v) in shape.items():
        flat = torch.tensor(logits[name]).reshape(b * t, v)
        pooled[name] = contrast.max_over_time(flat, torch.ones(b, t, dtype=torch.bool), lambda rows: rows)
    ours = contrast.mutual_information(pooled["predicted"], pooled["explained"], clean=False).mean()
    expected = scalar_mutual_information(logits["predicted"], logits["explained"])
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_clean_mutual_information_by_hand() -> None:
    # p = (0.6, 0.9) sums to 1.5, so it becomes (0.4, 0.6); e = (0.5, 0.25): 0.4 ln 2 + 0.6 ln 4 = 1.6 ln 2.
    value = contrast.mutual_information(torch.tensor([[0.6, 0.9]]), torch.tensor([[0.5, 0.25]]), clean=True)
    assert value.item() == pytest.approx(1.6 * math.log(2.0), rel=1e-6)


def test_the_label_branch_gets_no_gradient() -> None:
    predicted = torch.rand(2, 5, requires_grad=True)
    explained = torch.rand(2, 5, requires_grad=True)
    for clean in (False, True):
        contrast.mutual_information(predicted, explained, clean=clean).sum().backward()
    assert predicted.grad is None and explained.grad is not None


@pytest.mark.parametrize("kept_elements", [1, 40, 10_000])
def test_chunks_change_neither_the_maximum_nor_its_gradient(kept_elements: int) -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    torch.manual_seed(0)
    hidden = torch.randn(int(mask.sum()), 4, requires_grad=True)
    head = torch.nn.Linear(4, 7)
    sizes: list[int] = []

    def counted(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        out: torch.Tensor = head(rows)
        return out

    pooled = contrast.max_over_time(hidden, mask, counted, kept_elements=kept_elements)
    plain = torch.stack([part.amax(0) for part in head(hidden).softmax(-1).split(mask.sum(-1).tolist())])
    assert torch.allclose(pooled, plain, atol=1e-7)
    weight = torch.randn_like(plain)
    gradients = []
    for one in (pooled, plain):
        hidden.grad = None
        (one * weight).sum().backward()
        assert hidden.grad is not None
        gradients.append(hidden.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6)
    if kept_elements == 1:
        assert max(sizes) <= 3, "one row at a time"
