"""A retriever: passages of a knowledge base for a query, best first, and scores of passages that are named.

A kind is a frozen dataclass of settings; `open(base, folder)` gives the retriever over a knowledge base, with its index
written to (or memory-mapped from) `folder`, or held in memory where there is none. `search` never gives a passage that
shares nothing with the query: a query of stop words only has an empty ranking. `score` needs no ranking: training a
reranker asks how well a *rationale* finds passages that the *question* found.

To add one: a file `retrievers/NAME.py` with a frozen dataclass `Name(RetrieverSettings)`; the contract test finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from lmdistill.knowledge import KnowledgeBase
from lmdistill.types import Hit


class Retriever(ABC):
    """The contract of an open retriever; see the module's docstring."""

    @property
    @abstractmethod
    def base(self) -> KnowledgeBase:
        """What is searched."""

    @abstractmethod
    def rank(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """For each query at most `k` rows of the base with their scores, best first; ties in the base's order."""

    @abstractmethod
    def score_rows(self, query: str, rows: Sequence[int]) -> list[float]:
        """The scores of rows of the base for a query, in their order, found or not."""

    def search(self, query: str, k: int) -> list[Hit]:
        """At most `k` passages, best first; none where nothing of the query is in the base."""
        return self.search_all([query], k)[0]

    def search_all(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """`search` for many queries at once."""
        return [
            [Hit(self.base.passage(row), score) for row, score in ranking] for ranking in self.rank(queries, max(k, 0))
        ]

    def score(self, query: str, passage_ids: Sequence[str]) -> list[float]:
        """The scores of passages for a query, in the order of the ids.

        Raises:
            DataError: an id that the base does not have.
        """
        return self.score_rows(query, [self.base.row(passage_id) for passage_id in passage_ids])


class RetrieverSettings(ABC):
    """The contract of a kind's settings."""

    @abstractmethod
    def open(self, base: KnowledgeBase, folder: Path | None = None) -> Retriever:
        """The retriever over a base.

        Args:
            folder: keeps this kind's indexes, one below it for each digest of settings; a finished one is only opened.

        Raises:
            StoreError: an index file is cut short, damaged, or of another base.
            MissingExtra: an optional package is not installed.
        """
