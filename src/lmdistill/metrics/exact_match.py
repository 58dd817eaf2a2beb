"""The share of answers that are word for word one of the references, as SQuAD counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmdistill.metrics import Metric
from lmdistill.metrics._share import share
from lmdistill.metrics._words import normalised
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score


@dataclass(frozen=True)
class ExactMatch(Metric):
    """A prediction counts 1 where its answer equals a reference after SQuAD's normalisation, else 0.

    The normalisation lowers the case and takes away punctuation, articles and doubled blanks. No answer counts 0, even
    where a reference is empty once normalised. The interval is Wilson's.
    """

    level: float = 0.95

    def score(self, prediction: Prediction, task: Task) -> Score:
        answer = prediction.answer
        wanted = {normalised(reference) for reference in task.references(prediction.example)}
        right = answer is not None and normalised(answer) in wanted
        return Score(prediction.example.id, {"exact_match": float(right)})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        return share(scores, "exact_match", self.level)
