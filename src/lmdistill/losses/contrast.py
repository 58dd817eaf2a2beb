"""Contrastive losses over several rationales of one input, the loss of their judge, and maximum-over-time pooling.

Letters: B inputs, J rationales of an input (padded, with a mask), T target tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Scheme = Literal["minmax", "maxmin", "mean", "weighted_mean", "sampling"]
"""How the losses of several rationales become one (QCRD, table "many-to-one"). `minmax`: the likeliest positive and the
negative nearest to the margin; `maxmin`: the least likely positive and the negative farthest below the margin;
`mean`: all of them; `weighted_mean`: all, by quality; `sampling`: one at random."""

JudgeLoss = Literal["paper", "infonce", "bce"]


def sequence_mean(nll: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood per token of each row.

    Shapes:    nll [..., T]; mask [..., T]; returns [...] float32 in nats, 0 for an empty row

    >>> sequence_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1, 1, 0]]))
    tensor([2.])
    """
    kept = mask.to(torch.float32)
    return (nll.float() * kept).sum(-1) / kept.sum(-1).clamp(min=1)


def select_min(values: Tensor, mask: Tensor) -> Tensor:
    """Index [B] of the smallest value among the real ones of each row; 0 where a row has none.

    Shapes:    values [B, J]; mask [B, J] bool; returns [B] int64

    >>> select_min(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[True, True, False]]))
    tensor([1])
    """
    return values.detach().float().masked_fill(~mask, math.inf).argmin(-1)


def select_max(values: Tensor, mask: Tensor) -> Tensor:
    """Index [B] of the largest value among the real ones of each row; 0 where a row has none.

    Shapes:    values [B, J]; mask [B, J] bool; returns [B] int64
    """
    return values.detach().float().masked_fill(~mask, -math.inf).argmax(-1)


def hinge(nll: Tensor, *, margin: float) -> Tensor:
    """How far a bad rationale is still below the margin: 0, and without a gradient, from the margin on.

    Paper:     QCRD, arXiv 2405.13014, the margin delta: -min(l - delta, 0)
    Equation:  max(margin - nll, 0)
    Shapes:    any; in nats

    >>> hinge(torch.tensor([1.0, 3.0, 5.0]), margin=3.0)
    tensor([2., 0., 0.])
    """
    return torch.relu(margin - nll.float())


