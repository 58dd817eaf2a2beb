"""Calls as processes: done ones are not repeated, broken ones say why, and one folder has one process at a time."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lmdistill import runs
from lmdistill.errors import StoreError
from lmdistill.runs import Call, finished, run_many
from lmdistill.shared import shared_stage
from lmdistill.store import write_json
from lmdistill.types import Estimate, Report

REPORT = Report("r", {"accuracy": Estimate(0.5, 0.4, 0.6, 10)})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls end without a process: those named 'broken' with exit code 2; the names of those that were made."""
    names: list[str] = []

    def process(call: Call, threads: int, running: Any, hold: Any) -> tuple[int, list[str]]:
        names.append(call.name)
        if call.name == "broken":
            return 2, ["one", "lmdistill: task: is required"]
        write_json(call.out / "report.json", REPORT)
        return 0, []

    monkeypatch.setattr(runs, "_process", process)
    return names


def test_a_finished_call_is_read_and_not_made_again(tmp_path: Path, made: list[str]) -> None:
    call = Call("a", "dss", {"task": "sums"}, tmp_path / "a")
    (first,) = run_many([call])
    (second,) = run_many([call])
    assert made == ["a"] and first.repeated and not second.repeated
    assert first.report == second.report == REPORT


def test_other_settings_are_another_call(tmp_path: Path, made: list[str]) -> None:
    list(run_many([Call("a", "dss", {"task": "sums"}, tmp_path)]))
    other = Call("a", "dss", {"task": "nli"}, tmp_path)
    assert finished(other) is None
    list(run_many([other]))
    assert made == ["a", "a"]


@pytest.mark.parametrize("damage", ["ended.json", "report.json"])
def test_a_call_without_its_mark_or_its_report_is_made_again(damage: str, tmp_path: Path, made: list[str]) -> None:
    call = Call("a", "dss", {}, tmp_path)
    list(run_many([call]))
    (tmp_path / damage).write_text('{"na')
    assert finished(call) is None
    (again,) = run_many([call])
    assert made == ["a", "a"] and again.report == REPORT


def test_one_that_fails_says_why_and_the_others_go_on(tmp_path: Path, made: list[str]) -> None:
    calls = [Call(name, "dss", {}, tmp_path / name) for name in ("a", "broken", "b")]
    ended = {one.call.name: one for one in run_many(calls, workers=1)}
    assert ended["a"].report == ended["b"].report == REPORT
    assert ended["broken"].report is None and ended["broken"].error.endswith("task: is required")
    assert not (tmp_path / "broken" / "ended.json").exists()


def test_a_folder_that_cannot_be_made_is_an_end_too(tmp_path: Path, made: list[str]) -> None:
    (tmp_path / "file").write_text("")
    calls = [Call("bad", "dss", {}, tmp_path / "file" / "x"), Call("good", "dss", {}, tmp_path / "good")]
    ended = {one.call.name: one for one in run_many(calls, workers=1)}
    assert ended["bad"].report is None and ended["bad"].error and ended["good"].report == REPORT


def test_a_folder_in_use_is_waited_for_and_what_it_leaves_is_taken(tmp_path: Path, made: list[str]) -> None:
    """As after a killed program whose process lives on: it finishes the cell, and nobody makes it twice."""
    call = Call("a", "dss", {}, tmp_path)
    with (tmp_path / ".held").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ended: list[runs.Ended] = []
        waiting = threading.Thread(target=lambda: ended.extend(run_many([call])))
        waiting.start()
        time.sleep(0.3)
        assert ended == [] and made == []
        write_json(tmp_path / "report.json", REPORT)
        write_json(tmp_path / "ended.json", {"key": call.key, "seconds": 1.0})
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.join(10)
    assert made == [] and ended[0].report == REPORT and not ended[0].repeated


# --- shared stages ---


def test_a_shared_stage_has_one_folder_and_many_links(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for run in ("one", "two"):
        with shared_stage(shared, tmp_path / run / "annotations", "k1") as place, (place / "rows").open("a") as file:
            file.write(run)
    with shared_stage(shared, tmp_path / "three" / "annotations", "k2") as place:
        assert not (place / "rows").exists(), "another key, another stage"
    assert (tmp_path / "two" / "annotations" / "rows").read_text() == "onetwo"
    assert (tmp_path / "one" / "annotations").is_symlink()


def test_whoever_comes_second_waits(tmp_path: Path) -> None:
    order: list[str] = []
    entered = threading.Event()

    def first() -> None:
        with shared_stage(tmp_path / "s", tmp_path / "one" / "a", "k"):
            entered.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(5)
    with shared_stage(tmp_path / "s", tmp_path / "two" / "a", "k"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_link_moves_with_the_key_and_a_real_stage_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "annotations"
    for key in ("k1", "k2"):
        with shared_stage(tmp_path / "s", folder, key) as place:
            assert folder.resolve() == place.resolve()
    own = tmp_path / "own" / "annotations"
    own.mkdir(parents=True)
    (own / "rows.jsonl").write_text("mine")
    with pytest.raises(StoreError, match="holds a stage of its own"), shared_stage(tmp_path / "s", own, "k1"):
        pass
    assert (own / "rows.jsonl").read_text() == "mine"


def test_a_call_is_the_same_whatever_its_name(tmp_path: Path) -> None:
    a, b = (Call(name, "dss", json.loads('{"x": [1, {"y": 2}]}'), tmp_path / name) for name in "ab")
    assert a.key == b.key
