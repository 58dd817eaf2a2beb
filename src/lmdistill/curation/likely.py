"""Keep what the teacher itself found most likely."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from lmdistill.curation import Curation
from lmdistill.errors import ConfigError, DataError
from lmdistill.tasks import Task
from lmdistill.types import Annotation


@dataclass(frozen=True)
class Likely(Curation):
    """Keep the k rationales per input with the highest teacher log-probability per token.

    Paper:     SCoTD, arXiv 2306.14050, down-sampling study ('teacher likelihood', k = 5 of 30)
    Data:      needs the teacher's log-probabilities; a rationale without one is dropped
    Differs:   none
    """

    k: int = 5
    """How many rationales per input stay."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k: at least 1 was expected, got {self.k}")

    def survey(self, annotations: Iterable[Annotation], task: Task) -> Likely:
        seen = 0
        for annotation in annotations:
            seen += len(annotation.rationales)
            if any(one.logprob is not None for one in annotation.rationales):
                return self
        if seen:
            raise DataError(
                f"curation step 'likely' needs the teacher's log-probabilities; none of {seen:,} rationales has one. "
                "Ask a teacher that returns them (its setting `logprobs`), or use the step 'random_k'"
            )
        return self

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        scored = [one for one in annotation.rationales if one.logprob is not None]
        best = sorted(scored, key=lambda one: (-(one.logprob or 0.0), one.sample))[: self.k]
        chosen = {id(one) for one in best}
        dropped = [
            (one, "no log-probability" if one.logprob is None else "less likely")
            for one in annotation.rationales
            if id(one) not in chosen
        ]
        return annotation.with_rejected([one for one in annotation.rationales if id(one) in chosen], dropped)
