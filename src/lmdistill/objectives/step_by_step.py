"""Distilling Step-by-Step: the label and the rationale as two tasks of one student."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.errors import ConfigError
from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced, shown
from lmdistill.objectives._labels import PREFIXES, LabelSource, PrefixStyle, Selection, chosen, label_of
from lmdistill.students import Batch
from lmdistill.types import Annotation, View


@dataclass(frozen=True)
class StepByStep(Objective):
    """Learn to write the label for one prefix and the teacher's rationale for another; only labels are asked for later.

    Paper:     Distilling Step-by-Step, arXiv 2305.02301, section 3.2
    Equation:  L = L_label + lambda L_rationale, lambda = `rationale_weight`; with `normalise` both are divided by
               1 + lambda, which is the released alpha L_label + (1 - alpha) L_rationale with alpha = 1 / (1 + lambda)
    Data:      needs a label, a rationale (an item that lacks one is trained on the other)
    Shapes:    role 'label' one row per item; role 'rationale' one row per rationale seen
    Differs:   from the paper: its prefixes are [label] and [rationale] (`prefix_style` 'paper'); from the authors'
               code: both tasks share one encoder call, empty rationales are left out instead of trained on
    Relations: StepByStep(rationale_weight=0) is LabelOnly(prefix="predict: ")
    """

    labels: LabelSource = "gold"
    rationale_weight: float = 1.0
    normalise: bool = True
    prefix_style: PrefixStyle = "released"
    rationales: Selection = "one"
    reduction: Reduction = "token"

    needs: ClassVar[frozenset[str]] = frozenset({"label", "rationale"})

    def __post_init__(self) -> None:
        if self.rationale_weight < 0:
            raise ConfigError(f"rationale_weight: {self.rationale_weight} is negative")

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        label = label_of(item, self.labels)
        views = [] if not label else [View(self.prompt(item), label, "label")]
        if (source := self.rationale_prompt(item)) is not None:
            seen = chosen(item.rationales, self.rationales, rng)
            views += [View(source, one.text, "rationale", group) for group, one in seen]
        return views

    def prompt(self, annotation: Annotation) -> str:
        return PREFIXES[self.prefix_style].label + shown(annotation)

    def rationale_prompt(self, annotation: Annotation) -> str | None:
        return PREFIXES[self.prefix_style].rationale + shown(annotation) if self.rationale_weight else None

    def counts(self, batch: Batch) -> dict[str, float]:
        return {role: count_of(batch, role, self.reduction) for role in batch.targets}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        whole = 1 + self.rationale_weight if self.normalise else 1.0
        weights = {"label": 1 / whole, "rationale": self.rationale_weight / whole}
        scored = student(batch)
        return {role: reduced(scored[role], batch, role, self.reduction, weights[role]) for role in batch.targets}
