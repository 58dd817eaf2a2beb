"""Keep rationales that differ from one another."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from lmdistill.curation import Curation
from lmdistill.errors import ConfigError
from lmdistill.tasks import Task
from lmdistill.types import Annotation


@dataclass(frozen=True)
class Diverse(Curation):
    """Cluster an input's rationales into k groups by meaning and keep one of each.

    Paper:     SCoTD, arXiv 2306.14050, down-sampling study ('diversity': 5 clusters of S-BERT embeddings, k = 5 of 30)
    Data:      needs more than k rationales to choose among; an input with k or fewer keeps all
    Differs:   the paper does not say how a cluster's one is drawn: `pick`. Without `encoder` the vectors are TF-IDF
               over character n-grams, which need no model: they see wording, not meaning
    """

    k: int = 5
    """How many clusters, and so how many rationales stay."""
    encoder: str | None = None
    """A sentence-transformers model, by path or Hub id; none: character n-grams."""
    pick: Literal["random", "central", "first"] = "random"
    """Which one of a cluster stays: any, the one nearest to its middle, or the one sampled first."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k: at least 1 was expected, got {self.k}")

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        from lmdistill.curation._vectors import clusters, embed

        every = annotation.rationales
        if len(every) <= self.k:
            return annotation
        vectors = embed([one.text for one in every], self.encoder, "curation step 'diverse'")
        labels = clusters(vectors, self.k)
        chosen = set()
        for cluster in range(max(labels) + 1):
            rows = [row for row, label in enumerate(labels) if label == cluster]
            if self.pick == "random":
                chosen.add(rng.choice(rows))
            elif self.pick == "first":
                chosen.add(min(rows, key=lambda row: (every[row].sample, row)))
            else:
                middle = vectors[rows].mean(axis=0)
                chosen.add(max(rows, key=lambda row: (round(float(vectors[row] @ middle), 9), -row)))
        kept = [one for row, one in enumerate(every) if row in chosen]
        return annotation.with_rejected(kept, [(one, "same cluster") for i, one in enumerate(every) if i not in chosen])
