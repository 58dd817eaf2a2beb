"""`lmdistill train --items ROWS --objective NAME --task TASK --out DIR`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from lmdistill.cli._settings import Config, Sets, Task, first_row, gathered, rows_at
from lmdistill.config import component, settings_of
from lmdistill.errors import ConfigError
from lmdistill.evaluate import evaluate
from lmdistill.objectives import Objective
from lmdistill.predict import Decoding, predict
from lmdistill.students import StudentSettings
from lmdistill.tasks import Task as TaskKind
from lmdistill.train import TrainSettings, Validate, train
from lmdistill.types import Annotation


@dataclass(frozen=True)
class Settings:
    """What `train` can be told in a run file."""

    task: TaskKind = component("tasks")
    objective: Objective = component("objectives")
    student: StudentSettings = component("students", "seq2seq")
    train: TrainSettings = field(default_factory=TrainSettings)
    decoding: Decoding = field(default_factory=Decoding)
    seed: int = 0
    valid_limit: int = 500

    def __post_init__(self) -> None:
        if self.objective.trains != "student":
            raise ConfigError(
                f"objective: this one trains a {self.objective.trains}, not a student; run a recipe that uses it"
            )


def command(
    items: Annotated[Path, typer.Option("--items", help="Annotated rows: a file, or the folder of `annotate`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for checkpoints; the best is OUT/student.")],
    task: Task = "",
    objective: Annotated[str, typer.Option("--objective", help="A name of `lmdistill list objectives`.")] = "",
    student: Annotated[str, typer.Option("--student", help="A name of `lmdistill list students`.")] = "",
    config_file: Config = None,
    sets: Sets = None,
) -> None:
    """Train a student on annotated rows; the checkpoint is chosen on the task's validation split."""
    settings = gathered(Settings, config_file, sets, task=task, objective=objective, student=student)
    rows = rows_at(items, Annotation)
    first_row(rows)
    from lmdistill.recipes._road import vocabulary_texts

    learnt = settings.objective.marked(rows, settings.task)
    opened = settings.student.open(vocabulary_texts(settings.objective, learnt), settings.seed)
    written = settings_of(settings)
    trained = train(
        opened,
        settings.objective,
        learnt,
        settings=settings.train,
        folder=out,
        validate=_validation(settings),
        seed=settings.seed,
        card={key: written[key] for key in ("student", "task", "decoding")},
    )
    score = "" if trained.score is None else f", {trained.score:.3f} on validation"
    print(f"student: {trained.folder} (step {trained.step:,}{score})")


def _validation(settings: Settings) -> Validate | None:
    """Metrics on the validation split, or None where the task has none."""
    questions = [Annotation(example) for example in settings.task.examples("valid")[: settings.valid_limit]]
    if not questions:
        return None

    def validate(student: Any) -> Mapping[str, float]:
        told = predict(student, settings.objective, settings.task, questions, decoding=settings.decoding)
        return {name: one.value for name, one in evaluate(settings.task, told).metrics.items()}

    return validate
