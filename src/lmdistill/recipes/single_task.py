"""Rationale and label in one target: the ablation of Distilling Step-by-Step."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmdistill.objectives._labels import LabelSource
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.predict import Decoding
from lmdistill.recipes._road import Road


@dataclass(frozen=True)
class SingleTask(Road):
    """Train the student to write the rationale and then the label; it does so at test time too.

    Paper:    "single-task training", arXiv 2305.02301, section 4
    Differs:  from the paper: a cue stands between rationale and label, so that the label can be read back
    """

    labels: LabelSource = "gold"
    decoding: Decoding = field(default_factory=lambda: Decoding(max_tokens=256))

    def objective(self) -> RationaleThenLabel:
        return RationaleThenLabel(labels=self.labels)
