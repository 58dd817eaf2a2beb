"""Oracle: KARD's student with the silver passages at test time, an upper bound for any retriever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmdistill.errors import ConfigError
from lmdistill.recipes._grounding import Grounding
from lmdistill.recipes.kard import Kard
from lmdistill.types import Annotation


@dataclass(frozen=True)
class Oracle(Kard):
    """Train as KARD does, and read at test time what the teacher's rationale for the test question finds.

    `grounding.oracle` 'gold' reads the passages that the data marks as relevant instead.

    Paper:    "oracle" with silver passages, KARD, arXiv 2305.18395, table 1
    Differs:  none known; it is no method, the test answers are in what it reads
    """

    grounding: Grounding = field(default_factory=lambda: Grounding(passages=1, oracle="rationale"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grounding.oracle == "none":
            raise ConfigError(
                "grounding.oracle: 'rationale' or 'gold' was expected; without one it is the recipe 'kard'"
            )

    def questions(self, split: str, limit: int | None, out: Path) -> Sequence[Annotation]:
        plain = super().questions(split, limit, out)
        if self.grounding.oracle == "gold" or not plain:
            return plain
        return self.annotated([one.example for one in plain], out / f"annotations-{split}-{len(plain)}")
