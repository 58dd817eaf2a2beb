"""Joint-Teaching: the teacher scores its own texts and those that the student writes while it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmdistill.objectives import Round
from lmdistill.objectives._distilling import OnPolicy, with_samples
from lmdistill.objectives._targets import ROLE
from lmdistill.students import Batch

SAMPLE = "sample"


@dataclass(frozen=True)
class JointTeaching(OnPolicy):
    """Learn the teacher's distribution on its texts and on the student's own.

    `form` 'released' alternates: with `student_weight` w, every (1/w)-th step the student's samples replace the
    targets (w = 0: only the teacher's; w = 1: only the student's; between them 1/2, 1/3, 1/4 ...). 'paper' weighs both
    in every step. Samples are drawn with `sample_temperature`, `top_p` and `top_k` (0: no truncation) and at most
    `max_tokens` new tokens, in evaluation mode unless `sample_dropout` (which needs a student with dropout).

    Paper:     KD4Gen, arXiv 2305.02031, equation (2) and section 4
    Equation:  L = (1 - w) L_log(x, y^T) + w L_log(x, y^S), w = 0.5; y^S sampled from the student as it stands
    Data:      needs the teacher's model; pseudo-targets (only the student's samples: any target, which is replaced)
    Shapes:    role 'target', one row per text; form 'paper' adds role 'sample', as many rows
    Differs:   from the paper: none with form 'paper'. From the authors' code: samples are drawn without dropout
               (`sample_dropout` as theirs), steps are counted over the run (theirs: within an epoch), top_k is named (a
               silent 50 there: set top_k=50), and a w that int(1/w) would turn into another one (0.4 into 1/2, 0.7
               into 1) is refused
    Relations: student_weight=0 is LogitKD with the same targets
    """

    student_weight: float = 0.5
    form: Literal["released", "paper"] = "released"
    top_p: float = 0.95

    def problems(self) -> list[str]:
        problems = []
        if not 0 <= self.student_weight <= 1:
            problems.append(f"student_weight: {self.student_weight} is not in [0, 1]")
        elif self.form == "released" and self.student_weight and abs(1 / self.student_weight - self._every) > 0.01:
            problems.append(
                f"student_weight: {self.student_weight} cannot be had by alternating (every 1/w-th step, 1/w = "
                f"{1 / self.student_weight:.3g}). Use 1, 0.5, 0.333, 0.25, 0.2 ..., or form 'paper'"
            )
        if self.form == "released" and self.student_weight == 1 and self.text_weight:
            problems.append("text_weight: with student_weight 1 no given text is ever shown; set it to 0")
        return problems

    @property
    def _every(self) -> int:
        return round(1 / self.student_weight)

    def due(self, step: int) -> bool:
        """Whether the student's samples take this step's targets' place (form 'released')."""
        if self.student_weight in (0, 1):
            return self.student_weight == 1
        return (step + 1) % self._every == 0

    def prepare(self, batch: Batch, round: Round) -> Batch:
        if self.student_weight == 0:
            return batch
        if self.form == "paper":
            return with_samples(batch, round.student, self.sampling, dropout=self.sample_dropout, into=SAMPLE)
        if not self.due(round.step):
            return batch
        return with_samples(batch, round.student, self.sampling, dropout=self.sample_dropout)

    def weight_of(self, role: str) -> float:
        if self.form == "released":
            return 1.0
        return {ROLE: 1 - self.student_weight, SAMPLE: self.student_weight}[role]
