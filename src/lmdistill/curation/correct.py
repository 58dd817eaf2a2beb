"""Keep what led to the gold answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from lmdistill.curation import Curation
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Rationale


@dataclass(frozen=True)
class Correct(Curation):
    """Keep rationales whose answer is the gold one.

    Paper:     SCoTD, arXiv 2306.14050, supervised setting; the first filter of every later system
    Data:      needs a gold label and the answer that each rationale led to
    Differs:   equality is the task's own (`is_correct`), not string equality
    Relations: with one rationale per input it is the usual rejection sampling
    """

    unlabelled: Literal["keep", "drop"] = "keep"
    """What happens to rationales of an example that has no gold label."""

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        example = annotation.example
        if example.label is None:
            if self.unlabelled == "keep":
                return annotation
            return annotation.with_rejected((), [(one, "no gold label") for one in annotation.rationales])
        kept: list[Rationale] = []
        dropped: list[tuple[Rationale, str]] = []
        for one in annotation.rationales:
            if task.is_correct(example, one.answer):
                kept.append(one)
            else:
                dropped.append((one, "no answer" if one.answer is None else "wrong answer"))
        return annotation.with_rejected(kept, dropped)
