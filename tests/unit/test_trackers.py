"""Trackers through Accelerate's own calls: what they are given at the start, on the way, and after the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker

from lmdistill import config, registry
from lmdistill.objectives import Objective
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.train import TrainSettings, tell_trackers, train
from lmdistill.types import Annotation, Example


class Kept(GeneralTracker):
    """A tracker that takes what Accelerate gives it, as strictly as TensorBoard's."""

    name = "kept"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self) -> None:
        super().__init__()
        self.started = False
        self.finished = 0
        self.settings: dict[str, str] = {}
        self.logged: list[tuple[int | None, Mapping[str, float]]] = []

    @property
    def tracker(self) -> Any:
        return self

    def start(self) -> None:
        self.started = True

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        assert all(isinstance(value, bool | str | float | int) for value in values.values())
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        assert self.started and not self.finished
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """One new tracker for each training."""
    every: list[Kept] = []

    def trackers(settings: TrainSettings) -> list[Kept]:
        every.append(Kept())
        return [every[-1]]

    monkeypatch.setattr("lmdistill.loop.trackers", trackers)
    return every


SETTINGS = TrainSettings(steps=4, batch_size=4, device="cpu", log_every=2, eval_every=2, report_to=("tensorboard",))


def trained(folder: Path, objective: Objective, **options: Any) -> Any:
    items = [Annotation(Example(f"e{i}", f"say {i}", str(i))) for i in range(4)]
    student = Seq2seq(preset="nano").open(["say 0 1 2 3"], seed=0)
    return train(student, objective, items, settings=SETTINGS, folder=folder, **options)


def test_a_white_box_teacher_does_not_trip_a_tracker(tmp_path: Path, kept: list[Kept]) -> None:
    class Teacher:
        """Nothing asks it: the objective learns from labels."""

    trained(tmp_path / "seed-0" / "train", LabelOnly(), teacher=Teacher(), validate=lambda _: {"accuracy": 0.5})
    (one,) = kept
    assert "teacher" in one.settings and one.settings["train.steps"] == "4"
    assert one.settings["run"].endswith("seed-0/train")
    assert [step for step, values in one.logged if "train/loss" in values] == [2, 4]
    assert [step for step, values in one.logged if "valid/accuracy" in values] == [2, 4]
    assert not one.finished, "the student is still to be tested"


def test_the_test_is_told_to_the_training_it_is_of(tmp_path: Path, kept: list[Kept]) -> None:
    first = trained(tmp_path / "seed-0" / "train", LabelOnly())
    second = trained(tmp_path / "seed-1" / "train", LabelOnly())
    assert [one.finished for one in kept] == [1, 0], "trackers have one run in a process"
    tell_trackers(first, {"accuracy": 0.1})
    tell_trackers(second, {"accuracy": 0.9})
    tell_trackers(second, {"accuracy": 0.9})
    assert kept[1].logged[-1] == (None, {"test/accuracy": 0.9}) and kept[1].finished == 1
    assert not any("test/accuracy" in values for _, values in kept[0].logged)
    assert kept[0].settings["run"] != kept[1].settings["run"]


def test_a_run_s_trackers_hear_of_every_seed_s_test(tmp_path: Path, kept: list[Kept]) -> None:
    settings = {
        "task": {"name": "sums", "train": 8, "valid": 2, "test": 4},
        "student": {"preset": "nano"},
        "seeds": [0, 1],
        "train": {"steps": 1, "batch_size": 4, "device": "cpu", "report_to": ["tensorboard"]},
        "decoding": {"max_tokens": 4},
    }
    report = config.build(registry.load("recipes", "finetune"), settings).run(tmp_path)
    told = [values["test/accuracy"] for one in kept for _, values in one.logged if "test/accuracy" in values]
    assert told == [report.facts["by_seed"][seed]["accuracy"] for seed in ("0", "1")]


@pytest.mark.parametrize(("kind", "setting"), [("wandb", "name"), ("mlflow", "run_name")])
def test_runs_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, setting: str) -> None:
    from lmdistill import machine

    class Accelerated:
        """What would be asked for."""

        trackers: tuple[Any, ...] = ()

        def init_trackers(self, project: str, config: Any, init_kwargs: Any) -> None:
            self.asked = (project, init_kwargs)

    one: Any = Accelerated()
    settings = TrainSettings(report_to=(kind,))
    machine.begin_tracking(one, settings, {}, tmp_path / "cells" / "dss-1" / "seed-3" / "train")
    machine.end_tracking()
    assert one.asked == ("lmdistill", {kind: {setting: "cells/dss-1/seed-3/train"}})
