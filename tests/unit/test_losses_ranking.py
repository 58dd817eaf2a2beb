"""Ranking losses: numbers worked by hand, properties, torch's own, and the released code's loss at its limit."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.losses.ranking import annealing, best_candidate_nll, listwise_kl, masked_log_softmax, max_similarity

numbers = st.floats(-20, 20, width=32)


def test_two_candidates_by_hand() -> None:
    # tau_1 = 1, target scores (ln 3, 0): Q = (3/4, 1/4). tau_2 = 2, scores (0, 0): P = (1/2, 1/2).
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.13081203594
    loss = listwise_kl(torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]]), temperature=2.0)
    assert loss.tolist() == pytest.approx([0.75 * math.log(1.5) + 0.25 * math.log(0.5)], rel=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6), st.floats(0.5, 50), st.floats(0.5, 50))
def test_kl_is_never_negative_and_zero_for_equal_distributions(
    pairs: list[tuple[float, float]], tau: float, warmth: float
) -> None:
    scores, target = (torch.tensor([column]) for column in zip(*pairs, strict=True))
    assert float(listwise_kl(scores, target, temperature=tau, target_temperature=warmth)) >= -1e-6
    same = listwise_kl(scores * tau, scores * warmth, temperature=tau, target_temperature=warmth)
    assert float(same) == pytest.approx(0.0, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_candidates_and_the_masked_ones_do_not_matter(
    pairs: list[tuple[float, float]], rng: object
) -> None:
    def both(rows: list[tuple[float, float]], padding: int) -> list[float]:
        padded = [*rows, *[(999.0, 999.0)] * padding]
        scores, target = (torch.tensor([column]) for column in zip(*padded, strict=True))
        mask = torch.tensor([[True] * len(rows) + [False] * padding])
        losses = (listwise_kl(scores, target, mask=mask), best_candidate_nll(scores, target, mask=mask))
        return [float(loss) for loss in losses]

    shuffled = sorted(set(pairs))
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    straight = sorted(set(pairs))
    if len({target for _, target in straight}) == len(straight):
        assert both(shuffled, 3) == pytest.approx(both(straight, 0), rel=1e-4, abs=1e-5)


def test_nothing_to_rank_costs_nothing_and_has_a_gradient() -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [False, False]])
    for loss in (
        listwise_kl(scores, torch.ones(2, 2), mask=mask),
        best_candidate_nll(scores, torch.ones(2, 2), mask=mask),
    ):
        assert loss[1].item() == 0.0
        (gradient,) = torch.autograd.grad(loss.sum(), scores)
        assert bool(gradient.isfinite().all()) and gradient[1].tolist() == [0.0, 0.0]


def test_kl_equals_torchs() -> None:
    torch.manual_seed(0)
    scores, target = torch.randn(4, 7), torch.randn(4, 7)
    expected = torch.nn.functional.kl_div(
        torch.log_softmax(scores / 3, -1), torch.softmax(target / 2, -1), reduction="none"
    ).sum(-1)
    assert torch.allclose(listwise_kl(scores, target, temperature=3.0, target_temperature=2.0), expected, atol=1e-6)


def test_against_the_best_is_kl_with_a_cold_teacher() -> None:
    torch.manual_seed(1)
    scores, target = torch.randn(5, 6), torch.randn(5, 6)
    cold = listwise_kl(scores, target, target_temperature=1e-4)
    assert torch.allclose(best_candidate_nll(scores, target), cold, atol=1e-5)
    labels = target.argmax(-1)
    assert torch.allclose(
        best_candidate_nll(scores, target), torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    )


def test_max_similarity_equals_a_loop() -> None:
    torch.manual_seed(2)
    queries, passages = torch.randn(2, 3, 4), torch.randn(2, 2, 5, 4)
    query_mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    passage_mask = torch.tensor([[[1, 1, 1, 0, 0], [1] * 5], [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]])
    scores = max_similarity(queries, passages, query_mask, passage_mask)
    for b in range(2):
        for n in range(2):
            expected = 0.0
            for s in range(3):
                if query_mask[b, s]:
                    real = [passages[b, n, u] for u in range(5) if passage_mask[b, n, u]]
                    expected += max(float(queries[b, s] @ token) for token in real)
            assert float(scores[b, n]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_masked_log_softmax_of_one_is_zero() -> None:
    assert masked_log_softmax(torch.tensor([[5.0, 9.0]]), torch.tensor([[True, False]])).tolist() == [[0.0, 0.0]]


def test_annealing_goes_from_none_to_nearly_all() -> None:
    values = [annealing(p / 10) for p in range(11)]
    assert values[0] == 0.0 and values == sorted(values)
    assert values[-1] == pytest.approx(2 / (1 + math.exp(-10)) - 1)
