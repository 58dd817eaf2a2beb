"""A method's runs as a report sees them: each seed's report and predictions, and its metrics with their intervals."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmdistill import config, intervals, registry
from lmdistill.errors import LmdistillError
from lmdistill.evaluate import kinds_with, scores_in
from lmdistill.grid import brief
from lmdistill.store import Rows
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Estimate, Example, Prediction, Report

Scores = dict[int, dict[str, float]]
"""Seed -> test item (see `item_key`) -> value."""
TEACHER = "teacher_"
"""How the teacher's own metrics begin; they are the same for every seed."""


@dataclass(frozen=True)
class Run:
    """One seed of a method: its report, its folder, and the test predictions."""

    report: Report
    folder: Path
    rows: Path

    def value(self, metric: str, seed: int) -> float | None:
        """A metric of this seed alone, or None where the run has no such metric."""
        own = self.report.facts.get("by_seed", {}).get(str(seed), {})
        if metric in own:
            return float(own[metric])
        found = self.report.metrics.get(metric)
        return None if found is None else found.value

    def predictions(self) -> Rows[Prediction]:
        return Rows(self.rows, Prediction)

    def scores(self) -> dict[str, dict[str, float]]:
        """What the run kept of each test item's values, by metric and example's id."""
        return scores_in(self.rows.parent.parent)


@dataclass(frozen=True)
class Arm:
    """A method with everything that sets it apart but the seed. `seedless` ones train nothing: their run is under 0."""

    method: str
    recipe: str
    about: Mapping[str, Any]
    runs: Mapping[int, Run]
    seedless: bool = False
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def title(self) -> str:
        return " ".join([self.method, *(f"{key}={brief(value)}" for key, value in self.about.items())])

    @property
    def report(self) -> Report:
        """The first seed's report."""
        return next(iter(self.runs.values())).report

    def named(self, method: str) -> Arm:
        """The same runs under another method's name."""
        return replace(self, method=method)

    def values(self, metric: str) -> dict[int, float]:
        """The metric of each seed that has it."""
        found = {seed: run.value(metric, seed) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def estimate(self, metric: str) -> Estimate | None:
        """One seed: its interval over test items. Several: their mean, over seeds and items, or see `rests_on`."""
        found: Estimate | None = self._told(metric)[0]
        return found

    def rests_on(self, metric: str) -> str:
        """What the interval was drawn over: `items`, `seeds and items`, or `seeds` (a metric of no single items)."""
        return str(self._told(metric)[1])

    def _told(self, metric: str) -> tuple[Estimate | None, str]:
        key = ("estimate", metric)
        if key not in self._kept:
            self._kept[key] = self._estimate(metric)
        found: tuple[Estimate | None, str] = self._kept[key]
        return found

    def _estimate(self, metric: str) -> tuple[Estimate | None, str]:
        values, known = self.values(metric), self.report.metrics.get(metric)
        if not values:
            return None, ""
        if known is not None and (len(values) == 1 or metric.startswith(TEACHER)):
            return known, "items"
        if found := intervals.of_runs(values, self.scores(metric)):
            return found, "seeds and items"
        every = [one for run in self.runs.values() if (one := run.report.metrics.get(metric))]
        if known is not None and len(set(values.values())) == 1:
            return known, "items"
        found = intervals.over_runs(list(values.values()), every)
        return found, "seeds"

    @property
    def task(self) -> Task:
        if ("task", "") not in self._kept:
            self._kept["task", ""] = config.rebuild("tasks", self.report.settings["task"])
        task: Task = self._kept["task", ""]
        return task

    def scores(self, metric: str) -> Scores:
        """The metric's value for each test item, by seed; empty where it is none of single items."""
        key = ("scores", metric)
        if key not in self._kept:
            self._kept[key] = self._scores(metric)
        found: Scores = self._kept[key]
        return found

    def _scores(self, metric: str) -> Scores:
        found: Scores = {}
        for seed, run in self.runs.items() if not metric.startswith(TEACHER) else ():
            told = list(run.predictions()) if run.rows.exists() else []
            kept = run.scores().get(metric) or self._scored(told, metric)
            if told and all(one.example.id in kept for one in told):
                found[seed] = {item_key(one.example): kept[one.example.id] for one in told}
        return found

    def _scored(self, told: Sequence[Prediction], metric: str) -> dict[str, float]:
        """What a run that kept no scores would have been given, by example's id."""
        named = [config.rebuild("metrics", one) for one in self.report.settings.get("metrics", ())]
        for name in dict.fromkeys((self.task.metric, *self.task.also, *kinds_with(metric))):
            with contextlib.suppress(LmdistillError):  # a package that is not here
                named.append(registry.load("metrics", name)())
        for scorer in named if told else ():
            if not scorer.of_gold and metric in scorer.score(told[0], self.task).values:
                rows = scorer.score_all(told, self.task)
                return {row.id: row.values[metric] for row in rows if metric in row.values}
        return {}

    def teacher_rows(self) -> dict[str, Annotation]:
        """What the teacher said of the test items, where it was asked."""
        for run in self.runs.values():
            path = run.folder / "teacher-test" / "rows.jsonl"
            if path.exists():
                return {one.id: one for one in Rows(path, Annotation)}
        return {}


def spread_of(arms: Sequence[Arm], metric: str) -> intervals.Spread | None:
    """How far the trainings of these arms vary, all together."""
    return intervals.pooled(
        [[sum(one.values()) / len(one) for one in scores.values()] for arm in arms if (scores := arm.scores(metric))]
    )


def item_key(example: Example) -> str:
    """A test item by its id and what it asks and expects: two data sets may both begin with `test-0`."""
    told = hashlib.blake2b(repr((example.input, example.label)).encode(), digest_size=8)
    return f"{example.id} {told.hexdigest()}"
