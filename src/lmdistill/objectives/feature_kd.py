"""Feature distillation: the student's inner states follow the teacher's, beside its logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lmdistill.errors import ConfigError, TrainingError
from lmdistill.losses.features import hidden_cosine, hidden_mse, relation_kl
from lmdistill.objectives import Companion, Part
from lmdistill.objectives._distilling import Distilling, part_of
from lmdistill.objectives._relations import attentions, caught
from lmdistill.objectives._targets import ROLE
from lmdistill.objectives._teacher import Frozen, whole_divergence
from lmdistill.students import IGNORED, Batch, Scored

WANT = frozenset({"hidden", "layers"})
STATES = {"encoder": ("encoder_hidden_states",), "decoder": ("decoder_hidden_states", "hidden_states")}


class Features(nn.Module):
    """Projections of the student's hidden states to the teacher's width, and the first losses' means."""

    def __init__(self, names: Sequence[str], width: int, teacher_width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(width, teacher_width, bias=False) for name in names})
        self.seen: Tensor
        self.sums: Tensor
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("sums", torch.zeros(3))

    def scale(self, place: int, value: Tensor, first: int, floor: float) -> Tensor:
        """1 over the mean of a loss in the first batches (over those so far, while they last)."""
        if self.training and float(self.seen[place]) < first:
            self.seen[place] += 1
            self.sums[place] += value.detach().float()
        mean = self.sums[place] / self.seen[place].clamp(min=1)
        return 1 / mean.clamp(min=floor)