def scheme_weights(
    values: Tensor,
    mask: Tensor,
    *,
    scheme: Scheme,
    negative: bool,
    quality: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The share of each rationale in its input's loss: rows sum to 1, or to 0 where an input has none.

    Paper:     QCRD, arXiv 2405.13014, equations (4) to (7) and the ablation of the many-to-one scheme
    Shapes:    values [B, J]: losses of positives, or min(loss - margin, 0) of negatives; mask [B, J] bool;
               quality [B, J], read by `weighted_mean` only; returns [B, J] float32 without a gradient
    """
    picked = {"minmax": select_max if negative else select_min, "maxmin": select_min if negative else select_max}
    if scheme in picked:
        shares = torch.nn.functional.one_hot(picked[scheme](values, mask), values.shape[-1]).float()
    elif scheme == "sampling":
        drawn = torch.rand(values.shape, generator=generator).to(values.device)
        shares = torch.nn.functional.one_hot(select_max(drawn, mask), values.shape[-1]).float()
    elif scheme == "weighted_mean" and quality is not None:
        shares = quality.detach().float().clamp(min=1e-6)
    else:
        shares = torch.ones_like(values, dtype=torch.float32)
    shares = shares * mask
    return shares / shares.sum(-1, keepdim=True).clamp(min=1e-12)


def judge_loss(
    positive: Tensor, negative: Tensor, positive_mask: Tensor, negative_mask: Tensor, *, form: JudgeLoss
) -> Tensor:
    """How badly a judge tells an input's good rationales from its bad ones.

    Paper:     QCRD, arXiv 2405.13014, equation (2)
    Equation:  with s = sigmoid(logit), paper: -log(sum_j exp(s+_j) / sum_k exp(s-_k)), negatives only in the
               denominator; infonce: the same on logits with all of them in the denominator, so that it is a
               cross-entropy; bce: mean binary cross-entropy of positives plus that of negatives
    Shapes:    positive [B, M] and negative [B, K] logits; masks bool; returns [B] in nats, 0 where `paper` or
               `infonce` lack one of the two sides
    """
    positive, negative = positive.float(), negative.float()
    if form == "bce":
        softplus = torch.nn.functional.softplus
        return _mean(softplus(-positive), positive_mask) + _mean(softplus(negative), negative_mask)
    if form == "paper":
        positive, negative = positive.sigmoid(), negative.sigmoid()
    both = positive_mask.any(-1) & negative_mask.any(-1)
    good = _logsumexp(positive, positive_mask)
    bad = _logsumexp(negative, negative_mask)
    whole = torch.logaddexp(good, bad) if form == "infonce" else bad
    return torch.where(both, whole - good, torch.zeros_like(good))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, torch.zeros_like(values)).sum(-1) / mask.sum(-1).clamp(min=1)


def _logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    # A finite floor keeps the gradient of an empty row from turning into not-a-number.
    return torch.logsumexp(values.masked_fill(~mask, -1e4), dim=-1)


def max_over_time(
    hidden: Tensor, mask: Tensor, head: Callable[[Tensor], Tensor], *, kept_elements: int = 1 << 24
) -> Tensor:
    """The largest probability that each word of the vocabulary reaches anywhere in a row.

    Works through the rows in chunks of at most `kept_elements` logits and computes them again in the backward pass,
    so memory grows with B x V, not with B x T x V.

    Equation:  e[b, v] = max_t softmax(head(hidden[b, t]))[v]
    Shapes:    hidden [N, D], the real positions of `mask` row by row; mask [B, T] bool; returns [B, V] float32
    """
    lengths = mask.sum(-1).tolist()
    width = max(lengths, default=1)
    out: list[Tensor] = []
    start, row = 0, 0
    vocabulary: int | None = None
    while row < len(lengths):
        size = 1 if vocabulary is None else max(1, kept_elements // (vocabulary * width))
        own = lengths[row : row + size]
        piece = hidden[start : start + sum(own)]
        if torch.is_grad_enabled() and piece.requires_grad:
            pooled = checkpoint(_pooled, piece, own, head, use_reentrant=False)
        else:
            pooled = _pooled(piece, own, head)
        out.append(pooled)
        vocabulary = pooled.shape[-1]
        start, row = start + sum(own), row + len(own)
    return torch.cat(out)


def _pooled(hidden: Tensor, lengths: list[int], head: Callable[[Tensor], Tensor]) -> Tensor:
    probabilities = head(hidden).float().softmax(-1)
    parts = torch.split(probabilities, lengths)  # type: ignore[no-untyped-call]
    return torch.stack([part.amax(0) for part in parts])


def mutual_information(predicted: Tensor, explained: Tensor, *, clean: bool) -> Tensor:
    """Cross-entropy between what the label branch and the rationale branch say anywhere; only the latter learns.

    Paper:     Learning to Maximize Mutual Information for Chain-of-Thought Distillation, arXiv 2403.03348
    Equation:  released: -sum_v p[v] log softmax(e)[v], where e holds probabilities already (softmax twice) and p is
               not normalised; clean: -sum_v (p[v] / sum p) log e[v]
    Shapes:    predicted p and explained e [B, V], maxima over time of probabilities; returns [B] in nats
    """
    predicted = predicted.detach().float()
    if clean:
        predicted = predicted / predicted.sum(-1, keepdim=True).clamp(min=1e-12)
        return -(predicted * explained.float().clamp(min=1e-12).log()).sum(-1)
    return -(predicted * explained.float().log_softmax(-1)).sum(-1)
