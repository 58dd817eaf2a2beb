"""Several retrievers as one: a passage counts for how high each of them ranks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmdistill.config import component
from lmdistill.errors import ConfigError
from lmdistill.knowledge import KnowledgeBase
from lmdistill.retrievers import Retriever, RetrieverSettings


@dataclass(frozen=True)
class Hybrid(RetrieverSettings):
    """Reciprocal rank fusion of other retrievers' rankings.

    Paper:    Cormack, Clarke and Buettcher 2009
    Equation: score(d) = sum over parts of 1 / (constant + rank of d)
    Differs:  `depth` passages of each part are fused (at least as many as are asked for); a passage that a part does
              not find counts nothing there. `score` of named passages ranks them among themselves
    """

    parts: tuple[RetrieverSettings, ...] = component("retrievers", ("bm25", "dense"))
    constant: float = 60.0
    depth: int = 100

    def __post_init__(self) -> None:
        if not self.parts or self.constant <= 0:
            raise ConfigError("hybrid: at least one of `parts`, and a constant above 0, were expected")

    def open(self, base: KnowledgeBase, folder: Path | None = None) -> OpenHybrid:
        """See `RetrieverSettings.open`."""
        return OpenHybrid(base, self, [part.open(base, folder) for part in self.parts])


class OpenHybrid(Retriever):
    """The open parts and how they are fused."""

    def __init__(self, base: KnowledgeBase, settings: Hybrid, parts: Sequence[Retriever]) -> None:
        self._base, self.settings, self.parts = base, settings, parts

    @property
    def base(self) -> KnowledgeBase:
        return self._base

    def rank(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        rankings = [part.rank(queries, max(k, self.settings.depth) if k else 0) for part in self.parts]
        out = []
        for own in zip(*rankings, strict=True):
            scores: dict[int, float] = {}
            for ranking in own:
                for place, (row, _) in enumerate(ranking, 1):
                    scores[row] = scores.get(row, 0.0) + 1 / (self.settings.constant + place)
            out.append(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k])
        return out

    def score_rows(self, query: str, rows: Sequence[int]) -> list[float]:
        scores = [0.0] * len(rows)
        for part in self.parts:
            own = part.score_rows(query, rows)
            order = sorted(range(len(rows)), key=lambda i: (-own[i], rows[i]))
            for place, i in enumerate(order, 1):
                if own[i] > 0:
                    scores[i] += 1 / (self.settings.constant + place)
        return scores
