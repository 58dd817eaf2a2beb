"""Distillation from a white-box teacher: dense, stored and plain agree; rows, reductions, samples, refusals."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lmdistill import logit_store
from lmdistill.distributions import TokenDistributions, vocabulary_hash
from lmdistill.errors import ConfigError, DataError, StoreError, TrainingError
from lmdistill.losses.divergence import divergence
from lmdistill.objectives import Objective, Round
from lmdistill.objectives._teacher import Frozen, told_by
from lmdistill.objectives.gkd import GKD
from lmdistill.objectives.joint_teaching import JointTeaching
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.logit_kd import LogitKD
from lmdistill.objectives.noisy_kd import NoisyKD
from lmdistill.objectives.pseudo_target import PseudoTarget
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Rationale
from student_shapes import sentence
from student_shapes import student as make

RNG = random.Random(5)


def item(name: str) -> Annotation:
    texts = [sentence(RNG, 2, 5) for _ in range(2)]
    made = tuple(Rationale("", text, "teacher", i) for i, text in enumerate(texts))
    return Annotation(Example(name, sentence(RNG, 3, 9), sentence(RNG, 2, 6)), made)


ITEMS = [item(f"e{i}") for i in range(5)]
KD, NOISY = LogitKD(targets="gold"), NoisyKD(targets="gold")
SHAPES = ("t5", "bart", "llama", "gpt2")


def pair(shape: str) -> tuple[Any, Frozen]:
    student, teacher = make(shape), make(shape)
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return student.eval(), Frozen(teacher)


def batch_of(student: Any, objective: Objective, epoch: int = 0) -> Any:
    return student.collate(ITEMS, [objective.views(one, epoch, random.Random(0)) for one in ITEMS])


def round_of(student: Any, step: int) -> Round:
    return Round(0, 0, step, 0.0, lambda lag: student, {}, student)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_is_the_mean_over_rows_of_each_row_s_mean_over_tokens(shape: str) -> None:
    student, teacher = pair(shape)
    objective = LogitKD(targets="both", temperature=2.0)
    batch = batch_of(student, objective)
    part = objective.loss(student, teacher, batch, 0.0)["target"]
    z = student(batch, want=frozenset({"logits"}))["target"]
    t = teacher.model(batch, want=frozenset({"logits"}))["target"]
    rows, start = [], 0
    for row in z.mask:
        own = slice(start, start + int(row.sum()))
        p, q = (t.logits[own] / 2).log_softmax(-1), (z.logits[own] / 2).log_softmax(-1)
        rows.append(4 * (p.exp() * (p - q)).sum(-1).mean())  # tau^2 = 4
        start = own.stop
    assert len(rows) == 10 == part.count
    assert float((part.weight * part.total / part.count).detach()) == pytest.approx(
        float(torch.stack(rows).mean().detach()), rel=1e-4
    )


@pytest.mark.parametrize("shape", ["t5", "llama"])
def test_masked_equals_sliced_and_batch_equals_singles(shape: str) -> None:
    student, teacher = pair(shape)
    objective = KD
    whole = objective.loss(student, teacher, batch_of(student, objective), 0.0)["target"].total
    alone = [
        objective.loss(
            student, teacher, student.collate([one], [objective.views(one, 0, random.Random(0))]), 0.0
        )["target"].total
        for one in ITEMS
    ]  # fmt: skip
    assert float(whole.detach()) == pytest.approx(float(sum(alone)), rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_teacher_s_own_weights_leave_nothing_to_learn(shape: str) -> None:
    student = make(shape).eval()
    twin = make(shape)
    twin.load_state_dict(student.state_dict())
    objective = GKD(targets="gold", student_fraction=0.0)
    part = objective.loss(student, Frozen(twin), batch_of(student, objective), 0.0)["target"]
    assert float(part.total.detach()) == pytest.approx(0.0, abs=1e-4)


def stored(folder: Path, teacher: Frozen, student: Any, objective: Objective, k: int, **more: Any) -> Any:
    batch = batch_of(student, objective)
    told = teacher.top(batch, "target", k)
    names = [one.id for one in ITEMS]
    sources = [objective.prompt(one) for one in ITEMS]
    texts = list(logit_store.split(told, names, sources))
    hashed = vocabulary_hash(student.tokenizer)
    return logit_store.record(folder, texts, tokenizer_hash=hashed, top=k, teacher="t", **more)


@pytest.mark.parametrize("shape", ["t5", "llama"])
def test_stored_with_every_token_named_equals_live(shape: str, tmp_path: Path) -> None:
    student, teacher = pair(shape)
    objective = KD
    store = stored(tmp_path, teacher, student, objective, teacher.width, precision="float32")
    batch = batch_of(student, objective)
    gradients = []
    for told in (teacher, store):
        student.zero_grad()
        total = objective.loss(student, told, batch, 0.0)["target"].total
        total.backward()
        gradients.append((float(total.detach()), [p.grad.clone() for p in student.parameters() if p.grad is not None]))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-4)
    for live, read in zip(gradients[0][1], gradients[1][1], strict=True):
        assert torch.allclose(live, read, atol=1e-4)


def test_an_open_local_teacher_teaches_by_its_top_tokens(tmp_path: Path) -> None:
    from lmdistill.teachers.transformers import Transformers

    student, teacher = pair("t5")
    teacher.model.save(tmp_path / "teacher")
    batch = batch_of(student, KD)
    whole = KD.loss(student, teacher, batch, 0.0)["target"].total
    opened = Transformers(str(tmp_path / "teacher"), top=teacher.width, device="cpu").open()
    KD.check(student, opened, ITEMS)
    top = KD.loss(student, opened, batch, 0.0)["target"].total
    assert float(top.detach()) == pytest.approx(float(whole.detach()), rel=1e-3)
    few = Transformers(str(tmp_path / "teacher"), top=5, device="cpu").open()
    part = KD.loss(student, few, batch, 0.0)["target"].total
    assert 0 < float(part.detach()) < float(whole.detach())


def test_what_is_stored_is_small_and_says_what_it_hides(tmp_path: Path) -> None:
    student, teacher = pair("t5")
    objective = KD
    store = stored(tmp_path, teacher, student, objective, 8)
    batch = batch_of(student, objective)
    logp = teacher.model(batch, want=frozenset({"logits"}))["target"].logits.log_softmax(-1)
    hidden_mass = 1 - logp.exp().topk(8, -1).values.sum(-1)
    assert store.facts["mean_tail_mass"] == pytest.approx(float(hidden_mass.mean()), rel=1e-2)
    assert store.facts["bytes_per_token"] == 8 * 4 + 8 * 2 + 2 + 4
    live = divergence(student(batch, want=frozenset({"logits"}))["target"].logits, logp).sum()
    part = objective.loss(student, store, batch, 0.0)["target"]
    assert 0 < float(part.total.detach()) < float(live)
    ids, known = told_by(store, student, batch, "target")
    assert ids.shape == (len(hidden_mass), 8) and torch.allclose(known.exp().sum(-1), torch.ones(len(ids)), atol=2e-3)


def test_rows_are_found_by_text_in_any_order_and_others_are_refused(tmp_path: Path) -> None:
    student, teacher = pair("t5")
    objective = KD
    store = stored(tmp_path, teacher, student, objective, 4)
    wanted = [(one.id, one.example.input, student.tokens("target", one.example.label)) for one in ITEMS]
    forward, backward = store.look_up(wanted), store.look_up(wanted[::-1])
    assert [one.targets.tolist() for one in forward] == [list(text[2]) for text in wanted]
    assert [one.ids.tolist() for one in forward] == [one.ids.tolist() for one in backward][::-1]
    name, source, tokens = wanted[0]
    with pytest.raises(DataError, match="another source or other target tokens"):
        store.look_up([(name, source + " more", tokens)])
    with pytest.raises(DataError, match="another source or other target tokens"):
        store.look_up([(name, source, tokens[:-1])])
    with pytest.raises(DataError, match="never recorded"):
        store.look_up([("nobody", source, tokens)])
    with pytest.raises(DataError, match="other target tokens"):  # refused before the first step
        LogitKD(targets="both").check(student, store, ITEMS)
    with pytest.raises(ConfigError, match="temperature"):
        LogitKD(temperature=2.0).check(student, store, ITEMS)
    with pytest.raises(TrainingError, match="needs the teacher's model"):
        JointTeaching().check(student, store, ITEMS)


def test_a_store_of_another_tokenizer_a_damaged_one_and_bad_numbers_are_refused(tmp_path: Path) -> None:
    student, teacher = pair("t5")
    store = stored(tmp_path / "a", teacher, student, KD, 4)
    other = Seq2seq(preset="nano").open(["quite other words"])
    with pytest.raises(TrainingError, match=r"pseudo_target.*universal_logit"):
        KD.check(other, store, ITEMS)
    (tmp_path / "a" / "ids.bin").write_bytes(b"short")
    with pytest.raises(StoreError, match="damaged"):
        logit_store.LogitStore.open(tmp_path / "a")
    with pytest.raises(StoreError, match="no complete recording"):
        logit_store.LogitStore.open(tmp_path / "nowhere")
    import numpy as np

    bad = TokenDistributions(
        np.zeros((1, 1), "i4"), np.array([[np.nan]], "f4"), np.zeros(1, "f4"), np.zeros(1, "i4"), np.array([0, 1]), "h"
    )
    with pytest.raises(DataError, match="NaN"):
        logit_store.record(
            tmp_path / "b", [logit_store.Recorded("e", "s", bad)], tokenizer_hash="h", top=1, teacher="t"
        )
    with pytest.raises(StoreError, match="tokenizer_hash was"):
        logit_store.record(tmp_path / "a", [], tokenizer_hash="other", top=4, teacher="t")


def test_another_vocabulary_and_infinite_logits_are_refused_before_training(tmp_path: Path) -> None:
    student, teacher = pair("t5")
    other = Frozen(Seq2seq(preset="nano").open(["quite other words"]))
    settings = TrainSettings(steps=1, batch_size=2, device="cpu")
    with pytest.raises(TrainingError, match=r"\(6 tokens\).*\(43 tokens\).*pseudo_target.*universal_logit"):
        train(student, KD, ITEMS, settings=settings, folder=tmp_path / "a", teacher=other)
    with torch.no_grad():
        teacher.model.model.get_output_embeddings().weight[3, 0] = float("nan")
    with pytest.raises(TrainingError, match="NaN or infinity"):
        train(student, KD, ITEMS, settings=settings, folder=tmp_path / "b", teacher=teacher)
    with pytest.raises(TrainingError, match="white-box teacher"):
        train(student, KD, ITEMS, settings=settings, folder=tmp_path / "c")
    nothing = [Annotation(Example("x", "no label", "  "))]
    with pytest.raises(TrainingError, match="none of the 1 items"):
        train(student, KD, nothing, settings=settings, folder=tmp_path / "d", teacher=pair("t5")[1])


def test_a_wider_padded_head_of_the_same_family_is_accepted() -> None:
    student, teacher = pair("llama")
    objective = KD
    batch = batch_of(student, objective)
    before = objective.loss(student, teacher, batch, 0.0)["target"].total
    width = teacher.width
    teacher.model.model.resize_token_embeddings(width + 21)
    wide = Frozen(type(teacher.model)(teacher.model.model, student.tokenizer, teacher.model.settings))
    after = objective.loss(student, wide, batch, 0.0)["target"].total
    assert wide.width == width + 21
    assert float(after.detach()) == pytest.approx(float(before.detach()), rel=1e-4)


def test_kept_encoder_states_change_nothing() -> None:
    student, teacher = pair("t5")
    objective = LogitKD(targets="both")
    batch = batch_of(student, objective)
    fresh = teacher.scored(batch, "target").hidden
    again = teacher.scored(batch, "target").hidden
    few = student.collate(ITEMS[3:], [objective.views(one, 0, random.Random(0)) for one in ITEMS[3:]])
    part = teacher.scored(few, "target").hidden
    assert len(teacher._states) == 5
    assert torch.allclose(fresh, again, atol=1e-5) and torch.allclose(part, fresh[-len(part) :], atol=1e-5)
    tight = Frozen(teacher.model, kept_bytes=600)
    assert torch.allclose(tight.scored(batch, "target").hidden, fresh, atol=1e-5)
    assert tight._held <= 600


def test_the_noisy_teacher_is_another_one_at_every_step() -> None:
    student, teacher = pair("t5")
    batch = batch_of(student, NOISY)
    totals = {round(float(NOISY.loss(student, teacher, batch, 0.0)["target"].total.detach()), 4) for _ in range(3)}
    plain = {round(float(KD.loss(student, teacher, batch, 0.0)["target"].total.detach()), 4) for _ in range(3)}
    assert len(totals) == 3 and len(plain) == 1
    assert not teacher.model.training


def test_pseudo_targets_one_an_epoch_or_all() -> None:
    texts = [one.answer for one in ITEMS[0].rationales]
    label = ITEMS[0].example.label
    rng = random.Random(0)

    def seen(objective: Objective, epoch: int) -> list[str]:
        return [view.target for view in objective.views(ITEMS[0], epoch, rng)]

    assert [seen(PseudoTarget(), epoch) for epoch in range(3)] == [
        [label, texts[0]], [label, texts[1]], [label, texts[0]]
    ]  # fmt: skip
    assert seen(PseudoTarget(per_epoch="all"), 0) == [label, *texts]
    assert seen(PseudoTarget(targets="pseudo"), 1) == [texts[1]]
    unlabelled = Annotation(Example("u", "x"), ITEMS[0].rationales)
    assert [view.target for view in PseudoTarget().views(unlabelled, 0, rng)] == [texts[0]]
    student = make("t5").eval()
    one, other = PseudoTarget(targets="gold"), LabelOnly(reduction="example")
    ours = one.loss(student, None, batch_of(student, one), 0.0)["target"]
    theirs = other.loss(student, None, batch_of(student, other), 0.0)["label"]
    assert float(ours.total) == pytest.approx(float(theirs.total)) and ours.count == theirs.count


def test_joint_teaching_alternates_as_released() -> None:
    assert [JointTeaching(student_weight=0.5).due(step) for step in range(4)] == [False, True, False, True]
    assert [JointTeaching(student_weight=0.25).due(step) for step in range(4)] == [False, False, False, True]
    assert all(JointTeaching(student_weight=1).due(step) for step in range(3))
    assert not any(JointTeaching(student_weight=0).due(step) for step in range(3))
    with pytest.raises(ConfigError, match="alternating"):
        JointTeaching(student_weight=0.7)
    JointTeaching(student_weight=0.7, form="paper")


@pytest.mark.parametrize("shape", ["t5", "llama"])
def test_samples_take_the_targets_place_and_are_scored_by_the_teacher(shape: str) -> None:
    student, teacher = pair(shape)
    student.train()
    objective = JointTeaching(max_tokens=6)
    batch = batch_of(student, objective)
    torch.manual_seed(3)
    same = objective.prepare(batch, round_of(student, 0))
    sampled = objective.prepare(batch, round_of(student, 1))
    assert same is batch and student.training
    assert sampled.targets["target"].labels.shape[0] == batch.targets["target"].labels.shape[0]
    assert sampled.targets["target"].labels.shape[1] <= 6
    torch.manual_seed(3)
    again = objective.prepare(batch, round_of(student, 1))
    assert torch.equal(sampled.targets["target"].labels, again.targets["target"].labels)
    student.eval()
    part = objective.loss(student, teacher, sampled, 0.0)["target"]
    z = student(sampled, want=frozenset({"logits"}))["target"]
    t = teacher.model(sampled, want=frozenset({"logits"}))["target"]
    table = torch.zeros(z.mask.shape).masked_scatter(z.mask, divergence(z.logits, t.logits).detach())
    expected = (table.sum(-1) / z.mask.sum(-1)).sum()
    assert float(part.total.detach()) == pytest.approx(float(expected), rel=1e-4)


def test_joint_teaching_as_the_paper_writes_it_weighs_both() -> None:
    student, teacher = pair("t5")
    objective = JointTeaching(form="paper", student_weight=0.3, max_tokens=6)
    batch = objective.prepare(batch_of(student, objective), round_of(student, 0))
    counts, parts = objective.counts(batch), objective.loss(student, teacher, batch, 0.0)
    assert counts == {"target": 10.0, "sample": 10.0}
    assert parts["target"].weight == pytest.approx(0.7) and parts["sample"].weight == pytest.approx(0.3)
    only = LogitKD(targets="both")
    alone = only.loss(student, teacher, batch_of(student, only), 0.0)["target"].total
    assert float(parts["target"].total.detach()) == pytest.approx(float(alone.detach()), rel=1e-4)


def test_gkd_is_on_policy_in_its_share_of_the_steps() -> None:
    student, _ = pair("t5")
    objective = GKD(student_fraction=0.4, max_tokens=3)
    batch = batch_of(student, objective)
    fresh = [objective.prepare(batch, round_of(student, step)) is not batch for step in range(40)]
    assert 8 <= sum(fresh) <= 24
    assert fresh == [objective.prepare(batch, round_of(student, step)) is not batch for step in range(40)]


@pytest.mark.parametrize(
    "objective",
    [
        KD,
        NOISY,
        JointTeaching(targets="gold", max_tokens=8),
        GKD(targets="gold", max_tokens=8),
    ],
)
def test_training_brings_the_student_to_the_teacher(objective: Any, tmp_path: Path) -> None:
    student, teacher = pair("t5")
    reference = KD
    batch = batch_of(student, reference)

    def distance() -> float:
        student.eval()
        return float(reference.loss(student, teacher, batch, 0.0)["target"].total.detach())

    before = distance()
    settings = TrainSettings(steps=25, batch_size=5, learning_rate=1e-2, device="cpu")
    train(student, objective, ITEMS, settings=settings, folder=tmp_path, teacher=teacher)
    assert distance() < 0.7 * before
    saved = {path.name for path in (tmp_path / "student").iterdir()}
    assert "model.safetensors" in saved and not any("teacher" in name for name in saved)
