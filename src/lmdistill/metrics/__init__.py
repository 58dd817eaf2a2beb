"""A metric: a number for each prediction (`score`) and how numbers become one for the run (`aggregate`).

A metric is a frozen dataclass of settings. Empty and unparsable predictions count as wrong; they are never dropped.
To add one: a file `metrics/NAME.py` with a frozen dataclass `Name(Metric)`; the contract test finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score


class Metric(ABC):
    """The contract; see the module's docstring."""

    values: ClassVar[tuple[str, ...]] = ()
    """The names of the run's values, where it is not the metric's own name alone."""
    lower: ClassVar[tuple[str, ...]] = ()
    """Those of the run's values of which less is better."""
    package: ClassVar[str] = ""
    """A package beyond the core that it needs, as it is imported."""
    of_gold: ClassVar[bool] = False
    """Whether a run measures by it how probable the gold texts are to the student, not what the student wrote."""

    @abstractmethod
    def score(self, prediction: Prediction, task: Task) -> Score:
        """The named values of one prediction."""

    def score_all(self, predictions: Sequence[Prediction], task: Task) -> list[Score]:
        """`score` of each; a metric that runs a model overrides it to run it on many at a time."""
        return [self.score(one, task) for one in predictions]

    @abstractmethod
    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        """The run's values with 95 % intervals, by name.

        Raises:
            ValueError: no scores.
        """
