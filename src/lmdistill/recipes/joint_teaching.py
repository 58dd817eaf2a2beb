"""Joint-Teaching: the teacher also scores what the student writes while it learns."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.config import component
from lmdistill.objectives import Objective
from lmdistill.recipes._generation import Generation


@dataclass(frozen=True)
class JointTeaching(Generation):
    """Train on the teacher's distributions at its own texts and at the student's, then fine-tune on the labels.

    Paper:    KD4Gen, arXiv 2305.02031, section 4; stage 8 with `learns.student_weight` 0 (only the teacher), 1 (only
              the student) and 0.5
    Differs:  see the objective `joint_teaching`, and the recipe `kd4gen`
    """

    learns: Objective = component("objectives", "joint_teaching")
