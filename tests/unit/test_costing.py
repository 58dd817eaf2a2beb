"""Costs worked by hand."""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmdistill import config, registry, report_charts, spending, timing
from lmdistill.annotate import annotate
from lmdistill.arms import Arm, Run
from lmdistill.costing import Costs, Speed, bill, frontier
from lmdistill.errors import ConfigError
from lmdistill.pricing import Price
from lmdistill.recipes._grounding import search_of
from lmdistill.store import Manifest, read_manifest, write_json
from lmdistill.tasks.sums import Sums
from lmdistill.teachers.replay import Replay
from lmdistill.teachers.scripted import Scripted
from lmdistill.timing import speed_of
from lmdistill.types import Report, Sampling
from made_outcomes import comparison_folder

SPEED = Speed(0.05, 0.08, throughput=50.0, questions=64, batch_size=64, parameters=1000, threads=1)


def test_a_bill_by_hand() -> None:
    facts = {
        "annotation": {"cost_of_all_answers": 10.0, "cost_per_example": 0.01, "cost_per_answer": 0.003},
        "train_seconds": {"0": 1800.0, "1": 3600.0},
    }
    found = bill(Costs(hourly=0.5, watts=200, energy=0.3), facts, SPEED, samples=5, beforehand=900.0)
    assert found.train_seconds == 3600  # one student, the mean over seeds, and a quarter of an hour before it
    assert found.beforehand_seconds == 900
    assert found.kilowatt_hours == pytest.approx(0.2)
    assert found.training == pytest.approx(0.5 + 0.2 * 0.3)
    # 1,000 answers take 20 s
    assert found.student_per_1000 == pytest.approx(20 / 3600 * (0.5 + 0.2 * 0.3))
    assert found.teacher_per_1000 == pytest.approx(3.0)  # five samples an example were bought; one would be asked
    saved = (found.teacher_per_1000 - found.student_per_1000) / 1000
    assert found.break_even is not None
    assert found.break_even * saved >= 10.56 > (found.break_even - 1) * saved
    assert found.made == pytest.approx(10.56)


def test_what_is_not_known_stays_unknown_and_is_not_free() -> None:
    recorded = {"cost_of_all_answers": None, "cost_per_example": None, "cost_per_answer": None}
    facts = {"annotation": recorded, "train_seconds": {"0": 10.0}}
    found = bill(Costs(), facts, SPEED)
    assert found.teacher is None and found.made is None
    assert found.teacher_per_1000 is None and found.break_even is None
    only_each = bill(Costs(teacher_per_1000=3.0), facts, SPEED)
    assert only_each.teacher_per_1000 == 3.0 and only_each.break_even is None, "how many answers there were is not told"
    stated = bill(Costs(teacher_per_1000=3.0), {**facts, "annotation": {**recorded, "answers": 2000}}, SPEED)
    assert stated.teacher == 6.0 and stated.made == pytest.approx(6.0 + stated.training)
    assert stated.break_even is not None and stated.break_even > 2000
    labels_alone = bill(Costs(), {"train_seconds": {"0": 10.0}}, None)
    assert labels_alone.teacher == 0 and labels_alone.student_per_1000 is None


def test_a_model_that_is_only_asked_costs_what_all_its_answers_cost() -> None:
    asked = {"annotation": {"cost_of_all_answers": 4.0, "cost_per_example": 0.02, "cost_per_answer": 0.005}}
    found = bill(Costs(), asked, None, samples=5)
    assert found.teacher == 0 and found.student_per_1000 == pytest.approx(20.0) and found.break_even is None
    assert found.teacher_per_1000 == pytest.approx(5.0)


# --- the teacher's price ---


def facts_of(folder: Path, teacher: Any, n: int) -> dict[str, Any]:
    task = Sums(train=12, valid=2, test=2)
    asked = list(task.examples("train"))
    annotate(task, teacher, asked, folder=folder, sampling=Sampling(n=n), cache=folder / "c.sqlite", progress=False)
    manifest = read_manifest(folder)
    assert manifest is not None
    return dict(manifest.facts)


