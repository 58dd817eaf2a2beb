"""The teacher's rationale in the student's input, at test time too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lmdistill.objectives._labels import LabelSource
from lmdistill.objectives.rationale_as_input import RationaleAsInput as Objective
from lmdistill.recipes._road import Road
from lmdistill.types import Annotation


@dataclass(frozen=True)
class RationaleAsInput(Road):
    """Train and test on inputs that carry the teacher's rationale: good scores that need the teacher for ever.

    Paper:    the design that Distilling Step-by-Step argues against, arXiv 2305.02301, section 3.2
    Differs:  see the objective of the same name
    """

    labels: LabelSource = "gold"

    asks_at_test: ClassVar[bool] = True

    def objective(self) -> Objective:
        return Objective(labels=self.labels)

    def questions(self, split: str, limit: int | None, out: Path) -> Sequence[Annotation]:
        """The teacher is asked about these too; that is this design's price."""
        examples = self.task.examples(split)[: limit or None]
        return self.annotated(examples, out / f"annotations-{split}") if examples else []
