"""The grid, its folder, cells that are done or fail, and a comparison that is killed and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lmdistill import beforehand, config, runs
from lmdistill.compare import compare, read, studies
from lmdistill.errors import ConfigError, StoreError, UnknownName
from lmdistill.grid import Comparison, cells_of, check_rows, first_steps, overlaid
from lmdistill.outcomes import load
from lmdistill.runs import Call
from lmdistill.standing import Standing
from lmdistill.store import read_manifest, write_json
from lmdistill.types import Estimate, Report
from lmdistill.verdicts import gaps_closed

TASK = {"name": "sums", "train": 20, "valid": 4, "test": 10}
ASKED: dict[str, Any] = {  # recipes that train nothing: a cell takes a second
    "recipes": ["few_shot", "few_shot_cot"],
    "settings": {"task": TASK, "teacher": {"name": "scripted"}},
    "vary": {"teacher.error_rate": [0.0, 0.4]},
}


def comparison(**changes: Any) -> Comparison:
    return config.build(Comparison, {**ASKED, **changes})


# --- the grid ---


def test_a_grid_is_every_combination_and_each_recipe_has_the_axes_it_knows(tmp_path: Path) -> None:
    grid = config.build(
        Comparison,
        {
            "recipes": {"finetune": {}, "plain": {"recipe": "dss", "rationale_weight": 0}, "few_shot_cot": None},
            "settings": {"task": TASK, "teacher": "scripted", "train": {"steps": 3}},
            "students": [{"preset": "tiny"}, {"preset": "mini"}],
            "fractions": [0.5, 1],
            "seeds": [0, 7],
            "vary": {"sampling.n": [1, 3]},
        },
    )
    cells = cells_of(grid, tmp_path)
    assert len({cell.folder for cell in cells}) == len(cells) == len({cell.name for cell in cells})
    counts = {method: sum(cell.method == method for cell in cells) for method in ("finetune", "plain", "few_shot_cot")}
    # finetune does not read the teacher, so the number of its answers is no axis; the prompted recipe has that alone
    assert counts == {"finetune": 8, "plain": 16, "few_shot_cot": 2}
    one = next(cell for cell in cells if cell.name == "plain student=mini fraction=0.5 sampling.n=3 seed 7")
    settings = one.settings
    assert settings["rationale_weight"] == 0 and settings["student"] == {"preset": "mini"}
    assert (settings["fraction"], settings["seeds"], settings["sampling"]) == (0.5, [7], {"n": 3})
    assert settings["train"] == {"steps": 3} and settings["shared"] == str(tmp_path / "shared")
    seeds = {cell.folder.parent for cell in cells if cell.method == "plain"}
    assert len(seeds) == 8, "the seeds of an arm lie side by side"


def test_a_cell_keeps_its_folder_when_the_grid_grows(tmp_path: Path) -> None:
    small = {cell.folder for cell in cells_of(comparison(), tmp_path)}
    larger = {
        cell.folder
        for cell in cells_of(comparison(vary={"teacher.error_rate": [0.0, 0.2, 0.4]}, title="more"), tmp_path)
    }
    assert small < larger
    other = cells_of(comparison(settings={"task": "sums", "teacher": "scripted"}), tmp_path)
    assert not small & {cell.folder for cell in other}


def test_answers_are_shared_by_cells_with_the_same_teacher_alone(tmp_path: Path) -> None:
    caches: dict[float, set[str]] = {}
    for cell in cells_of(comparison(), tmp_path):
        caches.setdefault(cell.about["teacher.error_rate"], set()).add(cell.settings["cache"])
    assert [len(one) for one in caches.values()] == [1, 1], "both recipes ask through one cache"
    assert not caches[0.0] & caches[0.4], "a teacher that errs must not be answered for by one that does not"
    own = comparison(settings={**ASKED["settings"], "cache": "mine.sqlite"})
    assert {cell.settings["cache"] for cell in cells_of(own, tmp_path)} == {"mine.sqlite"}


def test_another_component_takes_nothing_from_the_one_it_replaces() -> None:
    before = {"student": {"name": "seq2seq", "preset": "tiny"}, "train": {"steps": 3}}
    assert overlaid(before, {"student": {"name": "causal"}})["student"] == {"name": "causal"}
    assert overlaid(before, {"student": {"preset": "mini"}})["student"] == {"name": "seq2seq", "preset": "mini"}
    assert before["student"]["preset"] == "tiny", "the settings themselves stay"


def test_every_mistake_is_told_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    wrong = comparison(
        recipes=["few_shot", "fintune"], settings={"taks": "sums", "teacher": "scripted"}, vary={"tempreature": [1]}
    )
    with pytest.raises(ConfigError) as caught:
        cells_of(wrong, tmp_path)
    told = str(caught.value)
    assert "did you mean 'finetune'" in told and "did you mean 'task'" in told and "vary.tempreature" in told
    with pytest.raises(ConfigError, match=r"recipes\.few_shot: task\.tset: unknown setting; did you mean 'test'"):
        cells_of(comparison(settings={"task": {"name": "sums", "tset": 3}, "teacher": "scripted"}), tmp_path)
    with pytest.raises(ConfigError, match=r"settings\.seeds"):
        cells_of(comparison(recipes=["dss"], settings={**ASKED["settings"], "seeds": [1]}, vary={}), tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"recipe": ["dss"]}, "recipe: unknown setting; did you mean 'recipes'"),
        ({"recipes": []}, "name at least one"),
        ({"recipes": ["dss"], "baseline": "dds"}, "did you mean 'dss'"),
        ({"recipes": ["dss"], "seeds": [1, 1]}, "each once"),
        ({"recipes": ["dss"], "vary": {"train.steps": 3}}, "vary.train.steps: a list"),
        ({"recipes": ["dss"], "vary": {"train.epochs": [1], "train.steps": [5]}}, "one of them decides"),
        ({"recipes": ["dss"], "vary": {"sampling.n": []}}, r"vary.sampling.n: a list of one value or more"),
        (
            {"recipes": {"a": {"recipe": "dss", "fraction": 0.5}}, "fractions": [1]},
            r"a\.fraction: the comparison's own f",
        ),
        ({"recipes": {"a": {"recipe": "dss", "seeds": [3]}}}, r"a\.seeds: the comparison's own seeds would take"),
        ({"recipes": ["dss"], "students": [{"preset": "mini"}, {"preset": "mini"}]}, "preset mini stands there twice"),
        ({"recipes": ["dss"], "cost": {"hourly": -1}}, "cost.hourly: -1.0 is negative"),
        ({"recipes": ["dss"], "cost": {"hourly": float("nan")}}, "cost.hourly: nan is no number"),
        (
            {"recipes": {"labels": {"recipe": "dss", "rationale_weight": 0}}, "vary": {"rationale_weight": [0.5, 1]}},
            r"recipes\.labels\.rationale_weight: vary\.rationale_weight would take its place",
        ),
        (
            {"recipes": {"big": {"recipe": "dss", "student": {"preset": "medium"}}}, "students": [{"preset": "mini"}]},
            r"recipes\.big\.student\.preset: students would take its place",
        ),
        ({"recipes": ["dss"], "students": ["causal"], "vary": {"student": ["seq2seq"]}}, r"vary\.student: students"),
        ({"recipes": ["dss"], "fractions": [0.5], "vary": {"fraction": [1]}}, r"vary\.fraction: fractions stands here"),
        ({"recipes": ["dss"], "first": {"x": {"recipe": "dss", "seeds": [1, 2]}}}, r"first\.x\.seeds: a step is made"),
        ({"recipes": ["dss"], "cost": {"questions": 0}}, "cost.questions: 0; 1 or more"),
        ({"recipes": ["dss"], "cost": {"threads": 0}}, "cost.threads: 0; 1 or more"),
    ],
)
def test_a_comparison_s_own_settings_are_checked(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config.build(Comparison, given)


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("acuracy", "metric: 'acuracy' is measured by no cell; did you mean 'accuracy'"),
        ("rouge", "metric: 'rouge' is measured by no cell"),
        ("hits@1", "metric: 'hits@1' is measured by no cell"),
    ],
)
def test_a_metric_that_no_cell_will_have_is_told_before_anything_runs(tmp_path: Path, metric: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        compare(comparison(metric=metric), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_metrics_of_several_values_of_passages_and_of_further_tasks_are_known(tmp_path: Path) -> None:
    settings = {"task": {"name": "facts", "train": 20, "test": 5}, "teacher": "scripted", "also_test": ["sums"]}
    recipes = {"rd": {"grounding": {"passages": 1}}}
    for metric in ("accuracy", "hits@3", "sums.accuracy"):
        assert cells_of(comparison(recipes=recipes, settings=settings, vary={}, metric=metric), tmp_path)
    with pytest.raises(ConfigError, match=r"did you mean 'sums\.accuracy'"):
        cells_of(comparison(recipes=recipes, settings=settings, vary={}, metric="sum.accuracy"), tmp_path)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"label": "knid"}, "no column 'knid'; did you mean 'kind'"),
        ({"choices": ["spam", "eggs"]}, "label 'ham' is not among the choices spam, eggs"),
        ({"data": "gone.csv"}, "gone.csv: no such file"),
    ],
)
def test_rows_that_cannot_be_read_are_told_before_anything_runs(
    tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    rows = [f"{number},{'spam' if number % 2 else 'ham'}" for number in range(40)]
    (tmp_path / "mail.csv").write_text("\n".join(["subject,kind", *rows]))
    task = {"name": "table", "data": str(tmp_path / "mail.csv"), "input": "subject", "label": "kind"}
    settings: dict[str, Any] = {"task": {**task, "choices": ["spam", "ham"]}, "teacher": {"name": "scripted"}}
    check_rows(cells_of(comparison(settings=settings, vary={}), tmp_path))
    settings["task"] |= changed
    with pytest.raises(ConfigError) as caught:
        compare(comparison(settings=settings, vary={}), tmp_path / "out")
    assert len(caught.value.problems) == 1 and told in str(caught.value), "once, not for each method"
    assert not (tmp_path / "out").exists()


def test_a_file_a_study_and_assignments(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipes: [finetune, dss]\nseeds: [0]\nsettings: {task: sums, teacher: scripted}\n")
    found = read(file, ["seeds=[1, 2]", "settings.task.train=30"])
    assert found.seeds == (1, 2) and found.settings["task"] == {"name": "sums", "train": 30}
    with pytest.raises(UnknownName, match="did you mean 'data_efficiency'"):
        read("data_eficiency")


@pytest.mark.parametrize("name", studies())
def test_a_study_of_the_package_is_a_grid_that_its_recipes_take(name: str, tmp_path: Path) -> None:
    study = read(name)
    cells = cells_of(study, tmp_path)
    assert study.question.endswith("?") and len(cells) > 4
    assert len({cell.method for cell in cells}) > 1 or study.vary


# --- running it ---


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells end without a process, those that name "gone" with an error; the names of those that were made."""
    names: list[str] = []

    def process(call: Call, told: dict[str, str], running: Any, hold: Any) -> tuple[int, list[str]]:
        names.append(call.name)
        if "gone" in json.dumps(dict(call.settings)):
            return 2, ["lmdistill: gone.jsonl: no such file"]
        student = call.out / "train" / "student"
        student.mkdir(parents=True, exist_ok=True)
        (student / "config.json").write_text(call.name)
        facts = {"students": {"0": str(student)}}
        write_json(call.out / "report.json", Report("r", {"accuracy": Estimate(0.5, 0.4, 0.6, 10)}, {}, {}, facts))
        return 0, []

    monkeypatch.setattr(runs, "_process", process)
    return names


