"""Noisy distillation: logit distillation from a teacher whose dropout is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmdistill.objectives._distilling import Distilling


@dataclass(frozen=True)
class NoisyKD(Distilling):
    """Learn the distribution of a teacher that is another one at every step.

    Paper:     KD4Gen, arXiv 2305.02031, stage 3 ("noisy KD")
    Equation:  L_log of `logit_kd`, the teacher in training mode
    Data:      needs the teacher's model; a label or pseudo-targets
    Shapes:    role 'target', one row per text
    Differs:   from the paper: none; the authors' own description also perturbs the student's input, their code (which
               this follows) does not
    Relations: with a teacher without dropout it is LogitKD
    """

    noisy: ClassVar[bool] = True
