"""MI's objective against the authors' form on whole logits, its relation to step-by-step, and what padding does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch.nn.functional import cross_entropy

from lmdistill.objectives import Objective
from lmdistill.objectives.mutual_information import MutualInformation
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.students import Batch
from lmdistill.students.seq2seq import Seq2seq, Seq2seqStudent
from lmdistill.types import Annotation, Example, Rationale

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]


def items(n: int = 6) -> list[Annotation]:
    """Labels of one to three words and rationales of two to six, so that both branches are padded."""
    rng = random.Random(3)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))

    return [Annotation(Example(f"e{i}", text(2, 4), text(1, 3)), (Rationale(text(2, 6)),)) for i in range(n)]


def student(dropout: float = 0.0) -> Seq2seqStudent:
    return Seq2seq(dropout=dropout).open(["predict: explain:", " ".join(WORDS)], seed=1)


def batch_of(objective: Objective, own: Sequence[Annotation], one: Seq2seqStudent) -> Batch:
    return one.collate(own, [objective.views(item, 0, random.Random(0)) for item in own])


def test_released_is_the_authors_form_on_padded_logits() -> None:
    """P = softmax(label logits), E = softmax(rationale logits), each maximised over all positions, padding included;
    then torch's cross-entropy of E (taken for logits) against P (taken for probabilities)."""
    own, one, objective = items(), student().eval(), MutualInformation()
    batch = batch_of(objective, own, one)
    logits = {}
    for role, rows in batch.targets.items():
        assert bool((rows.labels == -100).any()), "the case needs padding"
        ids, mask = batch.source_ids[rows.source], batch.source_mask[rows.source]
        output = one.model(input_ids=ids, attention_mask=mask, labels=rows.labels)
        logits[role] = output.logits
        part = objective.loss(one, None, batch, 0.0)[role]
        assert float(part.total.detach()) / part.count == pytest.approx(float(output.loss.detach()), rel=1e-5)
    predicted = logits["label"].softmax(-1).detach().amax(1)
    explained = logits["rationale"].softmax(-1).amax(1)
    part = objective.loss(one, None, batch, 0.0)["shared"]
    expected = cross_entropy(explained, predicted)
    assert float(part.total.detach()) / part.count == pytest.approx(float(expected.detach()), rel=1e-5)
    assert part.weight == 0.1 and part.count == 6
    real = batch.targets["label"].labels.ne(-100)
    without = logits["label"].softmax(-1).masked_fill(~real.unsqueeze(-1), 0).detach().amax(1)
    assert not torch.allclose(without, predicted), "padding has a say in the maximum"


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_without_the_shared_term_it_is_step_by_step(dropout: float) -> None:
    def step(objective: Objective) -> tuple[float, list[torch.Tensor]]:
        one = student(dropout).train()
        torch.manual_seed(5)
        batch = batch_of(objective, items(), one)
        counts, parts = objective.counts(batch), objective.loss(one, None, batch, 0.0)
        assert counts.keys() == parts.keys() == {"label", "rationale"}
        loss = torch.stack([part.weight * part.total / counts[name] for name, part in parts.items()]).sum()
        loss.backward()
        return float(loss.detach()), [p.grad for p in one.parameters() if p.grad is not None]

    ours, gradients = step(MutualInformation(shared_weight=0.0))
    theirs, expected = step(StepByStep())
    assert ours == pytest.approx(theirs, abs=1e-7) and len(gradients) == len(expected) > 10
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(gradients, expected, strict=True))


@pytest.mark.parametrize(("mode", "same"), [("clean", True), ("released", False)])
def test_only_released_changes_with_the_rows_that_share_a_micro_batch(
    mode: Literal["clean", "released"], same: bool
) -> None:
    own, one, objective = items(), student().eval(), MutualInformation(mode=mode)

    def total(some: Sequence[Annotation]) -> float:
        return float(objective.loss(one, None, batch_of(objective, some, one), 0.0)["shared"].total.detach())

    assert (total(own) == pytest.approx(sum(total([item]) for item in own), rel=1e-5)) is same
