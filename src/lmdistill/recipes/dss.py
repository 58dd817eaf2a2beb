"""Distilling Step-by-Step: labels and rationales as two tasks, labels alone at test time."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.objectives._labels import LabelSource, PrefixStyle
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.recipes._road import Road


@dataclass(frozen=True)
class Dss(Road):
    """Train one student to give the label and, for another prefix, the teacher's rationale.

    Paper:    Distilling Step-by-Step, arXiv 2305.02301
    Differs:  from the authors' code: see `StepByStep`; the checkpoint is chosen on validation, not on test
    """

    labels: LabelSource = "gold"
    rationale_weight: float = 1.0
    prefix_style: PrefixStyle = "released"

    def objective(self) -> StepByStep:
        return StepByStep(self.labels, self.rationale_weight, prefix_style=self.prefix_style)
