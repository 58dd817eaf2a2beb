"""Sampling in a batch where every row follows from its own seed alone.

The largest of `logit / temperature + Gumbel noise` is a draw from the softmax; with the noise of a row taken from the
row's own generator, a text does not depend on what else was in the batch, in which order, or on how many processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmdistill.types import Sampling


def seeded(sampling: Sampling, seeds: Sequence[int]) -> dict[str, Any]:
    """Arguments for transformers' `generate` that sample each row with its own seed."""
    from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

    cut: list[Any] = [TopKLogitsWarper(sampling.top_k)] if sampling.top_k > 0 else []
    if sampling.top_p < 1:
        cut.append(TopPLogitsWarper(sampling.top_p))
    generators = [torch.Generator().manual_seed(seed % (1 << 63)) for seed in seeds]
    noise = torch.empty(0)

    def draw(ids: Tensor, scores: Tensor) -> Tensor:
        nonlocal noise
        scores = scores.float() / sampling.temperature
        for step in cut:
            scores = step(ids, scores)
        if noise.shape != scores.shape:
            noise = torch.empty(scores.shape)
        for row, generator in zip(noise, generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.clamp(min=1e-30).log().to(scores.device)

    return {"do_sample": False, "num_beams": 1, "logits_processor": LogitsProcessorList([draw])}
