"""QCRD: self-consistent rationales against bad ones, weighted by a judge; labels alone at test time."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmdistill.config import component
from lmdistill.objectives import Objective
from lmdistill.recipes._road import Road
from lmdistill.types import Sampling


@dataclass(frozen=True)
class Qcrd(Road):
    """Train a student on the majority's rationales, away from the minority's and from what it wrote rounds ago.

    Paper:    QCRD, arXiv 2405.13014v2; five samples of the teacher at temperature 0.7
    Differs:  see `ContrastiveRationale` and `QualityJudging`, which hold the settings; a round is an epoch
              (`train.refresh_every` changes it)
    """

    contrast: Objective = component("objectives", "contrastive_rationale")
    sampling: Sampling = field(default_factory=lambda: Sampling(n=5, temperature=0.7, max_tokens=256))

    def objective(self) -> Objective:
        return self.contrast