def test_the_price_of_one_answer_holds_the_whole_prompt(tmp_path: Path) -> None:
    """Five samples of a request share its prompt; one answer in their place pays all of it."""
    teacher = Scripted(price=Price(input=10.0, output=30.0))
    one, five = facts_of(tmp_path / "one", teacher, 1), facts_of(tmp_path / "five", teacher, 5)
    assert five["prompt_tokens"] == one["prompt_tokens"], "one request for each prompt"
    prompt = 10.0 * five["prompt_tokens"] / 12 / 1e6
    text = 30.0 * five["completion_tokens"] / 60 / 1e6
    assert five["cost_per_answer"] == pytest.approx(prompt + text, abs=1e-8)
    assert five["cost_per_answer"] > 1.5 * five["cost_per_example"] / 5
    assert one["cost_per_answer"] == pytest.approx(one["cost_per_example"], abs=1e-8)
    assert (one["answers"], five["answers"]) == (12, 60)


def test_what_somebody_else_paid_is_not_known(tmp_path: Path) -> None:
    rows = [{"id": one.id, "llm_raw": f"So the answer is {one.label}."} for one in Sums(train=12).examples("train")]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = facts_of(tmp_path / "replayed", Replay(path=tmp_path / "answers.jsonl"), 1)
    assert found["cost"] == 0 and found["answers"] == 12
    assert found["cost_of_all_answers"] is found["cost_per_example"] is found["cost_per_answer"] is None


# --- what was made beforehand ---


def stage_folder(folder: Path, stage: str, seconds: float, **facts: Any) -> None:
    settings = facts.pop("settings", {})
    write_json(folder / "manifest.json", asdict(Manifest(stage, settings, {}, facts=facts, seconds=seconds)))


def run_in(folder: Path, settings: Mapping[str, Any], seconds: float) -> Report:
    """A run of one seed whose student was trained for so long, and on the labels for 5 seconds more."""
    report = Report("r", {}, {}, settings, {"train_seconds": {"0": 5.0}, "students": {}})
    write_json(folder / "report.json", report)
    (folder / "run.yaml").write_text("recipe: x\n")
    stage_folder(folder / "seed-0" / "train", "train", 1.0, train_seconds=seconds)
    stage_folder(folder / "seed-0" / "tail", "train", 5.0, train_seconds=5.0)
    stage_folder(folder / "seed-0" / "test", "predict", 1000.0)
    stage_folder(folder / "questions-test-10", "ground", 1000.0)
    return report


def test_what_was_made_for_a_student_is_part_of_its_price(tmp_path: Path) -> None:
    base = tmp_path / "here"
    expert, cut, cell = base / "first" / "expert-1", base / "first" / "cut-1", base / "cells" / "kd" / "seed-0"
    student = str(expert / "student")
    run_in(expert, {"student": {"model": None}}, 100.0)
    (expert / "student").mkdir()
    stage_folder(cut, "prune", 2.0, settings={"model": student})
    settings = {"teacher": {"name": "transformers", "model": student}, "student": {"model": str(cut)}}
    report = run_in(cell, settings, 40.0)
    stage_folder(cell / "pseudo-targets", "pseudo_targets", 30.0)
    stage_folder(cell / "reranker", "train", 7.0, train_seconds=9.0)
    stage_folder(cell / "annotations", "annotate", 600.0, cost_of_all_answers=2.0)
    # texts 30, reranker 9, the expert with its two trainings 105 (once, though it is teacher and was cut), the cut 2
    assert spending.beforehand(cell, report) == pytest.approx(30 + 9 + 105 + 2)
    assert spending._trained(cell, report) == {"0": 45.0}, "both trainings, whichever student was kept"
    stage_folder(cell / "annotations", "annotate", 600.0, cost_of_all_answers=0.0)
    assert spending.beforehand(cell, report) == pytest.approx(746), "a model of one's own costs the machine's time"
    moved = tmp_path / "there"
    base.rename(moved)
    assert spending.beforehand(moved / "cells" / "kd" / "seed-0", report) == pytest.approx(746)


def test_trainings_count_however_deep_they_lie(tmp_path: Path) -> None:
    """Reading a corpus first is a training of the same student, in a folder of its own below that of the student."""
    report = Report("r", {}, {}, {}, {"train_seconds": {"0": 10.0, "1": 7.0}, "students": {}})
    for name, seconds in (("corpus", 60.5), ("task", 10.0)):
        stage_folder(tmp_path / "seed-0" / "train" / name, "train", 90.0, train_seconds=seconds)
    stage_folder(tmp_path / "seed-0" / "tail", "train", 2.0)
    stage_folder(tmp_path / "seed-0" / "test", "predict", 1000.0)
    assert spending._trained(tmp_path, report) == {"0": 72.5, "1": 7.0}


