"""Late interaction: question and passage are encoded apart and compared token by token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmdistill.errors import ConfigError
from lmdistill.losses.ranking import max_similarity
from lmdistill.rerankers._apart import ApartReranker
from lmdistill.rerankers._encoded import Encoded


@dataclass(frozen=True)
class LateInteraction(Encoded):
    """ColBERT-like scoring by the best match of every question token.

    Paper:     KARD, arXiv 2305.18395, section 3.3 and the released code
    Equation:  f(d, q) = sum over t in q of max over u in d of <W h_t, W h_u>
    Differs:   from the authors' code: their passages pass without gradient through the encoder (`train_passages`
               false does that); W is square by default and starts as the identity, so that training starts at the
               encoder's own similarities. The paper's encoders are michiyasunaga/LinkBERT-base and BioLinkBERT-base
               with `lora_rank` 16

    `projection` is the width of W's output (0: the encoder's). `frozen` trains W alone: each text then passes through
    the encoder once, whatever the number of steps, which makes training a matter of minutes on a processor.
    """

    projection: int = 0
    train_passages: bool = True
    frozen: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projection < 0:
            raise ConfigError(f"reranker.projection: {self.projection} is below 0")
        if self.frozen and self.lora_rank:
            raise ConfigError(
                f"reranker.frozen: with lora_rank {self.lora_rank} the encoder is to be trained; set one of the two"
            )

    def open(self, texts: Iterable[str] = (), seed: int = 0) -> LateInteractionReranker:
        """See `RerankerSettings.open`."""
        from transformers import AutoModel

        encoder, tokenizer = self.loaded(AutoModel, texts, seed)
        reranker = LateInteractionReranker(encoder, tokenizer, self, seed)
        if self.model is not None:
            reranker.read_beside(Path(self.model))
        return reranker


class LateInteractionReranker(ApartReranker):
    """The encoder with the projection W."""

    settings: LateInteraction

    def __init__(self, encoder: Any, tokenizer: Any, settings: LateInteraction, seed: int) -> None:
        super().__init__(encoder, tokenizer, settings)
        self.train_passages = settings.train_passages
        if settings.frozen:
            self.known = {}
            for parameter in encoder.parameters():
                parameter.requires_grad_(False)
        width = int(encoder.config.hidden_size)
        self.project = nn.Linear(width, settings.projection or width, bias=False)
        with torch.no_grad():
            if settings.projection in (0, width):
                nn.init.eye_(self.project.weight)
            else:
                generator = torch.Generator().manual_seed(seed)
                nn.init.orthogonal_(self.project.weight, generator=generator)

    def read_out(self, hidden: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.project(hidden)
        return out

    def compare(self, queries: Tensor, passages: Tensor, query_mask: Tensor, passage_mask: Tensor) -> Tensor:
        return max_similarity(queries, passages, query_mask, passage_mask)
