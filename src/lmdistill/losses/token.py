"""Token losses: negative log-likelihood of target tokens, from logits or straight from hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

KEPT_ELEMENTS = 1 << 27
"""Up to this many logits are kept for the backward pass; beyond it they are computed again, chunk by chunk."""


def token_nll(logits: Tensor, labels: Tensor, *, ignored: int = -100) -> Tensor:
    """Negative log-likelihood of each label.

    Equation:  -log softmax(logits)[label]
    Shapes:    logits [..., V]; labels [...] int64, `ignored` = padding; returns [...] float32 in nats, 0 at padding

    >>> token_nll(torch.zeros(1, 4), torch.tensor([2])).item() == torch.tensor(4.0).log().item()
    True
    """
    flat = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1), ignore_index=ignored, reduction="none"
    )
    return flat.view(labels.shape)


def linear_nll(hidden: Tensor, weight: Tensor, labels: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """`token_nll(hidden @ weight.T + bias, labels)` in one piece, for a vocabulary of any size.

    The softmax's gradient is written over the logits instead of beside them, and where the logits would not fit into
    `KEPT_ELEMENTS` they are computed again in the backward pass, so memory does not grow with N x V.

    Shapes:  hidden [N, D]; weight [V, D]; labels [N] int64, all real; bias [V] or None; returns [N] float32 in nats
    Differs: from `torch.nn.functional.cross_entropy` of a linear layer: in memory only; gradients agree to rounding
    """
    if bias is not None:
        weight = torch.cat([weight, bias.reshape(-1, 1).to(weight.dtype)], dim=1)
        hidden = torch.cat([hidden, hidden.new_ones(hidden.shape[0], 1)], dim=1)
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        out: Tensor = _LinearNll.apply(hidden, weight.to(hidden.dtype), labels)  # type: ignore[no-untyped-call]
    return out


class _LinearNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        n, vocabulary = hidden.shape[0], weight.shape[0]
        ctx.chunk = max(1, min(n, KEPT_ELEMENTS // vocabulary))
        nll = torch.empty(n, dtype=torch.float32, device=hidden.device)
        normaliser = torch.empty_like(nll)
        logits = hidden.new_empty(0, vocabulary)
        for start in range(0, n, ctx.chunk):
            rows = slice(start, min(start + ctx.chunk, n))
            logits = hidden[rows] @ weight.T
            for piece in _pieces(logits):
                normaliser[rows][piece] = torch.logsumexp(logits[piece].float(), dim=-1)
            nll[rows] = normaliser[rows] - logits.gather(1, labels[rows, None]).squeeze(1).float()
        keep = n == ctx.chunk and any(ctx.needs_input_grad)
        ctx.save_for_backward(hidden, weight, labels, normaliser, logits if keep else logits[:0])
        return nll

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        hidden, weight, labels, normaliser, kept = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight: Tensor | None = None
        for start in range(0, hidden.shape[0], ctx.chunk):
            rows = slice(start, min(start + ctx.chunk, hidden.shape[0]))
            slope = kept if kept.shape[0] else hidden[rows] @ weight.T
            _softmax_slope(slope, normaliser[rows], labels[rows], gradient[rows])
            torch.mm(slope, weight, out=grad_hidden[rows])
            if grad_weight is None:
                grad_weight = slope.T @ hidden[rows]
            else:
                grad_weight.addmm_(slope.T, hidden[rows])
        return grad_hidden, torch.zeros_like(weight) if grad_weight is None else grad_weight, None


def _softmax_slope(logits: Tensor, normaliser: Tensor, labels: Tensor, gradient: Tensor) -> None:
    """Write gradient * (softmax(logits) - onehot(labels)) over `logits`; a second backward pass is refused by torch."""
    for piece in _pieces(logits):
        rows = logits[piece]
        if rows.dtype == torch.float32:
            rows.sub_(normaliser[piece, None]).exp_().mul_(gradient[piece, None])
        else:
            rows.copy_((rows.float() - normaliser[piece, None]).exp_().mul_(gradient[piece, None]))
    logits.scatter_add_(1, labels[:, None], -gradient[:, None].to(logits.dtype))


def _pieces(logits: Tensor) -> Iterator[slice]:
    """Row slices small enough for a processor's cache (and for float32 copies that do not matter)."""
    size = max(1, (1 << 21) // logits.shape[1])
    for start in range(0, logits.shape[0], size):
        yield slice(start, start + size)
