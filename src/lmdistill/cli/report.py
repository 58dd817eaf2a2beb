"""`lmdistill report FOLDER ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmdistill import config
from lmdistill.cli._settings import Config, Sets


def command(
    folders: Annotated[list[Path], typer.Argument(help="The folder of a comparison, or of one or more runs.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the files go; by default a comparison's own folder, or RUN/report."),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="The metric to compare by.")] = None,
    items: Annotated[int, typer.Option("--items", min=0, help="Test items in the page's error browser.")] = 500,
    config_file: Config = None,
    sets: Sets = None,
) -> None:
    """Write report.html, report.md and report.json: which method wins, by how much, at what cost."""
    from lmdistill import report
    from lmdistill.costing import Costs
    from lmdistill.outcomes import load

    given = config.load(config_file, sets or ())
    outcomes = load(folders, costs=config.build(Costs, given) if given else None, metric=metric)
    place = out or (folders[0] if len(folders) == 1 and (folders[0] / "cells.json").exists() else folders[0] / "report")
    found = report.write(outcomes, place, limit=items)
    for sentence in found["summary"]:
        print(f"- {sentence}")
    print(f"report: {place / 'report.html'}")
