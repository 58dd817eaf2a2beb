"""The judge of QCRD: tell good rationales from bad ones, by itself or beside a student."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lmdistill.errors import ConfigError, TrainingError
from lmdistill.losses.contrast import JudgeLoss, judge_loss
from lmdistill.objectives import Companion, Objective, Part, Round
from lmdistill.objectives._judge import (
    TEMPLATE,
    Judge,
    Pooling,
    above,
    copied_encoder,
    pretrained_encoder,
    scratch_encoder,
)
from lmdistill.objectives._picking import places
from lmdistill.progress import progress
from lmdistill.store import seed_for
from lmdistill.students import Batch
from lmdistill.types import Annotation, Rationale, View

MASK = "_"
PRETRAINED_RATE = 5e-5
"""The rate of an encoder that brings its own pretraining."""


@dataclass(frozen=True)
class QualityJudging(Objective):
    """Learn to give good rationales a score near 1 and bad ones a score near 0.

    Paper:     QCRD, arXiv 2405.13014v2, equations (1) and (2)
    Equation:  see `losses.contrast.judge_loss`; s = sigmoid(D(x, r))
    Data:      needs rationales (good) and negatives (bad); where an item has fewer negatives, its good rationales with
               words masked or replaced fill the side up (`balance`)
    Shapes:    roles 'positive' and 'negative', one row per rationale, no target tokens
    Differs:   from the paper: `loss_form` is 'bce' by default, because (2) as printed bounds the loss to a range of two
               nats with weak gradients and does not make s a probability, which (1 - s) needs; alpha_3 is
               `learning_rate` times `weight`, decayed by `decay` a round, since AdamW ignores a loss's scale;
               `learning_rate` None is the student's own (`train.learning_rate`), or 5e-5 for an encoder by path. The
               encoder is a copy of the student's as it was before training (the paper: T5-base for a T5-base student),
               a new one of the size `preset`, or any by path. There is no authors' code
    """

    encoder: str = "student"
    preset: str = "tiny"
    pooling: Pooling = "max"
    loss_form: JudgeLoss = "bce"
    template: str = TEMPLATE
    learning_rate: float | None = None
    weight: float = 0.5
    decay: float = 0.9
    pretrain_steps: int = 500
    steps: int = 50
    every: int = 1
    batch_size: int = 32
    balance: bool = True
    corrupted: float = 0.3
    max_tokens: int = 512

    needs: ClassVar[frozenset[str]] = frozenset({"rationale", "negatives"})
    trains: ClassVar[str] = "judge"

    def __post_init__(self) -> None:
        problems = [f"{name}: {getattr(self, name)} is below 1" for name in ("every", "batch_size", "max_tokens")
                    if getattr(self, name) < 1]  # fmt: skip
        shares = {"decay": self.decay, "corrupted": self.corrupted}
        problems += [f"{name}: {value} is not in [0, 1]" for name, value in shares.items() if not 0 <= value <= 1]
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            problems.append(f"learning_rate: {self.learning_rate} is not above 0 (null takes the student's)")
        if not 0 <= self.weight < math.inf:
            problems.append(f"weight: {self.weight} is not a number of 0 or more")
        if self.steps < 0:
            problems.append(f"steps: {self.steps} is below 0 (0 leaves the judge as pretraining left it)")
        if not 0 <= self.pretrain_steps <= 500:
            problems.append(f"pretrain_steps: {self.pretrain_steps} is not in 0 to 500 (the paper's limit)")
        if "{rationale}" not in self.template:
            problems.append("template: has no {rationale}")
        if problems:
            raise ConfigError(problems)

    # --- judges ---

    def open(self, texts: Iterable[str] = (), seed: int = 0, *, vocabulary_size: int = 8000) -> Judge:
        """A judge by itself: a pretrained encoder by path, or one of random weights with subwords made from texts."""
        if self.encoder not in ("student", "scratch"):
            encoder, tokenizer = pretrained_encoder(self.encoder)
            return self._judge(encoder, tokenizer, seed)
        from lmdistill.students._scratch import size_of
        from lmdistill.students._vocabulary import build

        tokenizer = build("subword", texts, size=vocabulary_size, trim=False)
        return self._judge(scratch_encoder(len(tokenizer), size_of(self.preset), seed), tokenizer, seed)

    def companion(self, student: Any) -> Companion:
        """The judge beside a student: it shares the student's tokenizer unless its encoder has its own."""
        from lmdistill.students._scratch import size_of

        tokenizer = student.tokenizer
        if self.encoder == "student":
            encoder = copied_encoder(student)
        elif self.encoder == "scratch":
            encoder = scratch_encoder(len(tokenizer), size_of(self.preset), int(torch.randint(1 << 30, ())))
        else:
            encoder, tokenizer = pretrained_encoder(self.encoder)
        seed = int(torch.randint(1 << 30, ()))
        rate = self.learning_rate
        if rate is None and self.encoder not in ("student", "scratch"):
            rate = PRETRAINED_RATE
        return Companion(self._judge(encoder, tokenizer, seed), learning_rate=rate, phase="own")

    def vocabulary(self) -> Iterable[str]:
        return [self.template.replace("{input}", " ").replace("{rationale}", " ")]

    def _judge(self, encoder: Any, tokenizer: Any, seed: int) -> Judge:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Judge(encoder, tokenizer, pooling=self.pooling, max_tokens=self.max_tokens, template=self.template)

    # --- by itself, in the loop ---

    def text(self, item: Annotation, rationale: str) -> str:
        """What the judge reads."""
        return self.template.replace("{input}", item.example.input).replace("{rationale}", rationale)

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        good = [one.text for one in item.rationales if one.text.strip()]
        bad = [one.text for one in item.negatives if one.text.strip()]
        words = [word for text in (*good, *bad, item.example.input) for word in text.split()]
        while self.balance and good and len(bad) < len(good):
            bad.append(self.spoilt(rng.choice(good), words, MASK, rng))
        views = [View(self.text(item, text), "", "positive", i) for i, text in enumerate(good)]
        return views + [View(self.text(item, text), "", "negative", i) for i, text in enumerate(bad)]

    def spoilt(self, text: str, words: Sequence[str], mask: str, rng: random.Random) -> str:
        """A rationale with a share `corrupted` of its words (one at least) masked, or replaced by others of `words`."""
        own = text.split()
        for i in rng.sample(range(len(own)), min(len(own), max(1, round(self.corrupted * len(own))))):
            own[i] = mask if rng.random() < 0.5 else rng.choice(words)
        return " ".join(own)

    def counts(self, batch: Batch) -> dict[str, float]:
        sides = [set(rows.item[rows.weight > 0].tolist()) for rows in batch.targets.values()]
        if self.loss_form == "bce" or len(sides) < 2:
            return {"judge": float(len(set().union(*sides)))}
        return {"judge": float(len(sides[0] & sides[1]))}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        return {"judge": Part(self.total(student(batch), batch), self.counts(batch)["judge"])}

    def total(self, logits: dict[str, Tensor], batch: Batch) -> Tensor:
        """The judge's loss summed over the batch's items."""
        n = len(batch.items)
        grids, masks = [], []
        for role in ("positive", "negative"):
            if role not in batch.targets:
                grids.append(next(iter(logits.values())).new_zeros(n, 1))
                masks.append(torch.zeros(n, 1, dtype=torch.bool, device=grids[-1].device))
                continue
            rows = batch.targets[role]
            _, place = places(rows)
            shape = (n, int(place.max()) + 1)
            mask = torch.zeros(shape, dtype=torch.bool, device=place.device)
            mask[rows.item, place] = rows.weight > 0
            grids.append(logits[role].float().new_zeros(shape).index_put((rows.item, place), logits[role].float()))
            masks.append(mask)
        return judge_loss(grids[0], grids[1], masks[0], masks[1], form=self.loss_form).sum()

    # --- beside a student ---

    def teach(self, companion: Companion, items: Sequence[Annotation], round: Round) -> Sequence[Annotation]:
        """Train the judge on a round's items, and give every rationale of theirs its score 'quality'.

        Before its first round it is pretrained on the teacher's own rationales (what students wrote is left out).
        """
        judge: Judge = companion.module  # type: ignore[assignment]
        if round.index == 0 and self.pretrain_steps:
            told = [replace(item, negatives=tuple(n for n in item.negatives if not _of_student(n))) for item in items]
            self._fit(judge, companion, told, self.pretrain_steps, 1.0, round)
        if self.weight and self.steps and round.index % self.every == 0:
            self._fit(judge, companion, items, self.steps, self.weight * self.decay**round.index, round)
        fresh = self.scored(judge, items)
        round.notes |= agreement(fresh)
        return fresh

    def _fit(
        self, judge: Judge, companion: Companion, items: Sequence[Annotation], steps: int, scale: float, round: Round
    ) -> None:
        optimizer = companion.optimizer
        usable = [item for item in items if item.rationales]
        if optimizer is None or not usable:
            return
        rate = optimizer.defaults["lr"] if self.learning_rate is None else self.learning_rate
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        rng = random.Random(seed_for(round.seed, "judge", round.index, steps))
        device = judge.first.weight.device
        words = [word for item in usable[:1000] for one in item.rationales for word in one.text.split()]
        mask = str(judge.tokenizer.mask_token or judge.tokenizer.unk_token or MASK)
        judge.train()
        with progress("judge", steps, "steps") as bar:
            for _ in range(steps):
                chosen = rng.choices(usable, k=self.batch_size)
                batch = judge.collate(chosen, [self._balanced(item, words, mask, rng) for item in chosen]).to(device)
                loss = self.total(judge(batch), batch) / max(self.counts(batch)["judge"], 1)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
                if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
                    raise TrainingError(
                        _diverged(f"loss {float(loss.detach())} and gradient norm {float(norm)}", round, rate * scale)
                    )
                optimizer.step()
                bar.advance()
        optimizer.zero_grad(set_to_none=True)

    def _balanced(self, item: Annotation, words: Sequence[str], mask: str, rng: random.Random) -> list[View]:
        """One good and one bad rationale of an item; without a bad one, a good one is spoilt."""
        good = rng.choice(item.rationales).text
        bad = rng.choice(item.negatives).text if item.negatives else self.spoilt(good, words, mask, rng)
        views = [View(self.text(item, good), "", "positive")]
        return [*views, View(self.text(item, bad), "", "negative")] if self.balance or item.negatives else views

    def scored(self, judge: Judge, items: Sequence[Annotation]) -> list[Annotation]:
        """The items with the judge's score of every rationale and negative."""
        texts = [self.text(item, one.text) for item in items for one in (*item.rationales, *item.negatives)]
        found = judge.scores(texts)
        if not all(map(math.isfinite, found.values())):
            raise TrainingError(_diverged("scores"))

        def judged(item: Annotation, several: Sequence[Rationale]) -> tuple[Rationale, ...]:
            scores = [round_score(found[self.text(item, one.text)]) for one in several]
            return tuple(
                replace(one, scores={**one.scores, "quality": score})
                for one, score in zip(several, scores, strict=True)
            )

        return [
            replace(item, rationales=judged(item, item.rationales), negatives=judged(item, item.negatives))
            for item in items
        ]


def agreement(items: Sequence[Annotation]) -> dict[str, float]:
    """The chance that the judge puts a good rationale of a round above a bad one (of the teacher, of the student).

    It has learnt from these rationales, so this says whether it learnt at all, not how it judges others.
    """
    good = [one.scores["quality"] for item in items for one in item.rationales]
    bad = [(one.scores["quality"], _of_student(one)) for item in items for one in item.negatives]
    sides = {
        "judge_auc": [score for score, _ in bad],
        "judge_auc_teacher": [score for score, student in bad if not student],
        "judge_auc_student": [score for score, student in bad if student],
    }
    return {name: round_score(above(good, own)) for name, own in sides.items() if good and own}


def _diverged(what: str, round: Round | None = None, rate: float | None = None) -> str:
    """The message of a judge whose numbers are not finite."""
    where = "" if round is None else f" in round {round.index} at a learning rate of {rate:g}"
    return f"the judge's {what} are not finite{where}: lower contrast.judge.learning_rate"


def round_score(score: float) -> float:
    """A score as it is stored: six digits."""
    return round(score, 6)


def _of_student(rationale: Rationale) -> bool:
    return rationale.source.startswith("student@")
