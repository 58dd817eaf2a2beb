"""What the objectives that learn from a teacher's distributions share: rows, reductions, the measure, the checks."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lmdistill.errors import ConfigError, TrainingError
from lmdistill.losses.divergence import Kind, Measure
from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced, shown
from lmdistill.objectives._dropout import largest_dropout
from lmdistill.objectives._targets import ROLE, PerEpoch, TargetSource, every_view, target_views
from lmdistill.objectives._teacher import HIDDEN, HIDDEN_AND_NLL, Frozen, probe, same_vocabulary, token_divergence
from lmdistill.students import Batch, Scored
from lmdistill.types import Annotation, Sampling, View


@dataclass(frozen=True)
class Distilling(Objective):
    """Settings of all of them.

    `targets` and `per_epoch` say which texts are rows. `divergence`, `temperature`, `beta` and `skew` are those of
    `lmdistill.losses.divergence.Measure`; with `rescale` the value is multiplied by temperature squared, so that
    gradients keep their size. `text_weight` adds the negative log-likelihood of the given texts (labels and
    pseudo-targets, never what the student wrote itself).
    """

    targets: TargetSource = "both"
    per_epoch: PerEpoch = "one"
    prefix: str = ""
    divergence: Kind = "forward_kl"
    temperature: float = 1.0
    beta: float = 0.5
    skew: float = 0.1
    rescale: bool = True
    text_weight: float = 0.0
    reduction: Reduction = "example"

    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})
    noisy: ClassVar[bool] = False
    """Whether the teacher's dropout is on."""
    writes: ClassVar[bool] = False
    """Whether the student writes rows of its own, which only a whole model can judge."""

    def __post_init__(self) -> None:
        try:
            self.measure  # noqa: B018
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if not 0 <= self.text_weight < math.inf:
            raise ConfigError(f"text_weight: expected 0 or more, got {self.text_weight}")

    @property
    def measure(self) -> Measure:
        """Which divergence."""
        return Measure(self.divergence, self.temperature, self.beta, self.skew)

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        return target_views(item, self.prompt(item), self.targets, self.per_epoch, epoch)

    def prompt(self, annotation: Annotation) -> str:
        return self.prefix + shown(annotation)

    def counts(self, batch: Batch) -> dict[str, float]:
        counts = {role: count_of(batch, role, self.reduction) for role in batch.targets}
        if self._tells_text(batch):
            counts["text"] = counts[ROLE]
        return counts

    def _tells_text(self, batch: Batch) -> bool:
        """Whether the rows' own text is learnt: not where the student wrote it."""
        return bool(self.text_weight) and ROLE in batch.targets and not batch.extras.get(SAMPLED, False)

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        tells = self._tells_text(batch)
        scored = student(batch, want=HIDDEN_AND_NLL if tells else HIDDEN)
        parts = {}
        for role, one in scored.items():
            values = token_divergence(student, teacher, batch, role, one.hidden, self.measure, noisy=self.noisy)
            parts[role] = part_of(values, one, batch, role, self.reduction, self.weight_of(role) * self._scale)
        if tells and ROLE in scored:
            parts["text"] = reduced(scored[ROLE], batch, ROLE, self.reduction, self.text_weight)
        return parts

    def weight_of(self, role: str) -> float:
        """What a role's share of the loss is multiplied by."""
        return 1.0

    @property
    def _scale(self) -> float:
        return self.temperature**2 if self.rescale else 1.0

    def check(self, student: Any, teacher: Any, items: Sequence[Any]) -> None:
        same_vocabulary(student, teacher)
        if not isinstance(teacher, Frozen):
            self._check_top(teacher)
            if hasattr(teacher, "require"):
                teacher.require(self._texts(student, items))
        rng = random.Random(0)
        laid = [(item, self.views(item, 0, rng)) for item in (items[i] for i in range(min(len(items), 8)))]
        laid = [(item, views) for item, views in laid if views]
        device = next(student.parameters()).device
        batches = [student.collate([item], [views]).to(device) for item, views in laid]
        probe(student, batches, teacher, ROLE)

    def _texts(self, student: Any, items: Sequence[Any]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Example, source and target tokens of every row that training will show."""
        for item in items:
            for view in every_view(self, item):
                yield item.id, view.source, student.tokens("target", view.target, view.tail)

    def _check_top(self, teacher: Any) -> None:
        """What a teacher of whom only the top tokens are known cannot do."""
        if self.temperature != 1:
            raise ConfigError(
                f"temperature: {self.temperature} needs the teacher's whole distribution; only its top tokens are "
                "known here. Set temperature to 1, or train with the teacher's model"
            )
        if self.noisy or self.writes:
            raise TrainingError(
                f"{type(self).__name__} needs the teacher's model itself (its dropout, its layers, or its opinion of "
                "what the student writes); stored or top-token distributions were given. Give the model, or use "
                "objective 'logit_kd' with them"
            )


@dataclass(frozen=True)
class OnPolicy(Distilling):
    """Settings of those that also learn from texts which the student writes while it learns."""

    sample_temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 64
    sample_dropout: bool = False

    writes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks = (
            ("sample_temperature", "a number of 0 or more", 0 <= self.sample_temperature < math.inf),
            ("top_p", "a share above 0 and up to 1", 0 < self.top_p <= 1),
            ("top_k", "0 (no limit) or more", self.top_k >= 0),
            ("max_tokens", "1 or more", self.max_tokens >= 1),
        )
        found = [f"{name}: expected {what}, got {getattr(self, name)}" for name, what, fits in checks if not fits]
        if problems := [*found, *self.problems()]:
            raise ConfigError(problems)

    def problems(self) -> list[str]:
        """What else cannot be."""
        return []

    def check(self, student: Any, teacher: Any, items: Sequence[Any]) -> None:
        if self.sample_dropout and not largest_dropout(student.model):
            raise ConfigError(
                "sample_dropout: the student has no dropout, so its samples would be those without it. Set "
                "student.dropout (for example 0.1), or sample_dropout=false"
            )
        super().check(student, teacher, items)

    @property
    def sampling(self) -> Sampling:
        """How the student writes."""
        return Sampling(
            temperature=self.sample_temperature, top_p=self.top_p, top_k=self.top_k, max_tokens=self.max_tokens
        )


SAMPLED = "sampled"
"""Marks a batch whose targets the student wrote."""


def part_of(values: Tensor, scored: Scored, batch: Batch, role: str, reduction: Reduction, weight: float = 1.0) -> Part:
    """Values [N] at a role's real positions as a part under a named reduction, row weights applied."""
    rows, mask = batch.targets[role], scored.mask
    table = values.new_zeros(mask.shape).masked_scatter(mask, values)  # [R, T]
    per_row = table.sum(-1)
    if reduction == "example":
        per_row = per_row / mask.sum(-1).clamp(min=1)
    return Part((per_row * rows.weight).sum(), count_of(batch, role, reduction), weight)


def with_samples(
    batch: Batch, student: Any, sampling: Sampling, *, dropout: bool, into: str = ROLE, role: str = ROLE
) -> Batch:
    """The batch with texts that the student writes now, one for each row of a role, as targets of the role `into`."""
    prompts = [view.source for own in batch.views for view in own if view.role == role]
    if not prompts:
        return batch
    training = student.training
    student.train(dropout)
    written = student.generate_tokens(prompts, sampling)
    student.train(training)
    written = [row or [student.eos] for row in written]
    if into == role:
        batch = replace(batch, extras={**batch.extras, SAMPLED: True})
    else:
        batch = replace(batch, targets={**batch.targets, into: replace(batch.targets[role])})
    made: Batch = student.with_targets(batch, into, written)
    return made


def drawn(seed: int) -> float:
    """A number in [0, 1) that follows from a seed, the same on every process."""
    return float(torch.rand((), generator=torch.Generator().manual_seed(seed % (1 << 62))))
