"""Which items a step sees."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.batching import Batches
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.types import Annotation, Example, View


@dataclass
class Words:
    """Lengths in words: all that batching asks of a student."""

    def length(self, view: View) -> tuple[int, int]:
        return len(view.source.split()), len(view.target.split())


def made(n: int) -> list[Annotation]:
    rng = random.Random(1)
    return [Annotation(Example(f"e{i}", "w " * rng.randrange(1, 50), "y")) for i in range(n)]


def batches(items: Sequence[Any], **changes: Any) -> Batches:
    settings = {"batch_size": 8, "tokens": 10_000, "bucket": 4, "seed": 0} | changes
    return Batches(items=items, objective=LabelOnly(), student=Words(), **settings)  # type: ignore[arg-type]


def ids(step: Sequence[Sequence[Any]]) -> list[str]:
    return [one.item.id for micro in step for one in micro]


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 90), batch=st.integers(1, 20), bucket=st.integers(1, 5), processes=st.integers(1, 3))
def test_an_epoch_sees_every_item_once(n: int, batch: int, bucket: int, processes: int) -> None:
    items = made(n)
    every: list[str] = []
    ranks = [
        batches(items, batch_size=batch, bucket=bucket, rank=rank, processes=processes, tokens=120)
        for rank in range(processes)
    ]
    for step in range(ranks[0].steps_per_epoch):
        shares = [rank.step(step) for rank in ranks]
        assert all(share and share[0] for share in shares), "every process takes part in every step"
        weighed = [one for share in shares for micro in share for one in micro if one.views[0].weight]
        assert len(weighed) <= batch
        every += [one.item.id for one in weighed]
    assert sorted(every) == sorted(item.id for item in items)


def test_the_same_step_is_the_same_after_a_jump() -> None:
    items = made(50)
    forward, fresh = batches(items), batches(items)
    steps = [ids(forward.step(i)) for i in range(20)]
    assert [ids(fresh.step(i)) for i in (13, 3, 19)] == [steps[i] for i in (13, 3, 19)]
    assert steps[0] != steps[7], "another epoch, another order"
    assert ids(batches(items, seed=1).step(0)) != steps[0]


def test_buckets_hold_like_lengths_and_the_plain_shuffle_does_not() -> None:
    def padding(bucket: int) -> float:
        plan = batches(made(256), bucket=bucket, batch_size=16)
        steps = [[one.source for micro in plan.step(i) for one in micro] for i in range(plan.steps_per_epoch)]
        return sum(max(step) * len(step) for step in steps) / sum(sum(step) for step in steps)

    assert padding(16) < 1.15 < 1.5 < padding(1)


def test_micro_batches_keep_to_the_budget_unless_one_item_is_over_it() -> None:
    plan = batches(made(64), tokens=150, batch_size=16)
    for i in range(plan.steps_per_epoch):
        for micro in plan.step(i):
            cost = len(micro) * (max(one.source for one in micro) + max(one.target for one in micro))
            assert cost <= 150 or len(micro) == 1


@dataclass(frozen=True)
class EverySecondEpoch(LabelOnly):
    """Some items have rows in even epochs only."""

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        absent = epoch % 2 == 1 and int(item.id[1:]) % 4 != 0
        return [] if absent else super().views(item, epoch, rng)


def test_items_without_rows_in_an_epoch_are_passed_over() -> None:
    plan = Batches(made(32), EverySecondEpoch(), Words(), batch_size=8, tokens=10_000, bucket=2, seed=0)  # type: ignore[arg-type]
    for step in range(8):
        micro = plan.step(step)
        assert micro and all(one.views for batch in micro for one in batch)
    odd = [one for step in range(4, 8) for batch in plan.step(step) for one in batch if one.views[0].weight]
    assert sorted(one.item.id for one in odd) == sorted(f"e{i}" for i in range(0, 32, 4))
