"""Negative log-likelihood of a prediction's own answer, and its perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lmdistill.errors import DataError
from lmdistill.metrics import Metric
from lmdistill.metrics._share import mean
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score


@dataclass(frozen=True)
class Nll(Metric):
    """Mean over examples of -log(confidence), in nats, and e to its power.

    It reads `Prediction.confidence`: the probability of what was written, or, for predictions that
    `lmdistill.profiling.reference_predictions` made, the probability per token that a student gives the gold text (the
    mean of that is what KD4Gen calls "PPL", not exponentiated). A run that is told to measure it (`metrics`) does the
    latter. A prediction without an answer counts with probability `floor`; the intervals are percentile bootstraps over
    items.
    """

    values: ClassVar[tuple[str, ...]] = ("nll", "perplexity")
    lower: ClassVar[tuple[str, ...]] = values
    of_gold: ClassVar[bool] = True

    floor: float = 1e-6
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def score(self, prediction: Prediction, task: Task) -> Score:
        probability = prediction.confidence if prediction.answer is not None else 0.0
        if probability is None:
            raise DataError(
                f"metric 'nll' reads how probable an answer was, and example {prediction.example.id!r} does not say it "
                "(confidence). Predict with decoding.confidence=true, or set `metrics: [nll]` in a run, which asks the "
                "student for the gold texts"
            )
        return Score(prediction.example.id, {"nll": -math.log(max(probability, self.floor))})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        if not scores:
            raise ValueError("metric 'nll' needs at least one score")
        found = mean(scores, "nll", level=self.level, resamples=self.resamples, seed=self.seed)
        one = found["nll"]
        found["perplexity"] = Estimate(math.exp(one.value), math.exp(one.low), math.exp(one.high), one.n)
        return found
