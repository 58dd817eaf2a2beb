"""Standard fine-tuning on gold labels: the baseline that needs no teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmdistill.objectives.label_only import LabelOnly
from lmdistill.recipes._road import Road


@dataclass(frozen=True)
class Finetune(Road):
    """Train on the task's own labels.

    Paper:    "standard fine-tuning", arXiv 2305.02301, section 4
    Differs:  from the authors' code: the checkpoint is chosen on validation, not on test; `prefix` is empty as theirs
    """

    prefix: str = ""

    asks_teacher: ClassVar[bool] = False

    def objective(self) -> LabelOnly:
        return LabelOnly(labels="gold", prefix=self.prefix)
