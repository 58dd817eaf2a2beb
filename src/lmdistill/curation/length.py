"""Keep what is neither too short nor too long."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from lmdistill.curation import Curation
from lmdistill.errors import ConfigError
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Rationale


@dataclass(frozen=True)
class Length(Curation):
    """Keep rationales whose length lies between two bounds, both included.

    Data:      needs rationales
    Differs:   (no paper) the authors of DSS train on empty rationales; `low=1` is why this step exists
    """

    low: int = 1
    """The least length."""
    high: int | None = None
    """The greatest length; none where left out."""
    unit: Literal["words", "characters"] = "words"
    """What is counted: runs between white space, or characters."""

    def __post_init__(self) -> None:
        if self.low < 0 or (self.high is not None and self.high < self.low):
            raise ConfigError(f"low, high: 0 <= low <= high was expected, got {self.low} and {self.high}")

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        kept: list[Rationale] = []
        dropped: list[tuple[Rationale, str]] = []
        for one in annotation.rationales:
            size = len(one.text.split()) if self.unit == "words" else len(one.text.strip())
            if size < self.low:
                dropped.append((one, "too short"))
            elif self.high is not None and size > self.high:
                dropped.append((one, "too long"))
            else:
                kept.append(one)
        return annotation.with_rejected(kept, dropped)
