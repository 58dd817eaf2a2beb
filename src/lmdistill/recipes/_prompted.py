"""What recipes without training share: a model is asked the test questions, with demonstrations and with passages."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmdistill.annotate import annotate
from lmdistill.config import component, settings_of
from lmdistill.errors import ConfigError
from lmdistill.evaluate import evaluate
from lmdistill.objectives import shown
from lmdistill.pricing import Budget
from lmdistill.prompting import Prompter, Prompting
from lmdistill.recipes import Recipe
from lmdistill.recipes._grounding import Grounding
from lmdistill.recipes._road import annotations_place, teacher_prediction
from lmdistill.registry import name_of
from lmdistill.store import read_manifest, write_json, write_rows
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings
from lmdistill.types import Annotation, Report, Sampling


@dataclass(frozen=True)
class Prompted(Recipe):
    """Settings of every recipe that only asks. `teacher` is the model that is measured: any kind, also a small one.

    `grounding` puts passages behind each question, found by the question itself (a reranker needs training, so none is
    used here).
    """

    task: Task = component("tasks")
    teacher: TeacherSettings = component("teachers")
    prompting: Prompting = field(default_factory=Prompting)
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=256))
    budget: Budget = field(default_factory=Budget)
    grounding: Grounding = field(default_factory=Grounding)
    test_split: str = "test"
    limit: int | None = None
    cache: Path | None = None
    shared: Path | None = None

    def __post_init__(self) -> None:
        if self.grounding.reranker is not None or self.grounding.oracle == "rationale":
            raise ConfigError(
                f"grounding: recipe {name_of(self)!r} trains nothing, so it can have no reranker or oracle"
            )

    def run(self, out: Path) -> Report:
        """See `Recipe.run`."""
        started = time.monotonic()
        examples = list(self.task.examples(self.test_split))[: self.limit]
        questions = [Annotation(example) for example in examples]
        ranked = self.grounding.of_questions(questions, self.task, None, out, out / "questions")
        grounded = self.grounding.read(ranked)
        asking = [replace(item.example, input=shown(item)) for item in grounded]
        with annotations_place(self, asking, out / "annotations") as folder:
            asked = annotate(
                self.task,
                self.teacher,
                asking,
                folder=folder,
                prompting=self.prompting,
                sampling=self.sampling,
                budget=self.budget,
                cache=self.cache or out / "answers.sqlite",
            )
        predictions = [
            replace(teacher_prediction(answer), example=item.example, hits=item.hits)
            for answer, item in zip(asked, grounded, strict=True)
        ]
        write_rows(out / "test" / "rows.jsonl", predictions)
        told = evaluate(self.task, predictions)
        manifest = read_manifest(out / "annotations")
        facts = {
            "seconds": round(time.monotonic() - started, 1),
            "annotation": manifest.facts if manifest else {},
            "demonstrations": Prompter(self.prompting, self.task).shots,
        }
        title = f"{name_of(self)} on {name_of(self.task)}"
        settings = {"recipe": name_of(self), **settings_of(self)}
        report = Report(title, told.metrics, told.counts, settings, facts)
        write_json(out / "report.json", report)
        return report
