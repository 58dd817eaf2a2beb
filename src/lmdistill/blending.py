"""What the retriever and the reranker say of a passage, together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmdistill.errors import TrainingError
from lmdistill.types import Hit

ROUNDING = 1e-5
"""Scores that differ by less than this share of their size say nothing (they come from float32, or from less)."""


@dataclass(frozen=True)
class Blended:
    """A reranker beside whose scores the retriever's count too: a reranker that learnt little forgets less of BM25.

    Paper:    Wang, Zhuang and Zuccon 2021 (BERT-based dense retrievers require interpolation with BM25)
    Equation: score(d) = (1 - weight) z(reranker's) + weight z(retriever's), z over one query's candidates
    Differs:  scores are standardised for each query, where the paper interpolates raw ones
    """

    reranker: Any
    weight: float

    def rerank_all(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        """See `lmdistill.rerankers.Reranker`."""
        ranked = self.reranker.rerank_all(queries, hits, max(map(len, hits), default=0))
        return [self._together(own, new)[:k] for own, new in zip(hits, ranked, strict=True)]

    def rerank(self, query: str, hits: Sequence[Hit], k: int) -> list[Hit]:
        """See `lmdistill.rerankers.Reranker`."""
        return self.rerank_all([query], [hits], k)[0]

    def _together(self, found: Sequence[Hit], ranked: Sequence[Hit]) -> list[Hit]:
        before = dict(zip((hit.passage.id for hit in found), standardised(found), strict=True))
        after = dict(zip((hit.passage.id for hit in ranked), standardised(ranked), strict=True))
        scores = [(1 - self.weight) * after[hit.passage.id] + self.weight * before[hit.passage.id] for hit in found]
        order = sorted(range(len(found)), key=lambda place: (-scores[place], place))
        return [replace(found[place], score=scores[place]) for place in order]


def standardised(hits: Sequence[Hit]) -> list[float]:
    """Scores with mean 0 and standard deviation 1; all 0 where they differ by no more than rounding.

    Raises:
        TrainingError: a score that is not finite.
    """
    scores = [float(hit.score) for hit in hits]
    if not all(map(math.isfinite, scores)):
        raise TrainingError(
            "the scores of a reranker are not finite, so it has diverged: train it again with a lower "
            "grounding.reranking.train.learning_rate, or set grounding.retriever_weight=0 to look at its order"
        )
    mean = statistics.fmean(scores) if scores else 0.0
    spread = statistics.pstdev(scores) if scores else 0.0
    if spread <= ROUNDING * max(map(abs, scores), default=0.0):
        return [0.0] * len(scores)
    return [(score - mean) / spread for score in scores]


def blended(reranker: Any, weight: float) -> Any:
    """The reranker as it is where the retriever's scores count nothing, or where there is none."""
    return reranker if reranker is None or not weight else Blended(reranker, weight)
