"""The only loop: items -> checkpoint, for every objective, on Accelerate.

A step takes whole items, lets the objective turn them into rows, divides the summed parts of the loss once by counts
that are known before the first backward pass (over all micro-batches and processes), clips, and updates. So gradient
accumulation and several processes equal one big batch. Randomness follows from (seed, step), so a run that was killed
and resumed ends with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lmdistill import __version__
from lmdistill.config import settings_of
from lmdistill.errors import ConfigError, TrainingError
from lmdistill.objectives import Objective
from lmdistill.progress import first_process
from lmdistill.registry import name_of
from lmdistill.shared import alone
from lmdistill.store import Stage, digest_rows, stage

Precision = Literal["auto", "fp32", "bf16"]
CARD = "lmdistill.json"
"""The file beside a student's weights that says what it was trained for, so that `predict` can open it alone."""


@dataclass(frozen=True)
class TrainSettings:
    """How a student is trained; the defaults are those of Distilling Step-by-Step's code.

    `batch_size` counts items a step over all processes; `tokens_per_batch` bounds the padded tokens of a micro-batch,
    a step is cut into as many as that takes. `epochs` overrides `steps`; steps that are said (in a run file, an arm of
    a comparison, `--set`) displace the epochs of what they are laid over. `warmup` below 1 is a share of the steps.
    `optimizer` 'adafactor' takes steps relative to the weights' size, as T5 was made: from random weights on real text
    a T5 learns several times faster with it than with 'adamw' (`learning_rate` about 2e-2, see docs/results.md).
    `bucket` steps' items are sorted by length together (1: plain shuffle). `precision` 'auto' is bf16 on an
    accelerator that has it and fp32 elsewhere. `select` names the validation metric (default: its first) that chooses
    the checkpoint; `patience` evaluations without progress stop the run.
    """

    steps: int = 10_000
    epochs: float | None = None
    batch_size: int = 64
    tokens_per_batch: int = 16_384
    bucket: int = 16
    learning_rate: float = 5e-5
    optimizer: Literal["adamw", "adafactor", "sgd"] = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    schedule: str = "linear"
    warmup: float = 0.0
    clip: float = 1.0
    precision: Precision = "auto"
    refresh_every: int = 1
    eval_every: int = 250
    select: str | None = None
    direction: Literal["max", "min"] = "max"
    patience: int | None = None
    save_every: int = 500
    log_every: int = 50
    report_to: tuple[str, ...] = ()
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "tokens_per_batch", "bucket", "refresh_every", "eval_every", "save_every")
        problems = [f"{name}: {getattr(self, name)} is below 1" for name in (*counts, "log_every")
                    if getattr(self, name) < 1]  # fmt: skip
        if self.patience is not None and self.patience < 1:
            problems.append(f"patience: {self.patience} is below 1 (null never stops early)")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            problems.append(f"epochs: {self.epochs} is not above 0 (null counts steps)")
        for name in ("learning_rate", "weight_decay", "epsilon", "warmup", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                problems.append(f"{name}: {getattr(self, name)} is not a number of 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            problems.append(f"betas: {list(self.betas)} are not in [0, 1)")
        if problems:
            raise ConfigError(problems)


@dataclass
class Trained:
    """What training leaves: the chosen student in memory and in `folder`, and how it got there."""

    student: Any
    folder: Path
    step: int
    score: float | None
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    rounds: Sequence[Mapping[str, Any]] = ()
    """What each round took and what the objective noted of it; empty where it refreshes nothing."""


Validate = Callable[[Any], Mapping[str, float]]


def train(
    student: Any,
    objective: Objective,
    items: Sequence[Any],
    *,
    settings: TrainSettings = TrainSettings(),
    folder: Path,
    validate: Validate | None = None,
    teacher: Any = None,
    seed: int = 0,
    card: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a student (or a reranker) and leave the chosen checkpoint in `folder/student`.

    Args:
        student: a torch module that meets `Trainable`. items: annotations, candidates or documents.
        validate: gives metrics of the student as it stands, on validation data (never test); chooses the checkpoint.
        teacher: a white-box teacher, for objectives that need one. card: written beside the weights, for inference.

    Raises:
        TrainingError: nothing to train on, a missing teacher, half-precision weights, a loss that is not finite.
        StoreError: the folder belongs to another run, or a checkpoint cannot be written or read.
    """
    described = {
        "objective": settings_of(objective),
        "train": settings_of(settings),
        "card": dict(card or {}),
        "teacher": None if teacher is None else name_of(teacher),
    }
    inputs = {"items": digest_rows(items), "student": digest_weights(student)}
    if "teacher" in objective.needs and teacher is None:
        message = f"objective {name_of(objective)!r} needs a white-box teacher (its logits); none was given. "
        raise TrainingError(message + "Use teacher 'transformers', or an objective that learns from text alone")
    held = alone(folder) if first_process() else contextlib.nullcontext()
    with held, stage(folder, "train", settings=described, inputs=inputs, seed=seed) as opened:
        if opened.done:
            return _reopened(student, opened)
        from lmdistill.loop import Loop

        contents = {"lmdistill": __version__, "objective": described["objective"], **(card or {})}
        loop = Loop(student, objective, items, settings, opened, validate, teacher, seed, contents)
        trained = loop.run()
        opened.manifest.counts.update(trained.counts)
        opened.manifest.facts.update(
            {"step": trained.step, "score": trained.score, "train_seconds": round(trained.seconds, 3)}
        )
        if trained.rounds:
            opened.manifest.facts["rounds"] = list(trained.rounds)
        return trained


def tell_trackers(trained: Trained, metrics: Mapping[str, float]) -> None:
    """Tell the trackers of a training how its student did on the test; nothing where there are none."""
    from lmdistill.machine import track_test

    track_test(trained.folder.parent, metrics)


def digest_weights(student: Any) -> str:
    """A digest of a student's weights, so that what was made with one is never served for another."""
    summed = hashlib.sha256()
    for name, p in student.named_parameters() if hasattr(student, "named_parameters") else ():
        summed.update(name.encode())
        summed.update(p.detach().float().cpu().numpy().tobytes())
    return summed.hexdigest()[:16]


def total_steps(settings: TrainSettings, steps_per_epoch: int) -> int:
    """Optimizer steps of a run."""
    if settings.epochs is not None:
        return max(1, math.ceil(settings.epochs * steps_per_epoch))
    return settings.steps


def _reopened(student: Any, opened: Stage) -> Trained:
    """A finished training: its chosen weights are read into the student."""
    student.load(opened.folder / "student")
    facts = opened.manifest.facts
    log = opened.path("log.jsonl")
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    history = [json.loads(line) for line in lines]
    counts = opened.manifest.counts
    return Trained(
        student,
        opened.folder / "student",
        facts["step"],
        facts["score"],
        facts["train_seconds"],
        counts,
        history,
        facts.get("rounds", ()),
    )
