"""What runs left, read back for a report: of a comparison, of a run, or of several runs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdistill import config, intervals, registry
from lmdistill.codec import decode
from lmdistill.costing import Costs
from lmdistill.errors import ConfigError, LmdistillError, StoreError, did_you_mean
from lmdistill.grid import brief
from lmdistill.metrics import Metric
from lmdistill.store import Rows, read_manifest
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Estimate, Prediction, Report


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


@dataclass(frozen=True)
class Arm:
    """A method with everything that sets it apart but the seed."""

    method: str
    recipe: str
    about: Mapping[str, Any]
    runs: Mapping[int, Run]

    @property
    def title(self) -> str:
        return " ".join([self.method, *(f"{key}={brief(value)}" for key, value in self.about.items())])

    @property
    def report(self) -> Report:
        """The first seed's report."""
        return next(iter(self.runs.values())).report

    def values(self, metric: str) -> dict[int, float]:
        """The metric of each seed that has it."""
        found = {seed: run.value(metric, seed) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def estimate(self, metric: str) -> Estimate | None:
        """The mean over seeds with Student's interval; of one seed, its interval over the test items."""
        values = list(self.values(metric).values())
        if not values:
            return None
        known = self.report.metrics.get(metric)
        if len(values) == 1 and known is not None:
            return known
        return intervals.over_seeds(values, known.n if known else 0)

    @property
    def task(self) -> Task:
        task: Task = config.rebuild("tasks", self.report.settings["task"])
        return task

    def scores(self, metric: str) -> dict[int, dict[str, float]]:
        """The metric's value for each test item, by seed; empty where it is none of single items."""
        task = self.task
        scorer = _scorer(task, metric)
        found: dict[int, dict[str, float]] = {}
        for seed, run in self.runs.items() if scorer is not None else ():
            assert scorer is not None
            rows = [scorer.score(one, task) for one in run.predictions()]
            if rows and all(metric in row.values for row in rows):
                found[seed] = {row.id: row.values[metric] for row in rows}
        return found

    def teacher_rows(self) -> dict[str, Annotation]:
        """What the teacher said of the test items, where it was asked."""
        for run in self.runs.values():
            path = run.folder / "teacher-test" / "rows.jsonl"
            if path.exists():
                return {one.id: one for one in Rows(path, Annotation)}
        return {}


def _scorer(task: Task, metric: str) -> Metric | None:
    for name in dict.fromkeys((task.metric, metric)):
        try:
            scorer: Metric = registry.load("metrics", name)()
        except LmdistillError:
            continue
        return scorer
    return None


@dataclass(frozen=True)
class Outcomes:
    """Everything a report is about."""

    title: str
    question: str
    arms: tuple[Arm, ...]
    metric: str
    baseline: str
    costs: Costs
    ceiling: str | None = None
    failed: Sequence[Mapping[str, Any]] = ()
    waiting: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def groups(self) -> dict[tuple[tuple[str, str], ...], list[Arm]]:
        """Arms that differ in their method alone, by what they have in common.

        A method without one of the axes (one that trains nothing) belongs to every group that agrees in the others.
        """
        keys = [frozenset((key, brief(value)) for key, value in arm.about.items()) for arm in self.arms]
        widest = [key for key in dict.fromkeys(keys) if not any(key < other for other in keys)]
        return {
            tuple(sorted(key)): [arm for arm, own in zip(self.arms, keys, strict=True) if own <= key] for key in widest
        }

    def teacher(self) -> Estimate | None:
        """The teacher's own value, where a run measured it: the same for every seed, so never a mean over them."""
        reports = (run.report for arm in self.arms for run in arm.runs.values())
        return next((one for report in reports if (one := report.metrics.get(f"teacher_{self.metric}"))), None)

    def full(self) -> list[Arm]:
        """For each method the arm with the most data and the largest or last of every other setting."""
        last: dict[str, Arm] = {}
        for arm in self.arms:
            kept = last.get(arm.method)
            if kept is None or arm.about.get("fraction", 1) >= kept.about.get("fraction", 1):
                last[arm.method] = arm
        return list(last.values())


def load(folders: Sequence[Path], *, costs: Costs | None = None, metric: str | None = None) -> Outcomes:
    """The outcomes of a comparison's folder, or of the folders of single runs.

    Raises:
        StoreError: nothing is there to report on. ConfigError: no run has that metric.
    """
    arms: list[Arm] = []
    about: dict[str, Any] = {}
    failed: list[Mapping[str, Any]] = []
    waiting = 0
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest is not None and manifest.stage == "compare":
            rows = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
            arms += _arms(folder, [row for row in rows if row["status"] == "done"])
            failed += [row for row in rows if row["status"] == "failed"]
            waiting += sum(row["status"] == "waiting" for row in rows)
            about = about or manifest.settings
        else:
            arms.append(_single(folder, [arm.method for arm in arms]))
    if not arms:
        raise StoreError(
            f"{', '.join(map(str, folders))}: no run is done yet; run `lmdistill compare` to its end first"
        )
    known = [name for name in arms[0].report.metrics if not name.startswith("teacher_")]
    chosen = metric or about.get("metric") or known[0]
    if not any(arm.estimate(chosen) for arm in arms):
        raise ConfigError(f"metric: {chosen!r} is in no report{did_you_mean(chosen, known)} Known: {', '.join(known)}")
    stated = costs or (config.build(Costs, about["cost"]) if "cost" in about else Costs())
    present = [arm.method for arm in arms if arm.method not in about.get("first", {})] or [arms[0].method]
    baseline = about.get("baseline") or present[0]
    title = about.get("title") or (arms[0].report.name if len(arms) == 1 else _title(arms))
    settings = about or {arm.title: arm.report.settings for arm in arms}
    return Outcomes(
        title=title,
        question=about.get("question", ""),
        arms=tuple(arms),
        metric=chosen,
        baseline=baseline,
        costs=stated,
        ceiling=about.get("ceiling"),
        failed=failed,
        waiting=waiting,
        settings=settings,
    )


def _title(arms: Sequence[Arm]) -> str:
    tasks = dict.fromkeys(str(arm.report.settings.get("task", {}).get("name", "")) for arm in arms)
    methods = list(dict.fromkeys(arm.method for arm in arms))
    shown = ", ".join(methods) if len(methods) < 5 else f"{len(methods)} methods"
    return f"{shown} on {', '.join(tasks)}"


def _arms(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[Arm]:
    """The arms of a comparison; their order is the grid's."""
    runs: dict[str, dict[int, Run]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        own = folder / row["folder"]
        key = json.dumps([row["method"], row["about"]], sort_keys=True)
        first.setdefault(key, row)
        seed = row["seed"]
        runs.setdefault(key, {})[seed or 0] = Run(_report(own), own, _rows(own, seed))
    for key, row in first.items():
        yield Arm(row["method"], row["recipe"], row["about"], runs[key])


def _single(folder: Path, taken: Sequence[str]) -> Arm:
    """The arm of one run's folder; named by it where another has the recipe's name."""
    report = _report(folder)
    recipe = str(report.settings.get("recipe", folder.name))
    seeds: list[int | None] = [int(seed) for seed in report.facts.get("by_seed", {})]
    seeds = seeds or [None]
    runs = {seed or 0: Run(report, folder, _rows(folder, seed)) for seed in seeds}
    return Arm(folder.name if recipe in taken else recipe, recipe, {}, runs)


def _report(folder: Path) -> Report:
    path = folder / "report.json"
    try:
        report: Report = decode(Report, json.loads(path.read_text(encoding="utf-8")))
        _ = report.metrics, report.settings["task"]
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); name the folder of a finished run") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{path} is no report of a run ({error}); make it again with `lmdistill run`") from error
    return report


def _rows(folder: Path, seed: int | None) -> Path:
    return (folder if seed is None else folder / f"seed-{seed}") / "test" / "rows.jsonl"
