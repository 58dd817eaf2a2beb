"""The road that recipes share: examples, annotations, curation, training, prediction, evaluation, several seeds.

A recipe names its objective (and overrides a step where its method differs); everything else stands here once.
"""

from __future__ import annotations

import contextlib
import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from lmdistill.annotate import annotate, digest_examples
from lmdistill.config import component, settings_of
from lmdistill.curate import curate
from lmdistill.curation import Curation
from lmdistill.errors import ConfigError
from lmdistill.evaluate import evaluate
from lmdistill.metrics import Metric
from lmdistill.objectives import Objective
from lmdistill.predict import Decoding, predict
from lmdistill.pricing import Budget, Ledger
from lmdistill.prompting import Prompting
from lmdistill.recipes import Recipe
from lmdistill.recipes._elsewhere import beside, elsewhere
from lmdistill.recipes._grounding import Grounding, Searcher, stage_counts
from lmdistill.recipes._measuring import check_select, measured, measures, over_seeds
from lmdistill.recipes._processes import first_process_first
from lmdistill.registry import name_of
from lmdistill.rounds import summed_facts
from lmdistill.shared import shared_stage
from lmdistill.store import digest, read_manifest, seed_for, write_json
from lmdistill.students import StudentSettings
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings
from lmdistill.train import Trained, TrainSettings, Validate, tell_trackers, train
from lmdistill.types import Annotation, Example, Prediction, Rationale, Report, Sampling


