"""Costs worked by hand."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from lmdistill.costing import Costs, Speed, bill, frontier, speed_of
from lmdistill.errors import ConfigError

SPEED = Speed(0.05, 0.08, throughput=50.0, questions=64, batch_size=64, parameters=1000, threads=1)


def test_a_bill_by_hand() -> None:
    facts = {
        "annotation": {"cost_of_all_answers": 10.0, "cost_per_example": 0.01},
        "train_seconds": {"0": 1800.0, "1": 5400.0},
    }
    found = bill(Costs(hourly=0.5, watts=200, energy=0.3), facts, SPEED, samples=5)
    assert found.train_seconds == 3600  # one student: the mean over seeds
    assert found.kilowatt_hours == pytest.approx(0.2)
    assert found.training == pytest.approx(0.5 + 0.2 * 0.3)
    # 1,000 answers take 20 s
    assert found.student_per_1000 == pytest.approx(20 / 3600 * (0.5 + 0.2 * 0.3))
    assert found.teacher_per_1000 == pytest.approx(2.0)  # five samples an example were bought; one would be asked
    saved = (found.teacher_per_1000 - found.student_per_1000) / 1000
    assert found.break_even is not None
    assert found.break_even * saved >= 10.56 > (found.break_even - 1) * saved
    assert found.made == pytest.approx(10.56)


def test_what_is_not_known_stays_unknown() -> None:
    unpriced = {"annotation": {"cost_of_all_answers": None, "cost_per_example": None}, "train_seconds": {"0": 10.0}}
    found = bill(Costs(), unpriced, SPEED)
    assert found.teacher is None and found.teacher_per_1000 is None and found.break_even is None
    stated = bill(Costs(teacher_per_1000=3.0), unpriced, SPEED)
    assert stated.teacher_per_1000 == 3.0 and stated.break_even is not None
    labels_alone = bill(Costs(), {"train_seconds": {"0": 10.0}}, None)
    assert labels_alone.teacher == 0 and labels_alone.student_per_1000 is None


def test_a_model_that_is_only_asked_costs_what_its_answers_cost() -> None:
    found = bill(Costs(), {"annotation": {"cost_of_all_answers": 4.0, "cost_per_example": 0.02}}, None)
    assert found.teacher == 0 and found.student_per_1000 == pytest.approx(20.0) and found.break_even is None


def test_a_student_dearer_than_the_teacher_never_breaks_even() -> None:
    facts = {"annotation": {"cost_of_all_answers": 1.0, "cost_per_example": 1e-9}, "train_seconds": {"0": 10.0}}
    assert bill(Costs(hourly=100), facts, SPEED).break_even is None


def test_the_frontier_is_what_nothing_beats() -> None:
    rng = random.Random(0)
    points = [(rng.randint(0, 9) / 1.0, rng.randint(0, 9) / 10) for _ in range(40)]
    kept = frontier(points)
    for one, other in itertools.product(range(len(points)), repeat=2):
        (x, y), (u, v) = points[one], points[other]
        if u <= x and v >= y and (u, v) != (x, y):
            assert one not in kept, "something is no dearer and no worse"
    assert [points[i] for i in kept] == sorted(points[i] for i in kept)


def test_negative_prices_are_refused() -> None:
    with pytest.raises(ConfigError, match="watts: -1"):
        Costs(watts=-1)


def test_no_student_no_speed(tmp_path: Path) -> None:
    assert speed_of(tmp_path / "gone", [], Costs()) is None
