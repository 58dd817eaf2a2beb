"""`lmdistill export-corpus RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmdistill import corpus


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a run that asked a teacher.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the data set and its card.")],
    licence: Annotated[str, typer.Option(help="The licence that the data card states, as in cc-by-4.0.")] = "",
    cue: Annotated[
        str | None, typer.Option(help="What stands between a rationale and its answer; by default the run's own cue.")
    ] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Keep what was set aside, with its reason.")] = False,
) -> None:
    """Write a run's curated rationales as a data set: Parquet, JSON Lines and a data card."""
    rows, origin = corpus.origin_of(run)
    task = corpus.task_of(origin)
    made = corpus.export_corpus(
        rows, task, out, cue=cue or origin.cue, licence=licence, rejected=rejected, origin=origin
    )
    for name, count in made.counts.items():
        print(f"{name}: {count:,}")
    print(f"data set: {out}")
