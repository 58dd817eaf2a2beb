"""Sequence-level distillation: the student is fine-tuned on texts that the teacher wrote."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced, shown
from lmdistill.objectives._targets import ROLE, PerEpoch, TargetSource, target_views
from lmdistill.students import Batch
from lmdistill.types import Annotation, View


@dataclass(frozen=True)
class PseudoTarget(Objective):
    """Learn to write the teacher's texts (pseudo-targets), with or without the labels.

    Paper:     KD4Gen, arXiv 2305.02031, section 2 ("sequence-level KD"); Kim and Rush, arXiv 1606.07947
    Equation:  L = L_NLL(x, y^T) + L_NLL(x, y)
    Data:      needs pseudo-targets (or a label, where targets is 'gold')
    Shapes:    role 'target', one row per text
    Differs:   from the paper: none; from the authors' code: a label and a pseudo-target of one input share a batch
    Relations: PseudoTarget(targets="gold") is LabelOnly under the reduction 'example'

    >>> from lmdistill.types import Example, Rationale
    >>> item = Annotation(Example("1", "say it", "hi"), (Rationale("", "hello"), Rationale("", "hey")))
    >>> [view.target for view in PseudoTarget().views(item, 1, random.Random(0))]
    ['hi', 'hey']
    """

    targets: TargetSource = "both"
    per_epoch: PerEpoch = "one"
    prefix: str = ""
    reduction: Reduction = "example"

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        return target_views(item, self.prompt(item), self.targets, self.per_epoch, epoch)

    def prompt(self, annotation: Annotation) -> str:
        return self.prefix + shown(annotation)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {ROLE: count_of(batch, ROLE, self.reduction)}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        return {ROLE: reduced(student(batch)[ROLE], batch, ROLE, self.reduction)}
