"""QCRD: learn from the best rationale, and unlearn what an old student or a confused teacher wrote."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lmdistill.config import component
from lmdistill.errors import ConfigError
from lmdistill.losses.contrast import Scheme, hinge, sequence_mean
from lmdistill.objectives import Companion, Objective, Part, Reduction, Round, count_of, reduced, shown
from lmdistill.objectives._labels import PREFIXES, LabelSource, PrefixStyle, label_of
from lmdistill.objectives._picking import (
    crowded,
    joined,
    mean_tokens,
    one_sided,
    open_ended,
    opinions,
    present,
    rows_where,
)
from lmdistill.objectives._rationales import (
    UNFINISHED,
    Positives,
    Ties,
    Unfinished,
    agreeing,
    sampled_negatives,
    split,
    tallied,
    with_split,
    without,
)
from lmdistill.progress import first_process
from lmdistill.students import Batch, Student, Targets
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Rationale, Sampling, View

Negatives = Literal["student", "fixed", "teacher", "both", "none"]
"""Where bad rationales come from. `student`: the student of `lag` rounds ago; `fixed`: the student as it was before
training; `teacher`: the minority of the vote; `both`: teacher and student (the paper); `none`."""

JUDGE, INITIAL = "judge", "initial"
SIDES = ("positive", "negative")


@dataclass(frozen=True)
class ContrastiveRationale(Objective):
    """Learn to write the label, and the likeliest good rationale rather than bad ones, weighted by a judge's opinion.

    Paper:     QCRD, arXiv 2405.13014v2, equations (3) to (8)
    Equation:  L = a1 L_label + a2 (1/N) sum_i [ s+ min_j l(r+_j) + beta (1 - s-) min_k max(delta - l(r-_k), 0) ]
               with l(r) the mean over the tokens of r given x_i; a1, a2 = `label_weight`, `contrast_weight`, beta =
               `negative_weight`, delta = `margin`, s = the judge's score of the rationale that was picked
    Data:      needs a label and rationales (several, for self-consistency); samples of the student are made here
    Shapes:    role 'label' one row per item; roles 'positive' and 'negative' one row per rationale, row weights
               s+ and 1 - s-; all of an item's rationales share one source
    Differs:   from the paper (each open point is a setting): an "iteration" is a round (`train.refresh_every` epochs),
               because per step the sampling would dominate and alpha_3 would vanish; s is the score of the rationale
               that was picked, without a gradient (otherwise the loss drives s+ to 0); samples are not truncated
               (top_k 0), and one that `max_tokens` cut is pushed away from without an end; alpha_3 and its decay act
               on the judge's learning rate, since AdamW ignores a loss's scale; before round `lag` the negatives are
               `early`; the decoder selects without dropout. There is no authors' code
    Relations: with negative_weight=0, positives='first', judge=None, prefix_style='released' and
               rationale_reduction='token' it is StepByStep()
    """

    labels: LabelSource = "gold"
    label_weight: float = 0.5
    contrast_weight: float = 0.5
    negative_weight: float = 0.2
    margin: float = 3.0
    scheme: Scheme = "minmax"
    positives: Positives = "majority"
    ties: Ties = "all"
    unparsable_is_negative: bool = True
    negatives: Negatives = "both"
    lag: int = 5
    early: Literal["teacher", "initial"] = "initial"
    samples: int = 1
    temperature: float = 1.5
    max_tokens: int = 64
    unfinished: Unfinished = "open"
    generation_batch: int = 256
    judge: Objective | None = component("objectives", "quality_judging")
    quality_of: Literal["picked", "mean"] = "picked"
    prefix_style: PrefixStyle = "qcrd"
    reduction: Reduction = "token"
    rationale_reduction: Reduction = "example"

    needs: ClassVar[frozenset[str]] = frozenset({"label", "rationale"})
    refreshes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {getattr(self, name)} is not a number of 0 or more"
            for name in ("label_weight", "contrast_weight", "negative_weight", "margin")
            if not 0 <= getattr(self, name) < math.inf
        ]
        problems += [
            f"{name}: {getattr(self, name)} is below 1"
            for name in ("lag", "samples", "max_tokens", "generation_batch")
            if getattr(self, name) < 1
        ]
        if not 0 < self.temperature < math.inf:
            problems.append(f"temperature: {self.temperature}; negatives are sampled, so it must be above 0")
        if self.judge is not None and not hasattr(self.judge, "companion"):
            problems.append(f"judge: {type(self.judge).__name__} judges nothing; use 'quality_judging' or null")
        if problems:
            raise ConfigError(problems)

    @property
    def samples_student(self) -> bool:
        """Whether negatives are drawn from a student."""
        return self.negative_weight > 0 and self.negatives in ("student", "fixed", "both")

    @property
    def lags(self) -> int:  # type: ignore[override]
        return self.lag if self.samples_student and self.negatives != "fixed" else 0

    # --- rows ---

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        label = label_of(item, self.labels)
        views = [] if not label else [View(self.prompt(item), label, "label")]
        source = self.rationale_prompt(item)
        good = [one for one in item.rationales if one.text.strip()]
        if self.positives == "first":
            good = good[:1]
        views += [View(source, one.text, "positive", i, _opinion(one, 1.0)) for i, one in enumerate(good)]
        if self.negative_weight:
            bad = [one for one in item.negatives if one.text.strip()]
            views += [View(source, one.text, "negative", i, 1 - _opinion(one, 0.0)) for i, one in enumerate(bad)]
        return views

    def marked(self, items: Sequence[Annotation], task: Task) -> Sequence[Annotation]:
        return agreeing(items, task)

    def vocabulary(self) -> Iterable[str]:
        return () if self.judge is None else self.judge.vocabulary()

    def prompt(self, annotation: Annotation) -> str:
        return PREFIXES[self.prefix_style].label + shown(annotation)

    def rationale_prompt(self, annotation: Annotation) -> str:
        return PREFIXES[self.prefix_style].rationale + shown(annotation)

    # --- rounds ---

    def refresh(self, items: Sequence[Annotation], round: Round) -> Sequence[Annotation]:
        sides = [
            split(
                item,
                positives=self.positives,
                ties=self.ties,
                unparsable_is_negative=self.unparsable_is_negative,
                labels=self.labels,
            )
            for item in items
        ]
        fresh = [with_split(item, parts) for item, parts in zip(items, sides, strict=True)]
        if self.negatives not in ("teacher", "both") or not self.negative_weight:
            fresh = [replace(item, negatives=()) for item in fresh]
        written = self._written(fresh, round)
        fresh = [replace(item, negatives=(*item.negatives, *own)) for item, own in zip(fresh, written, strict=True)]
        for name, count in tallied(fresh, sides).items():
            round.notes[name] = round.notes.get(name, 0) + count
        return fresh

    def _written(self, items: Sequence[Annotation], round: Round) -> list[tuple[Rationale, ...]]:
        """What an old student writes for the items that have a positive to contrast it with."""
        out: list[tuple[Rationale, ...]] = [() for _ in items]
        writer, of = self._writer(round)
        chosen = [i for i, item in enumerate(items) if item.rationales]
        if writer is None or not chosen:
            return out
        sampling = Sampling(n=self.samples, temperature=self.temperature, max_tokens=self.max_tokens)
        made = sampled_negatives(
            [items[i] for i in chosen],
            [self.rationale_prompt(items[i]) for i in chosen],
            writer,
            sampling,
            seed=round.seed,
            round=round.index,
            source=f"student@round-{of}",
            batch_size=self.generation_batch,
            unfinished=self.unfinished,
            notes=round.notes,
        )
        for i, own in zip(chosen, made, strict=True):
            out[i] = own
        return out

    def _writer(self, round: Round) -> tuple[Student | None, int]:
        """The student that writes negatives now, and the round that its weights are from."""
        if not self.samples_student:
            return None, 0
        if self.negatives == "fixed":
            return round.companions[INITIAL].module, 0  # type: ignore[return-value]
        if round.index < self.lag and self.early == "teacher":
            return None, 0
        lag = min(self.lag, round.index)
        return round.sampler(lag), round.index - lag

    def companions(self, student: Any) -> dict[str, Companion]:
        made: dict[str, Companion] = {}
        if self.judge is not None:
            made[JUDGE] = self.judge.companion(student)  # type: ignore[attr-defined]
        if self.samples_student and self.negatives == "fixed":
            import copy

            made[INITIAL] = Companion(copy.deepcopy(student), phase="kept")
        return made

    def learn(self, items: Sequence[Annotation], round: Round) -> Sequence[Annotation]:
        self._warn(items, round)
        if self.judge is None:
            return items
        return self.judge.teach(round.companions[JUDGE], items, round)  # type: ignore[attr-defined, no-any-return]

    def _warn(self, items: Sequence[Annotation], round: Round) -> None:
        """Say once, in the first round that should have bad rationales, that there are none at all."""
        waits = self.early == "teacher" and self.negatives == "student"
        asked = self.negative_weight > 0 and self.negatives != "none" and round.index == (self.lag if waits else 0)
        if not asked or any(item.rationales and item.negatives for item in items) or not first_process():
            return
        why = without(round.notes)
        print(
            f"lmdistill: round {round.index} has no bad rationale to push away from ({why}). Sample the teacher "
            "several times at a temperature above 0, or take the student's samples too (contrast.negatives: both)",
            file=sys.stderr,
        )

    # --- the loss ---

    def counts(self, batch: Batch) -> dict[str, float]:
        counts = {"label": count_of(batch, "label", self.reduction)} if "label" in batch.targets else {}
        sides = {role: batch.targets[role] for role in SIDES if role in batch.targets}
        inputs = float(present(sides.values(), len(batch.items)).sum())
        counts |= dict.fromkeys(sides, inputs)
        if "positive" in sides and self.rationale_reduction == "token":
            counts["positive"] = mean_tokens(sides["positive"], len(batch.items))
        return counts

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        batch = self._open_ended(student, batch)
        shared = student.encoded(batch)
        sides = {role: batch.targets[role] for role in SIDES if role in batch.targets}
        shares = self._shares(student, shared, sides)
        picked = {role: rows_where(rows, shares[role] > 0) for role, rows in sides.items()}
        rationales = joined(list(picked.values()))
        targets = {"label": batch.targets["label"]} if "label" in batch.targets else {}
        scored = student(replace(shared, targets=targets | ({} if rationales is None else {"rationale": rationales})))
        counts, parts = self.counts(batch), {}
        if "label" in scored:
            parts["label"] = reduced(scored["label"], batch, "label", self.reduction, self.label_weight)
        if rationales is None:
            return parts
        nll, means = scored["rationale"].nll.sum(-1), sequence_mean(scored["rationale"].nll, scored["rationale"].mask)
        start = 0
        for role, rows in picked.items():
            own = slice(start, start + rows.labels.shape[0])
            start = own.stop
            chosen = shares[role] > 0
            # a weighted mean has the judge's opinion in its shares
            weight = shares[role][chosen] * (
                1
                if self.scheme == "weighted_mean"
                else opinions(sides[role], picked=self.quality_of == "picked")[chosen]
            )
            if role == "positive":
                values = nll[own] if self.rationale_reduction == "token" else means[own]
                parts[role] = Part((weight * values).sum(), counts[role], self.contrast_weight)
            else:
                beyond = self.contrast_weight * self.negative_weight
                parts[role] = Part((weight * hinge(means[own], margin=self.margin)).sum(), counts[role], beyond)
        return parts

    def _open_ended(self, student: Any, batch: Batch) -> Batch:
        """The batch without the end of sequence of negatives that were cut at their token limit."""
        if "negative" not in batch.targets:
            return batch
        rows = batch.targets["negative"]
        bad = [[one for one in item.negatives if one.text.strip()] for item in batch.items]  # type: ignore[union-attr]
        pairs = zip(rows.item.tolist(), rows.group.tolist(), strict=True)
        cut = [UNFINISHED in bad[item][group].scores for item, group in pairs]
        return replace(batch, targets={**batch.targets, "negative": open_ended(rows, cut, student.ends)})

    @torch.no_grad()
    def _shares(self, student: Any, batch: Batch, sides: dict[str, Targets]) -> dict[str, Tensor]:
        """The share [R] of each row in its input's loss, found without a gradient; 0 for negatives beyond the margin.

        Positives that are alone with their input, or whose share does not depend on the loss, are not scored for it.
        """
        picks = self.scheme in ("minmax", "maxmin")
        asked = {role: torch.ones_like(rows.item, dtype=torch.bool) for role, rows in sides.items()}
        if "positive" in asked:
            asked["positive"] = crowded(sides["positive"]) & picks
        rows = joined([rows_where(sides[role], where) for role, where in asked.items()])
        values = {role: torch.zeros_like(own.weight) for role, own in sides.items()}
        if rows is not None:
            training = student.training
            scored = student.eval()(replace(batch, targets={"rationale": rows}))["rationale"]
            student.train(training)
            means, start = sequence_mean(scored.nll, scored.mask), 0
            for role, where in asked.items():
                stop = start + int(where.sum())
                values[role][where] = means[start:stop]
                start = stop
        if "negative" in values:
            values["negative"] = (values["negative"] - self.margin).clamp(max=0)
        shares = {
            role: one_sided(own, values[role], scheme=self.scheme, negative=role == "negative")
            for role, own in sides.items()
        }
        if "negative" in shares:
            shares["negative"] = shares["negative"] * (values["negative"] < 0)
        return shares


def _opinion(rationale: Rationale, unjudged: float) -> float:
    """The judge's score of a rationale, or what it counts as where nobody judged it."""
    return float(rationale.scores.get("quality", unjudged))
