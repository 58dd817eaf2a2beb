"""`lmdistill evaluate --task TASK --predictions FILE`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lmdistill import store
from lmdistill.cli._settings import AsJson, Config, Sets, Task, first_row, gathered, rows_at
from lmdistill.cli._table import show_report, show_table
from lmdistill.config import component
from lmdistill.faults import Pair, side_by_side
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
    beside: Annotated[
        Path | None,
        typer.Option(help="Predictions of the same questions without passages: what reading gained and lost."),
    ] = None,
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
    pairs = None if beside is None else side_by_side(rows, rows_at(beside, Prediction), settings.task)
    if as_json:
        more = {} if pairs is None else {"beside": [pair._asdict() for pair in pairs]}
        print(json.dumps(store.encode(report) | more, ensure_ascii=False, indent=2))
        return
    show_report(report)
    if pairs is not None:
        _show_pairs(pairs)
    if out is not None:
        print(f"report: {out}")


def _show_pairs(pairs: Sequence[Pair]) -> None:
    """How often passages made an answer right or wrong, and each of these answers with what was read."""
    changed = [pair for pair in pairs if pair.gained]
    gained = sum(pair.gained > 0 for pair in changed)
    print(
        f"\nof {len(pairs):,} questions {gained:,} are right only with passages, {len(changed) - gained:,} only without"
    )
    rows = []
    for pair in changed:
        answers = (pair.label, " ".join(pair.passages), pair.with_passages, pair.without)
        rows.append([pair.id, "gained" if pair.gained > 0 else pair.fault, *map(_cell, answers)])
    if rows:
        show_table(["question", "passages", "gold", "read", "with", "without"], rows)


def _cell(text: str | None, width: int = 40) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= width else f"{line[: width - 3]}..."
