"""Chain-of-thought students: the rationale first, then the answer, in one target."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lmdistill import render
from lmdistill.errors import ConfigError
from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced, shown, silver
from lmdistill.objectives._ending import answer_end
from lmdistill.objectives._labels import Selection, chosen, label_of
from lmdistill.students import Batch
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Hit, Parsed, Rationale, View


@dataclass(frozen=True)
class RationaleThenLabel(Objective):
    """Learn to think before answering: write a rationale, a cue, and the answer.

    Paper:     Symbolic Chain-of-Thought Distillation, arXiv 2306.14050, section 2; "single-task training" of
               Distilling Step-by-Step, arXiv 2305.02301, section 4
    Equation:  max_theta E_{(x, z, y) ~ C} log S_theta(z, y | x)
    Data:      needs a rationale; the answer is the rationale's own, or the label that `labels` names
    Shapes:    role 'answer', one row per rationale seen
    Differs:   from the paper: none; from SCoTD's code: an end-of-sequence token ends the target, not a double newline
    Relations: RationaleThenLabel(at_once=1) on inputs with one rationale each is the same for both `rationales`

    With `rationales` 'one' each input weighs the same, and `at_once` different rationales of it are seen in an epoch
    (all where it has fewer), sharing one pass over the input and the input's weight; with 'all' each pair of input and
    rationale weighs the same. `bare` says what becomes of an input without a rationale: left out, or trained on its
    label alone (after the cue). A rationale that was grounded is seen behind its own passages (KARD, arXiv 2305.18395);
    `template` is another way to write the source, over the example's fields, `input` and `knowledge` (the passages).
    A target over the student's limit loses the middle of its rationale, never its cue and answer.

    >>> from lmdistill.types import Example
    >>> item = Annotation(Example("1", "2 + 2 =", "4"), (Rationale("count on", "4"), Rationale("guess", "5")))
    >>> [view.target for view in RationaleThenLabel(rationales="all").views(item, 0, random.Random(0))]
    ['count on So the answer is: 4', 'guess So the answer is: 5']
    """

    cue: str = "So the answer is:"
    labels: Literal["rationale", "gold", "teacher", "gold_or_teacher"] = "rationale"
    rationales: Selection = "one"
    prefix: str = ""
    reduction: Reduction = "token"
    at_once: int = 1
    bare: Literal["drop", "label"] = "drop"
    template: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"rationale"})

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ConfigError(f"at_once: at least 1 was expected, got {self.at_once}")
        if self.at_once > 1 and self.rationales == "all":
            raise ConfigError(f"at_once: {self.at_once} of 'all' rationales; leave it out, or set rationales=one")

    def views(self, item: Annotation, epoch: int, rng: random.Random) -> Sequence[View]:
        seen = chosen(item.rationales, "all", rng)
        answered = [(group, one, answer) for group, one in seen if (answer := self._answer(item, one))]
        if self.rationales == "one" and len(answered) > self.at_once:
            answered = [rng.choice(answered)] if self.at_once == 1 else rng.sample(answered, self.at_once)
        if not answered:
            return self._bare(item)
        weight = 1.0 if self.rationales == "all" else 1.0 / len(answered)
        return [
            View(
                self._source(item, one.hits or item.hits),
                render.join_rationale(one.text, answer, self.cue),
                "answer",
                group,
                weight,
                render.join_rationale("", answer, self.cue),
            )
            for group, one, answer in answered
        ]

    def _bare(self, item: Annotation) -> Sequence[View]:
        label = label_of(item, "gold" if self.labels == "rationale" else self.labels) if self.bare == "label" else None
        return [View(self.prompt(item), render.join_rationale("", label, self.cue), "answer")] if label else []

    def _answer(self, item: Annotation, rationale: Rationale) -> str | None:
        return rationale.answer if self.labels == "rationale" else label_of(item, self.labels)

    def _source(self, item: Annotation, hits: Sequence[Hit]) -> str:
        if not self.template:
            return self.prefix + shown(item, hits)
        return render.render(self.template, render.values_of(item.example, knowledge=render.passages_block(hits)))

    def prompt(self, annotation: Annotation) -> str:
        return self._source(annotation, silver(annotation))

    def read(self, task: Task, annotation: Annotation, text: str) -> Parsed:
        rationale, said = render.split_rationale(text, self.cue)
        if said is None:
            return Parsed(rationale, None, "no answer after the rationale")
        found = task.read(annotation.example, said)
        return Parsed(rationale, found.answer, found.reason)

    def answer_end(self, task: Task, annotation: Annotation, text: str) -> int | None:
        return answer_end(text, self.cue, task, annotation.example)

    def with_answer(self, text: str, answer: str) -> str:
        return render.join_rationale(render.split_rationale(text, self.cue).rationale, answer, self.cue)

    @property
    def thinks(self) -> bool:
        return True

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"answer": count_of(batch, "answer", self.reduction)}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        return {"answer": reduced(student(batch)["answer"], batch, "answer", self.reduction)}