@dataclass(frozen=True)
class Road(Recipe):
    """Settings of every recipe that trains a student.

    `fraction` takes a share of the training examples (the same ones for every seed; a smaller share is part of a
    larger one). `seeds` trains one student each. `valid_limit` bounds the validation examples that choose a
    checkpoint; with `test_split` 'valid' none is chosen, the last is tested. `test_rationales` also asks a student that
    learnt rationales as a task apart for one at each test question, of at most so many tokens (0: it is not asked).
    `measure_teacher` also asks the teacher the test questions, for comparison. `cache` is the file that keeps paid
    answers (by default in the run's folder), `shared` a folder of annotations that several runs share. `grounding` puts
    passages of a knowledge base behind the input. `also_test` names further tasks whose test questions the student is
    asked: contrast sets, other domains; their metrics carry the task's name. `metrics` are reported beside the task's
    own (`bleu`, `nll`: how probable the gold texts are); `train.select` may name any of them.
    """

    task: Task = component("tasks")
    teacher: TeacherSettings | tuple[TeacherSettings, ...] | None = component("teachers", None)
    student: StudentSettings = component("students", "seq2seq")
    prompting: Prompting = field(default_factory=Prompting)
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=256))
    budget: Budget = field(default_factory=Budget)
    curation: tuple[Curation, ...] = component("curation", ())
    train: TrainSettings = field(default_factory=TrainSettings)
    decoding: Decoding = field(default_factory=Decoding)
    fraction: float = 1.0
    seeds: tuple[int, ...] = (0,)
    valid_limit: int = 500
    test_split: str = "test"
    test_rationales: int = 0
    also_test: tuple[Task, ...] = component("tasks", ())
    metrics: tuple[Metric, ...] = component("metrics", ())
    measure_teacher: bool = False
    cache: Path | None = None
    shared: Path | None = None
    grounding: Grounding = field(default_factory=Grounding)

    asks_teacher: ClassVar[bool] = True
    """Whether training reads the teacher's answers."""
    asks_at_test: ClassVar[bool] = False
    """Whether every answer of the student needs one of the teacher's, in use too."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction: {self.fraction} is not in (0, 1]")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds: {list(self.seeds)} must name at least one seed, and each once")
        if self.teacher is None and (self.asks_teacher or self.measure_teacher):
            recipe = name_of(self)
            raise ConfigError(f"teacher: recipe {recipe!r} needs one; name it (see `lmdistill list teachers`)")

    # --- what a recipe says ---

    @abstractmethod
    def objective(self) -> Objective:
        """What the student learns."""

    def items(self, out: Path) -> Sequence[Any]:
        """What it learns from: annotated and curated training examples, or examples with their gold labels alone."""
        examples = self.examples()
        if not self.asks_teacher:
            return [Annotation(example) for example in examples]
        return self.curated(self.annotated(examples, out / "annotations"), out)

    def questions(self, split: str, limit: int | None, out: Path) -> Sequence[Annotation]:
        """What the student is asked: the examples of a split, with whatever its prompt reads."""
        examples = self.task.examples(split)
        return [Annotation(examples[i]) for i in range(min(len(examples), limit or len(examples)))]

    def asked(self, split: str, limit: int | None, out: Path, searcher: Searcher | None = None) -> Sequence[Annotation]:
        """The questions of a split, with their passages where the run is grounded."""
        return self.grounding.read(self.ranked(split, limit, out, searcher))

    def ranked(
        self, split: str, limit: int | None, out: Path, searcher: Searcher | None = None
    ) -> Sequence[Annotation]:
        """The same with all of each ranking that is kept, also what is not read; `searcher`: another run's."""
        if not self.grounding.passages:
            return self.questions(split, limit, out)
        grounding, reranker = searcher or self.searcher(out)
        with first_process_first(self.train.device):
            questions = self.questions(split, limit, out)
            folder = out / f"questions-{split}-{len(questions)}"
            return grounding.of_questions(questions, self.task, reranker, out, folder) if questions else questions

    def searcher(self, out: Path) -> Searcher:
        """What finds the passages, its parts trained on this run's items, or read where they are."""
        grounding = self.grounder(out)
        trains = grounding.passages and grounding.reranker is not None
        return Searcher(grounding, grounding.trained(self.items(out), self.task, out) if trains else None)

    def grounder(self, out: Path) -> Grounding:
        """The grounding; a recipe may train a part of it first."""
        return self.grounding

    # --- the steps ---

    def examples(self) -> list[Example]:
        """The training examples of this run's share."""
        every = self.task.examples("train")
        if self.fraction == 1:
            return list(every)
        ranked = sorted(every, key=lambda example: seed_for("fraction", example.id))
        kept = {example.id for example in ranked[: max(1, round(self.fraction * len(ranked)))]}
        return [example for example in every if example.id in kept]

    def annotated(
        self, examples: Sequence[Example], folder: Path, ledger: Ledger | None = None, known: int = 0
    ) -> Sequence[Annotation]:
        """The teacher's answers to examples; `ledger` and `known` are for a recipe that asks several times."""
        assert self.teacher is not None
        with annotations_place(self, examples, folder) as place:
            return annotate(
                self.task,
                self.teacher,
                examples,
                folder=place,
                prompting=self.prompting,
                sampling=self.sampling,
                budget=self.budget,
                cache=self.cache or folder.parent / "answers.sqlite",
                ledger=ledger,
                known=known,
            )

    def curated(self, annotations: Sequence[Annotation], out: Path) -> Sequence[Annotation]:
        """The annotations after the curation steps."""
        if not self.curation:
            return annotations
        return curate(annotations, self.task, *self.curation, folder=out / "curated")

    def trained(self, objective: Objective, items: Sequence[Any], seed: int, folder: Path, out: Path) -> Trained:
        """One student, its checkpoint chosen on the validation split."""
        student = self.student.open(vocabulary_texts(objective, items), seed)
        validate = self.validation(objective, out)
        return train(
            student,
            objective,
            items,
            settings=self.train,
            folder=folder,
            validate=validate,
            seed=seed,
            card=self.card(),
        )

    def validation(self, objective: Objective, out: Path) -> Validate | None:
        """Metrics of a student on the validation split, or None where the task has none, or where that split is the
        test: what chose the checkpoint cannot say how good it is."""
        if self.test_split == "valid":
            print(
                "lmdistill: test_split is 'valid', so it chooses no checkpoint; the last one is tested", file=sys.stderr
            )
            return None
        questions = self.asked("valid", self.valid_limit, out)
        if not questions:
            return None

        def validate(student: Any) -> Mapping[str, float]:
            predictions = predict(student, objective, self.task, questions, decoding=self.decoding)
            found = measured(self, objective, student, questions, predictions)
            return {name: one.value for name, one in found.metrics.items()}

        return validate

    def card(self) -> dict[str, Any]:
        """What `predict` needs to know of this run when it has only the student's folder."""
        settings = settings_of(self)
        kept = ("student", "task", "decoding", *(("grounding",) if self.grounding.passages else ()))
        return {key: settings[key] for key in kept} | {"recipe": name_of(self)}

    # --- the whole ---

    def run(self, out: Path) -> Report:
        """See `Recipe.run`."""
        started = time.monotonic()
        check_select(self)
        device = self.train.device
        with first_process_first(device):
            self.grounding.check(self.task, out)
            items = self.items(out)
        searcher = self.searcher(out)
        with first_process_first(device):
            items = searcher.grounding.of_items(items, self.task, out, searcher.reranker)
        objective = self.objective()
        items = objective.marked(items, self.task)
        reports: dict[int, Report] = {}
        facts: dict[str, Any] = {"students": {}, "train_seconds": {}, "steps": {}, "shortened": {}}
        for seed in self.seeds:
            folder = out / f"seed-{seed}"
            trained = self.trained(objective, items, seed, folder / "train", out)
            with first_process_first(device):
                questions = self.asked(self.test_split, None, out)
                predictions = predict(
                    trained.student,
                    objective,
                    self.task,
                    questions,
                    decoding=self.decoding,
                    folder=folder / "test",
                    rationale_tokens=self.test_rationales,
                )
                others = elsewhere(self, objective, trained.student, folder, out)
                own = measured(self, objective, trained.student, questions, predictions, folder)
                reports[seed] = beside(own, others)
            tell_trackers(trained, {name: one.value for name, one in reports[seed].metrics.items()})
            facts["students"][str(seed)] = str(trained.folder)
            facts["train_seconds"][str(seed)] = round(trained.seconds, 1)
            facts["steps"][str(seed)] = trained.step
            if trained.rounds:
                facts.setdefault("rounds", {})[str(seed)] = list(trained.rounds)
            facts["shortened"][str(seed)] = shortened(trained, folder / "test")
        facts["seconds"] = round(time.monotonic() - started, 1)
        return self.report(out, items, reports, facts)

    def report(self, out: Path, items: Sequence[Any], reports: Mapping[int, Report], facts: dict[str, Any]) -> Report:
        """One report of all seeds, written to `out/report.json`."""
        metrics = over_seeds(reports, out)
        if self.measure_teacher:
            told = evaluate(self.task, self.teacher_predictions(out), measures(self.task, self.metrics))
            metrics |= {f"teacher_{name}": one for name, one in told.metrics.items()}
        facts["by_seed"] = {
            str(seed): {name: one.value for name, one in report.metrics.items()} for seed, report in reports.items()
        }
        if told_of_asking := summed_facts(out, self.test_split):
            facts["annotation"] = told_of_asking
        first = next(iter(reports.values()))
        counts = {"train_items": len(items), **first.counts, **stage_counts(out)}
        facts["splits"] = {split: self.task.origin(split) for split in ("train", "valid", self.test_split)}
        for split in facts["splits"]:
            for reason, count in self.task.problems(split).items():
                counts[f"{split} rows left out: {reason}"] = count
        title = f"{name_of(self)} on {name_of(self.task)}"
        report = Report(title, metrics, counts, {"recipe": name_of(self), **settings_of(self)}, facts)
        write_json(out / "report.json", report)
        return report

    def teacher_predictions(self, out: Path) -> Sequence[Prediction]:
        """What the teacher answers to the test questions."""
        asked = self.annotated(list(self.task.examples(self.test_split)), out / "teacher-test")
        return [teacher_prediction(one) for one in asked]


