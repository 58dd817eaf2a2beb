"""Keep what the majority of the teacher's samples says."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from lmdistill.curation import Curation
from lmdistill.errors import ConfigError
from lmdistill.tasks import Task
from lmdistill.types import Annotation, vote


@dataclass(frozen=True)
class Agree(Curation):
    """Keep rationales whose answer is the majority of the rationales still in use (self-consistency); needs no label.

    Paper:     QCRD, arXiv 2405.13014: the majority's rationales are the positives, the rest negatives
    Data:      needs several rationales per input, each with its answer
    Differs:   the vote is over what earlier steps left in use; `share` is ours
    Relations: Agree(share=0) with one rationale per input keeps it
    """

    share: float = 0.0
    """The part of the votes that the majority must have; below it nothing is kept."""
    ties: Literal["first", "drop"] = "first"
    """Of a tie, keep the answer sampled first, or nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share: a part between 0 and 1 was expected, got {self.share}")

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        inside = sorted(annotation.rationales, key=lambda one: one.sample)
        answers = [None if one.answer is None else task.canonical(one.answer) for one in inside]
        outcome = vote(answers)
        votes = sum(outcome.counts.values())
        if outcome.tied and self.ties == "drop":
            return annotation.with_rejected((), [(one, "tied vote") for one in inside])
        if outcome.answer is not None and outcome.counts[outcome.answer] < self.share * votes:
            return annotation.with_rejected((), [(one, "no clear majority") for one in inside])
        winner = {
            id(one) for one, said in zip(inside, answers, strict=True) if said is not None and said == outcome.answer
        }
        kept = [one for one in annotation.rationales if id(one) in winner]
        dropped = [
            (one, "no answer" if one.answer is None else "outvoted")
            for one in annotation.rationales
            if id(one) not in winner
        ]
        return annotation.with_rejected(kept, dropped)
