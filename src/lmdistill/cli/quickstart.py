"""`lmdistill quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmdistill.cli._table import show_table


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that the runs fill.")] = Path("runs/quickstart"),
) -> None:
    """Distil a scripted teacher into tiny students, four ways side by side, in minutes and without a network."""
    from lmdistill.recipes._quickstart import quickstart

    rows = quickstart(out)
    columns = ["method", "accuracy", "95 % interval", "writes at test time", "training seconds"]
    show_table(columns, rows, "one-bit inference over 160 nouns (task nli)")
    print(f"all of it: {out}")
