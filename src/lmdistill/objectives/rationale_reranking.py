"""Rerankers: find from the question alone what the rationale would have found."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lmdistill import render
from lmdistill.errors import ConfigError
from lmdistill.losses.ranking import annealing, best_candidate_nll, listwise_kl
from lmdistill.objectives import Objective, Part
from lmdistill.students import Batch
from lmdistill.types import Candidates, View


@dataclass(frozen=True)
class RationaleReranking(Objective):
    """Learn to rank passages for a question as the retriever ranks them for the teacher's rationale.

    Paper:     KARD, arXiv 2305.18395, equation 3
    Equation:  L = KL(Q(. | r) || P(. | x)), Q = softmax(rho(d | r) / tau_1), P = softmax(f(d, x) / tau_2);
               each tau = begin + (end - begin) a, a = 2 / (1 + exp(-10 p)) - 1 at a share p of the training
    Data:      candidates with target scores; `per_step` of them are seen at a time, another sample each epoch
    Shapes:    part 'ranking', one row per query
    Differs:   from the authors' code: the default is the paper's KL, where theirs is `loss_kind` 'ce' (against the best
               candidate); the temperatures end at 1 and 100, where theirs fall below 0; candidates are distinct, and
               `per_step` of their union are drawn alike, where theirs are 4 of what the rationale found and 4 of what
               the question found; `keep_best` has the best candidate in every sample
    Relations: loss 'ce' is KL at target_temperature -> 0
    """

    per_step: int = 8
    loss_kind: Literal["kl", "ce"] = "kl"
    target_temperature: tuple[float, float] = (5.0, 1.0)
    temperature: tuple[float, float] = (500.0, 100.0)
    keep_best: bool = False

    def __post_init__(self) -> None:
        if self.per_step < 2:
            raise ConfigError(f"per_step: 2 candidates or more were expected, got {self.per_step}")
        if min(*self.target_temperature, *self.temperature) <= 0:
            raise ConfigError("temperature and target_temperature: numbers above 0 were expected")

    needs: ClassVar[frozenset[str]] = frozenset({"candidates"})
    trains: ClassVar[str] = "reranker"

    def views(self, item: Candidates, epoch: int, rng: random.Random) -> Sequence[View]:
        """A row for each sampled candidate; `group` is its place among the item's passages."""
        places = range(len(item.passages))
        if len(places) < 2:
            return []
        if len(places) > self.per_step:
            chosen = rng.sample(places, self.per_step)
            best = max(places, key=lambda place: item.target_scores[place])
            if self.keep_best and best not in chosen:
                chosen[0] = best
            places = sorted(chosen)  # type: ignore[assignment]
        return [View(item.query, render.passage_text(item.passages[i]), "candidate", group=i) for i in places]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"ranking": sum(own[0].weight for own in batch.views if own)}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        import torch

        ranked = student(batch)
        target = torch.zeros_like(ranked.scores, dtype=torch.float32)
        for row, (item, own) in enumerate(zip(batch.items, batch.views, strict=True)):
            assert isinstance(item, Candidates)
            values = [item.target_scores[view.group] for view in own]
            target[row, : len(values)] = torch.tensor(values, device=target.device)
        scale = annealing(progress)
        temperature = _between(self.temperature, scale)
        if self.loss_kind == "kl":
            warmth = _between(self.target_temperature, scale)
            each = listwise_kl(
                ranked.scores, target, temperature=temperature, target_temperature=warmth, mask=ranked.mask
            )
        else:
            each = best_candidate_nll(ranked.scores, target, temperature=temperature, mask=ranked.mask)
        weights = torch.tensor([own[0].weight if own else 0.0 for own in batch.views], device=each.device)
        return {"ranking": Part((each * weights).sum(), self.counts(batch)["ranking"])}


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share
