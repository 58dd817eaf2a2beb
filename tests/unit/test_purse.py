"""Runs of one comparison: one asks at a time, none pays for what another has been told, and caps hold for all."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from lmdistill.annotate import annotate
from lmdistill.errors import BudgetReached, StoreError
from lmdistill.pricing import Budget, Ledger, Price
from lmdistill.purse import NAME, from_purse, open_purse
from lmdistill.store import read_manifest
from lmdistill.tasks.sums import Sums
from lmdistill.teachers.scripted import Scripted

TASK = Sums(train=24, valid=2, test=2)
TEACHER = Scripted(latency=0.02, price=Price(1.0, 1.0))


@pytest.fixture
def purse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "purse.json"
    open_purse(path, Budget())
    monkeypatch.setenv(NAME, str(path))
    return path


def ask(folder: Path, share: int, budget: Budget | None = None) -> int:
    """Annotate the first examples; the number of requests that it took."""
    examples = list(TASK.examples("train"))[:share]
    cache = folder.parent / "answers.sqlite"
    annotate(TASK, TEACHER, examples, folder=folder, cache=cache, progress=False, budget=budget or Budget())
    manifest = read_manifest(folder)
    assert manifest is not None
    return int(manifest.facts["requests"])


def test_two_that_ask_for_the_same_at_once_pay_once(tmp_path: Path, purse: Path) -> None:
    asked: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: asked.update({n: ask(tmp_path / f"run-{n}", n)})) for n in (12, 24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(asked.values()) == 24, asked
    assert json.loads(purse.read_text())["requests"] == 24


def test_a_cap_holds_for_all_together_and_a_run_s_own_for_itself(tmp_path: Path, purse: Path) -> None:
    open_purse(purse, Budget(max_requests=20))
    assert ask(tmp_path / "one", 12) == 12
    with pytest.raises(BudgetReached, match=r"the comparison's budget: \$0\.\d+ and 12 requests went to other cells"):
        ask(tmp_path / "two", 24)
    assert json.loads(purse.read_text())["requests"] == 20
    open_purse(purse, Budget(max_requests=20))
    assert ask(tmp_path / "two", 24) == 4, "another call of the same command goes on with what is left to ask"
    open_purse(purse, Budget(max_requests=20))
    with pytest.raises(BudgetReached, match=r"^max_requests = 3 is reached"):
        ask(tmp_path / "three" / "a", 10, Budget(max_requests=3))


def test_a_cap_on_cost_counts_what_others_spent_and_what_the_run_spent_before(purse: Path) -> None:
    open_purse(purse, Budget(max_cost=1.0))
    ledger = Ledger(Budget(max_cost=0.9), cost=0.2)
    with from_purse(ledger):
        assert ledger.budget.max_cost == 0.9
        ledger.cost += 0.5
    assert ledger.budget == Budget(max_cost=0.9)
    with from_purse(ledger):  # 0.7 of its own, 0.5 of them from the purse
        assert ledger.budget.max_cost == 0.9
    other = Ledger()
    with from_purse(other):
        assert other.budget.max_cost == 0.5
        other.uncertain += 0.5
    with from_purse(other):
        assert other.budget.max_cost == 0.5, "nothing is left beside what it spent"


def test_a_run_that_outlives_its_call_does_not_bring_the_old_caps_back(purse: Path) -> None:
    open_purse(purse, Budget(max_cost=1.0))
    ledger = Ledger()
    with from_purse(ledger):
        ledger.cost += 0.25
        open_purse(purse, Budget(max_cost=9.0))
    assert json.loads(purse.read_text()) == {"max_cost": 9.0, "max_requests": None, "cost": 0.25, "requests": 0}


def test_without_a_purse_nothing_waits_and_a_damaged_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NAME, raising=False)
    ledger = Ledger(Budget(max_cost=1.0))
    with from_purse(ledger), from_purse(ledger):
        assert ledger.budget == Budget(max_cost=1.0)
    (tmp_path / "purse.json").write_text("{")
    monkeypatch.setenv(NAME, str(tmp_path / "purse.json"))
    with pytest.raises(StoreError, match="run `lmdistill compare` again"), from_purse(ledger):
        pass
