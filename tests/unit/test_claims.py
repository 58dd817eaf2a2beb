"""The claims' files, and how a verdict comes about."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmdistill import config
from lmdistill.errors import ConfigError, LmdistillError
from lmdistill.grid import Comparison, cells_of
from lmdistill.outcomes import load
from lmdistill.runs import Call, Ended
from lmdistill.types import Report
from made_outcomes import comparison_folder

RUNNER = Path(__file__).parents[2] / "benchmarks" / "claims" / "run.py"


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("claims_run", RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims_run"] = module
    spec.loader.exec_module(module)
    return module


def test_every_claim_is_a_grid_that_its_recipes_take(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmdistill import runfile

    monkeypatch.setenv("LMDISTILL_DATA", str(tmp_path))
    every = runner.claims()
    assert len(every) >= 10
    for name, claim in every.items():
        if runner.missing(claim):
            continue
        file = tmp_path / f"{name}.yaml"
        file.write_text(json.dumps(dict(claim.compare)))
        cells = cells_of(config.build(Comparison, runfile.load(file)), tmp_path / name)
        methods = {cell.method for cell in cells}
        for condition in claim.passes:
            assert condition.better in methods and (condition.than in methods or condition.than == "teacher"), name
        assert claim.minutes > 0, name


def test_conditions_are_judged_on_the_same_items(runner: ModuleType, tmp_path: Path) -> None:
    outcomes = load([comparison_folder(tmp_path)])

    def judged(**condition: Any) -> dict[str, Any]:
        found: dict[str, Any] = runner.judged(config.build(runner.Condition, condition), outcomes)
        return found

    whole, part = {"fraction": 1.0}, {"fraction": 0.25}
    better = judged(better="single task", than="finetune", where=whole)
    assert better["holds"] and better["low"] > 0
    assert not judged(better="finetune", than="single task", where=whole)["holds"]
    assert not judged(better="single task", than="finetune", where=whole, by=0.5)["holds"]
    across = judged(better="single task", than="finetune", where=part, than_where=whole)
    assert across["second"] == "finetune fraction=1" and across["first"] == "single task fraction=0.25"
    assert not judged(better="single task", than="teacher", where=whole)["holds"]
    with pytest.raises(ConfigError, match="names 2 of"):
        judged(better="dss", than="finetune")


def test_a_verdict_is_kept_as_long_as_the_claim_says_the_same(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    settings = {"paper": "P", "claim": "a | b", "reported": "1", "passes": [{"better": "a", "than": "b"}]}
    claim = config.build(runner.Claim, settings)
    assert runner.verdict("x", claim)[0] == "not run yet"
    found = {"key": runner.key_of(claim), "verdict": "holds", "metric": "accuracy"}
    one = {"first": "a", "second": "b", "value": 0.1, "low": 0.05, "high": 0.15}
    arms = {"a": {"seeds": {"0": 0.8}, "mean": 0.8}, "b": {"seeds": {"0": 0.7}, "mean": 0.7}}
    (tmp_path / "x.json").write_text(json.dumps({**found, "conditions": [one], "arms": arms}))
    told = runner.row("x", claim)
    assert "| holds |" in told and "+0.100 (+0.050 to +0.150)" in told and "a \\| b" in told
    worded = config.build(runner.Claim, {**settings, "minutes": 3.0, "claim": "in other words"})
    assert runner.verdict("x", worded)[0] == "holds"
    changed = config.build(runner.Claim, {**settings, "passes": [{"better": "a", "than": "b", "by": 0.05}]})
    assert runner.verdict("x", changed)[0] == "not run yet"
    cannot = config.build(runner.Claim, {"paper": "P", "claim": "c", "reported": "1", "not_testable": "too large"})
    assert runner.verdict("y", cannot)[:2] == ("not testable here", "too large")
    with pytest.raises(ConfigError, match="and not both"):
        config.build(runner.Claim, {"paper": "P", "claim": "c", "reported": "1"})


def test_a_verdict_is_that_of_one_version(runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"paper": "P", "claim": "c", "reported": "1", "passes": [{"better": "a", "than": "b"}]}
    claim = config.build(runner.Claim, {**settings, "compare": {"recipes": ["finetune"], "settings": {"task": "sums"}}})
    before = runner.key_of(claim)
    monkeypatch.setattr(runner, "__version__", "9.9")
    assert runner.key_of(claim) != before
    call = Call("finetune seed 0", "finetune", {}, tmp_path / "x")
    ended = Ended(call, Report("r", {}), version="0.0.1")
    monkeypatch.setattr(runner, "compare", lambda *_, **__: [ended])
    with pytest.raises(LmdistillError, match=r"cells of lmdistill 0\.0\.1, this is 9\.9"):
        runner.put_to_test("x", claim, tmp_path, 1, 1)


def test_a_claim_that_would_end_too_late_is_not_begun(runner: ModuleType) -> None:
    settings = {"paper": "P", "claim": "c", "reported": "1", "passes": [{"better": "a", "than": "b"}], "minutes": 30.0}
    claim = config.build(runner.Claim, settings)
    assert runner.over_time(claim, 0, 240) == runner.over_time(claim, 210, 240) == ""
    assert runner.over_time(claim, 211, 240) == "it takes about 30 minutes, 29 remain"
    assert runner.over_time(config.build(runner.Claim, {**settings, "minutes": 0.0}), 240, 240) == "the time is over"


def test_the_page_says_how_many_conditions_there_were_to_hold_by_chance(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    passes = [{"better": "a", "than": "b"}, {"better": "a", "than": "c"}, {"better": "a", "than": "d", "sure": False}]
    claim = config.build(runner.Claim, {"paper": "P", "claim": "c", "reported": "1", "passes": passes})
    assert "No condition was tested yet." in runner.page({"x": claim})
    one = {"first": "a", "second": "b", "value": 0.1, "low": 0.05, "high": 0.15, "sure": True}
    found = {"key": runner.key_of(claim), "verdict": "holds", "metric": "accuracy", "arms": {}}
    (tmp_path / "x.json").write_text(json.dumps({**found, "conditions": [one, one, {**one, "sure": False}]}))
    told = runner.page({"x": claim})
    assert "3 conditions were tested" in told and "not corrected" in told
    assert "about 0.05 of the 2 " in told and "about half of the other 1." in told


def test_the_page_is_today_s(runner: ModuleType) -> None:
    page: Path = runner.PAGE
    assert page.read_text(encoding="utf-8") == runner.page(runner.claims()), "run benchmarks/claims/run.py --table"
