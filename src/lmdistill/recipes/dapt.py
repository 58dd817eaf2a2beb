"""Domain-adaptive pretraining: the student reads a corpus before it learns the task; no passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdistill.config import component
from lmdistill.errors import ConfigError
from lmdistill.knowledge import open_base
from lmdistill.objectives import Objective
from lmdistill.objectives.span_corruption import SpanCorruption
from lmdistill.recipes._road import vocabulary_texts
from lmdistill.recipes.rd import Rd
from lmdistill.render import passage_text
from lmdistill.students.causal import Causal
from lmdistill.train import Trained, TrainSettings, train
from lmdistill.types import Document


@dataclass(frozen=True)
class Dapt(Rd):
    """Continue the student's pretraining on a corpus, then train it as reasoning distillation does.

    `corpus` is a folder that `lmdistill index` made (PubMed abstracts, MedWiki); without it the task's own passages are
    read. `pretraining` is the corpus's objective: span_corruption for encoder-decoders, causal_lm for decoders.

    Paper:    "DAPT" in KARD, arXiv 2305.18395, section 5: it does not replace retrieval (about 31 against 38)
    Differs:  the paper names no steps or rate for it; ours are `pretrain`
    """

    corpus: Path | None = None
    pretraining: Objective = component("objectives", "span_corruption")
    pretrain: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=1, batch_size=64, learning_rate=1e-4, warmup=0.05)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if "document" not in self.pretraining.needs:
            raise ConfigError("pretraining: an objective for plain text was expected, 'span_corruption' or 'causal_lm'")
        if isinstance(self.pretraining, SpanCorruption) and isinstance(self.student, Causal):
            raise ConfigError("pretraining: a decoder cannot fill in the spans of a source; set 'causal_lm'")

    def documents(self) -> list[Document]:
        """The corpus."""
        base = open_base(self.corpus, () if self.corpus else self.task.passages())
        return [Document(passage.id, passage_text(passage)) for passage in base]

    def trained(self, objective: Objective, items: Sequence[Any], seed: int, folder: Path, out: Path) -> Trained:
        documents = self.documents()
        texts = [*vocabulary_texts(objective, items), *vocabulary_texts(self.pretraining, documents)]
        student = self.student.open(texts, seed)
        read = train(student, self.pretraining, documents, settings=self.pretrain, folder=folder / "corpus", seed=seed)
        return train(
            read.student,
            objective,
            items,
            settings=self.train,
            folder=folder / "task",
            validate=self.validation(objective, out),
            seed=seed,
            card=self.card(),
        )
