"""The teacher's rationale as part of the input: what Distilling Step-by-Step argues against."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced
from lmdistill.objectives._labels import LabelSource, Selection, chosen, label_of
from lmdistill.students import Batch
from lmdistill.types import Annotation, View


@dataclass(frozen=True)
class RationaleAsInput(Objective):
    """Learn to write the label of an input that comes with a rationale; at test time the teacher must write one too.

    Paper:     the design that Distilling Step-by-Step argues against, arXiv 2305.02301, section 3.2, first paragraph
    Equation:  L = (1/N) sum_i l(f(x_i, r_i), y_i)
    Data:      needs a label and a rationale, in training and at inference
    Shapes:    role 'label', one row per rationale seen
    Differs:   from the paper: the rationale is joined to the input by `joint`; the paper does not say how
    """

    labels: LabelSource = "gold"
    joint: str = " rationale: "
    rationales: Selection = "one"
    reduction: Reduction = "token"

    needs: ClassVar[frozenset[str]] = frozenset({"label", "rationale"})

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        label = label_of(item, self.labels)
        if not label:
            return []
        seen = chosen(item.rationales, self.rationales, rng)
        return [View(self._source(item, one.text), label, "label", group) for group, one in seen]

    def prompt(self, annotation: Annotation) -> str:
        seen = [rationale.text for rationale in annotation.rationales if rationale.text.strip()]
        return self._source(annotation, seen[0] if seen else "")

    def _source(self, annotation: Annotation, rationale: str) -> str:
        return f"{annotation.example.input}{self.joint}{rationale}".rstrip()

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"label": count_of(batch, "label", self.reduction)}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        return {"label": reduced(student(batch)["label"], batch, "label", self.reduction)}
