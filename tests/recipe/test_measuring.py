"""A run reports metrics that it is told beside the task's own, of answers and of gold texts, and selects by them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, evaluate, registry
from lmdistill.errors import ConfigError
from lmdistill.predict import open_student
from lmdistill.tasks.retell import Retell
from lmdistill.types import Prediction

TASK = {"train": 24, "valid": 6, "test": 8, "events": 1, "verbs": 4, "things": 4}
BASE: dict[str, Any] = {
    "task": {"name": "retell", **TASK},
    "decoding": {"max_tokens": 12},
    "student": {"preset": "nano"},
    "train": {"steps": 4, "batch_size": 12, "eval_every": 2, "learning_rate": 3e-3, "device": "cpu"},
}


def made(**changes: Any) -> Any:
    return config.build(registry.load("recipes", "finetune"), {**BASE, **changes})


def test_metrics_that_are_told_are_reported_and_choose_the_checkpoint(tmp_path: Path) -> None:
    training = BASE["train"] | {"select": "nll", "direction": "min"}
    report = made(metrics=["nll"], train=training).run(tmp_path)
    assert list(report.metrics) == ["token_f1", "bleu", "rouge", "rouge1", "rouge2", "rougeL", "nll", "perplexity"]
    log = [json.loads(line) for line in (tmp_path / "seed-0" / "train" / "log.jsonl").read_text().splitlines()]
    chosen = min((one for one in log if "nll" in one), key=lambda one: one["nll"])
    assert report.facts["steps"]["0"] == chosen["step"]
    # The gold texts' own, asked of the saved student: the mean over examples of the mean over tokens.
    opened = open_student(tmp_path / "seed-0" / "train" / "student")
    examples = Retell(**TASK).examples("test")
    told = opened.student.logprobs([one.input for one in examples], [one.label for one in examples])
    each = [
        -one / len(opened.student.tokens("target", example.label)) for one, example in zip(told, examples, strict=True)
    ]
    assert report.metrics["nll"].value == pytest.approx(sum(each) / len(each), rel=1e-4)
    assert report.metrics["perplexity"].value == pytest.approx(math.exp(report.metrics["nll"].value))
    rows = [json.loads(line) for line in (tmp_path / "seed-0" / "scores.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [one.id for one in examples]
    assert {"token_f1", "rouge", "bleu_length"} <= rows[0]["values"].keys()


def test_a_metric_to_select_by_that_nothing_measures_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    recipe = made(train=BASE["train"] | {"select": "nll"})
    with pytest.raises(ConfigError, match=r"train\.select: 'nll' is not among .*token_f1, bleu, rouge.*metrics"):
        recipe.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    made(metrics=["bertscore"], train=BASE["train"] | {"select": "bleu"})


def test_what_stands_beside_a_task_s_metric_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Retell(**TASK).examples("test")[0]
    told = [Prediction(example, example.label)]
    assert list(evaluate.evaluate(Retell(**TASK), told).metrics)[:2] == ["token_f1", "bleu"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(evaluate.evaluate(Retell(**TASK), told).metrics) == ["token_f1"]
