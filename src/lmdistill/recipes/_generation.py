"""What the recipes of knowledge distillation for generation share: a teacher's texts, its logits, the tail."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmdistill.codec import digest
from lmdistill.config import component
from lmdistill.errors import ConfigError
from lmdistill.objectives import Objective
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.predict import predict
from lmdistill.progress import note
from lmdistill.prompting import Prompting
from lmdistill.recipes._local_teacher import frozen, identity_of, reading_of, recorded
from lmdistill.recipes._processes import first_process_first
from lmdistill.recipes._pseudo_targets import PseudoTargets, in_order, write_missing, written_by
from lmdistill.recipes._road import Road, vocabulary_texts
from lmdistill.registry import name_of
from lmdistill.shared import shared_stage, until_made
from lmdistill.store import Rows, read_manifest, stage, write_rows
from lmdistill.teachers.transformers import Transformers
from lmdistill.train import Trained, TrainSettings, train
from lmdistill.types import Annotation, Example, Prediction, Rationale, Sampling


@dataclass(frozen=True)
class Generation(Road):
    """Train a generation student on a teacher's texts and distributions, then a little on the labels.

    `learns` is the objective. `pseudo` says what the teacher writes; an objective that reads labels alone has none
    written. `stored_top` records the teacher's top tokens once instead of running it in every step. `tail_epochs` of
    fine-tuning on the labels end the run; the better of the two checkpoints (on validation) is kept. A student without
    a `model` takes the teacher's vocabulary. A local teacher reads and writes as the student does: `prompting`,
    `sampling` and `budget` are for teachers that are asked in words.
    """

    learns: Objective = component("objectives", "logit_kd")
    pseudo: PseudoTargets = field(default_factory=PseudoTargets)
    stored_top: int | None = None
    tail_epochs: float = 10
    tail_learning_rate: float | None = None
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            epochs=96.0, batch_size=96, learning_rate=5e-4, weight_decay=1e-5, warmup=100, patience=16
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = [*self._misfits(), *self._unasked()]
        if problems:
            raise ConfigError(problems)

    def _misfits(self) -> list[str]:
        """What of the settings cannot be, alone or with the teacher and the objective that were chosen."""
        found = []
        if not 0 <= self.tail_epochs < math.inf:
            found.append(f"tail_epochs: expected 0 or more, got {self.tail_epochs}")
        if self.tail_learning_rate is not None and not 0 < self.tail_learning_rate < math.inf:
            found.append(
                f"tail_learning_rate: expected a number above 0, got {self.tail_learning_rate} (null: that of training)"
            )
        if self.stored_top is not None and self.stored_top < 1:
            found.append(f"stored_top: expected 1 or more, got {self.stored_top} (null runs the teacher in every step)")
        if "teacher" not in self.learns.needs:
            return found
        name, temperature = name_of(self.learns), getattr(self.learns, "temperature", 1.0)
        if not isinstance(self.teacher, Transformers) and not self.told_top:
            told = "several" if isinstance(self.teacher, tuple) else repr(name_of(self.teacher))
            found.append(
                f"teacher: objective {name!r} needs a local model's logits, teacher {told} was given. "
                "Use teacher 'transformers' (`lmdistill run finetune` makes one), learns 'pseudo_target', or, with "
                "learns 'logit_kd', an endpoint that is asked for log-probabilities (teacher.logprobs: 5)"
            )
        elif not isinstance(self.teacher, Transformers) and self.stored_top is not None:
            found.append("stored_top: an endpoint's tokens are recorded anyway, as many as teacher.logprobs says")
        elif self.stored_top is not None and not self._learns_from_top:
            found.append(
                f"stored_top: objective {name!r} needs the teacher's model itself in every step, not its top tokens. "
                "Leave it out, or use learns 'logit_kd'"
            )
        if temperature != 1 and (self.stored_top is not None or not isinstance(self.teacher, Transformers)):
            found.append(
                f"learns.temperature: {temperature} needs the teacher's whole distribution; only its top tokens are "
                "known here. Set it to 1, or train with a local teacher and without stored_top"
            )
        return found

    def _unasked(self) -> list[str]:
        """Settings of pseudo-targets become how a teacher is asked that is not local; two that differ are a mistake."""
        plain = PseudoTargets()
        told = replace(self.pseudo, unlabelled=plain.unlabelled, batch_size=plain.batch_size)
        if isinstance(self.teacher, Transformers) or not told.number or told == plain:
            return []
        asked = replace(told.sampling, seed=told.seed or None)
        if self.sampling not in (Sampling(max_tokens=256), asked):
            return ["sampling, pseudo: both say how the teacher writes, and differently; set one of them"]
        object.__setattr__(self, "sampling", asked)
        return []

    def objective(self) -> Objective:
        return self.learns

    @property
    def _learns_from_top(self) -> bool:
        learns: Any = self.learns
        return not getattr(learns, "writes", True) and not getattr(learns, "noisy", True)

    @property
    def told_top(self) -> int | None:
        """How many log-probabilities a token an endpoint is asked for, where the objective can learn from so few."""
        return getattr(self.teacher, "logprobs", None) if self._learns_from_top else None

    # --- the teacher's texts ---

    def items(self, out: Path) -> Sequence[Any]:
        examples = self.examples()
        if not self.pseudo.number or not self._reads_texts:
            self._check_before(examples, out)
            return [Annotation(one) for one in examples]
        if self.pseudo.unlabelled:
            more = [*self.task.examples("unlabelled")]
            if self.pseudo.unlabelled == "rest":
                labelled = {one.id for one in examples}
                more += [one for one in self.task.examples("train") if one.id not in labelled]
            examples += [replace(one, label=None) for one in more]
        if isinstance(self.teacher, Transformers):
            self._check_before(examples, out)
            return self.curated(self._written(examples, out / "pseudo-targets"), out)
        return self.curated(self.annotated(examples, out / "annotations"), out)

    @property
    def _reads_texts(self) -> bool:
        """Whether a teacher's text changes what the objective shows."""
        import random

        rows = [
            self.learns.views(Annotation(Example("", "x", "y"), made), 0, random.Random(0))
            for made in ((), (Rationale("a", "b"),))
        ]
        return rows[0] != rows[1]

    def _check_before(self, examples: Sequence[Example], out: Path) -> None:
        """Refuse what training would refuse (another vocabulary, a missing layer) before the teacher writes."""
        if not isinstance(self.teacher, Transformers):
            return
        if any((found := read_manifest(path)) and found.stage == "train" for path in out.glob("seed-*/train")):
            return
        if (self.sampling, self.prompting) != (Sampling(max_tokens=256), Prompting()):
            note("a local teacher writes as `pseudo` says: sampling and prompting are not read")
        if "teacher" not in self.learns.needs:
            return
        few = [Annotation(one) for one in examples[:8]]
        teacher = frozen(self.teacher, self.student, "cpu")
        student = self.opened_student([Annotation(one) for one in examples], self.seeds[0])
        self.learns.check(student, teacher, few)

    def _written(self, examples: Sequence[Example], folder: Path) -> Sequence[Annotation]:
        """The local teacher's texts, written once (for all runs that share them)."""
        assert isinstance(self.teacher, Transformers)
        settings = {
            "pseudo": self.pseudo.key,
            "teacher": self.identity,
            "reading": reading_of(self.teacher, self.student),
            "prefix": self.learns.prompt(Annotation(Example("", ""))),
        }
        inputs = {"examples": digest(examples)}
        place: contextlib.AbstractContextManager[Path] = contextlib.nullcontext(folder)
        if self.shared is not None:
            place = shared_stage(self.shared, folder, digest([settings, inputs]))
        with place as held, stage(held, "pseudo_targets", settings=settings, inputs=inputs) as opened:
            if not opened.done:
                model, grown = self.white_box().model, opened.path("written.jsonl")
                write_missing(
                    grown,
                    examples,
                    lambda some: written_by(model, self.learns, some, self.pseudo, self.identity),
                    self.pseudo.batch_size,
                )
                write_rows(opened.path(), in_order(grown, examples))
                grown.unlink()
                opened.manifest.counts["examples"] = len(examples)
            rows: Rows[Annotation] = opened.rows(Annotation)
            return rows

    # --- the teacher's model ---

    @property
    def identity(self) -> str:
        """What names the local teacher."""
        assert isinstance(self.teacher, Transformers)
        return identity_of(self.teacher)

    def white_box(self) -> Any:
        """The local teacher as training reads it."""
        assert isinstance(self.teacher, Transformers)
        return frozen(self.teacher, self.student, self.train.device)

    def teacher_of(self, student: Any, items: Sequence[Any], out: Path) -> Any:
        """What training asks: the teacher's model, its recorded top tokens, or an endpoint's log-probabilities."""
        if isinstance(self.teacher, Transformers) and self.stored_top is None:
            return self.white_box()
        with first_process_first(self.train.device), until_made(out / "logits"):
            if isinstance(self.teacher, Transformers):
                return self.logits(student, items, out)
            from lmdistill.recipes._endpoint_logits import endpoint_logits

            return endpoint_logits(self, self.learns, student, items, out, self.told_top or 5)

    def logits(self, student: Any, items: Sequence[Any], out: Path) -> Any:
        """The teacher's top tokens at every target that training will show, recorded once."""
        from lmdistill.objectives._targets import every_view

        assert isinstance(self.teacher, Transformers) and self.stored_top is not None
        laid = [(item, view) for item in items for view in every_view(self.learns, item)]
        told = (self.identity, reading_of(self.teacher, self.student))
        return recorded(self.white_box, student, laid, out / "logits", self.stored_top, told)

    def teacher_predictions(self, out: Path) -> Sequence[Prediction]:
        """A local teacher is tested as it teaches: with the student's own prompt and decoding."""
        if not isinstance(self.teacher, Transformers):
            return super().teacher_predictions(out)
        with first_process_first(self.train.device):
            questions = self.asked(self.test_split, None, out)
            told: dict[str, Any] = {"decoding": self.decoding, "folder": out / "teacher-test"}
            return predict(self.white_box().model, self.learns, self.task, questions, **told)

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
        rate = self.train.learning_rate if self.tail_learning_rate is None else self.tail_learning_rate
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
