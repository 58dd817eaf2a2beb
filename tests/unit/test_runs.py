"""Calls as processes: done ones are not repeated, broken ones say why, and one folder has one process at a time."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lmdistill import contents, registry, runs
from lmdistill.contents import NAMED
from lmdistill.errors import StoreError
from lmdistill.prompting import Prompting
from lmdistill.recipes._grounding import Grounding
from lmdistill.runs import Call, finished, run_many
from lmdistill.shared import shared_stage
from lmdistill.store import write_json
from lmdistill.types import Estimate, Report

REPORT = Report("r", {"accuracy": Estimate(0.5, 0.4, 0.6, 10)})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls end without a process: those named 'broken' with exit code 2; the names of those that were made."""
    names: list[str] = []

    def process(call: Call, told: Any, running: Any, hold: Any) -> tuple[int, list[str]]:
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


def test_a_call_whose_test_was_removed_is_made_again(tmp_path: Path, made: list[str]) -> None:
    (tmp_path / "a").mkdir()
    call = Call("a", "finetune", {}, tmp_path / "a")
    list(run_many([call]))
    report = json.loads((call.out / "report.json").read_text())
    report["facts"] = {"by_seed": {"3": {"accuracy": 1.0}}}
    write_json(call.out / "report.json", report)
    rows = call.out / "seed-3" / "test" / "rows.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text("")
    assert finished(call) is not None
    rows.unlink()
    assert finished(call) is None


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


def test_an_error_that_nobody_foresaw_is_an_end_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def process(call: Call, told: Any, running: Any, hold: Any) -> tuple[int, list[str]]:
        raise TypeError("a setting that cannot be written")

    monkeypatch.setattr(runs, "_process", process)
    (ended,) = run_many([Call("a", "dss", {}, tmp_path / "a")])
    assert ended.report is None and ended.error == "TypeError: a setting that cannot be written"


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


def test_a_call_is_what_its_files_hold_and_not_where_they_or_its_caches_lie(tmp_path: Path, made: list[str]) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "rows.csv").write_text("text,kind\na,b\n")
    (here / "model").mkdir()
    (here / "model" / "weights").write_text("1")

    def call(place: Path, name: str = "a") -> Call:
        task = {"name": "table", "data": str(place / "rows.csv"), "label": "kind"}
        teacher = {"name": "transformers", "model": str(place / "model")}
        own = {"cache": str(place / "answers.sqlite"), "shared": str(place / "shared")}
        return Call(name, "dss", {"task": task, "teacher": teacher, **own}, place / name)

    list(run_many([call(here)]))
    shutil.copytree(here, there)
    assert finished(call(there)) is not None, "a moved folder is the same comparison"
    (there / "model" / "weights").write_text("2")
    assert finished(call(there)) is None, "another model in the same place"
    (here / "rows.csv").write_text("text,kind\nc,d\n")
    assert finished(call(here)) is None, "another table in the same place"
    list(run_many([call(here)]))
    assert made == ["a", "a"]


def test_a_file_that_changes_under_way_makes_no_finished_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("1")

    def process(call: Call, told: Any, running: Any, hold: Any) -> tuple[int, list[str]]:
        table.write_text("22")
        write_json(call.out / "report.json", REPORT)
        return 0, []

    monkeypatch.setattr(runs, "_process", process)
    (ended,) = run_many([Call("a", "dss", {"task": {"name": "table", "data": str(table)}}, tmp_path / "a")])
    assert ended.report is None and "was changed meanwhile" in ended.error


def test_every_setting_that_is_a_path_counts_by_what_lies_there() -> None:
    """A new component's path is either read, and then its content counts, or it is a place that a run fills."""
    classes = [
        registry.load(kind, name) for kind in registry.KINDS if kind != "losses" for name in registry.names(kind)
    ]
    found = set()
    for cls in [*classes, Grounding, Prompting]:
        for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
            if "Path" in str(field.type) and field.init:
                found.add(field.name)
    assert {"data", "path", "knowledge", "exemplar_file"} <= found
    assert found <= NAMED | set(runs.PLACES), "add it to lmdistill.contents.NAMED"


def test_weights_are_told_apart_by_their_ends_and_a_stage_by_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "WHOLE", 4)
    monkeypatch.setattr(contents, "END", 2)
    digests = []
    for number, text in enumerate(("abcdef", "abcdeX", "Xbcdef", "abcdefg")):
        (tmp_path / f"m{number}").write_text(text)
        digests.append(contents.content(tmp_path / f"m{number}"))
    assert len(set(digests)) == 4 and contents.content(tmp_path / "none") is None
    for name, settings, seconds in (("one", {"k": 1}, 1.0), ("again", {"k": 1}, 9.0), ("other", {"k": 2}, 1.0)):
        write_json(
            tmp_path / name / "manifest.json",
            {"stage": "index", "settings": settings, "inputs": {}, "seconds": seconds},
        )
    one, again, other = (contents.content(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again != other


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
