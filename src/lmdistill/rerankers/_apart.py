"""What rerankers share that encode question and passage apart: each distinct passage is encoded once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmdistill import render
from lmdistill.rerankers import Ranked
from lmdistill.rerankers._encoded import Encoded, EncodedReranker
from lmdistill.students import Batch
from lmdistill.types import Hit, Item, View

MOST_TOKENS = 1_000_000
"""Passage tokens held encoded at a time while reranking: under 2 GB in half precision at a width of 768."""


class ApartReranker(EncodedReranker):
    """Queries stand in a batch's sources, distinct passages in its `extras`."""

    train_passages = True
    known: dict[str, Tensor] | None = None
    """Of a frozen encoder: each text's hidden states in half precision, so that a text passes through it once."""

    def __init__(self, encoder: Any, tokenizer: Any, settings: Encoded) -> None:
        super().__init__(encoder, tokenizer, settings)
        for name, parameter in encoder.named_parameters():
            if "pooler" in name.split("."):  # nothing reads it, and several processes wait for every gradient
                parameter.requires_grad_(False)

    @abstractmethod
    def read_out(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Vectors of the encoder's hidden states: [R, S, D] of tokens, or [R, 1, D] of whole texts."""

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors of texts, see `read_out`."""
        return self.read_out(self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    @abstractmethod
    def compare(self, queries: Tensor, passages: Tensor, query_mask: Tensor, passage_mask: Tensor) -> Tensor:
        """Scores [B, N] of queries [B, S, D] with passages [B, N, L, D]; masks [B, S] and [B, N, L]."""

    def collate(self, items: Sequence[Item], views: Sequence[Sequence[View]]) -> Batch:
        queries, query_mask = self.padded([own[0].source if own else "" for own in views], self.max_query)
        distinct = spread([[view.target for view in own] for own in views])
        ids, mask = self.padded(distinct.texts or [""], self.max_length)
        extras = {"passage_ids": ids, "passage_mask": mask, "places": distinct.places, "mask": distinct.mask}
        return Batch(items, views, queries, query_mask, {}, extras)

    def forward(self, batch: Batch) -> Ranked:
        extras = batch.extras
        if self.known is not None:
            return self._from_known(batch)
        queries = self.encode(batch.source_ids, batch.source_mask)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.train_passages):
            passages = self.encode(extras["passage_ids"], extras["passage_mask"])
        places = extras["places"]
        scores = self.compare(queries, passages[places], batch.source_mask, extras["passage_mask"][places])
        return Ranked(scores, extras["mask"])

    def _from_known(self, batch: Batch) -> Ranked:
        """As `forward`, from the hidden states of a frozen encoder."""
        distinct = spread([[view.target for view in own] for own in batch.views])
        queries, query_mask = self._hidden([own[0].source if own else "" for own in batch.views], self.max_query)
        hidden, mask = self._hidden(distinct.texts or [""], self.max_length)
        places = batch.extras["places"]
        passages = self.read_out(hidden, mask)[places]
        scores = self.compare(self.read_out(queries, query_mask), passages, query_mask, mask[places])
        return Ranked(scores, batch.extras["mask"])

    def _hidden(self, texts: Sequence[str], limit: int) -> tuple[Tensor, Tensor]:
        """Padded hidden states [R, S, D] of texts and their mask, each text encoded when it is first met."""
        assert self.known is not None
        new = sorted({text for text in texts if f"{limit} {text}" not in self.known}, key=len)
        training = self.encoder.training
        self.encoder.eval()
        with torch.no_grad():
            for start in range(0, len(new), self.settings.batch_size):
                chunk = new[start : start + self.settings.batch_size]
                ids, mask = self.padded(chunk, limit)
                states = self.encoder(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
                rows = zip(chunk, states.last_hidden_state.half().cpu(), mask.sum(-1).tolist(), strict=True)
                self.known |= {f"{limit} {text}": own[:real].clone() for text, own, real in rows}
        self.encoder.train(training)
        kept = [self.known[f"{limit} {text}"] for text in texts]
        padded = torch.nn.utils.rnn.pad_sequence(kept, batch_first=True).to(self.device).float()
        lengths = torch.tensor([len(one) for one in kept], device=self.device)
        return padded, (torch.arange(padded.shape[1], device=self.device)[None, :] < lengths[:, None]).long()

    @torch.no_grad()
    def rerank_all(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        """See `Reranker.rerank_all`; a passage that many queries found is encoded once."""
        training = self.training
        self.eval()
        out: list[list[Hit]] = []
        for part in self._parts(hits):
            texts = [[render.passage_text(hit.passage) for hit in hits[i]] for i in part]
            distinct = spread(texts)
            vectors = self._encoded(distinct.texts, self.max_length)
            asked = self._encoded([queries[i] for i in part], self.max_query)
            for row, i in enumerate(part):
                own = [vectors[int(place)] for place in distinct.places[row, : len(hits[i])]]
                scores = self._scores(asked[row], own) if own else []
                scored = [Hit(hit.passage, score) for hit, score in zip(hits[i], scores, strict=True)]
                out.append(sorted(scored, key=lambda hit: -hit.score)[: max(k, 0)])
        self.train(training)
        return out

    def _parts(self, hits: Sequence[Sequence[Hit]]) -> Iterator[list[int]]:
        """Queries whose distinct passages fit into memory together."""
        part: list[int] = []
        known: set[str] = set()
        tokens = 0
        for i, own in enumerate(hits):
            part.append(i)
            for hit in own:
                if hit.passage.id not in known:
                    known.add(hit.passage.id)
                    tokens += min(self.max_length, 2 + len(hit.passage.text) // 3)
            if tokens > MOST_TOKENS:
                yield part
                part, known, tokens = [], set(), 0
        if part:
            yield part

    def _encoded(self, texts: Sequence[str], limit: int) -> list[Tensor]:
        """The vectors of each text, in half precision, on the CPU; texts of like length go together."""
        out: list[Tensor] = [torch.empty(0)] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), self.settings.batch_size):
            chunk = order[start : start + self.settings.batch_size]
            if self.known is None:
                ids, mask = self.padded([texts[i] for i in chunk], limit)
                vectors = self.encode(ids.to(self.device), mask.to(self.device)).half().cpu()
            else:
                hidden, mask = self._hidden([texts[i] for i in chunk], limit)
                vectors = self.read_out(hidden, mask).half().cpu()
            for i, own, real in zip(chunk, vectors, mask.sum(-1).tolist(), strict=True):
                out[i] = own[:real].clone()
        return out

    def _scores(self, query: Tensor, passages: Sequence[Tensor]) -> list[float]:
        padded = torch.nn.utils.rnn.pad_sequence(list(passages), batch_first=True).to(self.device).float()
        lengths = torch.tensor([len(one) for one in passages], device=self.device)
        mask = torch.arange(padded.shape[1], device=self.device)[None, :] < lengths[:, None]
        asked = query.to(self.device).float()[None]
        ones = torch.ones(asked.shape[:2], device=self.device)
        scores: list[float] = self.compare(asked, padded[None], ones, mask[None])[0].tolist()
        return scores


class Spread(NamedTuple):
    """Distinct texts, and for each of B rows the places of its N texts among them."""

    texts: list[str]
    places: Tensor  # [B, N] int64, 0 where masked
    mask: Tensor  # [B, N] bool


def spread(rows: Sequence[Sequence[str]]) -> Spread:
    """Each distinct text once."""
    known: dict[str, int] = {}
    width = max((len(row) for row in rows), default=0) or 1
    places = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        for j, text in enumerate(row):
            places[i, j] = known.setdefault(text, len(known))
            mask[i, j] = True
    return Spread(list(known), places, mask)
