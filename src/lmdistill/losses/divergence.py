"""Divergences between a student's and a teacher's distribution over a vocabulary, one value for each token.

Three ways to the same numbers: `between` and `divergence` on whole tensors (the plain form), `linear_divergence` from
hidden states in chunks of tokens (no [N, V] of both models at once), and `bucket_logprobs` + `between` against a
teacher of whom only the top K tokens and the rest's mass are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["forward_kl", "reverse_kl", "jsd", "skewed_kl", "skewed_reverse_kl", "total_variation"]

KEPT_ELEMENTS = 1 << 27
"""Up to this many gradients of logits are kept for the backward pass; beyond it they are computed again, by chunks."""
CHUNK = 1 << 23
"""Elements of the teacher's logits that are held at once: 32 MiB of float32."""
PIECE = 1 << 18
"""Elements that element-wise work takes at a time on a CPU: 1 MiB of float32."""
LOG_TINY = -69.0
"""Stands for the logarithm of nothing (1e-30)."""


@dataclass(frozen=True)
class Measure:
    """Which divergence; P is the teacher, Q the student, both at `temperature`.

    Equation:  forward_kl         KL(P || Q)
               reverse_kl         KL(Q || P)
               jsd                beta KL(P || M) + (1 - beta) KL(Q || M), M = beta P + (1 - beta) Q; its ends beta = 0
                                  and 1 are KL(P || Q) and KL(Q || P), which jsd / beta and jsd / (1 - beta) tend to
               skewed_kl          KL(P || skew P + (1 - skew) Q)
               skewed_reverse_kl  KL(Q || (1 - skew) P + skew Q)
               total_variation    1/2 sum |P - Q|
    Source:    KD4Gen arXiv 2305.02031 (forward), GKD arXiv 2306.13649 (jsd), DistiLLM arXiv 2402.03898 (skewed)

    Raises:
        ValueError: a number out of its range.
    """

    kind: Kind = "forward_kl"
    temperature: float = 1.0
    beta: float = 0.5
    skew: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature}")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta: expected a number from 0 to 1, got {self.beta}")
        if not 0 <= self.skew < 1:
            raise ValueError(f"skew: expected a number from 0 to below 1, got {self.skew}")

    @property
    def plain(self) -> Kind:
        """The kind, with the ends of `jsd` and of the skewed forms named as what they are."""
        ends: dict[tuple[str, float], Kind] = {
            ("jsd", 0.0): "forward_kl",
            ("jsd", 1.0): "reverse_kl",
            ("skewed_kl", 0.0): "forward_kl",
            ("skewed_reverse_kl", 0.0): "reverse_kl",
        }
        return ends.get((self.kind, self.beta if self.kind == "jsd" else self.skew), self.kind)


def between(log_student: Tensor, log_teacher: Tensor, measure: Measure = Measure()) -> Tensor:
    """The divergence of two tensors of log-probabilities (natural logarithm).

    Shapes:    log_student, log_teacher [..., V], finite; returns [...] float32 in nats

    >>> p = torch.tensor([0.5, 0.5]).log()
    >>> float(between(p, p))
    0.0
    """
    logq, logp = log_student.float(), log_teacher.float()
    q, p = logq.exp(), logp.exp()
    kind = measure.plain
    if kind == "forward_kl":
        return (p * (logp - logq)).sum(-1)
    if kind == "reverse_kl":
        return (q * (logq - logp)).sum(-1)
    if kind == "total_variation":
        return (p - q).abs().sum(-1) / 2
    share = {"jsd": measure.beta, "skewed_kl": measure.skew}.get(kind, 1 - measure.skew)
    logm = (share * p + (1 - share) * q).clamp(min=1e-30).log()
    from_teacher, from_student = (p * (logp - logm)).sum(-1), (q * (logq - logm)).sum(-1)
    if kind == "jsd":
        return measure.beta * from_teacher + (1 - measure.beta) * from_student
    return from_teacher if kind == "skewed_kl" else from_student


