"""The share of answers that have the same value as the gold equation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmdistill.arithmetic import equal
from lmdistill.metrics import Metric
from lmdistill.metrics._share import share
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score


@dataclass(frozen=True)
class Equation(Metric):
    """A prediction counts 1 where its answer and the label are arithmetic of the same exact value, else 0.

    '( 84.0 / 2.0 )', '(84 / 2)' and '42' are equal; what is no arithmetic equals nothing. Nothing is evaluated as code.
    The interval is Wilson's.
    """

    level: float = 0.95

    def score(self, prediction: Prediction, task: Task) -> Score:
        answer, label = prediction.answer, prediction.example.label
        right = answer is not None and label is not None and equal(answer, label)
        return Score(prediction.example.id, {"equation": float(right)})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        return share(scores, "equation", self.level)
