"""Keep more rationales where the input allows more."""

from __future__ import annotations

import bisect
import dataclasses
import random
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from lmdistill.curation import Curation
from lmdistill.curation._words import shingles, words
from lmdistill.errors import ConfigError
from lmdistill.tasks import Task
from lmdistill.types import Annotation


@dataclass(frozen=True)
class OpenEnded(Curation):
    """Sort inputs by how varied their rationales are (unique bigrams) and keep more of the varied ones.

    Paper:     SCoTD, arXiv 2306.14050, down-sampling study ('open-endedness': 1, 3, 5, 7, 9 rationales by quintile)
    Equation:  openness = distinct bigrams / all bigrams, over the input's rationales in use
    Data:      needs several rationales per input, as many for each: the measure falls with their number
    Differs:   the paper says only 'unique bigrams frequency'; the ratio is our reading
    Relations: OpenEnded(keep=(k, k, k, k, k)) is RandomK(k)
    """

    keep: tuple[int, ...] = (1, 3, 5, 7, 9)
    """How many stay in each bin, from the least varied inputs to the most; as many bins as numbers."""
    bounds: tuple[float, ...] = ()
    """The openness at which each further bin begins; measured on the corpus where left empty."""

    def __post_init__(self) -> None:
        if not self.keep or min(self.keep) < 0:
            raise ConfigError(f"keep: one number of rationales for each bin was expected, got {list(self.keep)}")
        if self.bounds and (len(self.bounds) != len(self.keep) - 1 or list(self.bounds) != sorted(self.bounds)):
            raise ConfigError(f"bounds: {len(self.keep) - 1} rising numbers were expected, got {list(self.bounds)}")

    def survey(self, annotations: Iterable[Annotation], task: Task) -> OpenEnded:
        if self.bounds or len(self.keep) == 1:
            return self
        values = sorted(array("d", (openness(one) for one in annotations if one.rationales)))
        if not values:
            return self
        bins = len(self.keep)
        return dataclasses.replace(self, bounds=tuple(values[len(values) * cut // bins] for cut in range(1, bins)))

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        every = annotation.rationales
        k = self.keep[bisect.bisect_right(self.bounds, openness(annotation))]
        drawn = set(rng.sample(range(len(every)), min(k, len(every))))
        kept = [one for index, one in enumerate(every) if index in drawn]
        return annotation.with_rejected(kept, [(one, "not drawn") for i, one in enumerate(every) if i not in drawn])


def openness(annotation: Annotation) -> float:
    """Distinct bigrams over all bigrams of the rationales in use; 0 where there are none.

    >>> from lmdistill.types import Annotation, Example, Rationale
    >>> openness(Annotation(Example("1", "q"), (Rationale("a b c"), Rationale("a b d"))))
    0.75
    """
    bigrams = [pair for one in annotation.rationales for pair in shingles(words(one.text), 2)]
    return len(set(bigrams)) / len(bigrams) if bigrams else 0.0
