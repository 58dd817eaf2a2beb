"""MI: step-by-step distillation that ties the rationale to the label; labels alone at test time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmdistill.objectives._labels import LabelSource
from lmdistill.objectives.mutual_information import MutualInformation
from lmdistill.recipes._road import Road


@dataclass(frozen=True)
class Mi(Road):
    """Train one student as `dss` does, and raise in its rationale the words that its label branch predicts.

    Paper:    Learning to Maximize Mutual Information for Chain-of-Thought Distillation, arXiv 2403.03348
    Differs:  from the authors' code: see `MutualInformation`; the checkpoint is chosen on validation, not on test
    """

    labels: LabelSource = "gold"
    label_weight: float = 0.5
    shared_weight: float = 0.1
    mode: Literal["released", "clean"] = "released"

    def objective(self) -> MutualInformation:
        return MutualInformation(self.labels, self.label_weight, self.shared_weight, self.mode)
