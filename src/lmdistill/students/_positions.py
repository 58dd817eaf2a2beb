"""How long a text a model can read: the size of its position tables, where it has any."""

from __future__ import annotations

import re
import sys
from typing import Any

from torch import nn

from lmdistill.errors import ConfigError

_TABLE = re.compile(r"^(wpe|.*position.*)$")
"""What transformers call a table with a row for each position (rotary and relative positions have none)."""


def positions_of(module: nn.Module) -> int | None:
    """Positions of a module's smallest position table; None where it has none, and so no limit of its own.

    >>> positions_of(nn.ModuleDict({"wpe": nn.Embedding(32, 4), "wte": nn.Embedding(9, 4)}))
    32
    """
    found = [
        own.num_embeddings - int(getattr(own, "offset", 0))  # OPT and BART keep some rows for padding
        for name, own in module.named_modules()
        if isinstance(own, nn.Embedding) and _TABLE.match(name.rpartition(".")[2])
    ]
    return min(found, default=None)


def check_limits(source: int, target: int) -> None:
    """Raises ConfigError: a limit below one token."""
    limits = {"max_source": source, "max_target": target}
    wrong = [f"{name}: at least 1 token was expected, got {value}" for name, value in limits.items() if value < 1]
    if wrong:
        raise ConfigError(wrong)


def capped(student: Any, *, source: int | None, target: int | None) -> None:
    """Lower a student's limits to what its model has positions for, and say so."""
    for kind, most in (("source", source), ("target", target)):
        asked = getattr(student, f"max_{kind}")
        if most is not None and asked > most:
            why = f"more than {type(student.model).__name__} has positions for"
            print(f"lmdistill: student.max_{kind} is {most:,}, not {asked:,}, which is {why}", file=sys.stderr)
            setattr(student, f"max_{kind}", most)
