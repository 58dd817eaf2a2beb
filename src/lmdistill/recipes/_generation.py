"""What the recipes of knowledge distillation for generation share: a local teacher, its texts, its logits, the tail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lmdistill.codec import digest
from lmdistill.config import component, settings_of
from lmdistill.distributions import vocabulary_hash
from lmdistill.errors import ConfigError
from lmdistill.logit_store import LogitStore, Recorded, record
from lmdistill.objectives import Objective
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.recipes._road import Road, vocabulary_texts
from lmdistill.registry import name_of
from lmdistill.shared import shared_stage
from lmdistill.store import Rows, seed_for, stage, write_rows
from lmdistill.teachers.transformers import Transformers, fingerprint
from lmdistill.train import Trained, TrainSettings, train
from lmdistill.types import Annotation, Example, Rationale, Sampling

OUTSIDE = ("batch_size", "unlabelled")
"""Settings of pseudo-targets that do not change what is written for an input."""


@dataclass(frozen=True)
class PseudoTargets:
    """The texts that the teacher writes: `number` for each input, on labelled and (with `unlabelled`) other inputs.

    `decoding` 'sample' draws them at `temperature` with `top_p` and `top_k` (0: no truncation); 'beam' takes the
    `number` best of a beam as wide. KD4Gen: 48 samples, temperature 1 (high: 1.5), top_p 0.95, a silent top_k of 50.
    """

    number: int = 48
    decoding: Literal["sample", "beam"] = "sample"
    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 0
    max_tokens: int = 64
    unlabelled: bool = True
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ConfigError(f"number: expected 0 or more, got {self.number}")
        if self.decoding == "sample" and self.temperature <= 0:
            raise ConfigError(f"temperature: samples need one above 0, got {self.temperature}")

    @property
    def sampling(self) -> Sampling:
        """How the teacher writes."""
        if self.decoding == "beam":
            return Sampling(n=self.number, beams=self.number, max_tokens=self.max_tokens)
        return Sampling(self.number, self.temperature, self.top_p, self.top_k, self.max_tokens)


@dataclass(frozen=True)
class Generation(Road):
    """Train a generation student on a teacher's texts and distributions, then a little on the labels.

    `learns` is the objective. `pseudo` says what the teacher writes. `stored_top` records the teacher's top tokens
    once instead of running it in every step. `tail_epochs` of fine-tuning on the labels end the run; the better of
    the two checkpoints (on validation) is kept. A student without a `model` takes the teacher's vocabulary.
    """

    learns: Objective = component("objectives", "logit_kd")
    pseudo: PseudoTargets = field(default_factory=PseudoTargets)
    stored_top: int | None = None
    tail_epochs: float = 10
    tail_learning_rate: float | None = None
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            epochs=96, batch_size=96, learning_rate=5e-4, weight_decay=1e-5, warmup=100, patience=16
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if "teacher" in self.learns.needs and not isinstance(self.teacher, Transformers) and not self.told_top:
            told = "several" if isinstance(self.teacher, tuple) else repr(name_of(self.teacher))
            raise ConfigError(
                f"teacher: objective {name_of(self.learns)!r} needs a local model's logits, teacher {told} was given. "
                "Use teacher 'transformers' (`lmdistill run finetune` makes one), learns 'pseudo_target', or, with "
                "learns 'logit_kd', an endpoint that is asked for log-probabilities (teacher.logprobs: 5)"
            )

    def objective(self) -> Objective:
        return self.learns

    @property
    def told_top(self) -> int | None:
        """How many log-probabilities a token an endpoint is asked for, where the objective can learn from so few."""
        learns: Any = self.learns
        if getattr(learns, "writes", True) or getattr(learns, "noisy", True):
            return None
        return getattr(self.teacher, "logprobs", None)

    # --- the teacher's texts ---

    def items(self, out: Path) -> Sequence[Any]:
        examples = self.examples()
        others = (
            [replace(one, label=None) for one in self.task.examples("unlabelled")] if self.pseudo.unlabelled else []
        )
        if not self.pseudo.number:
            return [Annotation(one) for one in examples]
        if isinstance(self.teacher, Transformers):
            return self._written([*examples, *others], out / "pseudo-targets")
        return self.curated(self.annotated([*examples, *others], out / "annotations"), out)

    def _written(self, examples: Sequence[Example], folder: Path) -> Sequence[Annotation]:
        """The local teacher's texts, written once (for all runs that share them)."""
        pseudo = {
            key: value for key, value in settings_of(self.pseudo).items() if key not in ("batch_size", "unlabelled")
        }
        settings = {
            "pseudo": pseudo,
            "teacher": self.identity,
            "prefix": self.learns.prompt(Annotation(Example("", ""))),
        }
        inputs = {"examples": digest(examples)}
        place: contextlib.AbstractContextManager[Path] = contextlib.nullcontext(folder)
        if self.shared is not None:
            place = shared_stage(self.shared, folder, digest([settings, inputs]))
        with place as held, stage(held, "pseudo_targets", settings=settings, inputs=inputs) as opened:
            if not opened.done:
                write_rows(opened.path(), self._write(examples))
                opened.manifest.counts["examples"] = len(examples)
            rows: Rows[Annotation] = opened.rows(Annotation)
            return rows

    def _write(self, examples: Sequence[Example]) -> Iterator[Annotation]:
        model, size = self.white_box().model, self.pseudo.batch_size
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            prompts = [self.learns.prompt(Annotation(one)) for one in batch]
            seeds = None
            if self.pseudo.decoding == "sample":
                seeds = [seed_for(self.pseudo.seed, "pseudo-target", one.id) % (1 << 31) for one in batch]
            written = model.generate(prompts, self.pseudo.sampling, batch_size=size, seeds=seeds)
            for one, texts in zip(batch, written, strict=True):
                made = [
                    Rationale("", text.text, source=self.identity, sample=i, raw=text.text)
                    for i, text in enumerate(texts)
                    if text.text.strip()
                ]
                yield Annotation(one, tuple(made))

    # --- the teacher's model ---

    @property
    def identity(self) -> str:
        """What names the local teacher: its folder and a fingerprint of what is in it."""
        assert isinstance(self.teacher, Transformers)
        return f"{self.teacher.model}@{self.teacher.revision or fingerprint(Path(self.teacher.model))}"

    def white_box(self) -> Any:
        """The local teacher as training reads it."""
        from transformers import AutoConfig

        from lmdistill.objectives._teacher import Frozen
        from lmdistill.students.causal import Causal
        from lmdistill.students.seq2seq import Seq2seq

        assert isinstance(self.teacher, Transformers)
        path, revision = self.teacher.model, self.teacher.revision
        try:
            both = bool(AutoConfig.from_pretrained(path, revision=revision).is_encoder_decoder)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ConfigError(f"teacher.model: {path!r} is no transformers model: {first}") from error
        own: Any = self.student
        if isinstance(own, Seq2seq if both else Causal):
            return Frozen(replace(own, model=path, revision=revision, lora=None, dropout=None).open())
        kind: Any = Seq2seq if both else Causal
        return Frozen(kind(model=path, revision=revision, max_source=own.max_source, max_target=own.max_target).open())

    def teacher_of(self, student: Any, items: Sequence[Any], out: Path) -> Any:
        """What training asks: the teacher's model, its recorded top tokens, or an endpoint's log-probabilities."""
        if not isinstance(self.teacher, Transformers):
            from lmdistill.recipes._endpoint_logits import endpoint_logits

            return endpoint_logits(self, self.learns, student, items, out, self.told_top or 5)
        return self.white_box() if self.stored_top is None else self.logits(student, items, out)

    def logits(self, student: Any, items: Sequence[Any], out: Path) -> LogitStore:
        """The teacher's top tokens at every target that training will show, recorded once."""
        import random

        epochs = max(1, self.pseudo.number)
        laid = {}
        for item in items:
            for epoch in range(epochs):
                for view in self.learns.views(item, epoch, random.Random(0)):
                    laid[item.id, view.source, view.target] = (item, view)
        wanted = [(name, source, student.tokens("target", target)) for name, source, target in laid]
        pairs = list(laid.values())

        def texts() -> Iterator[Recorded]:
            teacher = self.white_box()
            for start in range(0, len(pairs), 32):
                chunk = pairs[start : start + 32]
                batch = student.collate([item for item, _ in chunk], [[view] for _, view in chunk])
                told = teacher.top(batch.to(teacher.model.device), chunk[0][1].role, self.stored_top or 32)
                for (item, view), one in zip(chunk, told, strict=True):
                    yield Recorded(item.id, view.source, one)

        hashed = vocabulary_hash(student.tokenizer)
        top = self.stored_top or 32
        return record(
            out / "logits", texts(), tokenizer_hash=hashed, top=top, teacher=self.identity, wanted=wanted
        )  # fmt: skip

    # --- training ---

    def opened_student(self, items: Sequence[Any], seed: int) -> Any:
        """The student; one from scratch has the teacher's vocabulary."""
        student: Any = self.student
        if student.model is None and isinstance(self.teacher, Transformers):
            student = replace(student, vocabulary=self.teacher.model)
        return student.open(vocabulary_texts(self.learns, items), seed)

    def trained(self, objective: Objective, items: Sequence[Any], seed: int, folder: Path, out: Path) -> Trained:
        student = self.opened_student(items, seed)
        teacher = None
        if "teacher" in objective.needs:
            teacher = self.teacher_of(student, items, out)
        validate = self.validation(objective, out)
        settled: dict[str, Any] = {"validate": validate, "seed": seed, "card": self.card()}
        first = train(student, objective, items, settings=self.train, folder=folder, teacher=teacher, **settled)
        labelled = [Annotation(item.example) for item in items if item.example.label is not None]
        if not self.tail_epochs or not labelled:
            return first
        rate = self.tail_learning_rate or self.train.learning_rate
        tail = replace(self.train, epochs=self.tail_epochs, learning_rate=rate, warmup=0.0)
        prefix = getattr(objective, "prefix", "")
        labels = LabelOnly(prefix=prefix, reduction="example")
        second = train(student, labels, labelled, settings=tail, folder=folder.parent / "tail", **settled)
        better = first.score is not None and second.score is not None and _better(first, second, self.train)
        if better:
            student.load(first.folder)
        return first if better else second

    def card(self) -> dict[str, Any]:
        told = self.identity if isinstance(self.teacher, Transformers) else None
        return {**super().card(), "teacher": told}


def _better(one: Trained, other: Trained, settings: TrainSettings) -> bool:
    assert one.score is not None and other.score is not None
    return one.score > other.score if settings.direction == "max" else one.score < other.score
