"""What a method cost to make and costs to use: the teacher's bill, machine time, energy, latency, break-even.

Dollars and watts are the user's statements (`Costs`); seconds are measured on this machine.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmdistill.errors import ConfigError


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

    def of_answers(self, asked: Mapping[str, Any]) -> float | None:
        """What a stage's answers are worth, or are stated to be where their bill is not known; None: neither is."""
        known: float | None = asked.get("cost_of_all_answers")
        if known is None and self.teacher_per_1000 is not None and asked.get("answers") is not None:
            return float(self.teacher_per_1000 * asked["answers"] / 1000)
        return known


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

    `teacher` is what everybody was paid who was asked for it before its test. `train_seconds` are those of one student
    with `beforehand_seconds`: what was trained, written or searched for it (a teacher model, its texts, a reranker).
    `break_even` is the number of predictions after which teacher and training have paid for themselves.
    """

    teacher: float | None
    train_seconds: float
    beforehand_seconds: float
    training: float
    kilowatt_hours: float
    student_per_1000: float | None
    teacher_per_1000: float | None
    break_even: int | None

    @property
    def made(self) -> float | None:
        """Everything before the first prediction; None where the teacher's bill is not known."""
        return None if self.teacher is None else self.teacher + self.training


def bill(
    costs: Costs,
    facts: Mapping[str, Any],
    speed: Speed | None,
    samples: int = 1,
    beforehand: float = 0.0,
    *,
    paid_beforehand: float | None = 0.0,
    asks_at_test: bool = False,
) -> Bill:
    """The bill of a run, from its report's facts; training seconds are those of one student.

    `samples` is how many answers the teacher gave to each input: in the student's place it would give one. `beforehand`
    are the seconds before the student's own training, `paid_beforehand` the teachers' dollars in what it was given
    (None where one is not known). With `asks_at_test` each of the student's answers needs one of the teacher's, so it
    costs both and nothing is ever paid back.

    >>> facts = {"annotation": {"cost_of_all_answers": 2.0, "cost_per_answer": 0.002}, "train_seconds": {"0": 3600}}
    >>> speed = Speed(0.1, 0.1, throughput=20.0, questions=1, batch_size=1, parameters=1, threads=1)
    >>> found = bill(Costs(hourly=0.36), facts, speed)
    >>> round(found.student_per_1000, 6), found.teacher_per_1000, found.break_even  # (2 + 0.36) / (0.002 - 0.000005)
    (0.005, 2.0, 1183)
    """
    annotation = facts.get("annotation") or {}
    trained = bool(facts.get("train_seconds"))
    seconds = statistics.mean(facts["train_seconds"].values()) + beforehand if trained else 0.0
    asked = _asked(costs, annotation, samples)
    own = costs.of_answers(annotation) if annotation else 0.0
    teacher = None if own is None or paid_beforehand is None else own + paid_beforehand
    used, each = None, annotation.get("cost_per_example")
    if speed is not None and speed.throughput > 0:
        used = costs.of_seconds(1000 / speed.throughput)
        if asks_at_test:
            used = None if asked is None else used + asked
    elif not trained:  # a model that is only asked: all of its samples are the answer
        used, teacher = asked if costs.teacher_per_1000 is not None or each is None else 1000 * each, 0.0
    training = costs.of_seconds(seconds)
    saved = (asked - used) / 1000 if asked is not None and used is not None and trained else 0.0
    even = math.ceil((teacher + training) / saved) if saved > 0 and teacher is not None else None
    before = beforehand if trained else 0.0
    return Bill(teacher, seconds, before, training, costs.kilowatt_hours(seconds), used, asked, even)


def _asked(costs: Costs, annotation: Mapping[str, Any], samples: int) -> float | None:
    """What the teacher would take for 1,000 predictions, one answer each; its prompt is paid whole for every one."""
    if costs.teacher_per_1000 is not None:
        return costs.teacher_per_1000
    one, each = annotation.get("cost_per_answer"), annotation.get("cost_per_example")
    if one is None and each is not None:  # of an older version, which did not tell prompts from answers: too low
        one = each / samples
    return None if one is None else 1000 * one


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
