"""Whether the passages that were found are what a prediction needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lmdistill.intervals import wilson
from lmdistill.metrics import Metric
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score


@dataclass(frozen=True)
class HitsAtK(Metric):
    """The share of questions with a relevant passage among the first k that were found, for each k.

    Paper:    KARD, arXiv 2305.18395, figure on retrieval (k 1, 3, 5, 10)
    Differs:  relevant is what the data marks (`Task.relevant`); questions without a mark are not among `n`

    A k beyond the longest list of passages is left out: predictions hold what was read, and what a search would have
    given below that is not known. The intervals are Wilson's.
    """

    values: ClassVar[tuple[str, ...]] = ("hits@1", "hits@3", "hits@5", "hits@10")

    ks: tuple[int, ...] = (1, 3, 5, 10)
    level: float = 0.95

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"ks: numbers of 1 or more were expected, got {list(self.ks)}")

    def score(self, prediction: Prediction, task: Task) -> Score:
        relevant = set(task.relevant(prediction.example))
        if not relevant:
            return Score(prediction.example.id, {})
        found = [not relevant.isdisjoint(hit.passage.names) for hit in prediction.hits]
        values = {f"hits@{k}": float(any(found[:k])) for k in self.ks}
        return Score(prediction.example.id, {**values, "passages": float(len(found))})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        marked = [score for score in scores if score.values]
        if not marked:
            raise ValueError("metric 'hits_at_k' found no example whose relevant passages the data marks")
        found = {}
        deepest = max(score.values["passages"] for score in marked)
        for k in [k for k in self.ks if k <= deepest] or [min(self.ks)]:
            hits = sum(score.values[f"hits@{k}"] for score in marked)
            low, high = wilson(hits, len(marked), self.level)
            found[f"hits@{k}"] = Estimate(hits / len(marked), low, high, len(marked))
        return found
