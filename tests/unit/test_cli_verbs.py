"""`run`, `train`, `predict` and `evaluate` on a student of a few steps: what they read, write and refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lmdistill import store
from lmdistill.cli.main import main
from lmdistill.cli.predict import laid_over, read_besides
from lmdistill.registry import load
from lmdistill.types import Annotation, Example, Hit, Passage, Prediction, Rationale

TASK = "{name: nli, train: 40, valid: 8, test: 12}"
TINY = [
    *("--set", "train.steps=4", "--set", "train.batch_size=8", "--set", "train.eval_every=2"),
    *("--set", "train.device=cpu", "--set", "train.learning_rate=1e-3"),
]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("annotated") / "rows.jsonl"
    examples = load("tasks", "nli")(train=40, valid=8, test=12).examples("train")
    store.write_rows(path, [Annotation(one, (Rationale("because it is so", one.label),)) for one in examples])
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, annotated: Path) -> Path:
    out = tmp_path_factory.mktemp("trained") / "t"
    arguments = ["train", "--items", str(annotated), "--task", TASK, "--objective", "step_by_step", *TINY]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--out", str(out)])
    assert left.value.code == 0
    return out / "student"


def test_train_leaves_a_student_and_a_second_call_finds_it(call: Call, student: Path, annotated: Path) -> None:
    weights = student / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert json.loads((student / "lmdistill.json").read_text())["task"]["name"] == "nli"
    arguments = ["train", "--items", annotated.parent, "--task", TASK, "--objective", "step_by_step", *TINY]
    code, out, err = call(*arguments, "--out", student.parent)
    assert (code, err) == (0, "")
    assert out.startswith(f"student: {student} (step ")
    assert " on validation)" in out
    assert weights.stat().st_mtime_ns == before
    code, _, err = call(*arguments, "--set", "train.steps=5", "--out", student.parent)
    assert code == 2
    assert "train.steps was 4, now 5" in err


def test_predict_then_evaluate(call: Call, student: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    code, out, err = call("predict", "--student", student, "--out", file)
    assert (code, err) == (0, "")
    assert out.startswith(f"predictions: {file} (")
    assert out.rstrip().endswith("of 12 answered)")
    rows = store.Rows(file, Prediction)
    kept = file.read_bytes()
    code, _, err = call("predict", "--student", student, "--out", file, "--limit", 3)
    assert (code, file.read_bytes()) == (2, kept)
    assert "is there already" in err
    again = tmp_path / "again.jsonl"
    again.write_text("old")
    assert call("predict", "--student", student, "--out", again, "--overwrite")[0] == 0
    assert again.read_bytes() == kept
    gold = load("tasks", "nli")(train=40, valid=8, test=12).examples("test")
    assert [one.example for one in rows] == list(gold)

    code, out, err = call(
        "evaluate", "-p", file, "-t", TASK, "--out", tmp_path / "r.json", "--scores", tmp_path / "s.jsonl"
    )
    assert (code, err) == (0, "")
    right = sum(one.answer == one.example.label for one in rows)
    assert f"accuracy  {right / 12:.3f}" in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counts"]["n"] == 12
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 12
    told = json.loads(call("evaluate", "-p", file, "-t", TASK, "-m", "[exact_match]", "--json")[1])
    assert "exact_match" in told["metrics"]


def test_evaluate_beside_answers_without_passages(call: Call, tmp_path: Path) -> None:
    task = load("tasks", "facts")(facts=200, train=12, valid=4, test=4)
    examples = list(task.examples("test"))
    gold = [task.relevant(example)[0] for example in examples]
    right = [example.label for example in examples]
    read = [(Hit(Passage(own, "text"), 1.0),) for own in [gold[0], gold[1], "other", gold[3]]]
    reading = [right[0], "wrong", "wrong", right[3]]
    bare = ["wrong", right[1], right[2], right[3]]
    store.write_rows(
        tmp_path / "with", [Prediction(e, a, hits=h) for e, a, h in zip(examples, reading, read, strict=True)]
    )
    store.write_rows(tmp_path / "bare", [Prediction(e, a) for e, a in zip(examples, bare, strict=True)])
    named = "{name: facts, facts: 200, train: 12, valid: 4, test: 4}"
    arguments = ("evaluate", "-p", tmp_path / "with", "--beside", tmp_path / "bare", "-t", named)
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "of 4 questions 1 are right only with passages, 2 only without" in out
    told = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.startswith(examples[0].id[:4])}
    assert told == dict(zip([one.id for one in examples[:3]], ["gained", "reasoning", "retrieval"], strict=True))
    pairs = json.loads(call(*arguments, "--json")[1])["beside"]
    assert [(pair["id"], pair["gained"], pair["passages"]) for pair in pairs] == [
        (example.id, gain, [hits[0].passage.id])
        for example, gain, hits in zip(examples, (1, -1, -1, 0), read, strict=True)
    ]


def test_predict_takes_settings_over_the_card(call: Call, student: Path, tmp_path: Path, annotated: Path) -> None:
    assert call("predict", "--student", student, "--out", tmp_path / "a", "--set", "task.test=5")[0] == 0
    assert len(store.Rows(tmp_path / "a", Prediction)) == 5
    assert call("predict", "--student", student, "--out", tmp_path / "b", "--split", "valid", "--limit", 3)[0] == 0
    assert len(store.Rows(tmp_path / "b", Prediction)) == 3
    assert call("predict", "--student", student, "--out", tmp_path / "c", "--items", annotated)[0] == 0
    assert len(store.Rows(tmp_path / "c", Prediction)) == 40
    scored = call(
        *("predict", "--student", student, "--out", tmp_path / "d", "--limit", 4, "--set", "decoding.constrained=true")
    )
    assert scored[:2] == (0, f"predictions: {tmp_path / 'd'} (4 of 4 answered)\n")


def test_what_predict_refuses(call: Call, student: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(student, broken)
    (broken / "model.safetensors").unlink()
    for arguments, message in [
        (("--student", tmp_path / "none", "--out", tmp_path / "p"), "has no lmdistill.json"),
        (("--student", broken, "--out", tmp_path / "p"), "has no model.safetensors"),
        (("--student", student, "--out", tmp_path), "is a folder; name a file"),
        (("--student", student, "--out", tmp_path / "p", "--split", "nosuch"), "split"),
        (("--student", student, "--out", tmp_path / "p", "--items", tmp_path / "no"), "no such file"),
        (("--student", student, "--out", tmp_path / "p", "--set", "decoding.beam=2"), "did you mean 'beams'"),
        (("--student", student, "--out", tmp_path / "p", "--limit", 0), "--limit"),
    ]:
        code, out, err = call("predict", *arguments)
        assert (code, out) == (2, ""), message
        assert message in err
        assert "Traceback" not in err
    assert not (tmp_path / "p").exists()


def test_what_evaluate_refuses(call: Call, annotated: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    for arguments, message in [
        (("-p", tmp_path / "none.jsonl", "-t", "nli"), "no such file"),
        (("-p", tmp_path / "empty.jsonl", "-t", "nli"), "holds no rows"),
        (("-p", annotated, "-t", "nli"), "rows.jsonl:1: its first row is no prediction"),
        (("-p", annotated), "task: is required"),
        (("-p", annotated, "-t", "nil"), "unknown task 'nil'; did you mean 'nli'?"),
        (("-p", annotated, "-t", "nli", "-m", "acuracy"), "did you mean 'accuracy'?"),
    ]:
        code, out, err = call("evaluate", *arguments)
        assert (code, out) == (2, ""), message
        assert message in err


def test_what_train_refuses(call: Call, annotated: Path, tmp_path: Path) -> None:
    for arguments, message in [
        (("--items", tmp_path / "none", "--task", "nli", "--objective", "label_only"), "no such file"),
        (("--items", annotated, "--objective", "label_only"), "task: is required"),
        (("--items", annotated, "--task", "nli"), "objective: is required"),
        (("--items", annotated, "--task", "nli", "--objective", "step_by_stp"), "did you mean 'step_by_step'?"),
    ]:
        code, out, err = call("train", *arguments, "--out", tmp_path / "o")
        assert (code, out) == (2, ""), message
        assert message in err
    assert not (tmp_path / "o").exists()


def test_run_end_to_end(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "o"
    code, told, err = call("run", "finetune", "--set", f"task={TASK}", *TINY, "--out", out)
    assert (code, err) == (0, "")
    assert told.splitlines()[0] == "finetune on nli"
    assert told.splitlines()[-1] == f"report: {out / 'report.json'}"
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["n"] == 12
    assert report["settings"]["recipe"] == "finetune"


def test_settings_laid_over() -> None:
    card = {"task": {"name": "nli", "test": 9}, "decoding": {"beams": 2, "samples": 1}}
    assert laid_over(card, {"decoding": {"samples": 5}})["decoding"] == {"beams": 2, "samples": 5}
    assert laid_over(card, {"task": {"name": "nli", "test": 5}})["task"] == {"name": "nli", "test": 5}
    assert laid_over(card, {"task": {"name": "sums"}})["task"] == {"name": "sums"}
    assert laid_over(card, {"task": "nli"})["task"] == {"name": "nli", "test": 9}
    assert card == {"task": {"name": "nli", "test": 9}, "decoding": {"beams": 2, "samples": 1}}


def test_a_student_that_reads_more_than_the_input_is_found_out() -> None:
    example = Example("1", "q")
    label_only = load("objectives", "label_only")()
    assert read_besides(label_only, {}, example) == ""
    assert read_besides(load("objectives", "rationale_as_input")(), {}, example) == "a rationale"
    assert read_besides(label_only, {"grounding": {"passages": 0}}, example) == ""
    assert read_besides(label_only, {"grounding": {"passages": 3}}, example) == "passages"
