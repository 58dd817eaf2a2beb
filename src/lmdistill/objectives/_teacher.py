"""What a white-box teacher says at the student's target positions: a model beside it, or stored distributions.

A teacher of training is one of three: `Frozen` (a whole model that reads the student's token ids: full distributions,
in chunks), a `LogitStore` (top tokens and the rest's mass, recorded once), or anything with `distributions(sources,
targets)`, like the open teacher 'transformers' (the same top tokens, live).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lmdistill.distributions import TokenDistributions, vocabulary_hash
from lmdistill.errors import DataError, TrainingError
from lmdistill.losses.divergence import Measure, between, bucket_logprobs, divergence, linear_divergence
from lmdistill.students import IGNORED, Batch, Scored

HIDDEN = frozenset({"hidden"})
HIDDEN_AND_NLL = frozenset({"hidden", "nll"})


class Frozen:
    """A model that teaches: it runs without a gradient, is never trained and never saved.

    Not a torch module, so the loop neither registers nor switches it. `model` is an open student of any kind whose
    vocabulary is the student's; its encoder states (of encoder-decoders) are kept by source, up to `kept_bytes`.
    """

    def __init__(self, model: Any, *, kept_bytes: int = 1 << 30) -> None:
        self.model = model.eval().requires_grad_(False)
        self.kept_bytes = kept_bytes
        self._states: OrderedDict[str, Tensor] = OrderedDict()
        self._held = 0

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    @property
    def width(self) -> int:
        """How many logits its head gives."""
        return int(self.model.model.get_output_embeddings().weight.shape[0])

    def scored(self, batch: Batch, role: str, want: frozenset[str] = HIDDEN, *, noisy: bool = False) -> Scored:
        """What it says of a role's rows of a student's batch; with `noisy`, its dropout is on."""
        own = self.batch(batch, role)
        self.model.train(noisy)
        with torch.no_grad():
            if not noisy and not want & {"layers", "attention"}:
                own = self._encoded(own)
            scored: Scored = self.model(own, [role], want)[role]
        self.model.eval()
        return scored

    def batch(self, batch: Batch, role: str) -> Batch:
        """The student's batch as this model reads it: its own sources, the student's target tokens."""
        device = batch.source_ids.device
        if self.model.device != device:
            self.model.to(device)
        views = [[view for view in own if view.role == ROLE_OF.get(role, role)] for own in batch.views]
        own = self.model.collate(batch.items, views).to(device)
        (rows,) = own.targets.values()
        rows.labels = batch.targets[role].labels
        own.targets = {role: rows}
        return own  # type: ignore[no-any-return]

    def _encoded(self, batch: Batch) -> Batch:
        """The batch with its sources encoded, from what is kept where they were met before."""
        if not self.kept_bytes or getattr(self.model, "sharing", "none") == "none" or self.model.pads_left:
            return batch
        sources = list(dict.fromkeys(view.source for own in batch.views for view in own))
        if not all(source in self._states for source in sources):
            batch = self.model.encoded(batch)
            states = batch.extras["encoded"].last_hidden_state
            lengths = batch.source_mask.sum(-1).tolist()
            for source, state, length in zip(sources, states, lengths, strict=True):
                self._keep(source, state[:length].clone())
            return batch
        from transformers.modeling_outputs import BaseModelOutput

        rows = [self._states[source].to(batch.source_ids.device) for source in sources]
        states = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        batch.extras["encoded"] = BaseModelOutput(last_hidden_state=states)
        return batch

    def _keep(self, source: str, state: Tensor) -> None:
        if source in self._states:
            return
        self._states[source] = state
        self._held += state.numel() * state.element_size()
        while self._held > self.kept_bytes and self._states:
            _, oldest = self._states.popitem(last=False)
            self._held -= oldest.numel() * oldest.element_size()

    def top(self, batch: Batch, role: str, k: int) -> TokenDistributions:
        """The k most probable tokens at every target position of a role, as arrays: what is stored."""
        import numpy as np

        scored = self.scored(batch, role)
        assert scored.hidden is not None
        width = min(self.width, len(self.tokenizer))
        pieces = []
        with torch.no_grad():
            for hidden in torch.split(scored.hidden, 64):  # type: ignore[no-untyped-call]
                logp = self.model.head(hidden)[:, :width].float().log_softmax(-1)
                best = logp.topk(min(k, width), dim=-1)
                rest = logp.exp().scatter_(-1, best.indices, 0.0).sum(-1)
                pieces.append((best.indices, best.values, rest.log().clamp(min=-69.0)))
        ids, logprobs, tail = (torch.cat([piece[at] for piece in pieces]).cpu().numpy() for at in range(3))
        labels = batch.targets[role].labels
        offsets = np.concatenate([[0], scored.mask.sum(-1).cumsum(0).cpu().numpy()]).astype(np.int64)
        targets = labels[labels != IGNORED].cpu().numpy().astype(np.int32)
        return TokenDistributions(
            ids.astype(np.int32), logprobs, tail, targets, offsets, vocabulary_hash(self.tokenizer)
        )  # fmt: skip


ROLE_OF: dict[str, str] = {"sample": "target"}
"""Roles that objectives add to a batch, by the role of the views they were made from."""


class Head(NamedTuple):
    """A linear head over the vocabulary."""

    weight: Tensor
    bias: Tensor | None


def head_of(model: Any) -> Head | None:
    """The head of a student or teacher where it is a plain linear layer."""
    head = model.model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return None
    return Head(head.weight, head.bias if head.bias is not None else getattr(model.model, "final_logits_bias", None))


def token_divergence(
    student: Any, teacher: Any, batch: Batch, role: str, hidden: Tensor, measure: Measure, *, noisy: bool = False
) -> Tensor:
    """The divergence [N] of student and teacher at a role's real target positions.

    Raises:
        TrainingError: the teacher's logits are not finite. DataError: stored distributions of other text.
    """
    if isinstance(teacher, Frozen):
        theirs = teacher.scored(batch, role, noisy=noisy).hidden
        assert theirs is not None
        values = whole_divergence(student, teacher.model, hidden, theirs, measure)
    else:
        told = told_by(teacher, student, batch, role)
        head = head_of(student)
        ids, known = told
        if head is None:
            logq = student.head(hidden).float().log_softmax(-1)
            rest = logq.exp().scatter(-1, ids, 0.0).sum(-1, keepdim=True).clamp(min=1e-30).log()
            own = torch.cat([logq.gather(-1, ids), rest], -1)
        else:
            own = bucket_logprobs(hidden, head.weight, ids, bias=head.bias)
        values = between(own, known, measure)
    refuse_infinite(values, batch)
    return values


def refuse_infinite(values: Tensor, batch: Batch) -> None:
    """Refuse a divergence that is not finite.

    Raises:
        TrainingError: one is not; the message names the items.
    """
    if not bool(values.detach().isfinite().all()):
        names = [item.id for item in batch.items][:3]
        raise TrainingError(
            f"the divergence from the teacher is not finite (items {names} ...): the teacher's logits or the student's "
            "hold NaN or infinity. Check the teacher's checkpoint and its precision (float16 overflows in T5)"
        )


def whole_divergence(student: Any, teacher: Any, hidden: Tensor, theirs: Tensor, measure: Measure) -> Tensor:
    """The divergence [N] of two whole models, from what their heads read: [N, D] and [N, E]."""
    own, other = head_of(student), head_of(teacher)
    if own is not None and other is not None:
        return linear_divergence(
            hidden, own.weight, theirs, other.weight, measure, bias=own.bias, teacher_bias=other.bias
        )
    from torch.utils.checkpoint import checkpoint

    def piece(one: Tensor, another: Tensor) -> Tensor:
        return divergence(student.head(one), teacher.head(another), measure)

    pairs = zip(*(torch.split(x, 64) for x in (hidden, theirs)), strict=True)  # type: ignore[no-untyped-call]
    return torch.cat([checkpoint(piece, one, another, use_reentrant=False) for one, another in pairs])


def told_by(teacher: Any, student: Any, batch: Batch, role: str) -> tuple[Tensor, Tensor]:
    """Named tokens [N, K] and log-probabilities [N, K + 1] (the last: all others together) at a role's positions.

    Raises:
        DataError: the distributions belong to another text or tokenizer.
    """
    sources, targets, names = rows_of(batch, role)
    labels = [row[row != IGNORED].tolist() for row in batch.targets[role].labels.cpu()]
    if hasattr(teacher, "look_up"):
        found = teacher.look_up(list(zip(names, sources, labels, strict=True)))
    else:
        found = teacher.distributions(sources, targets)
        if found.targets.tolist() != [token for row in labels for token in row]:
            raise DataError(
                "the teacher cuts the targets into other tokens than the student. Use objective 'universal_logit', or "
                "'pseudo_target', which learns from the teacher's text alone"
            )
    if found.tokenizer_hash != vocabulary_hash(student.tokenizer):
        raise DataError(
            f"the teacher's distributions index vocabulary {found.tokenizer_hash}, the student's is "
            f"{vocabulary_hash(student.tokenizer)}. Record them with the student's own tokenizer"
        )
    device = batch.source_ids.device
    ids = torch.as_tensor(found.ids.astype("int64")).to(device)
    known = torch.cat([torch.as_tensor(found.logprobs), torch.as_tensor(found.tail)[:, None]], -1).float()
    return ids, known.clamp(min=-69.0).to(device)


def rows_of(batch: Batch, role: str) -> tuple[list[str], list[str], list[str]]:
    """Source text, target text and example id of a role's rows, in the order in which `collate` laid them."""
    wanted = ROLE_OF.get(role, role)
    rows = [
        (view.source, view.target, item.id)
        for item, own in zip(batch.items, batch.views, strict=True)
        for view in own
        if view.role == wanted
    ]
    sources, targets, names = ([row[at] for row in rows] for at in range(3))
    return sources, targets, names


