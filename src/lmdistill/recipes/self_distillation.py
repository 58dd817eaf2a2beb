"""Self-distillation: a student teaches the next one of its own size, for some rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lmdistill.errors import ConfigError
from lmdistill.objectives import Objective
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.logit_kd import LogitKD
from lmdistill.recipes._road import Road, vocabulary_texts
from lmdistill.store import seed_for
from lmdistill.train import Trained, train


@dataclass(frozen=True)
class SelfDistillation(Road):
    """Fine-tune a student on the labels; then, `rounds` times, a fresh one on the labels and the last one's logits.

    Paper:    Born-again networks, arXiv 1805.04770; "self-distillation" in KD4Gen, arXiv 2305.02031, related work
    Differs:  from the paper: none (`learns.text_weight` 1 adds the labels' own loss, as there)
    """

    rounds: int = 1
    learns: LogitKD = field(default_factory=lambda: LogitKD(targets="gold", text_weight=1.0))

    asks_teacher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise ConfigError(f"rounds: expected 1 or more, got {self.rounds}")

    def objective(self) -> Objective:
        return self.learns

    def trained(self, objective: Objective, items: Sequence[Any], seed: int, folder: Path, out: Path) -> Trained:
        from lmdistill.objectives._teacher import Frozen

        validate = self.validation(objective, out)
        texts = list(vocabulary_texts(objective, items))
        settled: dict[str, Any] = {"settings": self.train, "validate": validate}
        card = self.card()
        first = LabelOnly(prefix=self.learns.prefix, reduction=self.learns.reduction)
        before = folder.parent / "round-0"
        last = train(self.student.open(texts, seed), first, items, folder=before, seed=seed, card=card, **settled)
        for number in range(1, self.rounds + 1):
            own = seed_for(seed, "round", number) % (1 << 31)
            student = self.student.open(texts, own)
            place = folder if number == self.rounds else folder.parent / f"round-{number}"
            taught = {**card, "round": number, "taught_by": f"step {last.step} of round {number - 1}, seed {seed}"}
            told = Frozen(last.student)
            last = train(student, objective, items, folder=place, seed=own, card=taught, teacher=told, **settled)
        return last
