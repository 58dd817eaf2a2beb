"""RAG: KARD's student with a trained dual encoder instead of BM25 and a reranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmdistill.config import component
from lmdistill.ground import candidates
from lmdistill.recipes._grounding import Grounding, Reranking, vocabulary_of
from lmdistill.recipes.kard import Kard
from lmdistill.rerankers import RerankerSettings
from lmdistill.retrievers.dense import Dense
from lmdistill.store import read_manifest
from lmdistill.train import train
from lmdistill.types import Annotation


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

    def grounder(self, out: Path) -> Grounding:
        """The grounding with the trained encoder as its retriever."""
        return replace(self.grounding, retriever=Dense(model=str(self._encoder(out)), probes=0), reranker=None)

    def _encoder(self, out: Path) -> Path:
        folder = out / "encoder"
        manifest = read_manifest(folder)
        if manifest is not None and manifest.status == "complete":
            return folder / "student"
        annotated: Sequence[Annotation] = self.items(out)
        retriever = self.grounding.opened(self.task, out)
        pairs = candidates(
            annotated,
            retriever,
            from_rationale=self.encoding.from_rationale,
            from_question=self.encoding.from_question,
            queries=self.grounding.queries,
            folder=out / "candidates",
        )
        encoder = self.encoder.open(vocabulary_of(pairs, retriever.base), self.encoding.seed)
        objective, settings = self.encoding.objective, self.encoding.train
        return train(encoder, objective, pairs, settings=settings, folder=folder, seed=self.encoding.seed).folder
