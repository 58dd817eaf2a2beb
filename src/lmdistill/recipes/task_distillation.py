"""Standard distillation: the teacher's labels instead of people's."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.objectives.label_only import LabelOnly
from lmdistill.recipes._road import Road


@dataclass(frozen=True)
class TaskDistillation(Road):
    """Train on the labels that the teacher gave; of several samples, the majority's.

    Paper:    "standard task distillation", arXiv 2305.02301, section 4
    Differs:  from the authors' code: inputs without a parsable answer are left out and counted, not trained on
    """

    prefix: str = ""

    def objective(self) -> LabelOnly:
        return LabelOnly(labels="teacher", prefix=self.prefix)
