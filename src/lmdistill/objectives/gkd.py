"""Generalised knowledge distillation: any divergence, on given texts and on the student's own."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.losses.divergence import Kind
from lmdistill.objectives import Round
from lmdistill.objectives._distilling import OnPolicy, drawn, with_samples
from lmdistill.store import seed_for
from lmdistill.students import Batch


@dataclass(frozen=True)
class GKD(OnPolicy):
    """Learn the teacher's distribution where the student itself goes.

    A step is on-policy with probability `student_fraction` (the paper's lambda): its targets are then samples of the
    student as it stands, drawn with `sample_temperature`, `top_p` and `top_k` (0: no truncation) and at most
    `max_tokens` new tokens, in evaluation mode unless `sample_dropout` (which needs a student with dropout).

    Paper:     Agarwal et al., arXiv 2306.13649, algorithm 1; `beta` as there, 0.5 for the symmetric case
    Equation:  L = D(P_T || P_S)(y | x), y from the data, or with probability lambda from the student; no gradient
               flows through the sampling
    Data:      needs the teacher's model; a label or pseudo-targets
    Shapes:    role 'target', one row per text
    Differs:   from the paper: none; from TRL's code: its ends beta = 0 and 1 are the two KLs too, but completion
               positions only are scored, and the mean is over tokens of the whole step
    Relations: student_fraction=0 and divergence='forward_kl' is LogitKD; student_fraction=1 with divergence
               'reverse_kl' is the on-policy objective of MiniLLM without its policy gradient
    """

    divergence: Kind = "jsd"
    rescale: bool = False
    student_fraction: float = 0.5

    def problems(self) -> list[str]:
        problems = []
        if not 0 <= self.student_fraction <= 1:
            problems.append(f"student_fraction: {self.student_fraction} is not in [0, 1]")
        if self.student_fraction == 1 and self.text_weight:
            problems.append("text_weight: with student_fraction 1 no given text is ever shown; set it to 0")
        return problems

    def prepare(self, batch: Batch, round: Round) -> Batch:
        if drawn(seed_for(round.seed, "on-policy", round.step)) >= self.student_fraction:
            return batch
        return with_samples(batch, round.student, self.sampling, dropout=self.sample_dropout)
