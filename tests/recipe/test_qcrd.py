"""QCRD and MI end to end on a generated task with a teacher that errs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lmdistill import config, registry
from lmdistill.cli.main import main
from lmdistill.judging import pairs_of
from lmdistill.objectives import Part
from lmdistill.objectives._judge import open_judge
from lmdistill.objectives.contrastive_rationale import ContrastiveRationale
from lmdistill.objectives.quality_judging import QualityJudging
from lmdistill.recipes._road import vocabulary_texts
from lmdistill.store import Rows
from lmdistill.students import Batch
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Prediction, Rationale, Report

JUDGE = {"steps": 3, "pretrain_steps": 3, "batch_size": 8, "learning_rate": 1e-3}
CONTRAST: dict[str, Any] = {"lag": 2, "max_tokens": 8, "judge": JUDGE}
TRAIN = {"steps": 12, "batch_size": 16, "eval_every": 6, "learning_rate": 3e-3, "device": "cpu", "log_every": 1}


def run(recipe: str, out: Path, **changes: Any) -> Report:
    settings: dict[str, Any] = {
        "task": {"name": "nli", "train": 48, "valid": 8, "test": 8},
        "teacher": {"name": "scripted", "error_rate": 0.3, "unparsable_rate": 0.1},
        "train": TRAIN,
        "decoding": {"max_tokens": 4},
        **changes,
    }
    report: Report = config.build(registry.load("recipes", recipe), settings).run(out)
    return report


def test_qcrd_samples_judges_contrasts_and_keeps_what_it_did(tmp_path: Path) -> None:
    report = run("qcrd", tmp_path, contrast=CONTRAST)
    assert report.metrics["accuracy"].n == 8
    folder = tmp_path / "seed-0" / "train"
    rounds = [list(Rows(folder / "rounds" / f"round-{i:04d}.jsonl", Annotation)) for i in range(4)]
    every = [one for item in rounds[3] for one in (*item.rationales, *item.negatives)]
    assert all(0 < one.scores["quality"] < 1 for one in every), "each rationale has the judge's score of this round"
    written = [one for item in rounds[3] for one in item.negatives if one.source.startswith("student")]
    assert {one.source for one in written} == {"student@round-1"} and len({one.sample for one in written}) > 10
    assert {one.source for item in rounds[1] for one in item.negatives} <= {"scripted", "student@round-0"}
    minority = [(item, one) for item in rounds[3] for one in item.negatives if one.source == "scripted"]
    assert minority and all(one.answer != item.vote.answer for item, one in minority)
    for item in rounds[3]:
        assert len({one.answer for one in item.rationales}) <= 1 or item.vote.tied
        if item.rationales and not item.vote.tied:
            assert item.rationales[0].answer == item.vote.answer
    versions = [[one.scores["quality"] for one in items[0].rationales] for items in (rounds[0], rounds[3])]
    assert versions[0] != versions[1], "the judge learns from round to round"
    student = folder / "student"
    assert load_file(student / "companion-judge" / "model.safetensors") and (student / "model.safetensors").exists()
    judge = open_judge(student / "companion-judge")
    chosen = rounds[(report.facts["steps"]["0"] - 1) // 3]  # the judge of the chosen step
    scores = {
        judge.text(item.example.input, one.text): one.scores["quality"] for item in chosen for one in item.rationales
    }
    again = judge.scores(list(scores))
    assert all(abs(again[text] - score) < 1e-5 for text, score in scores.items()), "it judges as it did then"
    log = [json.loads(line) for line in (folder / "log.jsonl").open()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    told = report.facts["rounds"]["0"]
    assert [one["round"] for one in told] == [0, 1, 2, 3]
    assert [{"step": 3 * one["round"], **one} for one in told] == [entry for entry in log if "round" in entry]
    assert json.loads((folder / "manifest.json").read_text())["facts"]["rounds"] == told
    for items, one in zip(rounds, told, strict=True):
        negatives = [r.source for item in items for r in item.negatives]
        assert one["teacher_negatives"] == negatives.count("scripted")
        assert one["student_negatives"] == len(negatives) - negatives.count("scripted")
        assert one["with_contrast"] == sum(bool(item.rationales and item.negatives) for item in items)
        without = sum(count for name, count in one.items() if name.startswith("without_contrast"))
        assert one["items"] == 48 == one["with_contrast"] + without
        assert one["refresh_seconds"] > 0 and one["learn_seconds"] > 0 and 0 <= one["judge_auc"] <= 1
    assert run("qcrd", tmp_path, contrast=CONTRAST).metrics == report.metrics, "a finished run is read back"


def test_a_split_that_is_tested_chooses_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run("dss", tmp_path, test_split="valid", train=TRAIN | {"steps": 4, "eval_every": 1})
    manifest = json.loads((tmp_path / "seed-0" / "train" / "manifest.json").read_text())
    assert manifest["facts"]["score"] is None and report.facts["steps"] == {"0": 4}
    assert "the last one is tested" in capsys.readouterr().err


def test_two_students_rationales_can_be_compared(tmp_path: Path) -> None:
    """The tests' own predictions hold rationales where asked for; a saved student is asked by the command line."""
    short = TRAIN | {"steps": 6, "eval_every": 6}
    run("qcrd", tmp_path / "qcrd", contrast=CONTRAST, train=short, test_rationales=6)
    run("mi", tmp_path / "mi", train=short)
    first = list(Rows(tmp_path / "qcrd" / "seed-0" / "test" / "rows.jsonl", Prediction))
    student = tmp_path / "mi" / "seed-0" / "train" / "student"
    asked = ["predict", "--student", str(student), "--out", str(tmp_path / "told.jsonl"), "--rationales", "6"]
    with pytest.raises(SystemExit) as ended:
        main(asked)
    assert ended.value.code == 0
    second = list(Rows(tmp_path / "told.jsonl", Prediction))
    pairs = pairs_of(first, second)
    assert len(pairs) == 8 and all(pair.first.strip() and pair.second.strip() for pair in pairs)
    plain = list(Rows(tmp_path / "mi" / "seed-0" / "test" / "rows.jsonl", Prediction))
    assert [one.answer for one in plain] == [one.answer for one in second]


