"""Rationales of a teacher that was shown the answer: it explains without repeating it, so the answer is implied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lmdistill.annotate import annotate
from lmdistill.prompting import Prompting
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings
from lmdistill.types import Annotation, Example, Rationale, Sampling

Kept = Literal["mentioned", "all"]
"""Which explanations without an answer of their own are kept: those that mention the gold answer, or all."""
VERIFYING = "{input}\n{rationale}\nSo, the answer is"


def explained(annotations: Sequence[Annotation], task: Task, kept: Kept) -> list[Annotation]:
    """Annotations whose explanations have the gold answer; those that are not kept say why."""
    return [_explained(annotation, task, kept) for annotation in annotations]


def _explained(annotation: Annotation, task: Task, kept: Kept) -> Annotation:
    label = annotation.example.label
    if label is None:
        return annotation
    good, rest = list(annotation.rationales), []
    for one in annotation.rejected:
        text = (one.text or one.raw).strip()
        if one.answer is not None or not text:
            rest.append(one)
        elif kept == "all" or mentions(text, label, task):
            good.append(replace(one, text=text, answer=label, reason=None))
        else:
            rest.append(replace(one, reason="does not mention the answer"))
    good.sort(key=lambda one: one.sample)
    return replace(annotation, rationales=tuple(good), rejected=tuple(rest))


def mentions(text: str, label: str, task: Task) -> bool:
    """Whether a text names an answer, as whole words and in the task's canonical form.

    >>> from lmdistill import registry
    >>> mentions("Cats Eat fish, dogs bones.", "eat fish", registry.load("tasks", "facts")())
    True
    """
    wanted, within = task.canonical(label), task.canonical(text)
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", within) is not None


def verified(annotations: Sequence[Annotation], task: Task, verifier: TeacherSettings, out: Path) -> list[Annotation]:
    """Only rationales from which another model reaches the gold answer (KARD's filter).

    The verifier reads the question, the rationale and 'So, the answer is', and writes an answer.
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
            cache=out / "verifier.sqlite",
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
