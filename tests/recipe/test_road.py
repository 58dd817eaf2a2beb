"""The recipes of the road, end to end on a generated task with a tiny student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, intervals, registry
from lmdistill.cli.main import main
from lmdistill.errors import ConfigError, StoreError
from lmdistill.predict import open_student, predict
from lmdistill.store import Rows
from lmdistill.types import Annotation, Prediction, Report, Score

SHARED: dict[str, Any] = {
    "task": {"name": "sums", "train": 60, "valid": 10, "test": 12},
    "train": {"steps": 8, "batch_size": 16, "eval_every": 4, "learning_rate": 3e-3, "device": "cpu"},
    "decoding": {"max_tokens": 40},
}
ROAD = ["finetune", "task_distillation", "dss", "single_task", "rationale_as_input", "semi_supervised"]


def run(recipe: str, out: Path, **changes: Any) -> Report:
    settings = {**SHARED, "teacher": {"name": "scripted", "error_rate": 0.2}, **changes}
    report: Report = config.build(registry.load("recipes", recipe), settings).run(out)
    return report


@pytest.mark.parametrize("recipe", ROAD)
def test_a_recipe_leaves_a_report_a_student_and_predictions(recipe: str, tmp_path: Path) -> None:
    report = run(recipe, tmp_path)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["name"] == f"{recipe} on sums" and written["settings"]["recipe"] == recipe
    (metric, *_) = report.metrics.values()
    assert metric.n == 12 and metric.low <= metric.value <= metric.high
    predictions = list(Rows(tmp_path / "seed-0" / "test" / "rows.jsonl", Prediction))
    assert len(predictions) == 12
    opened = open_student(tmp_path / "seed-0" / "train" / "student")
    task = config.rebuild("tasks", opened.card["task"])
    again = predict(
        opened.student, opened.objective, task, [Annotation(one.example) for one in predictions],
        decoding=config.build(type(registry.load("recipes", recipe)(task, "t").decoding), opened.card["decoding"]),
    )  # fmt: skip
    if recipe != "rationale_as_input":  # which reads a rationale that these bare examples lack
        assert [one.text for one in again] == [one.text for one in predictions]


def test_a_finished_run_is_read_back_and_asks_nothing(tmp_path: Path) -> None:
    first, second = run("dss", tmp_path), run("dss", tmp_path)
    assert first.metrics == second.metrics


def test_a_run_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run("finetune", tmp_path)
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(StoreError, match="belongs to another run"):
        run("finetune", tmp_path, train=SHARED["train"] | {"steps": 9})
    assert (tmp_path / "report.json").read_bytes() == before


def test_seeds_are_trained_apart_and_reported_together(tmp_path: Path) -> None:
    report = run("finetune", tmp_path, seeds=[0, 1])
    assert set(report.facts["by_seed"]) == {"0", "1"}
    values = [next(iter(own.values())) for own in report.facts["by_seed"].values()]
    (metric, *_) = report.metrics.values()
    assert metric.value == pytest.approx(sum(values) / 2)
    scored = [list(Rows(tmp_path / f"seed-{seed}" / "scores.jsonl", Score)) for seed in (0, 1)]
    table = [[row.values["accuracy"] for row in rows] for rows in scored]
    assert metric == intervals.over_seeds_and_items(table), "other seeds and other test items, not seeds alone"


def test_new_rows_of_ones_own_table_are_answered_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"what does animal {i} eat?,{('fish', 'grass')[i % 2]}" for i in range(40)]
    (tmp_path / "q.csv").write_text("\n".join(["ask,food", *lines]))
    told = "data: q.csv\ninput: ask\nlabel: food\nchoices: [fish, grass]\n"
    (tmp_path / "task.yaml").write_text(told)
    monkeypatch.chdir(tmp_path)
    run("finetune", tmp_path / "run", task={"name": "table", "file": "task.yaml"})
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    (tmp_path / "task.yaml").unlink()
    Path("new.csv").write_text('ask\nwhat does the cow eat?\n""\nwhat does the cat eat?\n')

    def answered(*more: str) -> object:
        student = tmp_path / "run" / "seed-0" / "train" / "student"
        with pytest.raises(SystemExit) as leaving:
            main(["predict", "--student", str(student), "--out", "answers.jsonl", *more])
        return leaving.value.code

    assert answered("--rows", "new.csv") in (0, None)
    found = list(Rows(Path("answers.jsonl"), Prediction))
    assert [one.example.input for one in found] == ["what does the cow eat?", "what does the cat eat?"]
    assert "1 rows left out: ask is empty" in capsys.readouterr().err
    assert answered("--rows", "no.csv", "--overwrite") == 2 and "no.csv: no such file" in capsys.readouterr().err
    assert answered("--rows", "new.csv", "--task", "sums", "--overwrite") == 2
    assert "table of one's own" in capsys.readouterr().err


def test_other_tasks_have_intervals_over_seeds_and_items_too(tmp_path: Path) -> None:
    harder = {"name": "sums", "train": 60, "valid": 10, "test": 9, "seed": 4}
    report = run("finetune", tmp_path, seeds=[0, 1], also_test=[harder])
    scored = [list(Rows(tmp_path / f"seed-{seed}" / "also-sums-scores.jsonl", Score)) for seed in (0, 1)]
    table = [[row.values["accuracy"] for row in rows] for rows in scored]
    assert len(table[0]) == 9 and report.metrics["sums.accuracy"] == intervals.over_seeds_and_items(table)


def test_fractions_are_nested() -> None:
    cls = registry.load("recipes", "finetune")
    shares = [
        {example.id for example in config.build(cls, {**SHARED, "fraction": share}).examples()}
        for share in (0.125, 0.25, 0.5, 1.0)
    ]
    assert [len(share) for share in shares] == [8, 15, 30, 60]
    assert shares[0] < shares[1] < shares[2] < shares[3]


def test_the_teacher_is_measured_on_request(tmp_path: Path) -> None:
    report = run("task_distillation", tmp_path, measure_teacher=True)
    assert 0.4 < report.metrics["teacher_accuracy"].value <= 1.0


def test_wrong_settings_are_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(
            registry.load("recipes", "dss"),
            {"task": "smus", "teacher": "scripted", "train": {"stesp": 3, "learning_rate": "fast"}, "fraction": 2},
        )
    told = str(caught.value)
    assert "did you mean 'sums'" in told and "did you mean 'steps'" in told and "learning_rate" in told


def test_a_recipe_that_needs_a_teacher_says_so() -> None:
    with pytest.raises(ConfigError, match="teacher: recipe 'dss' needs one"):
        config.build(registry.load("recipes", "dss"), SHARED)


def test_half_labelled_asks_the_teacher_for_the_rest_only(tmp_path: Path) -> None:
    run("semi_supervised", tmp_path, labelled=0.5)
    asked = list(Rows(tmp_path / "annotations" / "rows.jsonl", Annotation))
    assert len(asked) == 30 and all(one.example.label is None for one in asked)