@pytest.mark.parametrize("mode", ["released", "clean"])
def test_mi_learns_in_both_modes(mode: str, tmp_path: Path) -> None:
    report = run("mi", tmp_path, mode=mode)
    entries = map(json.loads, (tmp_path / "seed-0" / "train" / "log.jsonl").open())
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert report.metrics["accuracy"].n == 8 and losses[-1] < losses[0]


@dataclass(frozen=True)
class Interrupted(ContrastiveRationale):
    """Stops in the middle of a round, once."""

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        if progress > 0.5 and not STOPPED:
            STOPPED.append(progress)
            raise KeyboardInterrupt
        return super().loss(student, teacher, batch, progress)


STOPPED: list[float] = []


def test_a_run_that_was_stopped_in_a_round_ends_bit_identical(tmp_path: Path) -> None:
    words = ["ab", "cd", "ef", "gh", "ij", "kl"]
    items = [
        Annotation(
            Example(f"e{i}", f"{words[i % 6]} {words[i % 5]}", words[i % 3]),
            tuple(Rationale(f"{words[(i + j) % 6]} {words[j]}", words[(i + j // 3) % 3], "t", j) for j in range(4)),
        )
        for i in range(12)
    ]
    settings = TrainSettings(steps=14, batch_size=4, learning_rate=3e-3, save_every=4, eval_every=99, device="cpu")
    ends = {}
    for name in ("whole", "stopped"):
        STOPPED[:] = [1.0] if name == "whole" else []
        objective = Interrupted(lag=2, max_tokens=4, judge=QualityJudging(steps=2, pretrain_steps=2, batch_size=4))
        for _ in range(2):
            student = Seq2seq().open(vocabulary_texts(objective, items), seed=0)
            try:
                train(student, objective, items, settings=settings, folder=tmp_path / name, seed=1)
            except KeyboardInterrupt:
                assert name == "stopped"
        ends[name] = load_file(tmp_path / name / "student" / "model.safetensors")
        ends[name] |= load_file(tmp_path / name / "student" / "companion-judge" / "model.safetensors")
    assert len(STOPPED) == 1 and STOPPED[0] < 1
    assert all(torch.equal(tensor, ends["stopped"][key]) for key, tensor in ends["whole"].items())
    files = [sorted((tmp_path / name / "rounds").glob("*.jsonl")) for name in ("whole", "stopped")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    facts = [json.loads((tmp_path / name / "manifest.json").read_text())["facts"]["rounds"] for name in ends]
    timed = {"refresh_seconds", "learn_seconds"}
    whole, stopped = ([{k: v for k, v in one.items() if k not in timed} for one in rounds] for rounds in facts)
    assert whole == stopped and len(whole) == len(files[0]), "rounds before the stop are not forgotten"
    assert all(timed <= one.keys() for one in facts[1])


def test_the_first_student_is_neither_trained_nor_saved_again(tmp_path: Path) -> None:
    items = [
        Annotation(Example(f"e{i}", f"ab {i}", "cd"), (Rationale("ef gh", "cd", "t", 0), Rationale("ab", "cd", "t", 1)))
        for i in range(8)
    ]
    settings = TrainSettings(steps=6, batch_size=4, learning_rate=3e-3, save_every=3, eval_every=99, device="cpu")
    files = {}
    for name in ("whole", "stopped"):
        STOPPED[:] = [1.0] if name == "whole" else []
        objective = Interrupted(negatives="fixed", max_tokens=4, judge=None)
        for _ in range(2):
            student = Seq2seq().open(vocabulary_texts(objective, items), seed=0)
            try:
                train(student, objective, items, settings=settings, folder=tmp_path / name, seed=1)
            except KeyboardInterrupt:
                assert name == "stopped"
        files[name] = [path.read_bytes() for path in sorted((tmp_path / name / "rounds").glob("*.jsonl"))]
        left = [str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")]
        assert not [path for path in left if "initial" in path]
        state = load_file(tmp_path / name / "state" / "step-00000006" / "weights.safetensors")
        assert all(key.startswith("step.") for key in state)
    assert len(STOPPED) == 1 and STOPPED[0] < 1 and files["whole"] == files["stopped"] and len(files["whole"]) == 3


def overfit(objective: Any, items: Sequence[Annotation], folder: Path) -> list[str]:
    student = Seq2seq(dropout=0.0).open(vocabulary_texts(objective, items), seed=0)
    settings = TrainSettings(steps=100, batch_size=8, learning_rate=5e-3, refresh_every=40, device="cpu")
    train(student, objective, items, settings=settings, folder=folder, seed=0)
    from lmdistill.types import Sampling

    return [one[0].text for one in student.generate([objective.prompt(item) for item in items], Sampling(max_tokens=4))]


def test_eight_examples_are_overfitted(tmp_path: Path) -> None:
    words = ["ab", "cd", "ef", "gh"]
    items = [
        Annotation(
            Example(f"e{i}", f"{words[i % 4]} {words[i // 4]}", words[(3 * i) % 4]),
            (Rationale(f"{words[i % 4]} so", "a", "t", 0), Rationale(f"{words[i // 4]} so", "a", "t", 1)),
        )
        for i in range(8)
    ]
    objective = ContrastiveRationale(lag=1, max_tokens=4, judge=QualityJudging(steps=2, pretrain_steps=2, batch_size=4))
    assert overfit(objective, items, tmp_path) == [item.example.label for item in items]
