"""Inner states: golden relations, the mask, projections, refusals; and a teacher with another tokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lmdistill.errors import ConfigError, TrainingError
from lmdistill.losses.divergence import sorted_distance
from lmdistill.losses.features import hidden_cosine, hidden_mse, relation_kl
from lmdistill.objectives._teacher import Frozen
from lmdistill.objectives.feature_kd import FeatureKD
from lmdistill.objectives.logit_kd import LogitKD
from lmdistill.objectives.pseudo_target import PseudoTarget
from lmdistill.objectives.universal_logit import UniversalLogit, _paired
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example
from student_shapes import student as make

ITEMS = [Annotation(Example(f"e{i}", f"w{i} w3 w4"[: 5 + 3 * (i % 2)], f"w{i + 5} w2")) for i in range(4)]


def pair(shape: str) -> tuple[Any, Frozen]:
    student, teacher = make(shape), make(shape)
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return student, Frozen(teacher)


def batch_of(student: Any, objective: Any) -> Any:
    return student.collate(ITEMS, [objective.views(one, 0, random.Random(0)) for one in ITEMS])


def test_relations_by_hand() -> None:
    # one head of width 1; vectors (0, 1): scores ((0, 0), (0, 1)); a flat teacher relates all alike:
    # row 0: KL(half || half) = 0; row 1: 1/2 log(1/2 / (1-s)) + 1/2 log(1/2 / s), s = sigmoid(1)
    student = torch.tensor([[[0.0], [1.0]]])
    flat = torch.zeros(1, 2, 1)
    s = torch.sigmoid(torch.tensor(1.0))
    expected = torch.stack([torch.tensor(0.0), -0.5 * (4 * s * (1 - s)).log()])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert torch.allclose(relation_kl(student, flat, mask, heads=1)[0], expected, atol=1e-6)
    padded = torch.cat([student, torch.full((1, 1, 1), 9.0)], 1), torch.cat([flat, torch.full((1, 1, 1), -5.0)], 1)
    mask = torch.tensor([[True, True, False]])
    found = relation_kl(*padded, mask, heads=1)[0]
    assert torch.allclose(found[:2], expected, atol=1e-5) and float(found[2]) == 0.0
    made = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    same = relation_kl(made, made, torch.ones(2, 3, dtype=torch.bool), heads=2)
    assert torch.allclose(same, torch.zeros(2, 3), atol=1e-6)


def test_vectors_by_hand() -> None:
    one, other = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    assert float(hidden_mse(one, other)) == pytest.approx(5.0)
    assert float(hidden_cosine(one, other)) == pytest.approx(1.0)
    assert float(hidden_cosine(one, 7 * one)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("shape", ["t5", "bart", "gpt2", "llama"])
def test_a_twin_has_nothing_to_teach_and_another_does(shape: str) -> None:
    student, teacher = pair(shape)
    twin = Frozen(make(shape))
    objective = FeatureKD(balance=0)
    objective.companions(student)
    batch = batch_of(student, objective)
    none, some = (objective.loss(student, one, batch, 0.0) for one in (twin, teacher))
    for name in ("target", "relations"):
        assert float(none[name].total.detach()) == pytest.approx(0.0, abs=1e-4)
        assert float(some[name].total.detach()) > 1e-4 and some[name].count == 4.0
    some["relations"].total.backward()
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in student.parameters())


@pytest.mark.parametrize("shape", ["t5", "llama"])
def test_batches_equal_singles(shape: str) -> None:
    student, teacher = pair(shape)
    objective = FeatureKD(balance=0, hidden_weight=0.5)
    objective.companions(student)
    whole = objective.loss(student, teacher, batch_of(student, objective), 0.0)
    for name in ("target", "relations", "hidden"):
        alone = 0.0
        for one in ITEMS:
            batch = student.collate([one], [objective.views(one, 0, random.Random(0))])
            alone += float(objective.loss(student, teacher, batch, 0.0)[name].total.detach())
        assert float(whole[name].total.detach()) == pytest.approx(alone, rel=1e-3, abs=1e-4)


def test_without_features_it_is_logit_kd() -> None:
    student, teacher = pair("t5")
    plain, kd = FeatureKD(logit_weight=1, relation_weight=0, balance=0), LogitKD()
    plain.companions(student)
    batch = batch_of(student, kd)
    (one,), (other,) = plain.loss(student, teacher, batch, 0.0).values(), kd.loss(student, teacher, batch, 0.0).values()
    assert float(one.total.detach()) == pytest.approx(float(other.total.detach()), rel=1e-5)


def test_balance_makes_the_first_losses_one() -> None:
    student, teacher = pair("t5")
    objective = FeatureKD(balance=5, floor=1e-6)
    objective.companions(student)
    parts = objective.loss(student, teacher, batch_of(student, objective), 0.0)
    for part in parts.values():
        assert float(part.total.detach()) / part.count == pytest.approx(1.0, rel=1e-4)


def test_projections_are_learned_saved_and_bridge_widths(tmp_path: Path) -> None:
    texts = [text for one in ITEMS for text in (one.example.input, one.example.label or "")]
    student, wide = Seq2seq(preset="nano").open(texts), Frozen(Seq2seq(preset="tiny").open(texts, seed=1))
    objective = FeatureKD(hidden_weight=1.0, layers=((1, 2), (0, 0)))
    settings = TrainSettings(steps=12, batch_size=4, learning_rate=1e-2, device="cpu", save_every=6)
    train(student, objective, ITEMS, settings=settings, folder=tmp_path, teacher=wide)
    assert (tmp_path / "student" / "companion-features.safetensors").exists()
    features = objective._features
    shapes = {name: tuple(one.weight.shape) for name, one in features.projections.items()}
    assert shapes == dict.fromkeys(("encoder0", "encoder1", "decoder0", "decoder1"), (64, 32))
    assert float(features.seen[0]) == 12


def test_layers_and_kinds_that_do_not_fit_are_refused_before_training(tmp_path: Path) -> None:
    student, teacher = pair("t5")
    with pytest.raises(ConfigError, match=r"student's encoder has no layer 9 \(0 to 2\)"):
        FeatureKD(hidden_weight=1.0, layers=((9, 1),)).check(student, teacher, ITEMS)
    with pytest.raises(ConfigError, match="teacher's decoder has no layer -8"):
        FeatureKD(layers=((1, -8),)).check(student, teacher, ITEMS)
    with pytest.raises(TrainingError, match="one kind"):
        FeatureKD().check(student, Frozen(make("llama")), ITEMS)


def other_teacher() -> Frozen:
    """A teacher whose tokens are single characters."""
    texts = [" ".join(text) for one in ITEMS for text in (one.example.input, one.example.label or "")]
    return Frozen(Seq2seq(preset="nano").open([*texts, "w0 w1 w2"], seed=2))


def test_another_vocabulary_teaches_by_sorted_probabilities(tmp_path: Path) -> None:
    student, teacher = make("t5"), other_teacher()
    objective = UniversalLogit()
    batch = batch_of(student, objective)
    parts, counts = objective.loss(student, teacher, batch, 0.0), objective.counts(batch)
    assert parts.keys() == counts.keys() == {"text", "target"}
    z = student(batch, want=frozenset({"logits"}))["target"]
    own = teacher.model.collate(ITEMS, batch.views)
    t = teacher.model(own, want=frozenset({"logits"}))["target"]
    mine, theirs = _paired(z.mask, t.mask)
    expected = sorted_distance(z.logits[mine], t.logits[theirs]).sum() / int(z.mask[0].sum())
    assert float(parts["target"].total.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
    alone = PseudoTarget().loss(student, None, batch, 0.0)["target"]
    assert float(parts["text"].total.detach()) == pytest.approx(float(alone.total.detach()), rel=1e-5)
    settings = TrainSettings(steps=3, batch_size=4, device="cpu")
    train(student, objective, ITEMS, settings=settings, folder=tmp_path, teacher=teacher)


def test_positions_without_a_partner_are_left_out() -> None:
    mine = torch.tensor([[True, True, True], [True, False, False]])
    theirs = torch.tensor([[True, True], [True, True]])
    ours, others = _paired(mine, theirs)
    assert ours.tolist() == [True, True, False, True] and others.tolist() == [True, True, True, False]
