"""What a method cost to make and costs to use: the teacher's bill, machine time, energy, latency, break-even.

Dollars and watts are the user's statements (`Costs`); seconds are measured on this machine.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmdistill.errors import ConfigError, LmdistillError
from lmdistill.store import write_json
from lmdistill.types import Annotation, Prediction


@dataclass(frozen=True)
class Costs:
    """What this machine costs and draws, and how long a student's speed is measured.

    `hourly` is dollars an hour (a cloud machine with two cores, by default), `watts` its draw at work, `energy` dollars
    a kilowatt-hour, added to `hourly` (0 where the hourly price holds it already). `teacher_per_1000` is the teacher's
    price for 1,000 predictions, where its answers were recorded and their bill is not known. Speed is measured on
    `questions` questions with `threads` threads, one question at a time for about half of `seconds`.
    """

    hourly: float = 0.05
    watts: float = 65.0
    energy: float = 0.0
    teacher_per_1000: float | None = None
    measure: bool = True
    threads: int = 1
    questions: int = 64
    seconds: float = 10.0

    def __post_init__(self) -> None:
        problems = []
        for name in ("hourly", "watts", "energy", "teacher_per_1000", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                what = "negative" if value < 0 else "no number that can be counted with"
                problems.append(f"{name}: {value} is {what}; 0 or more was expected")
        for name in ("threads", "questions"):
            if getattr(self, name) < 1:
                problems.append(f"{name}: {getattr(self, name)}; 1 or more was expected")
        if problems:
            raise ConfigError(problems)

    def of_seconds(self, seconds: float) -> float:
        """What this machine costs for so long, in dollars."""
        return seconds / 3600 * self.hourly + self.kilowatt_hours(seconds) * self.energy

    def kilowatt_hours(self, seconds: float) -> float:
        """The energy that it draws."""
        return seconds / 3600 * self.watts / 1000


@dataclass(frozen=True)
class Speed:
    """How fast a student answers on this machine: one question at a time, and in batches."""

    latency: float
    latency_p95: float
    throughput: float
    questions: int
    batch_size: int
    parameters: int
    threads: int


@dataclass(frozen=True)
class Bill:
    """Making and using one method. Dollars; None where it is not known.

    `break_even` is the number of predictions after which teacher and training have paid for themselves.
    """

    teacher: float | None
    train_seconds: float
    training: float
    kilowatt_hours: float
    student_per_1000: float | None
    teacher_per_1000: float | None
    break_even: int | None

    @property
    def made(self) -> float:
        """Everything before the first prediction; an unknown teacher counts nothing."""
        return (self.teacher or 0.0) + self.training


def bill(costs: Costs, facts: Mapping[str, Any], speed: Speed | None, samples: int = 1) -> Bill:
    """The bill of a run, from its report's facts; training seconds are those of one student.

    `samples` is how many answers the teacher gave to each input: in the student's place it would give one.

    >>> facts = {"annotation": {"cost_of_all_answers": 2.0, "cost_per_example": 0.002}, "train_seconds": {"0": 3600}}
    >>> speed = Speed(0.1, 0.1, throughput=20.0, questions=1, batch_size=1, parameters=1, threads=1)
    >>> found = bill(Costs(hourly=0.36), facts, speed)
    >>> round(found.student_per_1000, 6), found.teacher_per_1000, found.break_even  # (2 + 0.36) / (0.002 - 0.000005)
    (0.005, 2.0, 1183)
    """
    annotation = facts.get("annotation") or {}
    seconds = statistics.mean(facts.get("train_seconds", {}).values() or [0.0])
    trained = bool(facts.get("train_seconds"))
    teacher = annotation.get("cost_of_all_answers") if annotation else 0.0
    each = annotation.get("cost_per_example")
    asked = (
        costs.teacher_per_1000
        if costs.teacher_per_1000 is not None
        else None
        if each is None
        else 1000 * each / samples
    )
    used = None
    if speed is not None and speed.throughput > 0:
        used = costs.of_seconds(1000 / speed.throughput)
    elif not trained:
        used, teacher = asked, 0.0
    spent, training = teacher or 0.0, costs.of_seconds(seconds)
    saved = (asked - used) / 1000 if asked is not None and used is not None and trained else 0.0
    even = math.ceil((spent + training) / saved) if saved > 0 else None
    return Bill(teacher, seconds, training, costs.kilowatt_hours(seconds), used, asked, even)


def speed_of(student: Path, predictions: Sequence[Prediction], costs: Costs) -> Speed | None:
    """A student's speed on questions it was tested on; measured once and kept beside its folder.

    None where it cannot be measured (the folder is gone, or its prompts need more than a prediction holds).
    """
    kept = student.parent / "speed.json"
    if kept.exists():
        try:
            return Speed(**json.loads(kept.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            pass  # an older layout: measured anew
    if not costs.measure or not (student / "lmdistill.json").exists():
        return None
    try:
        found = _measured(student, predictions, costs)
    except LmdistillError:
        return None
    write_json(kept, asdict(found))
    return found


def _measured(student: Path, predictions: Sequence[Prediction], costs: Costs) -> Speed:
    import torch

    from lmdistill import config
    from lmdistill.predict import Decoding, open_student, predict

    opened = open_student(student)
    task = config.rebuild("tasks", opened.card["task"])
    decoding = config.build(Decoding, opened.card.get("decoding", {}))
    items = [Annotation(predictions[i].example, hits=predictions[i].hits) for i in range(len(predictions))]
    items = items[: costs.questions]
    before = torch.get_num_threads()
    torch.set_num_threads(costs.threads)

    def timed(some: Sequence[Annotation]) -> float:
        started = time.perf_counter()
        predict(opened.student, opened.objective, task, some, decoding=decoding)
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


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of points that no other beats: none is as cheap and better, or cheaper and as good.

    >>> frontier([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9), (3.0, 0.8)])
    [0, 2]
    """
    best, kept = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            kept.append(index)
    return kept