def divergence(student_logits: Tensor, teacher_logits: Tensor, measure: Measure = Measure()) -> Tensor:
    """The divergence of two tensors of logits; of two padded widths of one vocabulary the shared part counts.

    Shapes:    student_logits [..., V], teacher_logits [..., V']; returns [...] float32 in nats
    """
    width = min(student_logits.shape[-1], teacher_logits.shape[-1])
    logq, logp = (
        (logits[..., :width].float() / measure.temperature).log_softmax(-1)
        for logits in (student_logits, teacher_logits)
    )
    return between(logq, logp, measure)


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy against the teacher's probabilities: KL(P || Q) plus the teacher's own entropy.

    Shapes:    student_logits, teacher_logits [..., V]; returns [...] float32 in nats
    """
    p = (teacher_logits.float() / temperature).softmax(-1)
    return -(p * (student_logits.float() / temperature).log_softmax(-1)).sum(-1)


# --- from hidden states, in chunks of tokens -------------------------------------------------------------------------


def linear_divergence(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    measure: Measure = Measure(),
    *,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
) -> Tensor:
    """`divergence(hidden @ weight.T + bias, teacher_hidden @ teacher_weight.T + teacher_bias)`, chunk by chunk.

    The gradient with respect to the student's logits is written over them where they are made, so the backward pass
    has two matrix products left; of the teacher's logits one chunk exists at a time.

    Shapes:    hidden [N, D], weight [V, D], teacher_hidden [N, E], teacher_weight [V', E]; biases [V] and [V'] or None;
               returns [N] float32 in nats; gradients reach hidden, weight and bias, never the teacher
    """
    width = min(weight.shape[0], teacher_weight.shape[0])
    hidden, weight = _folded(hidden, weight[:width], None if bias is None else bias.reshape(-1)[:width])
    own_bias = None if teacher_bias is None else teacher_bias.reshape(-1)[:width]
    teacher_hidden, teacher_weight = _folded(teacher_hidden.detach(), teacher_weight.detach()[:width], own_bias)
    with torch.autocast(hidden.device.type, enabled=False):
        out: Tensor = _LinearDivergence.apply(  # type: ignore[no-untyped-call]
            hidden, weight.to(hidden.dtype), teacher_hidden, teacher_weight.to(teacher_hidden.dtype), measure
        )
    return out


def _folded(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Hidden states and weight with the bias as one more dimension, in the type that autocast asks for."""
    if bias is not None:
        weight = torch.cat([weight, bias.reshape(-1, 1).to(weight.dtype)], dim=1)
        hidden = torch.cat([hidden, hidden.new_ones(hidden.shape[0], 1)], dim=1)
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return hidden, weight


class _LinearDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor, measure: Measure
    ) -> Tensor:
        n, width = hidden.shape[0], weight.shape[0]
        learning = any(ctx.needs_input_grad[:2])
        ctx.measure, ctx.kept = measure, learning and n * width <= KEPT_ELEMENTS
        values = torch.empty(n, dtype=torch.float32, device=hidden.device)
        slopes = hidden.new_empty((n if ctx.kept else 0, width))
        for rows in _chunks(n, width):
            table = torch.mm(hidden[rows], weight.T, out=slopes[rows]) if ctx.kept else hidden[rows] @ weight.T
            _settle(table, teacher_hidden[rows] @ teacher_weight.T, measure, values[rows], write=ctx.kept)
        ctx.save_for_backward(hidden, weight, teacher_hidden, teacher_weight, slopes)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, teacher_hidden, teacher_weight, slopes = ctx.saved_tensors
        scale = gradients[0][:, None].to(hidden.dtype)
        grad_hidden, grad_weight = torch.empty_like(hidden), None
        scratch = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        for rows in [slice(0, hidden.shape[0])] if ctx.kept else _chunks(hidden.shape[0], weight.shape[0]):
            table = slopes
            if not ctx.kept:
                table = hidden[rows] @ weight.T
                _settle(table, teacher_hidden[rows] @ teacher_weight.T, ctx.measure, scratch[rows], write=True)
            torch.mm(table, weight, out=grad_hidden[rows])
            grad_weight = _added(grad_weight, table, hidden[rows] * scale[rows])
        return grad_hidden.mul_(scale), grad_weight, None, None, None


