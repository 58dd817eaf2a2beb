"""How fast a student answers on this machine, its search for passages included; measured once and kept beside it."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmdistill.contents import content
from lmdistill.costing import Costs, Speed
from lmdistill.progress import note
from lmdistill.store import digest, write_json
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Prediction

KEPT = "speed.json"
Search = Callable[[Sequence[Annotation]], Sequence[Annotation]]
"""Questions -> the same with the passages that the student reads."""
Opens = Callable[[Mapping[str, Any], Path, Task], Search]
"""Opens what finds a student's passages, from its card, its folder and its task."""


def speed_of(
    student: Path, predictions: Sequence[Prediction], costs: Costs, *, opens: Opens | None = None, again: bool = False
) -> Speed | None:
    """A student's speed on questions it was tested on, kept for this machine, these costs and these weights.

    None where it is not measured: the folder is gone, it reads passages and nothing is given that finds them, or it
    cannot be opened here (which is told, and stops nothing).
    """
    if not (student / "lmdistill.json").exists():
        return None
    place = student.parent / KEPT
    known = _kept(place)
    key = _key(student, costs)
    if key in known and not again:
        return known[key]
    if not costs.measure:
        return None
    try:
        found = _measured(student, predictions, costs, opens)
        if found is not None:
            write_json(place, {one: asdict(speed) for one, speed in {**known, key: found}.items()})
    except Exception as error:  # whatever it is: a report without a speed is better than none
        note(f"{student}: its speed is not measured ({type(error).__name__}: {error})")
        return None
    return found


def _key(student: Path, costs: Costs) -> str:
    """What a measurement holds for: the machine, what was asked of it, and the student."""
    machine = [platform.node(), platform.machine(), platform.processor(), os.cpu_count()]
    return digest([machine, costs.threads, costs.questions, costs.seconds, content(student)])


def _kept(place: Path) -> dict[str, Speed]:
    try:
        return {key: Speed(**own) for key, own in json.loads(place.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # none, or an older layout: measured anew


def _measured(student: Path, predictions: Sequence[Prediction], costs: Costs, opens: Opens | None) -> Speed | None:
    import torch

    from lmdistill import config
    from lmdistill.predict import Decoding, open_student, predict

    opened = open_student(student)
    if hasattr(opened.student, "tell_no_cuts"):
        opened.student.tell_no_cuts()
    reads = bool((opened.card.get("grounding") or {}).get("passages"))
    if reads and opens is None:
        return None
    task = config.rebuild("tasks", opened.card["task"])
    decoding = config.build(Decoding, opened.card.get("decoding", {}))
    search = opens(opened.card, student, task) if reads and opens is not None else None
    asked = [predictions[i] for i in range(min(len(predictions), costs.questions))]
    items = [Annotation(one.example, hits=() if search else one.hits) for one in asked]
    before = torch.get_num_threads()
    torch.set_num_threads(costs.threads)

    def timed(some: Sequence[Annotation]) -> float:
        started = time.perf_counter()
        predict(opened.student, opened.objective, task, search(some) if search else some, decoding=decoding)
        return time.perf_counter() - started

    singles: list[float] = []
    try:
        timed(items[:1])  # the first call pays for what is set up once
        while len(singles) < len(items) and (len(singles) < 5 or sum(singles) < costs.seconds / 2):
            singles.append(timed(items[len(singles) : len(singles) + 1]))
        together = timed(items)
    finally:
        torch.set_num_threads(before)
    singles.sort()
    return Speed(
        latency=statistics.median(singles),
        latency_p95=singles[min(len(singles) - 1, math.ceil(0.95 * len(singles)) - 1)],
        throughput=len(items) / together,
        questions=len(items),
        batch_size=min(decoding.batch_size, len(items)),
        parameters=sum(p.numel() for p in opened.student.parameters()),
        threads=costs.threads,
    )
