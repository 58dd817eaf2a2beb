"""What a run measures: the task's metrics and those it was told, on what the student wrote and on the gold texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmdistill import intervals
from lmdistill.errors import ConfigError
from lmdistill.evaluate import ANSWERED, GOLD, evaluate, metrics_of, scores_in
from lmdistill.metrics import Metric
from lmdistill.objectives import Objective
from lmdistill.profiling import reference_predictions
from lmdistill.registry import name_of
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Estimate, Prediction, Report


def measures(task: Task, more: Sequence[Metric], *, of_gold: bool = False) -> list[Metric]:
    """The metrics of a task with further ones behind them, each kind once: those of answers, or those of gold texts."""
    every = {name_of(one): one for one in metrics_of(task)}
    every |= {name_of(one): one for one in more}
    return [one for one in every.values() if one.of_gold == of_gold]


def measured(
    recipe: Any,
    objective: Objective,
    student: Any,
    questions: Sequence[Annotation],
    predictions: Sequence[Prediction],
    folder: Path | None = None,
) -> Report:
    """The report of a student's answers; metrics of gold texts ask it how probable those are to it.

    With `folder` the scores of each example are written there, as `scores.jsonl` (`gold-scores.jsonl`).
    """
    answered, gold = (measures(recipe.task, recipe.metrics, of_gold=own) for own in (False, True))
    report = evaluate(recipe.task, predictions, answered, scores=None if folder is None else folder / ANSWERED)
    told = reference_predictions(student, objective, questions) if gold else []
    if not told:
        return report
    place = None if folder is None else folder / GOLD
    return replace(report, metrics={**report.metrics, **evaluate(recipe.task, told, gold, scores=place).metrics})


def over_seeds(reports: Mapping[int, Report], folder: Path) -> dict[str, Estimate]:
    """Each metric's mean over seeds; `folder` holds the runs (`seed-0`, `seed-1`, ...) with the scores of their items.

    The interval of one seed is that over its test items; of several it is for other seeds and other items, and where
    the metric is none of single items (as BLEU), for other seeds alone.
    """
    ordered = list(reports.values())
    if len(ordered) == 1:
        return dict(ordered[0].metrics)
    scored = {seed: scores_in(folder / f"seed-{seed}") for seed in reports}
    found = {}
    for name in ordered[0].metrics:
        runs = {seed: report.metrics[name] for seed, report in reports.items()}
        values = {seed: one.value for seed, one in runs.items()}
        items = {seed: own.get(name, {}) for seed, own in scored.items()}
        found[name] = intervals.of_runs(values, items) or intervals.over_runs(list(values.values()), [*runs.values()])
    return found


def check_select(recipe: Any) -> None:
    """Refuse a `train.select` that no validation will find, before anything is done.

    Raises:
        ConfigError: it is none of the run's metrics.
    """
    wanted = recipe.train.select
    every = [one for own in (False, True) for one in measures(recipe.task, recipe.metrics, of_gold=own)]
    known = [name for one in every for name in (one.values or (name_of(one),))]
    if wanted is not None and wanted not in known:
        raise ConfigError(
            f"train.select: {wanted!r} is not among what is measured here ({', '.join(known)}); name one of these, or "
            "add its metric to `metrics`"
        )
