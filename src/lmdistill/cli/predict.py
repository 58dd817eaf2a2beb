"""`lmdistill predict --student DIR --out FILE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lmdistill import config, store
from lmdistill.cli._settings import Config, Sets, Task, first_row, rows_at, without_recipe
from lmdistill.config import component
from lmdistill.errors import ConfigError, DataError
from lmdistill.objectives import Objective
from lmdistill.predict import Decoding, open_student, predict
from lmdistill.progress import note
from lmdistill.recipes._grounding import Grounding, as_trained
from lmdistill.tasks import Task as TaskKind
from lmdistill.types import Annotation, Example, Rationale


@dataclass(frozen=True)
class Settings:
    """What `predict` can be told in a run file; what is left out comes from the student's own card."""

    task: TaskKind = component("tasks")
    decoding: Decoding = field(default_factory=Decoding)
    grounding: Grounding = field(default_factory=Grounding)


def command(
    student: Annotated[Path, typer.Option("--student", help="A student's folder, as in RUN/seed-0/train/student.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file for the predictions (JSON Lines).")],
    task: Task = "",
    split: Annotated[str, typer.Option("--split", help="The examples to answer.")] = "test",
    items: Annotated[
        Path | None, typer.Option("--items", help="Annotated rows to answer instead of a split; passages ride along.")
    ] = None,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="New rows of the student's own table, with or without labels.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Answer the first so many only.")] = None,
    rationales: Annotated[
        int,
        typer.Option("--rationales", min=0, help="Also ask for a rationale of at most so many tokens (dss, mi, qcrd)."),
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    config_file: Config = None,
    sets: Sets = None,
) -> None:
    """Answer a task's examples with a trained student."""
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file, as in predictions.jsonl")
    if out.exists() and not overwrite:
        raise ConfigError(f"--out {out}: is there already; name another file, or give --overwrite to replace it")
    given = without_recipe(Settings, config.load(config_file, [f"task={task}"] * bool(task) + list(sets or ())))
    opened = open_student(student)
    known = {key: opened.card[key] for key in ("task", "decoding", "grounding") if opened.card.get(key)}
    settings = config.build(Settings, laid_over(known, given))
    if rows is not None:
        if items is not None:
            raise ConfigError("--rows and --items: give one of them")
        settings, split = replace(settings, task=settings.task.with_rows(rows)), "unlabelled"
    questions: Sequence[Annotation] = _questions(settings.task, split, items)[:limit]
    if items is None:
        card = {**opened.card, "grounding": config.settings_of(settings.grounding)}
        questions = as_trained(card, student, settings.task, questions)
        for reason, many in settings.task.problems(split).items():
            note(f"{many:,} rows left out: {reason}")
    if settings.grounding.passages and (bare := sum(not one.hits for one in questions)):
        note(f"{bare:,} of {len(questions):,} questions found no passage; they are answered without one")
    if items is None and (lacking := read_besides(opened.objective, {}, questions[0].example)):
        raise ConfigError(f"this student reads {lacking} beside the input; give rows that hold them with --items")
    predictions = predict(
        opened.student,
        opened.objective,
        settings.task,
        questions,
        decoding=settings.decoding,
        rationale_tokens=rationales,
    )
    count = store.write_rows(out, predictions)
    answered = sum(prediction.answer is not None for prediction in predictions)
    print(f"predictions: {out} ({answered:,} of {count:,} answered)")


def laid_over(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over others of the same component; another component takes nothing from the one it replaces.

    >>> laid_over({"task": {"name": "nli", "test": 9}}, {"task": {"test": 5}})
    {'task': {'name': 'nli', 'test': 5}}
    >>> laid_over({"task": {"name": "nli", "test": 9}}, {"task": "sums"})
    {'task': {'name': 'sums'}}
    """
    out = dict(known)
    for key, value in given.items():
        old = out.get(key)
        if isinstance(old, Mapping) and "name" in old and isinstance(value, str):
            value = {"name": value}
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            value = laid_over(old, value)
        out[key] = value
    return out


def read_besides(objective: Objective, card: Mapping[str, Any], example: Example) -> str:
    """What a student was trained to read beside the example ('a rationale', 'passages'); '' for nothing.

    Passages stand in the card; whether a rationale is read is found by showing one to the prompt.
    """
    if (card.get("grounding") or {}).get("passages"):
        return "passages"
    bare = Annotation(example)
    told = objective.prompt(replace(bare, rationales=(Rationale("probe", "probe"),)))
    return "a rationale" if told != objective.prompt(bare) else ""


def _questions(task: TaskKind, split: str, items: Path | None) -> list[Annotation]:
    if items is not None:
        rows = rows_at(items, Annotation)
        first_row(rows)
        return list(rows)
    examples: Sequence[Example] = task.examples(split)
    if not len(examples):
        raise DataError(f"the task has no examples in the split {split!r}")
    return [Annotation(example) for example in examples]
