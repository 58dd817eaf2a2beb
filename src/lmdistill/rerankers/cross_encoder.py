"""Cross-encoder: question and passage are read together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from lmdistill.rerankers import Ranked
from lmdistill.rerankers._encoded import MOST_CHARACTERS, Encoded, EncodedReranker
from lmdistill.students import Batch
from lmdistill.types import Item, View


@dataclass(frozen=True)
class CrossEncoder(Encoded):
    """A classifier with one output over 'question [SEP] passage'.

    Paper:     the reranker of KARD, arXiv 2305.18395, with full interaction instead of late interaction
    Equation:  f(d, q) = scale * logit([CLS] q [SEP] d [SEP])
    Differs:   slower and usually better than late interaction. `scale` brings logits to the range of the objective's
               temperatures (500 to 100), so that both rerankers are trained with the same ones

    The folder that it saves opens as sentence-transformers' CrossEncoder too.
    """

    scale: float = 100.0

    def open(self, texts: Iterable[str] = (), seed: int = 0) -> CrossEncoderReranker:
        """See `RerankerSettings.open`."""
        from transformers import AutoModelForSequenceClassification

        return CrossEncoderReranker(*self.loaded(AutoModelForSequenceClassification, texts, seed, num_labels=1), self)


class CrossEncoderReranker(EncodedReranker):
    """The classifier."""

    settings: CrossEncoder

    def collate(self, items: Sequence[Item], views: Sequence[Sequence[View]]) -> Batch:
        width = max((len(own) for own in views), default=0) or 1
        mask = torch.zeros((len(views), width), dtype=torch.bool)
        for row, own in enumerate(views):
            mask[row, : len(own)] = True
        queries = [self._shortened(view.source) for own in views for view in own]
        passages = [view.target[:MOST_CHARACTERS] for own in views for view in own]
        found = self.tokenizer(
            queries or [""],
            passages or [""],
            truncation="only_second" if queries else True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        extras = {name: found[name] for name in ("token_type_ids",) if name in found}
        return Batch(items, views, found["input_ids"], found["attention_mask"], {}, {**extras, "mask": mask})

    def _shortened(self, query: str) -> str:
        """A query within its limit of tokens, as text."""
        if self._length(query) <= self.max_query:
            return query
        ids = self.tokenizer(query[:MOST_CHARACTERS], add_special_tokens=False, verbose=False)["input_ids"][
            : self.max_query - 2
        ]
        return str(self.tokenizer.decode(ids))

    def forward(self, batch: Batch) -> Ranked:
        mask = batch.extras["mask"]
        kinds = {name: tensor for name, tensor in batch.extras.items() if name != "mask"}
        logits = self.encoder(input_ids=batch.source_ids, attention_mask=batch.source_mask, **kinds).logits[:, 0]
        scores = logits.new_zeros(mask.shape).masked_scatter(mask, logits * self.settings.scale)
        return Ranked(scores, mask)
