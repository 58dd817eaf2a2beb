"""A training with an objective that uses every hook, as a program: run alone or by two processes, killed and resumed.

python loop_program.py FOLDER [STEPS_PER_SECOND]
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmdistill.objectives import Companion, Objective, Part, Round, count_of, reduced
from lmdistill.students import Batch
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Rationale, Sampling, View


@dataclass(frozen=True)
class Everything(Objective):
    """Uses views by epoch, counts, prepare, joint and own companions, refresh with lagged weights, and learn."""

    pause: float = 0.0

    refreshes = True
    lags = 2

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        other = [one.text for one in item.negatives]
        return [
            View(item.example.input, item.example.label or "", "label"),
            View(item.example.input, item.rationales[(epoch + rng.randrange(2)) % 2].text, "rationale", 0, 0.5),
            *[View(item.example.input, text, "negative", i) for i, text in enumerate(other) if text],
        ]

    def prepare(self, batch: Batch, round: Round) -> Batch:
        time.sleep(self.pause)
        if round.step % 2 == 0:
            return batch
        texts = round.sampler(0).generate([item.example.input for item in batch.items], Sampling(max_tokens=4))
        tokens = [round.student.target_tokens(own[0].text) for own in texts]
        return round.student.with_targets(batch, "label", tokens)

    def companions(self, student: Any) -> dict[str, Companion]:
        width = student.model.config.d_model
        return {
            "scale": Companion(nn.Linear(1, 1), learning_rate=0.01),
            "judge": Companion(nn.Linear(width, 1), learning_rate=0.01, phase="own"),
        }

    def refresh(self, items: Sequence[Annotation], round: Round) -> Sequence[Annotation]:
        past = round.sampler(2)
        if past is None:
            return items
        texts = past.generate([item.example.input for item in items], Sampling(max_tokens=4))
        source = f"student@{round.index - 2}"
        pairs = zip(items, texts, strict=True)
        return [replace(item, negatives=(Rationale(own[0].text or "nothing", source=source),)) for item, own in pairs]

    def learn(self, items: Sequence[Annotation], round: Round) -> Sequence[Annotation]:
        judge = round.companions["judge"]
        assert judge.optimizer is not None
        features = torch.randn(len(items), judge.module.in_features)
        targets = torch.tensor([float(len(item.negatives)) for item in items])
        loss = (judge.module(features).squeeze(1) - targets).square().mean()
        loss.backward()
        judge.optimizer.step()
        judge.optimizer.zero_grad()
        return items

    def counts(self, batch: Batch) -> dict[str, float]:
        return {role: count_of(batch, role, "token") for role in batch.targets}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        scored = student(batch)
        weights = {"label": 1.0, "rationale": 1.0 - 0.5 * progress, "negative": 0.1}
        parts = {role: reduced(scored[role], batch, role, "token", weights[role]) for role in batch.targets}
        scale = self.scale(torch.ones(1, 1)).squeeze()
        return parts | {"label": replace(parts["label"], total=parts["label"].total * (1 + 0.1 * scale))}


class WithScale(Everything):
    """Keeps hold of its joint companion, so that the loss reaches it."""

    def companions(self, student: Any) -> dict[str, Companion]:
        made = super().companions(student)
        object.__setattr__(self, "scale", made["scale"].module)
        return made


def items() -> list[Annotation]:
    """Forty sums with two rationales each."""
    rng = random.Random(0)
    out = []
    for i in range(40):
        a, b = rng.randrange(10), rng.randrange(10)
        texts = (f"{a} and then {b} more make {a + b}", f"count {b} up from {a}" + " and on" * (i % 5))
        out.append(Annotation(Example(f"e{i}", f"{a} plus {b}", str(a + b)), tuple(Rationale(text) for text in texts)))
    return out


def main(folder: Path, pause: float) -> None:
    """Train thirty steps in five rounds."""
    torch.set_num_threads(1)
    own = items()
    texts = [text for item in own for text in (item.example.input, item.example.label or "", item.rationales[0].text)]
    student = Seq2seq(dropout=0.0).open([*texts, "count up from and on nothing"], seed=3)
    settings = TrainSettings(
        steps=30, batch_size=8, tokens_per_batch=220, bucket=2, learning_rate=1e-3, save_every=4, eval_every=7,
        log_every=1, device="cpu",
    )  # fmt: skip
    validate = lambda student: {"first": float(student.logprobs(["1 plus 1"], ["2"])[0])}  # noqa: E731
    train(student, WithScale(pause), own, settings=settings, folder=folder, validate=validate, seed=5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
