"""evaluate: reports, counts, scores on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lmdistill.errors import DataError, UnknownName
from lmdistill.evaluate import evaluate
from lmdistill.metrics.accuracy import Accuracy
from lmdistill.store import Rows
from lmdistill.tasks.nli import Nli
from lmdistill.tasks.sums import Sums
from lmdistill.types import Prediction, Score

TASK = Nli(test=10)


def predictions(right: int) -> list[Prediction]:
    """The first `right` answers right, then a wrong one, the rest silent."""
    made = []
    for index, example in enumerate(TASK.examples("test")):
        other = "no" if example.label == "yes" else "yes"
        answer = example.label if index < right else other if index == right else None
        made.append(Prediction(example, answer, confidence=0.8, reason=None if answer else "no answer cue"))
    return made


def test_a_report_says_what_was_right_and_what_was_not_answered() -> None:
    report = evaluate(TASK, iter(predictions(6)), name="trial")
    assert report.name == "trial"
    assert report.metrics["accuracy"].value == 0.6
    assert report.metrics["accuracy"].n == 10
    assert report.counts == {"n": 10, "answered": 7, "abstained": 3, "abstained: no answer cue": 3}
    assert report.settings["task"]["name"] == "nli" and report.settings["metrics"] == [
        {"name": "accuracy", "level": 0.95}
    ]


def test_metrics_are_given_by_name_or_made(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    report = evaluate(TASK, predictions(5), ["exact_match", Accuracy(level=0.5), "calibration"], scores=path)
    assert set(report.metrics) == {"exact_match", "accuracy", "calibration_error", "brier"}
    assert report.metrics["accuracy"].high < report.metrics["exact_match"].high
    rows = Rows(path, Score)
    assert [row.id for row in rows] == [example.id for example in TASK.examples("test")]
    brier = pytest.approx(0.04)
    assert rows[0].values == {"exact_match": 1.0, "accuracy": 1.0, "confidence": 0.8, "right": 1.0, "brier": brier}


def test_the_tasks_own_metric_is_the_default() -> None:
    task = Sums(test=3)
    made = [Prediction(example, f"{example.label}.0") for example in task.examples("test")]
    assert evaluate(task, made).metrics["accuracy"].value == 1.0


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no predictions"):
        evaluate(TASK, [])
    with pytest.raises(DataError, match="two predictions for example 'nli-test-0'"):
        evaluate(TASK, predictions(3) + predictions(3)[:1])
    with pytest.raises(UnknownName, match="did you mean 'accuracy'"):
        evaluate(TASK, predictions(3), ["acuracy"])
    silent = [Prediction(example, example.label) for example in TASK.examples("test")]
    with pytest.raises(DataError, match="needs confidences"):
        evaluate(TASK, silent, ["calibration"])


def test_it_works_without_torch() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'scipy', 'datasets']))\n"
        "from lmdistill.evaluate import evaluate; from lmdistill.tasks.nli import Nli\n"
        "from lmdistill.types import Prediction\n"
        "task = Nli(test=4); made = [Prediction(e, e.label) for e in task.examples('test')]\n"
        "print(evaluate(task, made).metrics['accuracy'].value)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1.0", done.stderr