def test_no_run_was_made_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started inside a run's folder, where a model's name is the path of nothing."""
    run, other = tmp_path / "run", tmp_path / "other"
    settings = {"teacher": {"name": "scripted", "model": "scripted"}, "student": {"model": "org/small"}}
    report = run_in(run, settings, 40.0)
    run_in(other, {}, 500.0)
    for place in (run, run / "seed-0", other, tmp_path):
        monkeypatch.chdir(place)
        assert spending.beforehand(run, report) == 0, place
    (run / "seed-0" / "train" / "student").mkdir()
    for named in (run / "seed-0" / "train" / "student", Path("seed-0/train/student")):
        monkeypatch.chdir(run)
        assert spending.beforehand(run, replace(report, settings={"student": {"model": str(named)}})) == 0
    monkeypatch.chdir(tmp_path)
    told = replace(report, settings={"student": {"model": "other/seed-0/train"}})
    assert spending.beforehand(run, told) == 505, "a path that is there is one"


# --- dollars of all who were asked ---


def arm_of(folder: Path, report: Report, recipe: str = "dss") -> Arm:
    return Arm(recipe, recipe, {}, {0: Run(report, folder, folder / "rows.jsonl")})


def asking(folder: Path, dollars: float | None, answers: int, **facts: Any) -> None:
    stage_folder(folder, "annotate", 1.0, cost_of_all_answers=dollars, answers=answers, **facts)


def asked_run(folder: Path, settings: Mapping[str, Any]) -> Report:
    """A run whose report knows the dollar of its annotations alone, as older versions wrote it; $4.25 were paid."""
    report = run_in(folder, settings, 40.0)
    facts = {"cost_of_all_answers": 1.0, "cost_per_answer": 0.02, "answers": 50}
    asking(folder / "annotations", 1.0, 50)
    asking(folder / "verified", 3.0, 500)
    asking(folder / "annotations-valid", 0.25, 10)
    asking(folder / "annotations-test", 9.0, 400)
    asking(folder / "teacher-test", 9.0, 400)
    report = replace(report, facts={**report.facts, "annotation": facts})
    write_json(folder / "report.json", report)
    return report


def test_everybody_who_was_asked_for_a_student_is_paid_for(tmp_path: Path) -> None:
    report = asked_run(tmp_path, {})
    found, _ = spending.costed(arm_of(tmp_path, report), Costs(), timed=False)
    assert found.teacher == 4.25 and found.teacher_per_1000 == 20.0
    asking(tmp_path / "annotations", None, 50)  # recorded, the verifier paid
    assert spending.costed(arm_of(tmp_path, report), Costs(), timed=False)[0].teacher is None
    stated = spending.costed(arm_of(tmp_path, report), Costs(teacher_per_1000=10.0), timed=False)[0]
    assert stated.teacher == pytest.approx(10.0 * 50 / 1000 + 3.25), "what is stated stands for what is not known"
    (tmp_path / "annotations").rename(tmp_path / "gone")
    assert spending.costed(arm_of(tmp_path, report), Costs(), timed=False)[0].teacher == 1.0, "what the report tells"


def test_what_was_made_beforehand_carries_its_teachers_dollars(tmp_path: Path) -> None:
    expert, cut, cell = tmp_path / "first" / "expert", tmp_path / "first" / "cut", tmp_path / "cells" / "kd"
    asked_run(expert, {})
    (expert / "student").mkdir()
    stage_folder(cut, "prune", 2.0, settings={"model": str(expert / "student")})
    settings = {"teacher": {"model": str(expert / "student")}, "student": {"model": str(cut)}}
    report = run_in(cell, settings, 40.0)
    found, _ = spending.costed(arm_of(cell, report, "finetune"), Costs(), timed=False)
    assert found.teacher == 4.25 and found.beforehand_seconds == 45 + 2, "once, though it is teacher and was cut"
    assert found.made is not None and found.made > 4.25
    report = asked_run(cell, settings)
    assert spending.costed(arm_of(cell, report), Costs(), timed=False)[0].teacher == 8.5, "and what the cell asked"
    asking(expert / "verified", None, 500)
    assert spending.costed(arm_of(cell, report), Costs(), timed=False)[0].made is None, "not known is not free"
    assert spending.costed(arm_of(cell, report), Costs(teacher_per_1000=2.0), timed=False)[0].teacher == 6.5


def test_a_student_that_needs_the_teacher_in_use_pays_it_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending, "speed_of", lambda *_: SPEED)
    monkeypatch.setattr(spending, "student_of", lambda run: run.folder)
    (tmp_path / "rows.jsonl").write_text("")
    report = asked_run(tmp_path, {"sampling": {"n": 5}})
    costs = Costs(hourly=0.36)  # 1,000 answers take 20 s, $0.002
    needy, alone = (
        spending.costed(arm_of(tmp_path, report, recipe), costs, timed=True)[0]
        for recipe in ("rationale_as_input", "dss")
    )
    assert alone.student_per_1000 == pytest.approx(0.002) and alone.break_even is not None
    assert needy.student_per_1000 == pytest.approx(20.002) and needy.break_even is None
    assert needy.teacher == alone.teacher == 4.25, "with what was asked to choose a checkpoint, without the test's"
    stated = spending.costed(arm_of(tmp_path, report, "rationale_as_input"), Costs(teacher_per_1000=3.0), timed=True)[0]
    assert stated.student_per_1000 == pytest.approx(3.0, abs=0.01) and stated.break_even is None
    told = {**report.facts, "annotation": {"cost_of_all_answers": None, "answers": 50}}
    unknown = arm_of(tmp_path, replace(report, facts=told), "rationale_as_input")
    assert spending.costed(unknown, costs, timed=True)[0].student_per_1000 is None, "not known is not free"
    asks = {name for name in registry.names("recipes") if spending._asks_at_test(name)}
    assert asks == {"rationale_as_input"} and not spending._asks_at_test("of another version")


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


@pytest.mark.parametrize("wrong", [{"hourly": math.nan}, {"seconds": math.inf}, {"threads": 0}, {"questions": 0}])
def test_costs_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Costs(**wrong)


# --- speed ---


def test_no_student_no_speed(tmp_path: Path) -> None:
    assert speed_of(tmp_path / "gone", [], Costs()) is None


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "seed-0" / "train" / "student"
    folder.mkdir(parents=True)
    (folder / "lmdistill.json").write_text("{}")
    (folder / "model.safetensors").write_text("1")
    return folder


def test_a_speed_holds_for_its_machine_its_costs_and_its_student(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Costs] = []

    def count(folder: Path, predictions: Any, costs: Costs, opens: Any) -> Speed:
        measured.append(costs)
        return replace(SPEED, latency=float(len(measured)))

    monkeypatch.setattr(timing, "_measured", count)

    def latency(again: bool = False, **costs: Any) -> float:
        found = speed_of(student, [], Costs(**costs), again=again)
        assert found is not None
        return found.latency

    assert [latency(), latency(), latency(hourly=9.0)] == [1, 1, 1], "prices change no speed"
    assert latency(threads=2) == 2 and latency() == 1
    assert latency(again=True) == 3 and latency() == 3
    (student / "model.safetensors").write_text("2")
    assert speed_of(student, [], Costs(measure=False)) is None, "that of another student is no speed of this one"
    assert latency() == 4
    monkeypatch.setattr("platform.node", lambda: "another")
    assert latency() == 5
    (student.parent / "speed.json").write_text('{"latency": 1.0, "questions": 3}')
    assert latency() == 6, "an older layout"


def test_a_speed_that_cannot_be_measured_stops_nothing(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed_of(student, [], Costs()) is None
    assert "its speed is not measured" in capsys.readouterr().err
    assert not (student.parent / "speed.json").exists()


def test_a_student_is_found_from_anywhere(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report keeps the path as it was given to the run: relative to where that was started."""
    folder = tmp_path / "run"
    (folder / "rows.jsonl").write_text("")
    for told in ("runs/mine/run/seed-0/train/student", "/gone/run/seed-0/train/student", str(student)):
        run = Run(Report("r", {}, {}, {}, {"students": {"0": told}}), folder, folder / "rows.jsonl")
        monkeypatch.chdir(tmp_path.parent)
        assert spending.student_of(run) == student
    assert spending.student_of(replace(run, rows=tmp_path / "none")) is None


