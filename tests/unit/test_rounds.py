"""Several rounds of asking as one: their order, and what they cost together."""

from __future__ import annotations

from pathlib import Path

from lmdistill.annotate import annotate
from lmdistill.pricing import Ledger
from lmdistill.rounds import askings_of, rounds_of, summed_facts
from lmdistill.store import stage
from lmdistill.tasks.sums import Sums
from lmdistill.teachers.scripted import Scripted
from lmdistill.types import Sampling, Usage


def made(folder: Path, **facts: object) -> None:
    with stage(folder, "annotate", settings={}) as opened:
        opened.manifest.facts = dict(facts)


def test_rounds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("annotations-again-10", "annotations-again-2", "annotations", "annotations-test-5", "curated"):
        made(tmp_path / name)
    assert [path.name for path, _ in rounds_of(tmp_path, "annotations")] == [
        "annotations",
        "annotations-again-2",
        "annotations-again-10",
    ]


def test_what_rounds_used_is_added_up(tmp_path: Path) -> None:
    known = {"requests": 4, "cost": 0.5, "cost_of_all_answers": 2.0, "cost_per_example": 0.2, "complete": True}
    used = {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 0, "cost_uncertain": 0.0}
    made(tmp_path / "annotations", **known, **used, accuracy=0.5, retries={"timeout": 1})
    assert summed_facts(tmp_path)["cost"] == 0.5
    made(tmp_path / "annotations-again-1", **{**known, "cost_of_all_answers": 1.0}, **used, retries={"timeout": 2})
    found = summed_facts(tmp_path)
    assert (found["requests"], found["cost"], found["prompt_tokens"], found["retries"]) == (8, 1.0, 20, {"timeout": 3})
    assert (found["cost_of_all_answers"], found["cost_per_example"]) == (3.0, 0.3)  # of the ten examples of round 0
    assert found["accuracy"] == 0.5, "of the first round, which asked everybody"
    made(tmp_path / "annotations-again-2", **{**known, "cost": None}, **used)
    assert summed_facts(tmp_path)["cost"] is None, "one that is not known makes the sum unknown"
    assert summed_facts(tmp_path / "nothing") == {}


def test_everybody_who_was_asked_before_the_test_is_in_the_bill(tmp_path: Path) -> None:
    """A verifier's answers, and those behind the validation questions; what measures alone is not the run's price."""
    made(tmp_path / "annotations", requests=4, cost_of_all_answers=1.0, cost_per_example=0.1, cost_per_answer=0.1)
    made(tmp_path / "verified", requests=40, cost_of_all_answers=2.5, cost_per_example=0.01)
    made(tmp_path / "annotations-valid", cost_of_all_answers=0.25)
    for name in ("annotations-test", "annotations-test-20", "teacher-test", "also-svamp", "questions-test-3"):
        made(tmp_path / name, cost_of_all_answers=100.0)
    with stage(tmp_path / "curated", "curate", settings={}) as opened:
        opened.manifest.facts = {"cost_of_all_answers": 100.0}
    found = summed_facts(tmp_path)
    assert found["cost_of_all_answers"] == 3.75
    assert (found["requests"], found["cost_per_example"], found["cost_per_answer"]) == (4, 0.1, 0.1), "the teacher's"
    made(tmp_path / "annotations-again-1", requests=1, cost_of_all_answers=0.5)
    found = summed_facts(tmp_path)
    assert (found["cost_of_all_answers"], found["cost_per_example"]) == (4.25, 0.15), "1.5 of 1.0 went to examples"
    assert len(askings_of(tmp_path)) == 4 and summed_facts(tmp_path, "valid")["cost_of_all_answers"] == 204.0
    made(tmp_path / "verified-too", cost_of_all_answers=None)
    assert summed_facts(tmp_path)["cost_of_all_answers"] is None, "one that is not known makes the sum unknown"
    for name in ("annotations", "annotations-again-1"):
        made(tmp_path / "older" / name, requests=1)
    assert summed_facts(tmp_path / "older")["cost_of_all_answers"] is None, "not told is not free"


def test_a_ledger_that_goes_on_says_what_each_round_used(tmp_path: Path) -> None:
    ledger, task = Ledger(), Sums(train=3)
    first = annotate(task, Scripted(), task.examples("train"), folder=tmp_path / "1", ledger=ledger)
    assert len(first) == 3 and ledger.requests == 3
    sampling = Sampling(n=2, temperature=1.0, max_tokens=100)
    annotate(task, Scripted(), task.examples("train"), folder=tmp_path / "2", ledger=ledger, sampling=sampling)
    assert ledger.requests == 6
    from lmdistill.store import read_manifest

    told = [read_manifest(tmp_path / name) for name in "12"]
    assert [one.facts["requests"] for one in told if one] == [3, 3]


def test_what_a_ledger_used_since() -> None:
    ledger = Ledger(cost=2.0, requests=5, usage=Usage(10, 20, 3))
    earlier = Ledger(cost=0.5, requests=2, usage=Usage(4, 5, 1))
    found = ledger.since(earlier)
    assert (found.cost, found.requests, found.usage) == (1.5, 3, Usage(6, 15, 2))
