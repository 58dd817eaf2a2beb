"""Chain-of-thought students: the rationale first, then the answer, in one target."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lmdistill import render
from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced
from lmdistill.objectives._labels import Selection, chosen, label_of
from lmdistill.students import Batch
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Parsed, Rationale, View


@dataclass(frozen=True)
class RationaleThenLabel(Objective):
    """Learn to think before answering: write a rationale, a cue, and the answer.

    Paper:     Symbolic Chain-of-Thought Distillation, arXiv 2306.14050, section 2; "single-task training" of
               Distilling Step-by-Step, arXiv 2305.02301, section 4
    Equation:  max_theta E_{(x, z, y) ~ C} log S_theta(z, y | x)
    Data:      needs a rationale; the answer is the rationale's own, or the label that `labels` names
    Shapes:    role 'answer', one row per rationale seen
    Differs:   from the paper: none; from SCoTD's code: an end-of-sequence token ends the target, not a double newline
    """

    cue: str = "So the answer is:"
    labels: Literal["rationale", "gold", "teacher", "gold_or_teacher"] = "rationale"
    rationales: Selection = "one"
    prefix: str = ""
    reduction: Reduction = "token"

    needs: ClassVar[frozenset[str]] = frozenset({"rationale"})

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        views = []
        for group, rationale in chosen(item.rationales, self.rationales, rng):
            answer = self._answer(item, rationale)
            if answer:
                target = render.join_rationale(rationale.text, answer, self.cue)
                views.append(View(self.prompt(item), target, "answer", group))
        return views

    def _answer(self, item: Annotation, rationale: Rationale) -> str | None:
        return rationale.answer if self.labels == "rationale" else label_of(item, self.labels)

    def prompt(self, annotation: Annotation) -> str:
        return self.prefix + annotation.example.input

    def read(self, task: Task, annotation: Annotation, text: str) -> Parsed:
        rationale, answer = render.split_rationale(text, self.cue)
        return Parsed(rationale, answer, None if answer is not None else "no answer after the rationale")

    def with_answer(self, text: str, answer: str) -> str:
        return render.join_rationale(render.split_rationale(text, self.cue).rationale, answer, self.cue)

    @property
    def thinks(self) -> bool:
        return True

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"answer": count_of(batch, "answer", self.reduction)}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        return {"answer": reduced(student(batch)["answer"], batch, "answer", self.reduction)}
