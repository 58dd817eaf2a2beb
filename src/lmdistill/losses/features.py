"""Losses between a student's and a teacher's inner states: hidden states and attention relations."""

from __future__ import annotations

import torch
from torch import Tensor


def hidden_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two vectors at each position.

    Source:    FitNets, arXiv 1412.6550, equation (3), per dimension
    Shapes:    student, teacher [..., D]; returns [...] float32
    """
    return (student.float() - teacher.float()).square().mean(-1)


def hidden_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of two vectors at each position: their direction alone.

    Source:    DistilBERT, arXiv 1910.01108, section 3
    Shapes:    student, teacher [..., D]; returns [...] float32 from 0 to 2
    """
    return 1 - torch.nn.functional.cosine_similarity(student.float(), teacher.float(), dim=-1)


def relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, *, heads: int) -> Tensor:
    """How differently two models relate the positions of a text to one another, in one kind of vectors.

    Paper:     KD4Gen, arXiv 2305.02031, stage 3 ("attention relations"); MiniLMv2, arXiv 2012.15828, equation (3)
    Equation:  mean over heads of KL(R_T || R_S), R = softmax(A A^T / sqrt(d)) over positions, A the vectors (queries,
               keys or values) cut into `heads` of width d
    Shapes:    student [B, T, D], teacher [B, T, E], D and E multiples of `heads`; mask [B, T] bool, True = real;
               returns [B, T] float32 in nats, 0 at padding
    """
    ours, theirs = _relations(student, mask, heads), _relations(teacher, mask, heads)
    terms = theirs.exp() * (ours.neg() + theirs)
    keys = mask[:, None, None, :]
    return terms.masked_fill(~keys, 0.0).sum(-1).mean(1).masked_fill(~mask, 0.0)


def _relations(vectors: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Log-relations [B, heads, T, T]."""
    rows, length, width = vectors.shape
    split = vectors.float().view(rows, length, heads, width // heads).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / (width // heads) ** 0.5
    keys = mask[:, None, None, :]
    relations: Tensor = scores.masked_fill(~keys, -1e4).log_softmax(-1)
    return relations