@dataclass(frozen=True)
class FeatureKD(Distilling):
    """Learn the teacher's distributions, how its attention relates positions, and (with `hidden_weight`) its states.

    `layers` pairs a student's layer with a teacher's (0: the embeddings, negative from the end), in each of `stacks`;
    learned projections bridge different widths. `balance` divides each loss by its mean over so many first batches (at
    least `floor`), so that the weights mean what they say; 0 leaves them as they are.

    Paper:     KD4Gen, arXiv 2305.02031, stage 3 ("attention relations"); MiniLMv2, arXiv 2012.15828; FitNets,
               arXiv 1412.6550, for `hidden_weight`
    Equation:  L = 0.5 L_log + 0.5 mean of KL(R_T || R_S) over queries, keys and values of the last encoder, decoder
               and cross attention, each divided by its first mean
    Data:      needs the teacher's model, of the student's kind; a label or pseudo-targets
    Shapes:    role 'target', one row per text; parts 'target', 'relations' and 'hidden', by row
    Differs:   from the paper: none; from the authors' code: padding is left out of the relations, the balance follows
               each process's own batches until they are all in
    Relations: relation_weight=0, hidden_weight=0, logit_weight=1, balance=0 is LogitKD
    """

    logit_weight: float = 0.5
    relation_weight: float = 0.5
    hidden_weight: float = 0.0
    layers: tuple[tuple[int, int], ...] = ((-1, -1),)
    stacks: tuple[str, ...] = ("encoder", "decoder")
    cosine: bool = False
    balance: int = 100
    floor: float = 0.025

    writes: ClassVar[bool] = True  # only a whole model has inner states

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = [
            f"{name}: expected a number of 0 or more, got {getattr(self, name)}"
            for name in ("logit_weight", "relation_weight", "hidden_weight", "balance")
            if not 0 <= getattr(self, name) < math.inf
        ]
        if not 0 < self.floor < math.inf:
            problems.append(f"floor: expected a number above 0, got {self.floor}")
        if not self.stacks or len(set(self.stacks)) < len(self.stacks) or set(self.stacks) - set(STATES):
            problems.append(f"stacks: expected 'encoder', 'decoder' or both, got {list(self.stacks)}")
        if not self.layers:
            problems.append("layers: expected at least one pair (the student's layer, the teacher's)")
        if self.text_weight:
            problems.append("text_weight: feature_kd learns no text; use 'logit_kd', or set it to 0")
        if problems:
            raise ConfigError(problems)

    def check(self, student: Any, teacher: Any, items: Sequence[Any]) -> None:
        super().check(student, teacher, items)
        model, other = student.model, teacher.model.model
        if model.config.is_encoder_decoder != other.config.is_encoder_decoder:
            raise TrainingError(
                "feature_kd compares the layers of two models of one kind; one of these is an encoder-decoder, the "
                "other is not. Use objective 'logit_kd'"
            )
        problems = []
        if not self._stacks(model):
            problems.append("stacks: a decoder-only model has no encoder; name 'decoder'")
        for stack in self._stacks(model):
            for mine, theirs in self.layers:
                for who, place, one in (("student", mine, model), ("teacher", theirs, other)):
                    most = _depth(one, stack)
                    if not -most - 1 <= place <= most:
                        problems.append(f"layers: the {who}'s {stack} has no layer {place} (0 to {most})")
        heads = self._heads(other)
        for name, attention in attentions(model).items() if self.relation_weight else ():
            widths = [module.weight.shape[0] for module in attention.children() if hasattr(module, "in_features")]
            if any(width % heads for width in widths):
                problems.append(
                    f"relation_weight: the {name} attention's width {widths} is no multiple of {heads} heads"
                )
        if problems:
            raise ConfigError(problems)
        object.__setattr__(self, "_widths", (_width(model), _width(other)))

    def companions(self, student: Any) -> dict[str, Companion]:
        width, other = getattr(self, "_widths", (_width(student.model), _width(student.model)))
        names = [f"{stack}{i}" for stack in self._stacks(student.model) for i in range(len(self.layers))]
        made = Features(names if self.hidden_weight else [], width, other)
        object.__setattr__(self, "_features", made)
        return {"features": Companion(made)}

    def counts(self, batch: Batch) -> dict[str, float]:
        counts = super().counts(batch)
        rows = float(batch.targets[ROLE].weight.sum()) if ROLE in batch.targets else 0.0
        return counts | {"relations": rows, "hidden": rows}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        assert isinstance(teacher, Frozen)
        with caught(student.model) as mine:
            scored = student(batch, [ROLE], WANT)[ROLE]
        with caught(teacher.model.model) as theirs:
            told = teacher.scored(batch, ROLE, WANT)
        assert told.hidden is not None
        values = whole_divergence(student, teacher.model, scored.hidden, told.hidden, self.measure)
        parts = [part_of(values, scored, batch, ROLE, self.reduction, self.logit_weight * self._scale)]
        names = [ROLE]
        rows = batch.targets[ROLE]
        count = float(rows.weight.sum())
        if self.relation_weight:
            per_row = self._relations(student, teacher, batch, scored, mine, theirs)
            names, parts = (
                [*names, "relations"],
                [*parts, Part((per_row * rows.weight).sum(), count, self.relation_weight)],
            )
        if self.hidden_weight:
            per_row = self._hidden(student, batch, scored, told)
            names, parts = [*names, "hidden"], [*parts, Part((per_row * rows.weight).sum(), count, self.hidden_weight)]
        if self.balance:
            parts = [self._balanced(place, part) for place, part in enumerate(parts)]
        return dict(zip(names, parts, strict=True))

    def _balanced(self, place: int, part: Part) -> Part:
        features: Features = self._features  # type: ignore[attr-defined]
        scale = features.scale(place, part.total / max(part.count, 1e-12), self.balance, self.floor)
        return Part(part.total * scale, part.count, part.weight)

    def _relations(
        self,
        student: Any,
        teacher: Frozen,
        batch: Batch,
        scored: Scored,
        mine: dict[str, Tensor],
        theirs: dict[str, Tensor],
    ) -> Tensor:
        """The mean over relations and positions of each row [R]."""
        heads, rows = self._heads(teacher.model.model), batch.targets[ROLE]
        source = batch.source_mask.bool()
        out = []
        for name in mine:
            whole = name.startswith("encoder") and student.sharing != "none"
            if name.startswith("encoder") or name in ("cross.k", "cross.v"):
                mask = source if whole else source[rows.source]
            elif student.model.config.is_encoder_decoder:
                mask = scored.mask
            else:
                mask = torch.cat([source[rows.source], (rows.labels != IGNORED)[:, :-1]], dim=1)
            values = relation_kl(mine[name], theirs[name], mask, heads=heads)
            per_row = values.sum(-1) / mask.sum(-1).clamp(min=1)
            out.append(per_row[rows.source] if whole else per_row)
        return torch.stack(out).mean(0)

    def _hidden(self, student: Any, batch: Batch, scored: Scored, told: Scored) -> Tensor:
        """The mean over layers and positions of each row [R]."""
        features: Features = self._features  # type: ignore[attr-defined]
        rows, out = batch.targets[ROLE], []
        distance = hidden_cosine if self.cosine else hidden_mse
        for stack in self._stacks(student.model):
            ours, theirs = (_states(one, stack) for one in (scored, told))
            mask = batch.source_mask[rows.source].bool() if stack == "encoder" else scored.mask
            for i, (own, other) in enumerate(self.layers):
                values = distance(features.projections[f"{stack}{i}"](ours[own]), theirs[other])
                out.append(values.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1))
        return torch.stack(out).mean(0)

    def _stacks(self, model: Any) -> tuple[str, ...]:
        return tuple(stack for stack in self.stacks if stack == "decoder" or model.config.is_encoder_decoder)

    def _heads(self, model: Any) -> int:
        return int(getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads)


def _states(scored: Scored, stack: str) -> Sequence[Tensor]:
    return next(scored.layers[name] for name in STATES[stack] if name in scored.layers)


def _width(model: Any) -> int:
    return int(getattr(model.config, "d_model", None) or model.config.hidden_size)


def _depth(model: Any, stack: str) -> int:
    """How many layers a stack has (its states are one more: the embeddings)."""
    config = model.config
    if not config.is_encoder_decoder:
        return int(config.num_hidden_layers)
    names = ("encoder_layers", "num_layers") if stack == "encoder" else ("decoder_layers", "num_decoder_layers")
    return int(next(getattr(config, name) for name in names if getattr(config, name, None) is not None))
