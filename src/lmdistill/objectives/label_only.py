"""Labels only: standard fine-tuning, or standard distillation where the teacher labels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced, shown
from lmdistill.objectives._labels import LabelSource, label_of
from lmdistill.students import Batch
from lmdistill.types import Annotation, View


@dataclass(frozen=True)
class LabelOnly(Objective):
    """Learn to write the label of an input.

    Paper:     the baselines "standard fine-tuning" and "standard task distillation" of Distilling Step-by-Step,
               arXiv 2305.02301, section 3.1
    Equation:  L_label = (1/N) sum_i l(f(x_i), y_i)
    Data:      needs a label (gold or the teacher's)
    Shapes:    role 'label', one row per item
    Differs:   from the paper: none; from the authors' code: none (fine-tuning uses no prefix; `prefix` sets one)
    Relations: StepByStep(rationale_weight=0) is LabelOnly(prefix="predict: ")

    >>> from lmdistill.types import Example
    >>> LabelOnly().views(Annotation(Example("1", "2 + 2 =", "4")), 0, random.Random(0))
    [View(source='2 + 2 =', target='4', role='label', group=0, weight=1.0)]
    """

    labels: LabelSource = "gold"
    prefix: str = ""
    reduction: Reduction = "token"

    needs: ClassVar[frozenset[str]] = frozenset({"label"})

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        label = label_of(item, self.labels)
        return [] if not label else [View(self.prompt(item), label, "label")]

    def prompt(self, annotation: Annotation) -> str:
        return self.prefix + shown(annotation)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"label": count_of(batch, "label", self.reduction)}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        return {"label": reduced(student(batch)["label"], batch, "label", self.reduction)}
