"""The share of right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmdistill.metrics import Metric
from lmdistill.metrics._share import share
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score


@dataclass(frozen=True)
class Accuracy(Metric):
    """A prediction counts 1 where the task says that its answer is right, else 0; no answer counts 0.

    The interval is Wilson's.
    """

    level: float = 0.95

    def score(self, prediction: Prediction, task: Task) -> Score:
        right = task.is_correct(prediction.example, prediction.answer)
        return Score(prediction.example.id, {"accuracy": float(right)})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        return share(scores, "accuracy", self.level)
