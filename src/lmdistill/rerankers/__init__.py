"""A reranker: reads a question with each of the passages that a retriever found, and puts the best first.

A kind is a frozen dataclass of settings; `open(texts)` gives a torch module that meets `lmdistill.students.Trainable`,
so the one loop trains it on `Candidates` (objective `rationale_reranking`). Its `forward` scores the candidates of each
item of a batch together; `rerank` needs no training loop. It saves itself as a transformers folder.

To add one: a file `rerankers/NAME.py` with a frozen dataclass `Name(RerankerSettings)`; the contract test finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lmdistill.students import Batch, Trainable
from lmdistill.types import Hit

if TYPE_CHECKING:
    from torch import Tensor


class Ranked(NamedTuple):
    """Scores of the candidates of B queries; places beyond a query's own candidates are masked out."""

    scores: Tensor  # [B, N] float
    mask: Tensor  # [B, N] bool, True = a candidate


class Reranker(Trainable, Protocol):
    """The contract; see the module's docstring. Concrete rerankers are `torch.nn.Module`s."""

    def forward(self, batch: Batch) -> Ranked:
        """Score the candidates (the views) of each item of a batch."""
        ...

    def rerank(self, query: str, hits: Sequence[Hit], k: int) -> list[Hit]:
        """The `k` best of the hits with the reranker's scores, best first; ties stay in the given order."""
        ...

    def rerank_all(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        """`rerank` for many queries at once."""
        ...


class RerankerSettings(ABC):
    """The contract of a kind's settings."""

    @abstractmethod
    def check(self) -> None:
        """Refuse, before anything is paid or trained, what `open` would refuse of the model or preset.

        Raises:
            StoreError, ConfigError, MissingExtra: see `open`.
        """

    @abstractmethod
    def open(self, texts: Iterable[str] = (), seed: int = 0) -> Any:
        """A `Reranker` on the CPU, its encoder loaded, or drawn from `seed` for a from-scratch preset.

        Args:
            texts: what the vocabulary of a from-scratch encoder is made from (questions and passages of training).

        Raises:
            StoreError: a folder or Hub id that cannot be opened. ConfigError: a preset without texts.
            MissingExtra: LoRA is asked for and its package is not installed.
        """
