"""Options that commands share, and how they become settings: run file, then named options, then `--set`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from lmdistill import config, registry
from lmdistill.errors import DataError, StoreError
from lmdistill.store import Rows

T = TypeVar("T")

Config = Annotated[Path | None, typer.Option("--config", "-c", help="A run file (YAML).")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting, as in train.steps=500.")
]
Task = Annotated[
    str, typer.Option("--task", "-t", help="A name of `lmdistill list tasks`; its settings by --set task.KEY=VALUE.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


def gathered(cls: type[T], file: Path | None, sets: Sequence[str] | None, **named: str) -> T:
    """Settings of a dataclass; a named option counts as `--set NAME=VALUE` before all others, unless it is empty.

    Raises:
        ConfigError: every wrong setting at once.
    """
    first = [f"{name}={value}" for name, value in named.items() if value]
    return config.build(cls, without_recipe(cls, config.load(file, [*first, *(sets or ())])))


def without_recipe(cls: type, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those of the recipe that a run file names and this command has no use for.

    So the run file of `run` also serves `annotate`, `predict` and `evaluate`.
    """
    recipe = settings.get("recipe")
    if not isinstance(recipe, str) or "recipe" in cls.__dataclass_fields__:  # type: ignore[attr-defined]
        return settings
    known = {field.name for field in dataclasses.fields(registry.load("recipes", recipe))} | {"recipe"}
    own = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in settings.items() if key in own or key not in known}


def rows_at(path: Path, kind: type[T]) -> Rows[T]:
    """The rows of a JSON Lines file, or of a stage's folder.

    Raises:
        DataError: there is no such file.
    """
    file = path / "rows.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise DataError("no such file; name a file of rows or the folder of a stage", path=file)
    return Rows(file, kind)


def first_row(rows: Rows[T]) -> T:
    """The first row, read now, so that a file of another kind is told before anything is loaded.

    Raises:
        DataError: there are no rows; the row is of another kind.
    """
    if not len(rows):
        raise DataError("holds no rows", path=rows.path)
    try:
        return rows[0]
    except StoreError as error:
        kind = rows.kind.__name__.lower()
        raise DataError(f"its first row is no {kind} ({error.__cause__})", path=rows.path, line=1) from error
