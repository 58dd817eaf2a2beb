"""The bill before the meal: nothing is asked, and what is said agrees with what then happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmdistill import registry
from lmdistill.annotate import annotate
from lmdistill.errors import BudgetReached
from lmdistill.estimate import estimate, preview
from lmdistill.pricing import Budget, Price
from lmdistill.prompting import Prompting
from lmdistill.store import read_manifest
from lmdistill.teachers.replay import Replay
from lmdistill.teachers.scripted import Scripted
from lmdistill.types import Sampling

TASK = registry.load("tasks", "sums")()
EXAMPLES = TASK.examples("train")[:40]
PRICED = Scripted(price=Price(10.0, 30.0))
SAMPLING = Sampling(n=3, temperature=1.0, max_tokens=100)


def test_a_first_guess_bounds_what_it_then_costs(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    (bill,) = estimate(TASK, PRICED, EXAMPLES, sampling=SAMPLING, cache=cache)
    assert (bill.answers, bill.found, bill.requests, bill.learned) == (120, 0, 40, 0)
    annotate(TASK, PRICED, EXAMPLES, folder=tmp_path / "a", sampling=SAMPLING, cache=cache)
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None and bill.cost is not None and bill.most is not None
    assert manifest.facts["requests"] == bill.requests
    assert 0 < manifest.facts["cost"] < bill.most and bill.cost < bill.most


def test_after_a_few_answers_the_guess_is_an_estimate(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    annotate(TASK, PRICED, EXAMPLES[:10], folder=tmp_path / "pilot", sampling=SAMPLING, cache=cache)
    (bill,) = estimate(TASK, PRICED, EXAMPLES, sampling=SAMPLING, cache=cache)
    assert (bill.found, bill.requests, bill.learned) == (30, 30, 10)
    annotate(TASK, PRICED, EXAMPLES, folder=tmp_path / "a", sampling=SAMPLING, cache=cache)
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None
    assert manifest.facts["cost"] == pytest.approx(bill.cost, rel=0.1)
    assert manifest.facts["prompt_tokens"] == pytest.approx(bill.prompt_tokens, rel=0.1)
    assert manifest.facts["cost_of_all_answers"] > manifest.facts["cost"]
    (after,) = estimate(TASK, PRICED, EXAMPLES, sampling=SAMPLING, cache=cache)
    assert (after.requests, after.cost, after.most) == (0, 0.0, 0.0)


def test_the_most_it_can_cost_is_a_cap_that_holds(tmp_path: Path) -> None:
    (bill,) = estimate(TASK, PRICED, EXAMPLES, sampling=SAMPLING)
    assert bill.most is not None
    annotate(TASK, PRICED, EXAMPLES, folder=tmp_path / "a", sampling=SAMPLING, budget=Budget(max_cost=bill.most))
    with pytest.raises(BudgetReached):
        annotate(TASK, PRICED, EXAMPLES, folder=tmp_path / "b", sampling=SAMPLING, budget=Budget(max_cost=1e-4))


def test_several_teachers_and_stages_are_all_counted() -> None:
    bills = estimate(TASK, (PRICED, Scripted(source="other", seed=1)), EXAMPLES, sampling=SAMPLING)
    assert [bill.source for bill in bills] == ["scripted", "other"] and bills[1].cost == 0.0
    (twice,) = estimate(TASK, PRICED, EXAMPLES, sampling=SAMPLING, prompting=Prompting(stages=2, shots=0))
    (once,) = estimate(TASK, PRICED, EXAMPLES, sampling=SAMPLING, prompting=Prompting(shots=0))
    assert twice.requests == 2 * once.requests and twice.cost is not None and once.cost is not None
    assert twice.cost > 1.9 * once.cost


def test_a_preview_asks_nobody_and_shows_a_form_that_can_be_read() -> None:
    shown = preview(TASK, Scripted(error_rate=1.0), EXAMPLES[:2])
    assert len(shown) == 2 and all(one.made_up for one in shown)
    for one, example in zip(shown, EXAMPLES, strict=False):
        assert one.prompt.question == example.input
        assert one.read.answer == example.label and one.read.text == "(reasoning)"


def test_a_preview_shows_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(f'{{"id": "{EXAMPLES[0].id}", "raw": "Hm. So the answer is 3."}}\n')
    (shown,) = preview(TASK, Replay(path=path, text="raw"), EXAMPLES[:1])
    assert not shown.made_up and shown.answer == "Hm. So the answer is 3." and shown.read.answer == "3"
