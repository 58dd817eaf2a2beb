"""What distillation refuses before its first step, and what noise, samples and texts really do."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lmdistill import logit_store, registry
from lmdistill.distributions import vocabulary_hash
from lmdistill.errors import ConfigError, DataError, TrainingError
from lmdistill.objectives import Objective, Round
from lmdistill.objectives._teacher import Frozen
from lmdistill.objectives.gkd import GKD
from lmdistill.objectives.joint_teaching import JointTeaching
from lmdistill.objectives.logit_kd import LogitKD
from lmdistill.objectives.noisy_kd import NoisyKD
from lmdistill.objectives.universal_logit import UniversalLogit
from lmdistill.students._scratch import set_dropout
from lmdistill.students.causal import Causal
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Rationale
from student_shapes import WORDS, sentence
from student_shapes import student as make

RNG = random.Random(9)
ITEMS = [
    Annotation(
        Example(f"e{i}", sentence(RNG, 3, 9), sentence(RNG, 2, 6)), (Rationale("", sentence(RNG, 2, 5), "teacher"),)
    )
    for i in range(12)
]
TEXTS = [" ".join(WORDS)]


def scratch(kind: Any = Seq2seq, **settings: Any) -> Any:
    return kind(preset="nano", **settings).open(TEXTS, 0)


def batch_of(student: Any, objective: Objective) -> Any:
    return student.collate(ITEMS[:4], [objective.views(one, 0, random.Random(0)) for one in ITEMS[:4]])


def totals(objective: Any, student: Any, teacher: Frozen) -> set[float]:
    batch = batch_of(student, objective)
    torch.manual_seed(0)
    return {round(float(objective.loss(student, teacher, batch, 0.0)["target"].total.detach()), 7) for _ in range(3)}


@pytest.mark.parametrize("kind", [Seq2seq, Causal])
def test_a_teacher_saved_without_dropout_is_noisy_all_the_same(kind: Any) -> None:
    student, teacher = scratch(kind).eval(), Frozen(kind(preset="nano").open(TEXTS, 1))
    noisy, plain = NoisyKD(targets="gold"), LogitKD(targets="gold")
    noisy.check(student, teacher, ITEMS)
    assert len(totals(noisy, student, teacher)) == 3
    assert len(totals(plain, student, teacher)) == 1, "another objective asks the same teacher without noise"
    with pytest.raises(ConfigError, match=r"teacher_dropout: null keeps.*0"):
        NoisyKD(teacher_dropout=None).check(student, Frozen(kind(preset="nano").open(TEXTS, 1)), ITEMS)
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(ConfigError, match="teacher_dropout"):
            NoisyKD(teacher_dropout=rate)


def test_a_teacher_with_no_place_for_dropout_makes_no_noise() -> None:
    teacher = Frozen(make("llama"))
    for module in teacher.model.modules():
        if hasattr(module, "attention_dropout"):
            del module.attention_dropout
    with pytest.raises(TrainingError, match="no dropout to turn on"):
        NoisyKD(targets="gold").check(make("llama"), teacher, ITEMS)


@pytest.mark.parametrize("kind", [JointTeaching, GKD])
def test_samples_with_dropout_need_a_student_with_dropout(kind: Any) -> None:
    teacher = Frozen(Seq2seq(preset="nano").open(TEXTS, 1))
    with pytest.raises(ConfigError, match=r"student\.dropout"):
        kind(sample_dropout=True).check(scratch(), teacher, ITEMS)
    student = scratch(dropout=0.1)
    kind(sample_dropout=True).check(student, teacher, ITEMS)
    set_dropout(student.model, 0.0)
    kind().check(student, teacher, ITEMS)


@pytest.mark.parametrize(
    "objective",
    [JointTeaching(text_weight=1.0, max_tokens=6), GKD(text_weight=1.0, student_fraction=0.5, max_tokens=6)],
)
def test_what_the_student_wrote_is_no_text_to_learn(objective: Any) -> None:
    student, teacher = make("t5").eval(), Frozen(make("t5"))
    batch = batch_of(student, objective)
    seen = set()
    for step in range(12):
        now = objective.prepare(batch, Round(0, 0, step, 0.0, lambda lag: student, {}, student))
        parts = objective.loss(student, teacher, now, 0.0)
        assert parts.keys() == objective.counts(now).keys()
        assert ("text" in parts) == (now is batch), "the labels' own loss, and only theirs"
        seen.add(now is batch)
    assert seen == {True, False}
    for kind in ("joint_teaching", "gkd"):
        always = {"student_weight" if kind == "joint_teaching" else "student_fraction": 1.0}
        with pytest.raises(ConfigError, match="text_weight"):
            registry.load("objectives", kind)(text_weight=1.0, **always)


def test_a_weight_that_alternating_cannot_give_is_refused() -> None:
    for weight in (0.4, 0.35, 0.7):
        with pytest.raises(ConfigError, match="alternating"):
            JointTeaching(student_weight=weight)
    every = {w: [JointTeaching(student_weight=w).due(step) for step in range(6)] for w in (0.333, 1 / 3, 0.2)}
    assert every[0.333] == every[1 / 3] == [False, False, True] * 2
    assert every[0.2] == [False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("joint_teaching", {"max_tokens": 0}),
        ("joint_teaching", {"sample_temperature": -1.0}),
        ("gkd", {"top_p": 0.0}),
        ("gkd", {"top_k": -1}),
        ("feature_kd", {"balance": -3}),
        ("feature_kd", {"floor": 0.0}),
        ("feature_kd", {"stacks": ("bogus",)}),
        ("feature_kd", {"stacks": ()}),
        ("feature_kd", {"layers": ()}),
        ("feature_kd", {"text_weight": 1.0}),
        ("logit_kd", {"temperature": float("nan")}),
        ("logit_kd", {"text_weight": float("nan")}),
        ("universal_logit", {"temperature": float("nan")}),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(kind: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        registry.load("objectives", kind)(**settings)


def test_sorted_probabilities_of_a_broken_teacher_are_refused_before_training(tmp_path: Path) -> None:
    teacher = Frozen(Seq2seq(preset="nano").open(TEXTS, 1))
    with torch.no_grad():
        teacher.model.model.get_output_embeddings().weight[3, 0] = float("nan")
    settings = TrainSettings(steps=1, batch_size=4, device="cpu")
    with pytest.raises(TrainingError, match="NaN or infinity"):
        train(scratch(), UniversalLogit(), ITEMS, settings=settings, folder=tmp_path, teacher=teacher)


def test_a_store_that_lacks_some_texts_is_refused_before_the_first_step(tmp_path: Path) -> None:
    student, teacher = make("t5"), Frozen(make("t5"))
    objective = LogitKD(targets="both")

    def recorded(items: list[Annotation], folder: Path) -> Any:
        views = [objective.views(one, 0, random.Random(0)) for one in items]
        told = teacher.top(student.collate(items, views), "target", 4)
        names = [one.id for one, own in zip(items, views, strict=True) for _ in own]
        sources = [view.source for own in views for view in own]
        texts = list(logit_store.split(told, names, sources))
        hashed = vocabulary_hash(student.tokenizer)
        return logit_store.record(folder, texts, tokenizer_hash=hashed, top=4, teacher="t")

    objective.check(student, recorded(ITEMS, tmp_path / "whole"), ITEMS)
    part = recorded(ITEMS[:10], tmp_path / "part")  # more than the first rows, which are probed
    with pytest.raises(DataError, match="'e10' was never recorded"):
        objective.check(student, part, ITEMS)
