"""Whether a student is right as often as it is confident."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lmdistill.errors import DataError
from lmdistill.intervals import resampled
from lmdistill.metrics import Metric
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration(Metric):
    """Expected calibration error and Brier score of a prediction's confidence in its own answer.

    `calibration_error` = sum over bins of (items in bin / items) * |share right - mean confidence|. The bins are
    `bins` of equal width, each closed on its right, the first on both sides, so a confidence of 0.1 is in the first of
    ten; or `binning` 'mass': as many items in each, in the order of confidence. `brier` is the mean of
    (confidence - right)^2. A prediction without an answer counts as wrong with confidence 0 (an abstention is no
    overconfidence); one with an answer but no confidence cannot be judged and is not among `n`. The intervals are
    percentile bootstraps over items, seeded; a calibration error is biased upwards, the more so in small samples.
    """

    values: ClassVar[tuple[str, ...]] = ("calibration_error", "brier")
    lower: ClassVar[tuple[str, ...]] = values

    bins: int = 10
    binning: Literal["width", "mass"] = "width"
    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins: 1 or more were expected, got {self.bins}")

    def score(self, prediction: Prediction, task: Task) -> Score:
        name, confidence = prediction.example.id, prediction.confidence
        if prediction.answer is None:
            return Score(name, {"confidence": 0.0, "right": 0.0, "brier": 0.0})
        if confidence is None:
            return Score(name, {})
        if not 0 <= confidence <= 1 or math.isnan(confidence):
            raise DataError(f"prediction {name!r} has confidence {confidence}; expected a number from 0 to 1")
        right = task.is_correct(prediction.example, prediction.answer)
        squared = (float(confidence) - right) ** 2
        return Score(name, {"confidence": float(confidence), "right": float(right), "brier": squared})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        import numpy

        judged = [score.values for score in scores if score.values]
        if not judged:
            raise ValueError(
                "metric 'calibration' needs confidences: predict with samples above 1, or confidence: true"
            )
        confidence = numpy.array([values["confidence"] for values in judged])
        right = numpy.array([values["right"] for values in judged])
        errors, briers = [], []
        for drawn in resampled(len(judged), self.resamples, self.seed):
            errors.append(self._error(confidence[drawn], right[drawn]))
            briers.append(float(((confidence[drawn] - right[drawn]) ** 2).mean()))
        edges = [(1 - self.level) / 2, (1 + self.level) / 2]
        found = {}
        for name, value, many in (
            ("calibration_error", self._error(confidence, right), errors),
            ("brier", float(((confidence - right) ** 2).mean()), briers),
        ):
            low, high = (float(bound) for bound in numpy.quantile(many, edges))
            found[name] = Estimate(value, low, high, len(judged))
        return found

    def _error(self, confidence: NDArray[Any], right: NDArray[Any]) -> float:
        import numpy

        if self.binning == "width":
            places = numpy.searchsorted(numpy.arange(1, self.bins) / self.bins, confidence, side="left")
        else:
            places = numpy.empty(len(confidence), dtype=int)
            order = numpy.argsort(confidence, kind="stable")
            places[order] = numpy.arange(len(confidence)) * self.bins // len(confidence)
        gaps = numpy.bincount(places, weights=right - confidence, minlength=self.bins)
        return float(numpy.abs(gaps).sum() / len(confidence))
