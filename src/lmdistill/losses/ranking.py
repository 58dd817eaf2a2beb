"""Ranking losses: a model's scores of a query's candidates against a teacher's scores of the same candidates."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def listwise_kl(
    scores: Tensor,
    target_scores: Tensor,
    *,
    temperature: float = 1.0,
    target_temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """KL divergence from the teacher's distribution over candidates to the model's.

    Equation:  KL(Q || P), Q = softmax(target_scores / tau_1), P = softmax(scores / tau_2)   (KARD, eq 3)
    Shapes:    scores, target_scores [B, N]; mask [B, N] bool, True = a candidate; returns [B] float32 in nats, 0 for
               a row of one candidate or none

    >>> q = torch.tensor([[1.0, 2.0, 3.0]])
    >>> float(listwise_kl(5 * q, q, temperature=5.0))
    0.0
    """
    kept = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    log_p = masked_log_softmax(scores.float() / temperature, kept)
    log_q = masked_log_softmax(target_scores.float() / target_temperature, kept)
    terms = log_q.exp() * (log_q - log_p)
    return terms.masked_fill(~kept, 0.0).sum(-1)


def best_candidate_nll(
    scores: Tensor, target_scores: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of the candidate that the teacher scores highest (of a tie, the first).

    Equation:  -log softmax(scores / tau_2)[argmax target_scores]   (the default of KARD's released code)
    Shapes:    as `listwise_kl`; 0 for a row without candidates
    """
    kept = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    log_p = masked_log_softmax(scores.float() / temperature, kept)
    best = target_scores.float().masked_fill(~kept, -torch.inf).argmax(-1, keepdim=True)
    nll = -log_p.gather(-1, best).squeeze(-1)
    return nll.masked_fill(~kept.any(-1), 0.0)


def masked_log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Log-softmax over the last dimension's kept places; 0 elsewhere, so that no infinity meets a zero."""
    filled = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.log_softmax(filled, dim=-1).masked_fill(~mask, 0.0)


def max_similarity(queries: Tensor, passages: Tensor, query_mask: Tensor, passage_mask: Tensor) -> Tensor:
    """Late interaction: every query token counts its best match among the passage's tokens.

    Equation:  f(d, q) = sum over t in q of max over u in d of <q_t, d_u>   (dot product, as in KARD's code)
    Shapes:    queries [B, S, D], passages [B, N, L, D], query_mask [B, S], passage_mask [B, N, L]; returns [B, N]
    """
    products = torch.einsum("bsd,bnld->bnsl", queries, passages)
    lowest = torch.finfo(products.dtype).min
    nearest = products.masked_fill(passage_mask[:, :, None, :] == 0, lowest).amax(-1)  # [B, N, S]
    return nearest.masked_fill(query_mask[:, None, :] == 0, 0.0).sum(-1)


def annealing(progress: float, *, steepness: float = 10.0) -> float:
    """From 0 at the start of training to nearly 1 at its end: 2 / (1 + exp(-10 p)) - 1.

    >>> annealing(0.0), round(annealing(0.5), 4)
    (0.0, 0.9866)
    """
    return 2.0 / (1.0 + math.exp(-steepness * progress)) - 1.0
