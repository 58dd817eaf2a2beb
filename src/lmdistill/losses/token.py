"""Token losses: negative log-likelihood of target tokens, from logits or straight from hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KEPT_ELEMENTS = 1 << 27
"""Up to this many probabilities are kept for the backward pass; beyond it they are computed again, by chunks."""
PIECE = 1 << 18
"""Elements that element-wise work takes at a time on a CPU: 1 MiB of float32, a core's second-level cache."""


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

    The probabilities are written over the logits and serve the backward pass, which has no element-wise work over
    [N, V] left: gradient of hidden = g (P W - W[labels]), of weight = P^T (g hidden) - its rows at the labels. Where
    they would not fit into `KEPT_ELEMENTS` they are computed again, so memory does not grow with N x V.

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
        n = hidden.shape[0]
        learning = any(ctx.needs_input_grad)
        ctx.chunk = max(1, min(n, KEPT_ELEMENTS // weight.shape[0]))
        nll = torch.empty(n, dtype=torch.float32, device=hidden.device)
        table = hidden.new_empty(0, weight.shape[0])
        for start in range(0, n, ctx.chunk):
            rows = slice(start, min(start + ctx.chunk, n))
            table = hidden[rows] @ weight.T
            nll[rows] = _normalise(table, labels[rows], write=learning and n == ctx.chunk)
        ctx.save_for_backward(hidden, weight, labels, table if learning and n == ctx.chunk else table[:0])
        return nll

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        hidden, weight, labels, kept = ctx.saved_tensors
        scale = gradient[:, None].to(hidden.dtype)
        scaled = hidden * scale
        grad_hidden = torch.empty_like(hidden)
        grad_weight: Tensor | None = None
        for start in range(0, hidden.shape[0], ctx.chunk):
            rows = slice(start, min(start + ctx.chunk, hidden.shape[0]))
            table = kept
            if not kept.shape[0]:
                table = hidden[rows] @ weight.T
                _normalise(table, labels[rows], write=True)
            torch.mm(table, weight, out=grad_hidden[rows])
            if grad_weight is None:
                grad_weight = table.T @ scaled[rows]
            else:
                grad_weight.addmm_(table.T, scaled[rows])
        grad_weight = torch.zeros_like(weight) if grad_weight is None else grad_weight
        grad_weight.index_add_(0, labels, scaled, alpha=-1)
        return grad_hidden.sub_(weight[labels]).mul_(scale), grad_weight, None


def _normalise(table: Tensor, labels: Tensor, *, write: bool) -> Tensor:
    """-log softmax(table)[label] of each row; with `write`, the probabilities are left in `table`.

    Works in pieces that fit into a processor's cache, where the passes over them cost little.
    """
    nll = torch.empty(table.shape[0], dtype=torch.float32, device=table.device)
    rows = max(1, (PIECE if table.device.type == "cpu" else 64 * PIECE) // table.shape[1])
    for start in range(0, table.shape[0], rows):
        piece = slice(start, start + rows)
        raw = table[piece]
        values = raw.float() if raw.dtype != torch.float32 or not write else raw
        top = values.amax(dim=1, keepdim=True)
        values = values.sub_(top) if values is not raw or write else values - top
        chosen = values.gather(1, labels[piece, None]).squeeze(1)
        total = values.exp_().sum(dim=1)
        nll[piece] = total.log() - chosen
        if write:
            torch.div(values, total[:, None], out=values)
            if values is not raw:
                raw.copy_(values)
    return nll