def same_vocabulary(student: Any, teacher: Any) -> None:
    """Refuse a teacher whose tokens are not the student's; padded widths may differ.

    Raises:
        TrainingError: the vocabularies differ (both sizes, and the two ways out).
    """
    theirs = getattr(teacher, "tokenizer_hash", None) or vocabulary_hash(teacher.tokenizer)
    if theirs == vocabulary_hash(student.tokenizer):
        return
    size = f"{len(teacher.tokenizer)} tokens" if hasattr(teacher, "tokenizer") else f"vocabulary {theirs}"
    raise TrainingError(
        f"the teacher's vocabulary ({size}) is not the student's ({len(student.tokenizer)} tokens). Two ways out: "
        "objective 'pseudo_target', which learns from the teacher's text, or 'universal_logit', which compares sorted "
        "probabilities"
    )


def probe(student: Any, batches: Sequence[Batch], teacher: Any, role: str) -> None:
    """Ask the teacher about a few rows, so that what cannot work is refused before training.

    Raises:
        TrainingError: its logits are not finite. DataError: stored distributions of other text.
    """
    training = student.training
    student.eval()
    with torch.no_grad():
        for batch in batches:
            if role in batch.targets:
                hidden = student(batch, [role], HIDDEN)[role].hidden
                token_divergence(student, teacher, batch, role, hidden, Measure())
    student.train(training)