def _added(weight: Tensor | None, table: Tensor, hidden: Tensor) -> Tensor:
    """The gradient [V, D] of a weight, with a chunk's share table.T @ hidden added to it."""
    return table.T @ hidden if weight is None else weight.addmm_(table.T, hidden)


def _chunks(n: int, width: int) -> list[slice]:
    size = max(1, CHUNK // max(1, width))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _settle(student: Tensor, teacher: Tensor, measure: Measure, values: Tensor, *, write: bool) -> None:
    """The divergence of each row of two tables of logits; with `write`, its slope is left in `student`."""
    rows = max(1, (PIECE if student.device.type == "cpu" else 64 * PIECE) // student.shape[1])
    for start in range(0, student.shape[0], rows):
        piece = slice(start, start + rows)
        logq = (student[piece].float() / measure.temperature).log_softmax(-1)
        logp = (teacher[piece].float() / measure.temperature).log_softmax(-1)
        values[piece], slope = _value_and_slope(logq, logp, measure, write=write)
        if write:
            student[piece] = slope.div_(measure.temperature)


def _value_and_slope(logq: Tensor, logp: Tensor, measure: Measure, *, write: bool) -> tuple[Tensor, Tensor]:
    """`between`, and its derivative by the student's (tempered) logits: q (a - sum q a), a = the derivative by q."""
    value = between(logq, logp, measure)
    if not write:
        return value, value
    q, kind = logq.exp(), measure.plain
    if kind == "forward_kl":
        return value, q.sub_(logp.exp_())
    if kind == "reverse_kl":
        return value, logq.sub_(logp).sub_(value[:, None]).mul_(q)
    p = logp.exp()
    if kind == "total_variation":
        a = (q - p).sign_().div_(2)
    elif kind == "jsd":
        m = (measure.beta * p + (1 - measure.beta) * q).clamp_(min=1e-30)
        a = logq.sub_(m.log_()).mul_(1 - measure.beta)
    elif kind == "skewed_kl":
        m = (measure.skew * p + (1 - measure.skew) * q).clamp_(min=1e-30)
        a = p.div_(m).mul_(-(1 - measure.skew))
    else:
        m = ((1 - measure.skew) * p + measure.skew * q).clamp_(min=1e-30)
        a = logq - m.log() - measure.skew * q / m
    return value, a.sub_((q * a).sum(-1, keepdim=True)).mul_(q)


# --- against the top K tokens and the rest ---------------------------------------------------------------------------


def bucket_logprobs(hidden: Tensor, weight: Tensor, ids: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """A student's log-probabilities of K named tokens and, in the last column, of all others together.

    `between(bucket_logprobs(...), teacher)` with the teacher's top K and tail is the divergence of the two bucketed
    distributions: never more than the whole one, and equal to it where K is the whole vocabulary.

    Shapes:    hidden [N, D], weight [V, D], ids [N, K] int64 (distinct within a row); bias [V] or None;
               returns [N, K + 1] float32 in nats, the last at least LOG_TINY
    """
    hidden, weight = _folded(hidden, weight, bias)
    with torch.autocast(hidden.device.type, enabled=False):
        out: Tensor = _BucketLogprobs.apply(hidden, weight.to(hidden.dtype), ids)  # type: ignore[no-untyped-call]
    return out


class _BucketLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        n, width = hidden.shape[0], weight.shape[0]
        learning = any(ctx.needs_input_grad[:2])
        ctx.kept = learning and n * width <= KEPT_ELEMENTS
        out = torch.empty((n, ids.shape[1] + 1), dtype=torch.float32, device=hidden.device)
        rest = hidden.new_empty((n if ctx.kept else 0, width))
        for rows in _chunks(n, width):
            table = torch.mm(hidden[rows], weight.T, out=rest[rows]) if ctx.kept else hidden[rows] @ weight.T
            _bucket(table, ids[rows], out[rows])
        ctx.save_for_backward(hidden, weight, ids, rest, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, ids, rest, out = ctx.saved_tensors
        probabilities, whole = out.exp(), gradients[0].sum(-1, keepdim=True)
        alive = out[:, -1:] > LOG_TINY
        tail = torch.where(alive, gradients[0][:, -1:] / probabilities[:, -1:], torch.zeros_like(whole)) - whole
        named = (gradients[0][:, :-1] - probabilities[:, :-1] * whole).to(hidden.dtype)
        tail = tail.to(hidden.dtype)
        grad_hidden, grad_weight = torch.empty_like(hidden), None
        for rows in [slice(0, hidden.shape[0])] if ctx.kept else _chunks(hidden.shape[0], weight.shape[0]):
            table = rest
            if not ctx.kept:
                table = hidden[rows] @ weight.T
                _bucket(table, ids[rows], torch.empty_like(out[rows]))
            # The table holds the probabilities of the unnamed tokens and 0 at the named ones.
            picked = weight[ids[rows]]  # [n, K, D]
            torch.mm(table, weight, out=grad_hidden[rows])
            grad_hidden[rows].mul_(tail[rows]).add_(torch.bmm(named[rows, None], picked).squeeze(1))
            grad_weight = _added(grad_weight, table, hidden[rows] * tail[rows])
            spread = (named[rows, :, None] * hidden[rows, None]).flatten(0, 1)  # [n K, D]
            grad_weight.index_add_(0, ids[rows].flatten(), spread)
        return grad_hidden, grad_weight, None


def _bucket(table: Tensor, ids: Tensor, out: Tensor) -> None:
    """Log-probabilities of the named tokens and the rest; the rest's probabilities are left in `table`."""
    rows = max(1, (PIECE if table.device.type == "cpu" else 64 * PIECE) // table.shape[1])
    for start in range(0, table.shape[0], rows):
        piece = slice(start, start + rows)
        raw = table[piece]
        values = raw.float() if raw.dtype != torch.float32 else raw
        own = ids[piece]
        top = values.amax(-1, keepdim=True)
        named = values.gather(-1, own).sub_(top)
        values.sub_(top).exp_().scatter_(-1, own, 0.0)
        rest = values.sum(-1, keepdim=True)
        total = rest + named.exp().sum(-1, keepdim=True)
        out[piece, :-1] = named - total.log()
        out[piece, -1:] = (rest / total).log().clamp(min=LOG_TINY)
        values.div_(total)
        if values is not raw:
            raw.copy_(values)


# --- two vocabularies ------------------------------------------------------------------------------------------------


def sorted_distance(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """How far two distributions over different vocabularies are apart, each sorted by probability.

    Source:    Universal logit distillation, arXiv 2402.12030, equation (5): the Wasserstein distance under a uniform
               transport cost
    Equation:  sum_i |sort(P)_i - sort(Q)_i|, the shorter one filled with zeros
    Shapes:    student_logits [..., V], teacher_logits [..., V']; returns [...] float32 from 0 to 2
    """
    q = (student_logits.float() / temperature).softmax(-1).sort(-1, descending=True).values
    p = (teacher_logits.float() / temperature).softmax(-1).sort(-1, descending=True).values
    width = max(p.shape[-1], q.shape[-1])
    q, p = (torch.nn.functional.pad(x, (0, width - x.shape[-1])) for x in (q, p))
    return (p - q).abs().sum(-1)
