"""MI: step-by-step distillation whose rationale must mention what the label says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lmdistill.errors import ConfigError
from lmdistill.losses.contrast import max_over_time, mutual_information
from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced, shown
from lmdistill.objectives._labels import PREFIXES, LabelSource, PrefixStyle, Selection, chosen, label_of
from lmdistill.students import IGNORED, Batch, Scored, Targets
from lmdistill.types import Annotation, View

WANT = frozenset({"nll", "hidden"})


@dataclass(frozen=True)
class MutualInformation(Objective):
    """Learn label and rationale as two tasks, and raise in the rationale the words that the label branch predicts.

    Paper:     Learning to Maximize Mutual Information for Chain-of-Thought Distillation, arXiv 2403.03348
    Equation:  L = alpha L_label + (1 - alpha) L_rationale + beta L_MI, alpha = `label_weight`, beta = `shared_weight`;
               L_MI see `losses.contrast.mutual_information`
    Data:      needs a label and a rationale; an item that lacks one takes no part in L_MI
    Shapes:    roles 'label' and 'rationale' as in StepByStep; part 'shared' one number per rationale row
    Differs:   `mode` 'released' is the authors' code to the digit: softmax twice, an unnormalised target, padding of
               both branches inside the maximum, so that the term changes with the rows that share a micro-batch
               (there and here: the padding is the micro-batch's own). 'clean' leaves padding out, normalises the
               target and takes the logarithm of the probabilities. The paper's own form could not be read
    Relations: MutualInformation(shared_weight=0) is StepByStep()
    """

    labels: LabelSource = "gold"
    label_weight: float = 0.5
    shared_weight: float = 0.1
    mode: Literal["released", "clean"] = "released"
    prefix_style: PrefixStyle = "released"
    rationales: Selection = "one"
    reduction: Reduction = "token"

    needs: ClassVar[frozenset[str]] = frozenset({"label", "rationale"})

    def __post_init__(self) -> None:
        if not 0 <= self.label_weight <= 1:
            raise ConfigError(f"label_weight: {self.label_weight} is not in [0, 1]")
        if self.shared_weight < 0:
            raise ConfigError(f"shared_weight: {self.shared_weight} is negative")

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        label = label_of(item, self.labels)
        views = [] if not label else [View(self.prompt(item), label, "label")]
        source = self.rationale_prompt(item)
        seen = chosen(item.rationales, self.rationales, rng)
        return views + [View(source, one.text, "rationale", group) for group, one in seen]

    def prompt(self, annotation: Annotation) -> str:
        return PREFIXES[self.prefix_style].label + shown(annotation)

    def rationale_prompt(self, annotation: Annotation) -> str:
        return PREFIXES[self.prefix_style].rationale + shown(annotation)

    def counts(self, batch: Batch) -> dict[str, float]:
        counts = {role: count_of(batch, role, self.reduction) for role in batch.targets}
        if self._shares(batch):
            rows = batch.targets["rationale"]
            weight = rows.weight[_label_rows(batch) >= 0]
            counts["shared"] = float(weight.sum())
        return counts

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        weights = {"label": self.label_weight, "rationale": 1 - self.label_weight}
        if not self._shares(batch):
            scored = student(batch)
            return {role: reduced(scored[role], batch, role, self.reduction, weights[role]) for role in batch.targets}
        scored = student(batch if self.mode == "clean" else _padding_as_words(batch, student.pad), want=WANT)
        pooled = self._pooled(student, scored)
        if self.mode == "released":
            for role, one in scored.items():
                one.mask = batch.targets[role].labels != IGNORED
                assert one.nll is not None
                one.nll = one.nll * one.mask
        parts = {role: reduced(scored[role], batch, role, self.reduction, weights[role]) for role in batch.targets}
        which = _label_rows(batch)
        kept = which >= 0
        values = mutual_information(pooled["label"][which[kept]], pooled["rationale"][kept], clean=self.mode == "clean")
        weight = batch.targets["rationale"].weight[kept]
        parts["shared"] = Part((values * weight).sum(), float(weight.sum()), self.shared_weight)
        return parts

    def _shares(self, batch: Batch) -> bool:
        """Whether some item of the batch has both branches, and their likeness counts."""
        both = "label" in batch.targets and "rationale" in batch.targets
        return bool(self.shared_weight) and both and bool((_label_rows(batch) >= 0).any())

    def _pooled(self, student: Any, scored: dict[str, Scored]) -> dict[str, Tensor]:
        """For each branch the maximum over time [R, V]; the label's without a gradient."""
        label, rationale = scored["label"], scored["rationale"]
        assert label.hidden is not None and rationale.hidden is not None
        with torch.no_grad():
            predicted = max_over_time(label.hidden.detach(), label.mask, student.head)
        return {"label": predicted, "rationale": max_over_time(rationale.hidden, rationale.mask, student.head)}


def _label_rows(batch: Batch) -> Tensor:
    """For each rationale row [R] the row of its item's label, or -1."""
    label, rationale = batch.targets["label"], batch.targets["rationale"]
    place = label.item.new_full((len(batch.items),), -1)
    place[label.item] = torch.arange(len(label.item), device=label.item.device)
    return place[rationale.item]


def _padding_as_words(batch: Batch, pad: int) -> Batch:
    """The batch with padding of the targets as real positions that the student is asked about."""

    def filled(rows: Targets) -> Targets:
        return replace(rows, labels=rows.labels.masked_fill(rows.labels == IGNORED, pad))

    return replace(batch, targets={role: filled(rows) for role, rows in batch.targets.items()})
