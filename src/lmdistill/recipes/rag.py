"""RAG: KARD's student with a trained dual encoder instead of BM25 and a reranker."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from lmdistill.config import component
from lmdistill.errors import ConfigError
from lmdistill.recipes._grounding import Grounding, Reranking, trained_on
from lmdistill.recipes.kard import Kard
from lmdistill.registry import name_of
from lmdistill.rerankers import RerankerSettings
from lmdistill.rerankers.dual_encoder import DualEncoder
from lmdistill.retrievers.dense import Dense


@dataclass(frozen=True)
class Rag(Kard):
    """Train a dual encoder to find what the rationales find, index the base with it, and train the student on that.

    Training items and questions both read what the question finds, as retrieval-augmented generation does.
    `grounding.retriever` finds the candidates that the `encoder` (a dual encoder) is trained on.

    Paper:    "RAG + reasoning distillation" (trained DPR), KARD, arXiv 2305.18395, section 4
    Differs:  from RAG (arXiv 2005.11401): the encoder is trained before the student, on the rationales' rankings, not
              through the student's loss; the base is indexed once, after it
    """

    grounding: Grounding = field(default_factory=lambda: Grounding(passages=1, silver="question"))
    encoder: RerankerSettings = component("rerankers", "dual_encoder")
    encoding: Reranking = field(default_factory=Reranking)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.encoder, DualEncoder):
            raise ConfigError(
                f"encoder: {name_of(self.encoder)!r} reads question and passage together or token by token; only a "
                "'dual_encoder' gives passages vectors of their own, by which a base can be searched"
            )

    def grounder(self, out: Path) -> Grounding:
        """The grounding with the trained encoder as its retriever."""
        return replace(self.grounding, retriever=Dense(model=str(self._encoder(out)), probes=0), reranker=None)

    def _encoder(self, out: Path) -> Path:
        folder = out / "encoder"
        trained_on(self.items(out), self.grounding, self.task, self.encoder, self.encoding, out, folder)
        return folder / "student"
