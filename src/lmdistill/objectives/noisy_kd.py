"""Noisy distillation: logit distillation from a teacher whose dropout is on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.errors import ConfigError, TrainingError
from lmdistill.objectives._distilling import Distilling
from lmdistill.objectives._dropout import largest_dropout
from lmdistill.objectives._teacher import Frozen
from lmdistill.students._scratch import set_dropout


@dataclass(frozen=True)
class NoisyKD(Distilling):
    """Learn the distribution of a teacher that is another one at every step.

    `teacher_dropout` is the rate of all of the teacher's dropouts while it teaches; None keeps those it was saved with.

    Paper:     KD4Gen, arXiv 2305.02031, stage 3 ("noisy KD")
    Equation:  L_log of `logit_kd`, the teacher in training mode
    Data:      needs the teacher's model, with dropout in it; a label or pseudo-targets
    Shapes:    role 'target', one row per text
    Differs:   from the paper: none (its pretrained teachers come with a dropout of 0.1); the authors' own description
               also perturbs the student's input, their code (which this follows) does not
    Relations: the smaller teacher_dropout, the nearer it is to LogitKD; 0 is refused, because it is LogitKD
    """

    teacher_dropout: float | None = 0.1

    noisy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_dropout is not None and not 0 < self.teacher_dropout < 1:
            raise ConfigError(
                f"teacher_dropout: expected a rate above 0 and below 1, got {self.teacher_dropout} (without dropout it "
                "is objective 'logit_kd'; null keeps the teacher's own)"
            )

    def check(self, student: Any, teacher: Any, items: Sequence[Any]) -> None:
        if isinstance(teacher, Frozen):
            model = teacher.model.model
            known = largest_dropout(model)
            if known is None:
                raise TrainingError(
                    f"noisy_kd: the teacher ({type(model).__name__}) has no dropout to turn on. Use objective "
                    "'logit_kd', or another teacher"
                )
            if self.teacher_dropout is not None:
                set_dropout(model, self.teacher_dropout)
            elif not known:
                raise ConfigError(
                    "learns.teacher_dropout: null keeps the teacher's own dropout, which is 0, and that is objective "
                    "'logit_kd'. Set a rate, for example 0.1"
                )
        super().check(student, teacher, items)
