"""What a report's sentences say, on outcomes that are made so that the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lmdistill.contests import pairs_of
from lmdistill.evaluate import lower_is_better
from lmdistill.findings import summary
from lmdistill.outcomes import Outcomes, load
from lmdistill.report import gathered, ordered
from lmdistill.store import write_rows
from lmdistill.types import Score
from lmdistill.verdicts import gaps_closed
from made_outcomes import cell_of, cells_folder, some

LEVELS = {"finetune": 0.5, "dss": 0.9}


def two_methods(out: Path, metrics: Sequence[str], **settings: Any) -> Outcomes:
    """Three seeds: 'dss' is right more often than 'finetune', and as sure of it."""
    rows = [
        cell_of(out, method, seed, some(share, 300, 7 * seed + len(method)), metrics=metrics)
        for seed in (0, 1, 2)
        for method, share in LEVELS.items()
    ]
    return load([cells_folder(out, rows, **{"baseline": "finetune", **settings})])


def first_sentence(outcomes: Outcomes) -> str:
    return summary(outcomes, pairs_of(outcomes), None)[0]


def test_which_values_are_better_where_they_are_less() -> None:
    less = ["brier", "calibration_error", "nll", "perplexity", "sums.nll", "teacher_brier"]
    assert [name for name in [*less, "accuracy", "bleu", "hits@1"] if lower_is_better(name)] == less


def test_the_one_with_less_of_it_wins_and_is_tested(tmp_path: Path) -> None:
    outcomes = two_methods(tmp_path, ["accuracy", "calibration"], metric="brier")
    told = first_sentence(outcomes)
    assert told.startswith("dss has the lowest brier") and "it beats finetune" in told
    plain = gathered(outcomes)
    assert [arm["method"] for arm in ordered(plain)] == ["dss", "finetune"], "the best one first"
    (pair,) = plain["pairs"]
    assert pair["significant"] and pair["value"] < 0 and not pair["worse"]


def test_a_gap_of_something_of_which_less_is_better_is_closed_too(tmp_path: Path) -> None:
    levels, metrics = {"finetune": 0.5, "dss": 0.7, "expert": 0.9}, ["accuracy", "calibration"]
    rows = [
        cell_of(tmp_path, method, seed, some(share, 400, seed), metrics=metrics)
        for seed in (0, 1, 2)
        for method, share in levels.items()
    ]
    outcomes = load([cells_folder(tmp_path, rows, baseline="finetune", ceiling="expert", metric="brier")])
    (closed,) = gaps_closed(outcomes)
    assert closed.method == "dss" and closed.share is not None
    assert 0.3 < closed.share.low < closed.share.value < closed.share.high < 0.7


def test_a_value_that_is_not_the_task_s_own_is_tested_by_item(tmp_path: Path) -> None:
    outcomes = two_methods(tmp_path, ["accuracy", "exact_match"], metric="exact_match")
    assert len(pairs_of(outcomes)) == 1
    assert "it beats finetune" in first_sentence(outcomes)


def test_what_a_run_kept_of_its_items_counts_and_is_not_worked_out_anew(tmp_path: Path) -> None:
    outcomes = two_methods(tmp_path, ["accuracy", "exact_match"], metric="exact_match")
    arm = outcomes.arms[0]
    run = arm.runs[0]
    names = [one.example.id for one in run.predictions()]
    write_rows(run.rows.parent.parent / "scores.jsonl", [Score(name, {"exact_match": 0.25}) for name in names])
    again = load([tmp_path]).arms[0].scores("exact_match")
    assert set(again[0].values()) == {0.25} and set(again[1].values()) == {0.0, 1.0}


def test_a_value_of_no_single_items_says_so(tmp_path: Path) -> None:
    outcomes = two_methods(tmp_path, ["accuracy", "calibration"], metric="calibration_error")
    assert pairs_of(outcomes) == []
    told = first_sentence(outcomes)
    assert "calibration_error is no mean over test items, so nothing here is tested" in told
    assert "scored on none" not in told


def test_what_was_made_beforehand_does_not_choose_the_metric(tmp_path: Path) -> None:
    rows = [
        cell_of(tmp_path, "expert", 0, some(0.9, 50, 1), metrics=["exact_match"]),
        *(cell_of(tmp_path, method, 0, some(share, 50, 2)) for method, share in LEVELS.items()),
    ]
    outcomes = load([cells_folder(tmp_path, rows, baseline="finetune", first={"expert": {"recipe": "finetune"}})])
    assert outcomes.metric == "accuracy" and outcomes.contenders()


def test_methods_without_training_have_no_students(tmp_path: Path) -> None:
    rows = [cell_of(tmp_path, method, None, some(share, 300, 3)) for method, share in LEVELS.items()]
    told = first_sentence(load([cells_folder(tmp_path, rows, baseline="finetune")]))
    assert "dss has the highest accuracy" in told and "it beats finetune (same items, corrected" in told
    assert "student" not in told and "training" not in told


@pytest.mark.parametrize("restless", [0, 1])
def test_a_seed_that_says_one_thing_to_everything_is_named(tmp_path: Path, restless: int) -> None:
    always_yes = [place % 2 == 0 for place in range(100)]  # the labels take turns, so half of them are right
    rows = [cell_of(tmp_path, "dss", seed, always_yes if seed == restless else some(0.8, 100, seed)) for seed in (0, 1)]
    outcomes = load([cells_folder(tmp_path, rows)])
    told = [one for one in summary(outcomes, [], None) if one.startswith("Read no progress")]
    assert len(told) == 1 and f"dss seed {restless} ('yes' to " in told[0] and f"seed {1 - restless}" not in told[0]


def test_what_costs_nothing_to_make_is_not_the_cheapest_where_the_others_use_is_not_known(tmp_path: Path) -> None:
    rows = [cell_of(tmp_path, "dss", 0, some(0.8, 200, 1)), cell_of(tmp_path, "few_shot", None, some(0.8, 200, 1))]
    outcomes = load([cells_folder(tmp_path, rows, baseline="dss")])
    bills = {
        "dss": {"teacher": 0.0, "made": 0.0004, "student_per_1000": None},
        "few_shot": {"teacher": 0.0, "made": 0.0, "student_per_1000": 10.0},
    }
    told = [one for one in summary(outcomes, pairs_of(outcomes), None, bills) if one.startswith("Cheapest")]
    assert len(told) == 1 and "dss" in told[0].partition(": ")[2].partition(":")[0]
    bills["dss"]["student_per_1000"] = 0.001
    told = [one for one in summary(outcomes, pairs_of(outcomes), None, bills) if one.startswith("Cheapest")]
    assert "made and used for 100,000 answers: dss" in told[0]


def test_every_size_of_a_student_counts_as_a_method_s_own(tmp_path: Path) -> None:
    rows = [
        cell_of(tmp_path, "dss", 0, some(0.8, 20, 1), student=student, fraction=fraction)
        for student in ("tiny", "mini")
        for fraction in (0.5, 1.0)
    ]
    full = load([cells_folder(tmp_path, rows)]).full()
    assert [arm.about for arm in full] == [{"student": "tiny", "fraction": 1.0}, {"student": "mini", "fraction": 1.0}]
