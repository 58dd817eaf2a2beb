"""What the retriever and the reranker say of a passage, together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmdistill.types import Hit


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
    """Scores with mean 0 and standard deviation 1; all 0 where they do not differ."""
    scores = [hit.score for hit in hits]
    if len(set(scores)) < 2:
        return [0.0] * len(scores)
    mean, spread = statistics.fmean(scores), statistics.pstdev(scores)
    return [(score - mean) / spread for score in scores]


def blended(reranker: Any, weight: float) -> Any:
    """The reranker as it is where the retriever's scores count nothing, or where there is none."""
    return reranker if reranker is None or not weight else Blended(reranker, weight)
