"""`lmdistill evaluate --task TASK --predictions FILE`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lmdistill import store
from lmdistill.cli._settings import AsJson, Config, Sets, Task, first_row, gathered, rows_at
from lmdistill.cli._table import show_report
from lmdistill.config import component
from lmdistill.metrics import Metric
from lmdistill.tasks import Task as TaskKind
from lmdistill.types import Prediction


@dataclass(frozen=True)
class Settings:
    """What `evaluate` can be told in a run file."""

    task: TaskKind = component("tasks")
    metrics: tuple[Metric, ...] = component("metrics", ())


def command(
    predictions: Annotated[Path, typer.Option("--predictions", "-p", help="Rows written by `lmdistill predict`.")],
    task: Task = "",
    metrics: Annotated[
        str, typer.Option("--metrics", "-m", help="As in '[accuracy, calibration]'; by default the task's own.")
    ] = "",
    scores: Annotated[Path | None, typer.Option("--scores", help="A file for the score of every example.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file for the report (JSON).")] = None,
    config_file: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Measure predictions, with 95 % intervals; unanswered examples count as wrong."""
    settings = gathered(Settings, config_file, sets, task=task, metrics=metrics)
    rows = rows_at(predictions, Prediction)
    first_row(rows)
    from lmdistill.evaluate import evaluate

    report = evaluate(settings.task, rows, settings.metrics or None, name=str(predictions), scores=scores)
    if out is not None:
        store.write_json(out, report)
    if as_json:
        print(json.dumps(store.encode(report), ensure_ascii=False, indent=2))
        return
    show_report(report)
    if out is not None:
        print(f"report: {out}")
