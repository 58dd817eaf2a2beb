"""What a reranker is shown and asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from lmdistill.errors import ConfigError
from lmdistill.losses.ranking import annealing, listwise_kl
from lmdistill.objectives.rationale_reranking import RationaleReranking
from lmdistill.rerankers import Ranked
from lmdistill.students import Batch
from lmdistill.types import Candidates, Passage

ITEM = Candidates(
    "q", "why?", tuple(Passage(f"p{i}", f"text {i}", "T") for i in range(12)), tuple(map(float, range(12)))
)


def batch_of(objective: RationaleReranking, items: list[Candidates], weight: float = 1.0) -> Batch:
    from dataclasses import replace

    views = [[replace(view, weight=weight) for view in objective.views(item, 0, random.Random(0))] for item in items]
    return Batch(items, views, torch.zeros(1, 1), torch.zeros(1, 1), {})


def test_each_epoch_sees_another_sample_of_distinct_candidates() -> None:
    objective = RationaleReranking(per_step=4)
    seen = Counter(view.group for epoch in range(60) for view in objective.views(ITEM, epoch, random.Random(epoch)))
    assert sum(seen.values()) == 240 and set(seen) == set(range(12))
    for epoch in range(20):
        groups = [view.group for view in objective.views(ITEM, epoch, random.Random(epoch))]
        assert len(set(groups)) == 4
    (view, *_) = objective.views(ITEM, 0, random.Random(0))
    assert (view.source, view.target) == ("why?", f"T: text {view.group}")


def test_the_best_is_always_among_them_where_asked() -> None:
    objective = RationaleReranking(per_step=3, keep_best=True)
    assert all(11 in [v.group for v in objective.views(ITEM, 0, random.Random(i))] for i in range(30))
    plain = RationaleReranking(per_step=3)
    assert not all(11 in [v.group for v in plain.views(ITEM, 0, random.Random(i))] for i in range(30))


def test_one_candidate_is_nothing_to_learn_from() -> None:
    assert RationaleReranking().views(Candidates("q", "x", (Passage("p", "t"),), (1.0,)), 0, random.Random(0)) == []


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_both_temperatures_are_annealed(progress: float) -> None:
    objective = RationaleReranking(per_step=5)
    batch = batch_of(objective, [ITEM])
    scores = torch.tensor([[100.0, -50.0, 0.0, 30.0, 7.0]])
    a = annealing(progress)
    target = torch.tensor([[ITEM.target_scores[view.group] for view in batch.views[0]]])
    expected = listwise_kl(scores, target, temperature=500 - 400 * a, target_temperature=5 - 4 * a)
    part = objective.loss(lambda _: Ranked(scores, torch.ones(1, 5, dtype=torch.bool)), None, batch, progress)[
        "ranking"
    ]
    assert float(part.total) == pytest.approx(float(expected), rel=1e-6)
    assert part.count == 1.0 == objective.counts(batch)["ranking"]


def test_a_silent_item_counts_nothing() -> None:
    objective = RationaleReranking(per_step=5)
    batch = batch_of(objective, [ITEM], weight=0.0)
    ranked = Ranked(torch.randn(1, 5), torch.ones(1, 5, dtype=torch.bool))
    part = objective.loss(lambda _: ranked, None, batch, 0.5)["ranking"]
    assert float(part.total) == 0.0 and part.count == 0.0


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 candidates or more"):
        RationaleReranking(per_step=1)
    with pytest.raises(ConfigError, match="above 0"):
        RationaleReranking(temperature=(500.0, -100.0))
