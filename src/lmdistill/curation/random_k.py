"""Keep a few, at random."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lmdistill.curation import Curation
from lmdistill.errors import ConfigError
from lmdistill.tasks import Task
from lmdistill.types import Annotation


@dataclass(frozen=True)
class RandomK(Curation):
    """Keep k rationales per input, drawn without replacement.

    Paper:     SCoTD, arXiv 2306.14050, down-sampling study: the baseline of the other selections (k = 5 of 30)
    Data:      needs rationales; an input with k or fewer keeps all
    Differs:   the draw depends on the input's id and on the seed given to `curate` only, so a resumed run repeats it;
               recipes give none, so that the students of all seeds learn from the same rationales
    """

    k: int = 5
    """How many rationales per input stay."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k: at least 1 was expected, got {self.k}")

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        every = annotation.rationales
        drawn = set(rng.sample(range(len(every)), min(self.k, len(every))))
        kept = [one for index, one in enumerate(every) if index in drawn]
        return annotation.with_rejected(kept, [(one, "not drawn") for i, one in enumerate(every) if i not in drawn])
