"""Which items a step sees: shuffled, sorted by length within pools, split over processes and into micro-batches.

Everything follows from (seed, epoch) and the items; nothing is drawn from a running generator, so a resumed run sees
the same batches. Items stay whole: all views of an item are in one micro-batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmdistill.errors import TrainingError
from lmdistill.objectives import Objective
from lmdistill.store import seed_for
from lmdistill.students import Trainable
from lmdistill.types import View


@dataclass
class Laid:
    """An item with its views of this epoch and their padded-length cost."""

    item: Any
    views: Sequence[View]
    source: int  # longest source in tokens
    target: int  # longest target in tokens


@dataclass
class Batches:
    """The steps of a run over `items`.

    `bucket` steps form a pool whose items are sorted by length, so that rows of a step are of like length; 1 keeps the
    plain shuffle. A step holds `batch_size` items over all processes (the last of an epoch may hold fewer).
    """

    items: Sequence[Any]
    objective: Objective
    student: Trainable
    batch_size: int
    tokens: int
    bucket: int
    seed: int
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        self._pool: tuple[tuple[int, int], list[list[Laid]]] | None = None
        self._order: tuple[int, list[int]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.items) // self.batch_size)

    def step(self, step: int) -> list[list[Laid]]:
        """This process's micro-batches of a step: at least one, each within the token budget where it can be."""
        epoch, within = divmod(step, self.steps_per_epoch)
        pool, place = divmod(within, self.bucket)
        laid = self._pooled(epoch, pool)[place]
        mine = laid[self.rank :: self.processes]
        if not mine:  # fewer items than processes: take part with an item that weighs nothing
            mine = [_silent(laid[0])]
        return list(self._micro(mine))

    def _pooled(self, epoch: int, pool: int) -> list[list[Laid]]:
        if self._pool is None or self._pool[0] != (epoch, pool):
            size = self.bucket * self.batch_size
            chosen = self._shuffled(epoch)[pool * size : (pool + 1) * size]
            laid = [one for one in (self.lay(self.items[i], epoch) for i in chosen) if one.views]
            if not laid:
                raise TrainingError(f"none of {len(chosen)} items has anything to train on in epoch {epoch}")
            if self.bucket > 1:
                laid.sort(key=lambda one: (one.source + one.target, one.source))
            steps = [laid[i : i + self.batch_size] for i in range(0, len(laid), self.batch_size)]
            steps += [[_silent(laid[0])]] * (-(-len(chosen) // self.batch_size) - len(steps))
            if self.bucket > 1:
                random.Random(seed_for(self.seed, "pool", epoch, pool)).shuffle(steps)
            self._pool = ((epoch, pool), steps)
        return self._pool[1]

    def _shuffled(self, epoch: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(self.items)))
            random.Random(seed_for(self.seed, "epoch", epoch)).shuffle(order)
            self._order = (epoch, order)
        return self._order[1]

    def lay(self, item: Any, epoch: int) -> Laid:
        """An item with its views in an epoch; the objective's random choices follow from (seed, epoch, item id)."""
        views = self.objective.views(item, epoch, random.Random(seed_for(self.seed, epoch, item.id)))
        lengths = [self.student.length(view) for view in views]
        source = max((length[0] for length in lengths), default=0)
        return Laid(item, views, source, max((length[1] for length in lengths), default=0))

    def _micro(self, laid: Sequence[Laid]) -> Iterator[list[Laid]]:
        if self.bucket > 1:
            laid = sorted(laid, key=lambda one: -(one.source + one.target))
        batch: list[Laid] = []
        rows = source = target = 0
        for one in laid:
            rows, source, target = rows + len(one.views), max(source, one.source), max(target, one.target)
            if batch and rows * (source + target) > self.tokens:
                yield batch
                batch, rows, source, target = [], len(one.views), one.source, one.target
            batch.append(one)
        yield batch


def _silent(laid: Laid) -> Laid:
    """The item with rows that weigh nothing: to take part in a step without changing it."""
    return replace(laid, views=[replace(view, weight=0.0) for view in laid.views])
