"""Prediction -> Report: metrics with intervals, and what was answered and what was not."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmdistill import registry
from lmdistill.config import settings_of
from lmdistill.errors import DataError
from lmdistill.metrics import Metric
from lmdistill.store import Rows, write_rows
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Report, Score

ANSWERED, GOLD = "scores.jsonl", "gold-scores.jsonl"
"""What a run keeps of each test item: what the student's text was given, and what the student gave the gold one."""
TOGETHER = 256
"""Predictions that a metric sees at a time."""


def metrics_of(task: Task) -> list[Metric]:
    """A task's metric, and those that are reported beside it where their packages are installed."""
    first, *others = (registry.load("metrics", name)() for name in (task.metric, *task.also))
    return [first, *(one for one in others if not one.package or importlib.util.find_spec(one.package))]


def scores_in(folder: Path) -> dict[str, dict[str, float]]:
    """What each test item of a run was given, by metric and id; those of other tasks behind the task's name."""
    found: dict[str, dict[str, float]] = {}
    for path in (folder / ANSWERED, folder / GOLD, *sorted(folder.glob(f"also-*-{ANSWERED}"))):
        named = path.name.removeprefix("also-").removesuffix(f"-{ANSWERED}")
        place = f"{named}." if path.name.startswith("also-") else ""
        for row in Rows(path, Score) if path.exists() else ():
            for name, value in row.values.items():
                found.setdefault(place + name, {})[row.id] = value
    return found


@functools.cache
def lower_is_better(metric: str) -> bool:
    """Whether less of a reported value is better; the task's or the teacher's name may stand before it.

    >>> lower_is_better("accuracy"), lower_is_better("brier"), lower_is_better("sums.nll")
    (False, True, True)
    """
    name = metric.removeprefix("teacher_").rpartition(".")[2]
    return any(name in registry.load("metrics", kind).lower for kind in kinds_with(name))


def kinds_with(value: str) -> list[str]:
    """The metrics that report a value of this name."""
    kinds = registry.names("metrics")
    return [kind for kind in kinds if value in (registry.load("metrics", kind).values or (kind,))]


def evaluate(
    task: Task,
    predictions: Iterable[Prediction],
    metrics: Sequence[Metric | str] | None = None,
    *,
    name: str = "",
    scores: Path | None = None,
) -> Report:
    """Measure predictions; empty and unparsable ones count as wrong and are never dropped.

    Args:
        metrics: metrics or their names; by default the task's own (`metrics_of`).
        name: what the report is about.
        scores: a JSON Lines file for the score of every example, written whole or not at all.

    Returns:
        A report whose counts are `n`, `answered`, `abstained`, and `abstained: REASON` for each reason.

    Raises:
        DataError: no predictions, two for one example, or a metric that finds nothing to measure.
        UnknownName: no metric of that name.
    """
    asked = metrics or metrics_of(task)
    chosen = [registry.load("metrics", each)() if isinstance(each, str) else each for each in asked]
    counts: Counter[str] = Counter(n=0, answered=0, abstained=0)
    rows: list[list[Score]] = []
    for several in _batched(_once(predictions)):
        for prediction in several:
            counts["n"] += 1
            if prediction.answer is None:
                counts["abstained"] += 1
                counts[f"abstained: {prediction.reason or 'no reason given'}"] += 1
            else:
                counts["answered"] += 1
        columns = [metric.score_all(several, task) for metric in chosen]
        rows += [list(row) for row in zip(*columns, strict=True)]
    if not rows:
        raise DataError("there are no predictions to evaluate")
    if scores is not None:
        write_rows(scores, (_merged(row) for row in rows))
    found: dict[str, Estimate] = {}
    for metric, column in zip(chosen, zip(*rows, strict=True), strict=True):
        try:
            found.update(metric.aggregate(column))
        except ValueError as error:
            raise DataError(str(error)) from error
    settings = {"task": settings_of(task), "metrics": [settings_of(metric) for metric in chosen]}
    return Report(name, found, dict(counts), settings)


def _once(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    seen: set[str] = set()
    for prediction in predictions:
        if prediction.example.id in seen:
            raise DataError(f"two predictions for example {prediction.example.id!r}; evaluate one run at a time")
        seen.add(prediction.example.id)
        yield prediction


def _batched(predictions: Iterator[Prediction]) -> Iterator[list[Prediction]]:
    while several := list(itertools.islice(predictions, TOGETHER)):
        yield several


def _merged(scores: Sequence[Score]) -> Score:
    """What all metrics say of one example, in one row."""
    return Score(scores[0].id, {name: value for score in scores for name, value in score.values.items()})
