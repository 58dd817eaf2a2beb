"""Dual encoder: one vector for the question, one for each passage; passages can be indexed beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lmdistill.rerankers._apart import ApartReranker
from lmdistill.rerankers._encoded import Encoded


@dataclass(frozen=True)
class DualEncoder(Encoded):
    """DPR-like scoring by the cosine of mean token vectors.

    Paper:     the retriever of the RAG baseline in KARD, arXiv 2305.18395, section 4 (DPR, arXiv 2004.04906)
    Equation:  f(d, q) = scale * cos(mean h(q), mean h(d))
    Differs:   from DPR: one encoder for both sides, cosine instead of dot product. `scale` brings cosines to the range
               of the objective's temperatures

    The folder that it saves opens as a sentence-transformers model: retriever `dense` searches with it.
    """

    scale: float = 2000.0

    def open(self, texts: Iterable[str] = (), seed: int = 0) -> DualEncoderReranker:
        """See `RerankerSettings.open`."""
        from transformers import AutoModel

        return DualEncoderReranker(*self.loaded(AutoModel, texts, seed), self)


class DualEncoderReranker(ApartReranker):
    """The encoder."""

    settings: DualEncoder

    def read_out(self, hidden: Tensor, mask: Tensor) -> Tensor:
        kept = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=-1).unsqueeze(1)

    def compare(self, queries: Tensor, passages: Tensor, query_mask: Tensor, passage_mask: Tensor) -> Tensor:
        return self.settings.scale * torch.einsum("bd,bnd->bn", queries[:, 0], passages[:, :, 0])
