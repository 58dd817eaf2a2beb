"""Sampling in a batch where every row follows from its own seed alone.

A row takes one number in [0, 1) from its own generator for each token, and the token at which the cumulative softmax
passes it: so a text does not depend on what else was in the batch, in which order, or on how many processes, and no
noise of the vocabulary's size has to be made.
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

    def draw(ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float() / sampling.temperature
        for step in cut:
            scores = step(ids, scores)
        drawn = torch.cat([torch.rand(1, generator=generator) for generator in generators]).to(scores.device)
        chosen = inverted(scores.softmax(-1), drawn).unsqueeze(-1)
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen, 0.0)

    return {"do_sample": False, "num_beams": 1, "logits_processor": LogitsProcessorList([draw])}


def within(sampling: Sampling) -> dict[str, Any]:
    """Arguments for transformers' `generate` that sample with `top_p`, in which no vocabulary is sorted.

    A sort of 32,000 tokens at every step of every row costs more than a small student itself.
    """
    from transformers import LogitsProcessorList, TopKLogitsWarper

    cut: list[Any] = [TopKLogitsWarper(sampling.top_k)] if sampling.top_k > 0 else []

    def draw(ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float()
        if sampling.temperature != 1:
            scores = scores / sampling.temperature
        for step in cut:
            scores = step(ids, scores)
        # In place: at a vocabulary's size new memory for every step is slow, and `generate` gives a copy of its own.
        chosen = nucleus(scores.sub_(scores.amax(-1, keepdim=True)).exp_(), sampling.top_p)
        return scores.fill_(-torch.inf).scatter_(-1, chosen.unsqueeze(-1), 0.0)

    return {"do_sample": False, "num_beams": 1, "logits_processor": LogitsProcessorList([draw])}


def nucleus(weights: Tensor, top_p: float) -> Tensor:
    """One token [R] of each row of [R, V], drawn among the most probable ones that reach `top_p` together.

    A token is drawn from all, and again as long as what is more probable than it has that mass already: so each token
    of the nucleus (of equal ones at its edge all) comes with its share of the nucleus's mass, and nothing else comes.
    `weights` are probabilities, or a multiple of them.
    """
    rows, left = weights, torch.arange(len(weights), device=weights.device)
    chosen = torch.empty_like(left)
    while True:
        reached = rows.cumsum(-1)
        limit = top_p * reached[:, -1]
        drawn = _passed(reached, torch.rand(len(left), device=weights.device))
        chosen[left] = drawn
        above = torch.mul(rows > rows.gather(-1, drawn.unsqueeze(-1)), rows, out=reached).sum(-1)
        left = left[above >= limit]
        if not len(left):
            return chosen
        rows = weights[left]


def inverted(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """The token [R] at which the cumulative probabilities [R, V] of a row pass its number [R] in [0, 1).

    A token of probability 0 is never taken.

    >>> inverted(torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).expand(4, 5), torch.tensor([0.0, 0.2, 0.25, 0.99999994]))
    tensor([1, 1, 3, 3])
    """
    return _passed(probabilities.cumsum(-1), drawn)


def _passed(reached: Tensor, drawn: Tensor) -> Tensor:
    """Where cumulative sums [R, V] pass a share [R] of the whole."""
    whole = reached[:, -1]
    below = torch.minimum(drawn * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(reached, below.unsqueeze(-1), right=True).squeeze(-1)