def test_searching_is_part_of_answering(tmp_path: Path) -> None:
    settings = {
        "task": {"name": "facts", "facts": 140, "train": 8, "valid": 2, "test": 6},
        "student": {"preset": "nano"},
        "grounding": {"passages": 1, "silver": "question"},
        "train": {"steps": 1, "batch_size": 4, "device": "cpu"},
        "decoding": {"max_tokens": 2},
    }
    report = config.build(registry.load("recipes", "finetune"), settings).run(tmp_path)
    run = Run(report, tmp_path, tmp_path / "seed-0" / "test" / "rows.jsonl")
    folder = spending.student_of(run)
    assert folder is not None
    costs = Costs(questions=3, seconds=0.1)
    assert speed_of(folder, run.predictions(), costs) is None, "without its search it would look faster than it is"
    asked: list[int] = []

    def opens(card: Any, student: Path, task: Any) -> Any:
        search = search_of(card, student, task)

        def slowly(questions: Any) -> Any:
            assert not any(one.hits for one in questions)
            asked.append(len(questions))
            time.sleep(0.2)
            found = search(questions)
            assert all(len(one.hits) == 1 for one in found)
            return found

        return slowly

    speed = speed_of(folder, run.predictions(), costs, opens=opens)
    assert speed is not None and speed.latency > 0.2
    assert asked == [1, 1, 1, 1, 3]
    assert speed_of(folder, run.predictions(), costs) == speed, "a report finds what was measured"


