"""`lmdistill report FOLDER ...`."""

from __future__ import annotations

from dataclasses import replace
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
    measure_again: Annotated[bool, typer.Option("--measure-again", help="Time the students anew.")] = False,
    items: Annotated[int, typer.Option("--items", min=0, help="Test items in the page's error browser.")] = 500,
    config_file: Config = None,
    sets: Sets = None,
) -> None:
    """Write report.html, report.md and report.json: which method wins, by how much, at what cost."""
    from lmdistill import report
    from lmdistill.costing import Costs
    from lmdistill.outcomes import load
    from lmdistill.recipes._grounding import search_of
    from lmdistill.spending import measure

    given = config.load(config_file, sets or ())
    outcomes = load(folders, metric=metric)
    if given:
        outcomes = replace(outcomes, costs=config.build(Costs, {**config.settings_of(outcomes.costs), **given}))
    measure(outcomes, search_of, again=measure_again)
    place = out or (folders[0] if len(folders) == 1 and (folders[0] / "cells.json").exists() else folders[0] / "report")
    found = report.write(outcomes, place, limit=items)
    for sentence in found["summary"]:
        print(f"- {sentence}")
    print(f"report: {place / 'report.html'}")