def needing(model: str) -> dict[str, Any]:
    """Two cells that need no step, one that needs a run, and one that needs what is cut out of it."""
    return {
        "first": {
            "expert": {"recipe": "finetune", "student": {"model": model}},
            "cut": {"prune": "first:expert", "decoder": 1},
        },
        "recipes": {
            "a": {"recipe": "finetune"},
            "b": {"recipe": "finetune", "fraction": 0.5},
            "of expert": {"recipe": "finetune", "student": {"model": "first:expert"}},
            "of cut": {"recipe": "finetune", "student": {"model": "first:cut"}},
        },
        "settings": {"task": TASK, "student": {"preset": "nano"}},
    }


def test_a_step_that_fails_takes_along_what_needs_it_alone(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = config.build(Comparison, needing("gone"))
    ends = {ended.call.name: ended for ended in compare(broken, tmp_path)}
    assert ran[0] == "expert" and sorted(ran[1:]) == ["a seed 0", "b seed 0"], "two at a time, in either order"
    assert [name for name, ended in ends.items() if ended.report is not None] == ["a seed 0", "b seed 0"]
    assert ends["expert"].error.endswith("no such file")
    for name in ("of expert seed 0", "of cut seed 0"):
        assert "first." in ends[name].error and "no such file" in ends[name].error
    rows = json.loads((tmp_path / "cells.json").read_text())
    assert [row["status"] for row in rows] == ["failed", "done", "done", "failed", "failed"]
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "partial"

    monkeypatch.setattr(beforehand, "prune", lambda *_: pytest.fail("nothing to cut from"))
    ran.clear()
    compare(broken, tmp_path)
    assert ran == ["expert"], "what is done stays done, and what cannot be is not begun"


def test_what_is_done_is_in_the_table_while_a_step_is_made(tmp_path: Path, ran: list[str]) -> None:
    compare(config.build(Comparison, needing("gone")), tmp_path)
    seen: list[list[str]] = []

    def tell(ended: Any, done: int, total: int) -> None:
        seen.append([row["status"] for row in json.loads((tmp_path / "cells.json").read_text())])
        assert (done, total) == (len(seen), 5)

    compare(config.build(Comparison, needing("gone")), tmp_path, tell=tell)
    assert len(seen) == 5 and all(states[1:3] == ["done", "done"] for states in seen)


def test_a_moved_comparison_makes_nothing_again(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(model: str, folder: Path, pruning: Any) -> None:
        assert (Path(model) / "config.json").read_text() == "expert"
        write_json(folder / "manifest.json", {"stage": "prune", "settings": {}, "inputs": {}, "status": "complete"})

    monkeypatch.setattr(beforehand, "prune", cut)
    grid = config.build(Comparison, needing("some/model"))
    monkeypatch.chdir(tmp_path)
    ends = compare(grid, Path("a"))
    assert len(ran) == 5 and all(ended.repeated and ended.report for ended in ends)
    Path("a").rename(tmp_path / "b")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = compare(grid, tmp_path / "b")
    assert len(ran) == 5 and not any(ended.repeated for ended in again)
    assert (first_steps(grid, tmp_path / "b")[0].student / "config.json").read_text() == "expert"


def test_cells_of_another_version_are_told(tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    grid = comparison(recipes=["few_shot"], vary={})
    (ended,) = compare(grid, tmp_path)
    mark = ended.call.out / "ended.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"version": "0.0.7"}))
    (again,) = compare(grid, tmp_path)
    assert again.version == "0.0.7" and len(ran) == 1
    assert "1 cell was made by lmdistill 0.0.7" in capsys.readouterr().err
    assert json.loads((tmp_path / "cells.json").read_text())[0]["version"] == "0.0.7"


def test_on_a_terminal_each_method_has_a_line_with_its_mean_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = config.build(
        Comparison,
        {"recipes": ["finetune", "few_shot"], "settings": {"task": TASK, "teacher": "scripted"}, "seeds": [0, 1]},
    )
    cells = cells_of(grid, Path("x"))
    reports = [Report("r", {"accuracy": Estimate(value, 0, 1, 10)}) for value in (0.5, 0.7, 0.9)]
    with Standing(cells, None, shown=True) as lines:
        for cell, report in zip(cells, reports, strict=True):
            lines.note(cell, report)
        shown = {arm: (bar.done, bar.total, bar.live) for arm, bar in lines.bars.items()}
    assert shown == {"finetune": (2, 2, {"accuracy": "0.600"}), "few_shot": (1, 1, {"accuracy": "0.900"})}
    with Standing(cells, None, shown=False) as none:
        none.note(cells[0], None)
        assert none.bars == {}


def table(out: Path) -> dict[str, Any]:
    outcomes = load([out])
    return {arm.title: (arm.values(outcomes.metric), arm.estimate(outcomes.metric)) for arm in outcomes.arms}


@pytest.mark.slow
def test_cells_that_are_done_are_not_made_again_and_one_that_fails_stops_nothing(tmp_path: Path) -> None:
    broken = {"recipe": "few_shot", "teacher": {"name": "replay", "path": str(tmp_path / "nothing.jsonl")}}
    grid = comparison(recipes={"few_shot_cot": {}, "broken": broken}, vary={})
    out = tmp_path / "out"
    first = {ended.call.name: ended for ended in compare(grid, out)}
    assert first["few_shot_cot"].report is not None and first["few_shot_cot"].repeated
    assert first["broken"].report is None and "nothing.jsonl" in first["broken"].error
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "partial" and manifest["counts"] == {"cells": 2, "done": 1, "failed": 1}

    row = '{"id": "%s", "llm_raw": "So the answer is 1."}\n'
    from lmdistill.tasks.sums import Sums

    examples = Sums(train=20, valid=4, test=10).examples("test")
    Path(broken["teacher"]["path"]).write_text("".join(row % one.id for one in examples))
    again = {ended.call.name: ended for ended in compare(grid, out)}
    assert not again["few_shot_cot"].repeated, "done before"
    assert again["broken"].repeated and again["broken"].report is not None, again["broken"].error
    assert json.loads((out / "manifest.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_table(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    asked = {**ASKED, "recipes": ["few_shot"], "vary": {"teacher.error_rate": [0.0, 0.2, 0.4]}}
    grid = config.build(Comparison, asked)
    compare(grid, whole)
    (tmp_path / "c.yaml").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "lmdistill", "compare", str(tmp_path / "c.yaml"), "--out", str(cut)]
    process = subprocess.Popen(
        [*command, "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(cut.glob("cells/*/ended.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in cut.glob("cells/*/ended.json")}
    assert 1 <= len(done) < 3, "it was killed under way"
    ends = compare(grid, cut)
    assert sum(not ended.repeated for ended in ends) >= len(done)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert table(cut) == table(whole) and len(table(cut)) == 3
    shares = [estimate.value for _, estimate in table(cut).values()]
    assert shares[0] == 1.0 > shares[2], "each cell has its own teacher's answers"


def test_values_of_an_axis_have_names_of_their_own(tmp_path: Path) -> None:
    teachers = [{"name": "scripted", "error_rate": rate} for rate in (0.0, 0.5)]
    students = [{"name": "seq2seq", "model": f"{place}/student"} for place in ("runs/a", "runs/b")]
    made = comparison(recipes=["dss"], vary={"teacher": teachers}, students=students, seeds=[0])
    names = [cell.name for cell in cells_of(made, tmp_path)]
    assert len(set(names)) == len({cell.folder for cell in cells_of(made, tmp_path)}) == 4
    assert "dss student=seq2seq a/student teacher=scripted error_rate 0.5 seed 0" in names


def test_a_damaged_manifest_of_a_comparison_is_written_anew(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    grid = comparison(recipes=["finetune"], seeds=[0], vary={})
    compare(grid, tmp_path)
    for damage in ('{"stage', None):
        (tmp_path / "manifest.json").unlink()
        if damage is not None:
            (tmp_path / "manifest.json").write_text(damage)
        assert [ended.repeated for ended in compare(grid, tmp_path)] == [False]
        manifest = read_manifest(tmp_path)
        assert manifest is not None and manifest.status == "complete"
        assert ("was damaged and is written anew" in capsys.readouterr().err) == (damage is not None)
    assert len(ran) == 1, "no cell was made again"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="is no comparison"):
        compare(comparison(), tmp_path)
    with pytest.raises(StoreError, match="no run is done yet"):
        load_empty(tmp_path)


@pytest.mark.parametrize("damage", [None, '[{"na', '[{"name": "x"}]', "[1]"])
def test_a_table_of_cells_that_is_gone_or_cut_is_told_with_what_to_do(tmp_path: Path, damage: str | None) -> None:
    (tmp_path / "manifest.json").write_text('{"stage": "compare", "settings": {}, "inputs": {}}')
    if damage is not None:
        (tmp_path / "cells.json").write_text(damage)
    with pytest.raises(StoreError, match=r"cells\.json .*run the same `lmdistill compare` again"):
        load([tmp_path])


def load_empty(folder: Path) -> None:
    (folder / "cells.json").write_text("[]")
    (folder / "manifest.json").write_text('{"stage": "compare", "settings": {}, "inputs": {}}')
    load([folder])


@pytest.mark.slow
def test_trained_cells_share_what_the_teacher_said(tmp_path: Path) -> None:
    grid = config.build(
        Comparison,
        {
            "recipes": ["task_distillation", "dss"],
            "settings": {
                "task": TASK,
                "teacher": {"name": "scripted", "error_rate": 0.2},
                "train": {"steps": 2, "batch_size": 8, "eval_every": 2, "device": "cpu"},
                "decoding": {"max_tokens": 8},
            },
            "seeds": [0, 1],
        },
    )
    ends = compare(grid, tmp_path)
    assert [ended.error for ended in ends if ended.report is None] == []
    stages = [path for path in (tmp_path / "shared").iterdir() if path.is_dir()]
    assert len(stages) == 1, "all four asked the same"
    links = sorted(tmp_path.glob("cells/*/seed-*/annotations"))
    assert len(links) == 4 and {link.resolve() for link in links} == {stages[0].resolve()}
    outcomes = load([tmp_path])
    assert [sorted(arm.runs) for arm in outcomes.arms] == [[0, 1], [0, 1]]
    assert all(arm.report.facts["annotation"]["complete"] for arm in outcomes.arms)


FIRST: dict[str, Any] = {
    "first": {
        "teacher": {"recipe": "finetune", "student": {"preset": "mini"}},
        "cut": {"prune": "first:teacher", "decoder": 1},
    },
    "recipes": {
        "plain": {"recipe": "finetune"},
        "pruned": {"recipe": "finetune", "student": {"model": "first:cut"}},
        "kd": {"recipe": "kd4gen", "learns": {"name": "logit_kd"}, "pseudo": {"number": 0}, "tail_epochs": 0},
    },
    "ceiling": "teacher",
    "settings": {
        "task": {"name": "retell", "train": 24, "valid": 6, "test": 10, "unlabelled": 0},
        "teacher": {"name": "transformers", "model": "first:teacher"},
        "student": {"preset": "nano"},
        "train": {"steps": 2, "epochs": None, "batch_size": 8, "eval_every": 2, "device": "cpu"},
        "decoding": {"max_tokens": 8},
    },
}


def test_what_cells_need_first_is_named_by_its_settings_and_not_by_where_it_lies(tmp_path: Path) -> None:
    grid = config.build(Comparison, FIRST)
    here, there = cells_of(grid, tmp_path / "a"), cells_of(grid, tmp_path / "b")
    assert [cell.folder.parent.name for cell in here] == [cell.folder.parent.name for cell in there]
    teacher, cut = first_steps(grid, tmp_path / "a")
    by_method = {cell.method: cell for cell in here}
    assert by_method["kd"].settings["teacher"]["model"] == str(teacher.student)
    assert by_method["pruned"].settings["student"]["model"] == str(cut.folder) == str(cut.student)
    assert cut.model == str(teacher.student)
    assert "teacher" not in teacher.settings and teacher.settings["student"] == {"preset": "mini"}
    longer = {**FIRST, "first": {**FIRST["first"], "teacher": {**FIRST["first"]["teacher"], "fraction": 0.5}}}
    moved = {
        cell.method: cell.folder.parent.name for cell in cells_of(config.build(Comparison, longer), tmp_path / "a")
    }
    same = [name for name, cell in by_method.items() if cell.folder.parent.name == moved[name]]
    assert same == [], "another teacher: every cell that was given it, or a student cut out of it, is another one"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"first": {"teacher": {"student": {"preset": "mini"}}}}, "first.teacher: a mapping with either 'recipe' or"),
        ({"first": {**FIRST["first"], "cut": {"prune": "first:techer"}}}, "names none of the steps before it"),
        (
            {"first": {**FIRST["first"], "cut": {"prune": "first:teacher", "decoders": 1}}},
            "first.cut: decoders: unknown",
        ),
        ({"first": {"kd": {"recipe": "finetune"}}}, "first.kd: a recipe has that title"),
        ({"ceiling": "techer"}, "ceiling: 'techer' is none of the recipes; did you mean 'teacher'"),
        ({"first": {}, "ceiling": None}, "'first:teacher' names none of the steps before it under 'first'"),
    ],
)
def test_what_is_made_first_is_checked_before_anything_runs(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cells_of(config.build(Comparison, {**FIRST, **changes}), tmp_path)
    assert any(told in problem for problem in caught.value.problems), caught.value.problems
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_teacher_is_trained_and_cut_before_the_cells_that_learn_from_it(tmp_path: Path) -> None:
    grid = config.build(Comparison, FIRST)
    ends = compare(grid, tmp_path)
    assert [ended.error for ended in ends if ended.report is None] == []
    assert [ended.call.name for ended in ends] == ["teacher", "plain seed 0", "pruned seed 0", "kd seed 0"]
    teacher, cut = first_steps(grid, tmp_path)
    sizes = [(one.student / "model.safetensors").stat().st_size for one in (teacher, cut)]
    assert sizes[0] > sizes[1]
    assert [ended.repeated for ended in compare(grid, tmp_path)] == [False] * 4
    outcomes = load([tmp_path])
    assert outcomes.baseline == "plain" and outcomes.ceiling == "teacher"
    assert [one.method for one in gaps_closed(outcomes)] == ["pruned", "kd"]


# --- the command ---


def test_the_command_lists_cells_and_studies(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lmdistill.cli.main import app

    def told(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["compare", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    flags = ["--recipes", "finetune,few_shot", "--task", "sums", "--teacher", "scripted", "--dry-run"]
    cells = told(*flags, "--fractions", "0.5,1", "--seeds", "3,4").splitlines()
    assert cells == [
        *(f"finetune fraction={share} seed {seed}" for share in ("0.5", "1") for seed in (3, 4)),
        "few_shot",
    ]
    assert len(told("data_efficiency", "--dry-run", "--set", "seeds=[0]").splitlines()) == 16
    listed = told("--list")
    assert all(name in listed for name in studies()) and "How small may the student be?" in listed
    for wrong, why in ((["--recipes", "fintune"], "did you mean 'finetune'"), ([], "recipes: is required")):
        result = CliRunner().invoke(app, ["compare", "--out", str(tmp_path / "x"), *wrong])
        assert result.exit_code == 2 and why in result.output + result.stderr
        assert not (tmp_path / "x").exists(), "nothing is written before the settings are right"


def test_the_command_says_by_its_code_that_some_cells_failed(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from lmdistill import report
    from lmdistill.cli.main import app

    monkeypatch.setattr("lmdistill.outcomes.load", lambda folders: None)
    monkeypatch.setattr("lmdistill.spending.measure", lambda outcomes, opens: None)
    found: dict[str, Any] = {"arms": [], "metric": "accuracy", "name": "x", "summary": []}
    monkeypatch.setattr(report, "write", lambda outcomes, out: found)
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(needing("gone")))
    result = CliRunner().invoke(app, ["compare", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 5, result.output
    assert "3 of 5 cells failed (first: expert)" in result.stderr and "report: " in result.output
    file.write_text(json.dumps({**needing("some/model"), "first": {}, "recipes": ["finetune"]}))
    assert CliRunner().invoke(app, ["compare", str(file), "--out", str(tmp_path / "fine")]).exit_code == 0