def test_measuring_a_speed_says_nothing_of_texts_that_were_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "task": {"name": "sums", "train": 8, "valid": 2, "test": 4},
        "student": {"preset": "nano", "max_source": 4},
        "train": {"steps": 1, "batch_size": 4, "device": "cpu"},
        "decoding": {"max_tokens": 2},
    }
    report = config.build(registry.load("recipes", "finetune"), settings).run(tmp_path)
    assert "sources have more than 4 tokens and were shortened" in capsys.readouterr().err
    run = Run(report, tmp_path, tmp_path / "seed-0" / "test" / "rows.jsonl")
    folder = spending.student_of(run)
    assert folder is not None and speed_of(folder, run.predictions(), Costs(questions=3, seconds=0.1)) is not None
    assert "shortened" not in capsys.readouterr().err


# --- in the report ---


def test_stated_costs_are_laid_over_the_comparison_s_own(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lmdistill.cli.main import app

    folder = comparison_folder(tmp_path, items=20, fractions=(1.0,))
    result = CliRunner().invoke(app, ["report", str(folder), "--set", "hourly=3"])
    assert result.exit_code == 0, result.output
    told = json.loads((folder / "report.json").read_text())["costs"]
    assert (told["hourly"], told["watts"], told["measure"]) == (3.0, 100.0, False)
    for wrong in ("hourly=.nan", "threads=0", "hourli=1"):
        result = CliRunner().invoke(app, ["report", str(folder), "--set", wrong])
        assert result.exit_code == 2 and wrong.partition("=")[0] in result.stderr


def test_a_method_whose_teacher_s_bill_is_not_known_is_named_and_not_drawn(tmp_path: Path) -> None:
    rows = [
        {"title": title, "method": title, "estimate": {"value": 0.5, "low": 0.4, "high": 0.6}}
        | {"bill": {"train_seconds": 10.0, "made": made}}
        | {"aside": False}
        for title, made in (("finetune", 0.1), ("dss", 2.0), ("<replayed>", None))
    ]
    outcomes: Any = SimpleNamespace(lower=False, metric="accuracy")
    colours = {"finetune": 0, "dss": 1, "<replayed>": 2}
    drawn = report_charts._pareto(outcomes, {"arms": rows}, colours)
    assert "not known: &lt;replayed&gt;." in drawn and drawn.count("replayed") == 1
    assert "dss" in drawn and "finetune" in drawn
    rows[1]["bill"]["made"] = None
    assert report_charts._pareto(outcomes, {"arms": rows}, colours) == ""
