"""How many words an answer shares with the best reference, as SQuAD counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lmdistill.metrics import Metric
from lmdistill.metrics._share import mean
from lmdistill.metrics._words import normalised
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score


@dataclass(frozen=True)
class TokenF1(Metric):
    """F1 = 2PR / (P + R) over the words of answer and reference, normalised as SQuAD does; the best reference counts.

    P is the share of the answer's words that the reference has too (each as often), R the other way round. Where both
    are empty F1 is 1, where one is 0; no answer counts 0. The interval is the percentile bootstrap of the mean over
    items, seeded.
    """

    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def score(self, prediction: Prediction, task: Task) -> Score:
        best = 0.0
        if prediction.answer is not None:
            best = max((f1(prediction.answer, wanted) for wanted in task.references(prediction.example)), default=0.0)
        return Score(prediction.example.id, {"token_f1": best})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        return mean(scores, "token_f1", level=self.level, resamples=self.resamples, seed=self.seed)


def f1(answer: str, reference: str) -> float:
    """F1 of the words of two texts.

    >>> f1("the red car", "a red bus"), f1("", ""), f1("red", "")
    (0.5, 1.0, 0.0)
    """
    given, wanted = normalised(answer).split(), normalised(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))
