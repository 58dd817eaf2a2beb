"""Rationales of a teacher that was shown the answer: it explains without repeating it, so the answer is implied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lmdistill.annotate import NO_CAP, annotate
from lmdistill.config import settings_of
from lmdistill.pricing import Budget
from lmdistill.progress import note
from lmdistill.prompting import Prompter, Prompting
from lmdistill.store import digest_rows, stage, write_rows
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings
from lmdistill.types import Annotation, Completion, Example, Rationale, Sampling

Kept = Literal["mentioned", "all"]
"""Which explanations without an answer of their own are kept: those that mention the gold answer, or all."""
VERDICTS = frozenset({"yes", "no", "true", "false", "maybe"})
"""Answers that a good explanation does not spell out."""
UNSAID = "does not mention the answer"
VERIFYING = "{input}\n{rationale}\nSo, the answer is"


def explained(
    annotations: Sequence[Annotation], task: Task, kept: Kept, prompting: Prompting, folder: Path
) -> Sequence[Annotation]:
    """Annotations whose explanations have the gold answer; those that are not kept say why.

    An explanation that ends in an answer of its own is kept with it, whatever it is. Of the others 'mentioned' keeps
    those that name the gold answer. Where that says nothing (yes and no; labels that are the same for every example,
    as in classification) they are kept, counted as unjudged.

    Raises:
        StoreError: the folder belongs to another run.
    """
    settings = {"kept": kept, "prompting": settings_of(prompting), "task": settings_of(task)}
    with stage(folder, "explain", settings=settings, inputs={"annotations": digest_rows(annotations)}) as opened:
        if not opened.done:
            sorting = _Sorting(task, kept, Prompter(prompting, task), closed=_closed(annotations))
            write_rows(opened.path(), map(sorting, annotations))
            for what, count in sorting.counts.items():
                opened.count(what, count)
            if sorting.counts["kept unjudged"]:
                note(
                    f"{sorting.counts['kept unjudged']} explanations end in no answer and explain one that no text has "
                    "to spell out (yes, no, a class): 'kept: mentioned' keeps them all. A `verifier` judges them"
                )
        return opened.rows(Annotation)


def _closed(annotations: Sequence[Annotation]) -> bool:
    """Whether all examples have the same choices: classes, which an explanation need not name."""
    choices: set[tuple[str, ...]] = set()
    for annotation in annotations:
        choices.add(annotation.example.choices)
        if len(choices) > 1:
            return False
    return bool(choices - {()}) and len(annotations) > 1


class _Sorting:
    """Sorts the explanations of one example after the other, and counts what becomes of them."""

    def __init__(self, task: Task, kept: Kept, prompter: Prompter, *, closed: bool) -> None:
        self.task, self.kept, self.prompter, self.closed = task, kept, prompter, closed
        self.counts: Counter[str] = Counter()

    def __call__(self, annotation: Annotation) -> Annotation:
        label = annotation.example.label
        if label is None:
            return annotation
        every = [self._sorted(annotation.example, one, label) for one in (*annotation.rationales, *annotation.rejected)]
        good = sorted((one for one in every if one.reason is None), key=lambda one: one.sample)
        rest = tuple(one for one in every if one.reason is not None)
        return replace(annotation, rationales=tuple(good), rejected=rest)

    def _sorted(self, example: Example, one: Rationale, label: str) -> Rationale:
        text = (one.text or one.raw).strip()
        without = one.answer is None and one.reason is not None and text
        if not without and not self._implied(example, one):
            return one
        what = self._judged(text, label)
        self.counts[what] += 1
        if what == UNSAID:
            return replace(one, answer=None, reason=UNSAID)
        return replace(one, text=text, answer=label, reason=None)

    def _implied(self, example: Example, one: Rationale) -> bool:
        """Whether an answer is the gold one only because the teacher was told it and explained it."""
        if not self.prompter.show_answer or one.reason is not None or one.answer is None:
            return False
        said = self.prompter.text(example, [Completion(one.raw or one.text)])
        return self.task.parse(example, said).answer is None

    def _judged(self, text: str, label: str) -> str:
        if self.kept == "all" or mentions(text, label, self.task):
            return "kept"
        return "kept unjudged" if self.closed or self.task.canonical(label) in VERDICTS else UNSAID


def mentions(text: str, label: str, task: Task) -> bool:
    """Whether a text names an answer, as whole words and in the task's canonical form.

    >>> from lmdistill import registry
    >>> mentions("Cats Eat fish, dogs bones.", "eat fish", registry.load("tasks", "facts")())
    True
    """
    wanted, within = task.canonical(label), task.canonical(text)
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", within) is not None


def verified(
    annotations: Sequence[Annotation],
    task: Task,
    verifier: TeacherSettings,
    out: Path,
    *,
    budget: Budget = NO_CAP,
    cache: Path | None = None,
) -> list[Annotation]:
    """Only rationales from which another model reaches the gold answer (KARD's filter).

    The verifier reads the question, the rationale and 'So, the answer is', and writes an answer.

    Args:
        budget: caps for the verifier's own requests. cache: keeps what was paid for, by default a file in `out`.
    """
    asked = [_question(item.example, one, number) for item in annotations for number, one in enumerate(item.rationales)]
    if not asked:
        return list(annotations)
    said = {
        annotation.id: annotation
        for annotation in annotate(
            task,
            verifier,
            asked,
            folder=out / "verified",
            prompting=Prompting(style="kd4gen"),
            sampling=Sampling(max_tokens=32),
            budget=budget,
            cache=cache or out / "verifier.sqlite",
        )
    }
    found = []
    for item in annotations:
        good: list[Rationale] = []
        bad: list[tuple[Rationale, str]] = []
        for number, one in enumerate(item.rationales):
            if task.is_correct(item.example, said[f"{item.id}#{number}"].answer):
                good.append(one)
            else:
                bad.append((one, "the verifier reached another answer"))
        found.append(item.with_rejected(good, bad))
    return found


def _question(example: Example, rationale: Rationale, number: int) -> Example:
    text = VERIFYING.replace("{input}", example.input).replace("{rationale}", rationale.text)
    return replace(example, id=f"{example.id}#{number}", input=text)
