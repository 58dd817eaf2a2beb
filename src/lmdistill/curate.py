"""Annotation -> Annotation: keep, drop and score rationales; every drop has a counted reason.

    items = curate(annotations, task, Correct(), Length(high=80), Diverse(k=5), folder=out / "curated")

Steps run in the order given, each on what the one before left in use. What is dropped moves to `rejected`, where
methods that learn from wrong rationales find it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdistill import store
from lmdistill.config import settings_of
from lmdistill.curation import Curation
from lmdistill.errors import ConfigError
from lmdistill.progress import track
from lmdistill.registry import name_of
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example


@dataclass
class Funnel:
    """What went in, what each step dropped and why, and what is left."""

    inputs: int = 0
    rationales: int = 0
    before: Counter[str] = field(default_factory=Counter)
    steps: list[Counter[str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    left: int = 0
    empty: int = 0
    short: int = 0

    def counts(self, minimum: int) -> dict[str, int]:
        """One flat line for each number, as manifests hold them."""
        found = {"inputs": self.inputs, "rationales": self.rationales}
        found.update({f"set aside before: {reason}": count for reason, count in sorted(self.before.items())})
        for place, (name, dropped) in enumerate(zip(self.names, self.steps, strict=True), 1):
            found.update({f"{place} {name}: {reason}": count for reason, count in sorted(dropped.items())})
        found.update({"rationales left": self.left, "inputs without a rationale": self.empty})
        if minimum > 1:
            found[f"inputs with fewer than {minimum} rationales"] = self.short
        return found

    def table(self) -> list[dict[str, Any]]:
        """For each step: its name, how many rationales reached it, what it dropped by reason, how many it left."""
        rows: list[dict[str, Any]] = []
        reached = self.rationales
        for name, dropped in zip(self.names, self.steps, strict=True):
            left = reached - dropped.total()
            rows.append({"step": name, "reached": reached, "dropped": dict(sorted(dropped.items())), "left": left})
            reached = left
        return rows


def curate(
    annotations: Sequence[Annotation],
    task: Task,
    *steps: Curation,
    folder: Path | None = None,
    seed: int = 0,
    keep_empty: bool = True,
    minimum: int = 1,
    funnel: Funnel | None = None,
) -> Sequence[Annotation]:
    """Apply steps in order.

    Args:
        folder: where the rows and their manifest go, with the funnel; without one a list is returned.
        keep_empty: keep an input all of whose rationales were dropped (an objective may still train on its label).
        minimum: inputs left with fewer rationales are counted; `short_of` names them, to be asked again.
        funnel: filled with what happened, for a caller that wants the numbers without a folder.

    Raises:
        DataError: a step lacks what it needs in everything that reaches it.
        StoreError: the folder belongs to another run.
    """
    if minimum < 1:
        raise ConfigError(f"minimum: at least 1 was expected, got {minimum}")
    funnel = Funnel() if funnel is None else funnel
    if folder is None:
        return list(_walk(annotations, task, steps, seed, keep_empty, minimum, funnel))
    settings = {
        "steps": [settings_of(step) for step in steps],
        "task": settings_of(task),
        "keep_empty": keep_empty,
        "minimum": minimum,
    }
    inputs = {"annotations": store.digest_rows(annotations)}
    with store.stage(folder, "curate", settings=settings, inputs=inputs, seed=seed) as opened:
        if not opened.done:
            store.write_rows(opened.path(), _walk(annotations, task, steps, seed, keep_empty, minimum, funnel))
            opened.manifest.counts = funnel.counts(minimum)
            opened.manifest.facts["funnel"] = funnel.table()
    return opened.rows(Annotation)


def short_of(annotations: Sequence[Annotation], minimum: int) -> Iterator[Example]:
    """The examples left with fewer than `minimum` rationales: what to ask the teacher again."""
    return (annotation.example for annotation in annotations if len(annotation.rationales) < minimum)


def _walk(
    annotations: Sequence[Annotation],
    task: Task,
    steps: Sequence[Curation],
    seed: int,
    keep_empty: bool,
    minimum: int,
    funnel: Funnel,
) -> Iterator[Annotation]:
    ready: list[Curation] = []
    for step in steps:  # a step surveys what the steps before it leave
        ready.append(step.survey(_applied(annotations, task, ready, seed), task))
    funnel.names = [name_of(step) for step in steps]
    funnel.steps = [Counter() for _ in steps]
    for annotation in track(annotations, "curate", unit="inputs"):
        funnel.inputs += 1
        funnel.rationales += len(annotation.rationales)
        funnel.before.update(one.reason or "no reason given" for one in annotation.rejected)
        for place, step in enumerate(ready):
            before = len(annotation.rejected)
            annotation = _apply(step, annotation, task, seed, place)
            funnel.steps[place].update(one.reason or "no reason given" for one in annotation.rejected[before:])
        left = len(annotation.rationales)
        funnel.left += left
        funnel.empty += left == 0
        funnel.short += left < minimum
        if left or keep_empty:
            yield annotation


def _applied(
    annotations: Sequence[Annotation], task: Task, steps: Sequence[Curation], seed: int
) -> Iterator[Annotation]:
    """The annotations after some steps, made anew on each reading, so that memory stays flat."""
    settled = tuple(steps)
    for annotation in annotations:
        for place, step in enumerate(settled):
            annotation = _apply(step, annotation, task, seed, place)
        yield annotation


def _apply(step: Curation, annotation: Annotation, task: Task, seed: int, place: int) -> Annotation:
    return step.apply(annotation, task, random.Random(store.seed_for(seed, place, name_of(step), annotation.id)))
