"""Causal language modelling: continued pretraining on plain text, word by word."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.errors import ConfigError
from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced
from lmdistill.students import Batch
from lmdistill.types import Document, View


@dataclass(frozen=True)
class CausalLM(Objective):
    """Learn to go on with a text.

    Paper:     domain-adaptive pretraining, arXiv 2004.10964, as in KARD, arXiv 2305.18395, section 5
    Equation:  L = -sum over t of log p(w_t | w_<t)
    Data:      documents
    Shapes:    role 'text', one row per document
    Differs:   `prefix` above 0 gives that share of the words as the source (a random share up to it, anew each epoch):
               the form in which an encoder-decoder can be trained on plain text too
    Relations: prefix 0 on a decoder is plain language modelling

    >>> CausalLM().views(Document("d", "Mice eat cheese."), 0, random.Random(0))
    [View(source='', target='Mice eat cheese.', role='text', group=0, weight=1.0)]
    """

    prefix: float = 0.0
    reduction: Reduction = "token"

    needs: ClassVar[frozenset[str]] = frozenset({"document"})

    def __post_init__(self) -> None:
        if not 0 <= self.prefix < 1:
            raise ConfigError(f"causal_lm.prefix: {self.prefix} is not in [0, 1)")

    def views(self, item: Document, epoch: int, rng: random.Random) -> Sequence[View]:
        words = item.text.split()
        if not words:
            return []
        if not self.prefix:
            return [View("", item.text.strip(), "text")]
        known = min(int(len(words) * rng.uniform(0, self.prefix)), len(words) - 1)
        return [View(" ".join(words[:known]), " ".join(words[known:]), "text")]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"text": count_of(batch, "text", self.reduction)}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        return {"text": reduced(student(batch)["text"], batch, "text", self.reduction)}
