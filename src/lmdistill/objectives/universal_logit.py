"""Universal logit distillation: a teacher with another tokenizer, by its sorted probabilities."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lmdistill.errors import ConfigError, TrainingError
from lmdistill.losses.divergence import sorted_distance
from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced, shown
from lmdistill.objectives._distilling import part_of
from lmdistill.objectives._targets import ROLE, PerEpoch, TargetSource, target_views
from lmdistill.objectives._teacher import HIDDEN, HIDDEN_AND_NLL, Frozen, refuse_infinite
from lmdistill.students import Batch, Scored
from lmdistill.types import Annotation, View


@dataclass(frozen=True)
class UniversalLogit(Objective):
    """Learn given texts, and at every position how sure the teacher is of its first, second, third ... token.

    The k-th token of the student's text is put beside the k-th of the teacher's; where one of the two texts has more
    tokens, the rest has no partner.

    Paper:     Boizard et al., universal logit distillation, arXiv 2402.12030, equations (4) to (6)
    Equation:  L = L_NLL + distance_weight * sum_t sum_i |sort(P_T)_i - sort(P_S)_i|
    Data:      needs a local teacher of any vocabulary; a label or pseudo-targets
    Shapes:    role 'target', one row per text; parts 'text' and 'target'
    Differs:   from the paper: none; the authors' cut to the shorter of the two texts is kept
    Relations: distance_weight=0 is PseudoTarget
    """

    targets: TargetSource = "both"
    per_epoch: PerEpoch = "one"
    prefix: str = ""
    distance_weight: float = 1.5
    temperature: float = 1.0
    reduction: Reduction = "example"

    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf or not 0 <= self.distance_weight < math.inf:
            raise ConfigError(
                f"temperature above 0 and distance_weight of 0 or more were expected, got {self.temperature} and "
                f"{self.distance_weight}"
            )

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        return target_views(item, self.prompt(item), self.targets, self.per_epoch, epoch)

    def prompt(self, annotation: Annotation) -> str:
        return self.prefix + shown(annotation)

    def counts(self, batch: Batch) -> dict[str, float]:
        count = count_of(batch, ROLE, self.reduction)
        return {"text": count, ROLE: count}

    def check(self, student: Any, teacher: Any, items: Sequence[Any]) -> None:
        if not isinstance(teacher, Frozen):
            raise TrainingError("universal_logit needs the teacher's model: all of its logits are sorted")
        rng, training = random.Random(0), student.training
        laid = [(item, self.views(item, 0, rng)) for item in (items[i] for i in range(min(len(items), 8)))]
        student.eval()
        with torch.no_grad():
            for item, views in laid:
                if views:
                    batch = student.collate([item], [views]).to(next(student.parameters()).device)
                    self.loss(student, teacher, batch, 0.0)
        student.train(training)

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        scored = student(batch, [ROLE], HIDDEN_AND_NLL)[ROLE]
        parts = {"text": reduced(scored, batch, ROLE, self.reduction)}
        if self.distance_weight:
            told = _own_reading(teacher, batch)
            mine, theirs = _paired(scored.mask, told.mask)
            assert scored.hidden is not None and told.hidden is not None
            values = scored.hidden.new_zeros(scored.hidden.shape[0], dtype=torch.float32)
            distances = _distances(student, teacher.model, scored.hidden[mine], told.hidden[theirs], self.temperature)
            values = values.masked_scatter(mine, distances)
            refuse_infinite(values, batch)
            parts[ROLE] = part_of(values, scored, batch, ROLE, self.reduction, self.distance_weight)
        return parts


def _own_reading(teacher: Frozen, batch: Batch) -> Scored:
    """The teacher's states at the target tokens as its own tokenizer cuts them."""
    device = batch.source_ids.device
    if teacher.model.device != device:
        teacher.model.to(device)
    own = teacher.model.collate(batch.items, batch.views).to(device)
    with torch.no_grad():
        scored: Scored = teacher.model(replace(own, targets={ROLE: own.targets[ROLE]}), [ROLE], HIDDEN)[ROLE]
    return scored


def _paired(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the real positions [N] and [M] of two masks [R, T] and [R, U] have a partner."""
    width = min(mine.shape[1], theirs.shape[1])
    both = mine[:, :width] & theirs[:, :width]
    out = []
    for mask in (mine, theirs):
        partnered = torch.zeros_like(mask)
        partnered[:, :width] = both
        out.append(partnered[mask])
    return out[0], out[1]


def _distances(student: Any, teacher: Any, hidden: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """`sorted_distance` in chunks of positions, computed again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def piece(one: Tensor, other: Tensor) -> Tensor:
        return sorted_distance(student.head(one), teacher.head(other), temperature=temperature)

    pairs = zip(*(torch.split(x, 32) for x in (hidden, theirs)), strict=True)  # type: ignore[no-untyped-call]
    return torch.cat([checkpoint(piece, one, other, use_reentrant=False) for one, other in pairs])
