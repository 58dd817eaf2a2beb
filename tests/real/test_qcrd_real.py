"""QCRD and MI on real rationales, right and wrong; a few steps each: the road, not the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, registry
from lmdistill.store import Rows
from lmdistill.types import Annotation, Report

pytestmark = pytest.mark.real

STEPS: dict[str, Any] = {"steps": 4, "batch_size": 8, "eval_every": 4, "learning_rate": 1e-3, "device": "cpu"}
CONTRAST: dict[str, Any] = {"max_tokens": 12, "judge": {"steps": 2, "pretrain_steps": 2, "batch_size": 4}}


def listed(folder: Path, name: str, match: str) -> dict[str, Any]:
    """A replay of the rationales that a file lists, each with its own answer."""
    path = str(folder / name / "train.jsonl.gz")
    return {"name": "replay", "path": path, "text": "rationales[].text", "answer": "rationales[].label", "match": match}


def run(recipe: str, out: Path, **settings: Any) -> Report:
    common = {"student": {"vocabulary": "subword", "vocabulary_size": 600}, "train": STEPS, "valid_limit": 8}
    common |= {"decoding": {"max_tokens": 8}, "fraction": 0.02, **settings}
    report: Report = config.build(registry.load("recipes", recipe), common).run(out)
    return report


def tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """Each set as a task (tested on its own test rows, or on a share that no training sees) with its teacher."""
    return {
        "mario_quarel": {
            "task": {"name": "quarel", "path": str(folder / "mario_quarel")},
            "teacher": listed(folder, "mario_quarel", "input") | {"id_column": "question"},
        },
        "mario_strategyqa": {
            "task": {"name": "strategyqa", "path": str(folder / "mario_strategyqa"), "style": "none"},
            "teacher": listed(folder, "mario_strategyqa", "input") | {"id_column": "question"},
        },
        "mcckd_svamp": {
            "task": {
                "name": "table",
                "data": str(folder / "mcckd_svamp" / "train.jsonl.gz"),
                "id": "id",
                "input": "input",
                "label": "label",
                "answer": "number",
            },
            "teacher": listed(folder, "mcckd_svamp", "id"),
        },
    }


@pytest.mark.parametrize("name", ["mario_quarel", "mario_strategyqa", "mcckd_svamp"])
def test_right_and_wrong_rationales_become_positives_and_negatives(name: str, real_data: Path, tmp_path: Path) -> None:
    own = tasks(real_data)[name]
    sampling = {"n": 10 if name == "mcckd_svamp" else 5, "temperature": 0.7, "max_tokens": 256}
    report = run("qcrd", tmp_path, contrast=CONTRAST, sampling=sampling, fraction=0.06, **own)
    assert report.metrics
    rows = list(Rows(tmp_path / "seed-0" / "train" / "rounds" / "round-0000.jsonl", Annotation))
    assert len(rows) > 20
    both = [
        row for row in rows if row.rationales and any(not one.source.startswith("student") for one in row.negatives)
    ]
    assert both, "some question has rationales of the majority and of the minority"
    for row in rows:
        assert all("quality" in one.scores for one in (*row.rationales, *row.negatives))
        if row.rationales and not row.vote.tied:
            assert {one.answer for one in row.rationales} == {row.vote.answer}


def test_mi_on_palm_rationales_of_esnli(real_data: Path, tmp_path: Path) -> None:
    task = {"name": "esnli", "path": str(real_data / "dss_esnli")}
    teacher = {"name": "replay", "path": str(real_data / "dss_esnli" / "train.jsonl.gz"), "text": "llm_raw"}
    student = {"vocabulary": str(real_data / "t5_sentencepiece" / "spiece.model")}
    # the validation rows are a tenth of the test rows; as the test they choose no checkpoint
    report = run("mi", tmp_path, task=task, teacher=teacher, student=student, test_split="valid", fraction=0.005)
    assert 0 <= next(iter(report.metrics.values())).value <= 1
