"""`lmdistill import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmdistill import config, store
from lmdistill.recorded import Columns, import_annotations
from lmdistill.tasks import Task


def command(
    layout: Annotated[str, typer.Argument(help="chat, batch, dss, kard or table.")],
    path: Annotated[Path, typer.Argument(help="The file, or the folder of a release.")],
    task: Annotated[str, typer.Option(help="The task that reads the answers (a name, or a YAML mapping).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for rows and manifest.")],
    inputs: Annotated[Path | None, typer.Option(help="The questions, where they lie in a file of their own.")] = None,
    split: Annotated[str | None, typer.Option(help="Match records to this split of the task.")] = None,
    source: Annotated[str, typer.Option(help="Who wrote the answers.")] = "",
    sets: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="A setting of the task.")
    ] = None,
    input_column: Annotated[str, typer.Option(help="table: the column with the prompt.")] = "",
    output_column: Annotated[str, typer.Option(help="table: the column with the completion.")] = "",
    label_column: Annotated[str, typer.Option(help="table: the column with the gold label.")] = "",
    id_column: Annotated[str, typer.Option(help="table: the column with the id.")] = "",
) -> None:
    """Read answers that were recorded elsewhere as annotations."""
    settings = config.load(None, [f"task={task}", *(f"task.{one}" for one in sets or ())])
    built: Task = config.rebuild("tasks", settings["task"] if isinstance(settings["task"], dict) else {"name": task})
    columns = Columns(input_column, output_column, label_column, id_column)
    rows = import_annotations(
        layout, path, built, folder=out, inputs=inputs, split=split, source=source, columns=columns
    )
    manifest = store.read_manifest(out)
    assert manifest is not None
    for name, count in manifest.counts.items():
        print(f"{name}: {count:,}")
    print(f"{len(rows):,} rows: {out / 'rows.jsonl'}")
