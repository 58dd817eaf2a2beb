"""`lmdistill list KIND`."""

from __future__ import annotations

from typing import Annotated

import typer

from lmdistill import registry


def command(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(registry.KINDS)}; all kinds where left out.")] = "",
) -> None:
    """List the components of a kind, one name per line."""
    for name in registry.names(kind) if kind else registry.KINDS:
        print(name)
