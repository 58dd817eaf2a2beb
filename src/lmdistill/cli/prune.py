"""`lmdistill prune MODEL --decoder 2 --out FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmdistill.errors import ConfigError

LAYERS = "How many layers stay, or which, as in 0,5,-1."


def command(
    model: Annotated[str, typer.Argument(help="A transformers folder or Hub id: the teacher that loses layers.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the student.")],
    encoder: Annotated[str, typer.Option(help=f"Encoder: {LAYERS}")] = "",
    decoder: Annotated[str, typer.Option(help=f"Decoder: {LAYERS}")] = "",
    how: Annotated[str, typer.Option(help="Which stay of a number: 'ends' (first and last), or 'even'.")] = "ends",
    revision: Annotated[str, typer.Option(help="The revision of a Hub id.")] = "",
) -> None:
    """Make a student of a teacher by dropping encoder or decoder layers; train it with `student.model=FOLDER`."""
    from lmdistill.config import build
    from lmdistill.pruning import Pruning, prune

    given = {"encoder": _layers(encoder, "encoder"), "decoder": _layers(decoder, "decoder"), "how": how}
    facts = prune(model, out, build(Pruning, given), revision=revision or None)
    for stack in ("encoder", "decoder"):
        if f"{stack}_layers" in facts:
            print(f"{stack} layers kept: {', '.join(map(str, facts[f'{stack}_layers']))}")
    print(f"parameters: {facts['parameters']:,} of {facts['parameters_before']:,}")
    print(f"student: {out}")


def _layers(text: str, name: str) -> int | list[int] | None:
    """A number of layers, or their list."""
    try:
        numbers = [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise ConfigError(f"--{name}: a number or numbers like 0,5,-1 were expected, got {text!r}") from error
    return None if not numbers else numbers[0] if "," not in text else numbers