def annotations_place(
    recipe: Any, examples: Sequence[Example], folder: Path
) -> contextlib.AbstractContextManager[Path]:
    """Where a run's annotations go: its own folder, or the one that it shares with runs that ask the same."""
    if recipe.shared is None:
        return contextlib.nullcontext(folder)
    asked = [settings_of(one) for one in (recipe.task, recipe.teacher, recipe.prompting, recipe.sampling)]
    return shared_stage(recipe.shared, folder, digest([*asked, digest_examples(examples)]))


def vocabulary_texts(objective: Objective, items: Sequence[Any]) -> Iterator[str]:
    """Every text that training may show: what a from-scratch student's vocabulary is made from."""
    import random

    yield from objective.vocabulary()
    for item in items:
        for view in objective.views(item, 0, random.Random(0)):
            yield view.source
            yield view.target
        for rationale in getattr(item, "rationales", ()):
            yield rationale.text
            yield rationale.answer or ""


def shortened(trained: Trained, test: Path) -> dict[str, int]:
    """How many texts were over the student's limits: in training (validation included), and test inputs."""
    found = {f"train_{name}": trained.counts.get(name, 0) for name in ("sources_shortened", "targets_shortened")}
    manifest = read_manifest(test)
    return found | {"test_sources_shortened": manifest.counts.get("sources_shortened", 0) if manifest else 0}


def teacher_prediction(annotation: Annotation) -> Prediction:
    """What the teacher answered, as a prediction: the majority of its samples and the first rationale behind it."""
    vote = annotation.vote
    every: tuple[Rationale, ...] = (*annotation.rationales, *annotation.rejected)
    behind = next((one for one in every if one.answer == vote.answer), None)
    text, reason = ("", "no answer") if behind is None else (behind.text, None)
    return Prediction(annotation.example, vote.answer, text, votes=vote.counts, reason=reason)


def without_label(example: Example) -> Example:
    """The example as if nobody had labelled it."""
    return replace(example, label=None)
