"""How probable a local model finds given texts: logits at target positions, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmdistill.distributions import TokenDistributions
from lmdistill.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CELLS = 2**27
"""The most logits that are held at once (512 MiB in float32)."""


@dataclass
class Scoring:
    """A model, decoder-only or encoder-decoder, that reads sources and scores targets."""

    module: Any
    tokenizer: Any
    device: torch.device
    batch_size: int

    def distributions(
        self, sources: Sequence[str], targets: Sequence[str], top: int, tokenizer_hash: str
    ) -> TokenDistributions:
        """The `top` tokens at every position of every target, its end included."""
        import numpy as np
        import torch

        pieces: list[tuple[Tensor, ...]] = []
        offsets = [0]
        with torch.inference_mode():
            for logits, labels in self.logits(sources, targets):
                scores = logits.float().log_softmax(-1)  # [T, V]
                best = scores.topk(min(top, scores.shape[-1]), dim=-1)
                left = torch.log1p(-best.values.exp().sum(-1).clamp(max=1 - 1e-7))
                pieces.append((best.indices, best.values, left, labels))
                offsets.append(offsets[-1] + len(labels))
        ids, logprobs, tail, tokens = (torch.cat([piece[at] for piece in pieces]).cpu().numpy() for at in range(4))
        return TokenDistributions(
            ids.astype(np.int32),
            logprobs.astype(np.float32),
            tail.astype(np.float32),
            tokens.astype(np.int32),
            np.asarray(offsets, dtype=np.int64),
            tokenizer_hash,
        )

    def logits(self, sources: Sequence[str], targets: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits [T, V] and target tokens [T] of each pair in turn.

        Raises:
            DataError: a source without a single token, to a decoder-only model.
        """
        end = self.tokenizer.eos_token_id
        labels = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in targets]
        labels = [ids if end is None or ids[-1:] == [end] else [*ids, end] for ids in labels]
        prompts = [self.tokenizer(text)["input_ids"] for text in sources]
        encodes = bool(self.module.config.is_encoder_decoder)
        if not encodes and end is not None:
            prompts = [ids[:-1] if ids[-1:] == [end] else ids for ids in prompts]
        if not encodes and not all(prompts):
            raise DataError("a source without a single token has no distribution after it; give it a text")
        lengths = [len(ids) + (0 if encodes else len(prompt)) for prompt, ids in zip(prompts, labels, strict=True)]
        run = self._encoded if encodes else self._decoded
        for start, stop in self._batches(lengths):
            yield from run(prompts[start:stop], labels[start:stop])

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
        vocabulary = int(self.module.get_output_embeddings().weight.shape[0])
        start = width = 0
        for row, length in enumerate(lengths):
            width = max(width, length)
            count = row - start + 1
            if count > 1 and (count > self.batch_size or width * count * vocabulary > CELLS):
                yield start, row
                start, width = row, length
        if lengths:
            yield start, len(lengths)

    def _encoded(self, prompts: list[list[int]], labels: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        targets = self._padded(labels)
        first = torch.full_like(targets[:, :1], self.module.config.decoder_start_token_id)
        shifted = torch.cat([first, targets[:, :-1]], 1)
        mask = self._padded([[1] * len(row) for row in prompts], 0)
        output = self.module(input_ids=self._padded(prompts), attention_mask=mask, decoder_input_ids=shifted)
        for row, ids in enumerate(labels):
            yield output.logits[row, : len(ids)], targets[row, : len(ids)]

    def _decoded(self, prompts: list[list[int]], labels: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        whole = [prompt + ids for prompt, ids in zip(prompts, labels, strict=True)]
        tokens = self._padded(whole)
        output = self.module(input_ids=tokens, attention_mask=self._padded([[1] * len(row) for row in whole], 0))
        for row, (prompt, ids) in enumerate(zip(prompts, labels, strict=True)):
            start, stop = len(prompt), len(prompt) + len(ids)
            yield output.logits[row, start - 1 : stop - 1], tokens[row, start:stop]

    def _padded(self, rows: list[list[int]], fill: int | None = None) -> Tensor:
        import torch

        fill = (self.tokenizer.pad_token_id or 0) if fill is None else fill
        width = max(map(len, rows))
        return torch.tensor([row + [fill] * (width - len(row)) for row in rows], device=self.device)
