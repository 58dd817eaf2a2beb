"""Curation on rationales that language models really wrote: five a question (QuaRel), ten a question (SVAMP)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lmdistill import arithmetic, registry, store
from lmdistill.curate import Funnel, curate
from lmdistill.curation import Curation
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example, Rationale

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class Numbers(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return []

    def is_correct(self, example: Example, answer: str | None) -> bool:
        return answer is not None and example.label is not None and arithmetic.equal(answer, example.label)


def step(name: str, **settings: object) -> Curation:
    made: Curation = registry.load("curation", name)(**settings)
    return made


@pytest.fixture(scope="module")
def quarel() -> list[Annotation]:
    rows = []
    for line, row in store.read_jsonl(data("mario_quarel/train.jsonl.gz")):
        match = re.fullmatch(r"(?s).*\(A\)\s*(.+?)\s*\(B\)\s*(.+?)", row["question"])
        assert match is not None
        texts = {"(a)": match[1].strip(), "(b)": match[2].strip()}
        example = Example(str(line), row["question"], texts[row["label"]], tuple(texts.values()))
        told = [Rationale(one["text"], texts.get(one["label"]), sample=i) for i, one in enumerate(row["rationales"])]
        rows.append(Annotation(example, tuple(told)))
    return rows


@pytest.fixture(scope="module")
def svamp() -> list[Annotation]:
    return [
        Annotation(
            Example(row["id"], row["input"], row["label"]),
            tuple(Rationale(one["text"], one["label"], sample=i) for i, one in enumerate(row["rationales"])),
        )
        for _, row in store.read_jsonl(data("mcckd_svamp/train.jsonl.gz"))
    ]


def data(name: str) -> Path:
    import os

    return Path(os.environ["LMDISTILL_DATA"]) / name


def dropped(rows: Sequence[Annotation], task: Task, *steps: Curation) -> tuple[Funnel, Sequence[Annotation]]:
    funnel = Funnel()
    return funnel, curate(rows, task, *steps, funnel=funnel, minimum=2)


def test_quarel_counts(quarel: list[Annotation]) -> None:
    task = registry.load("tasks", "quarel")()
    assert (len(quarel), sum(len(row.rationales) for row in quarel)) == (1930, 9650)
    funnel, kept = dropped(quarel, task, step("correct"))
    marked = [
        one["correct"] for _, row in store.read_jsonl(data("mario_quarel/train.jsonl.gz")) for one in row["rationales"]
    ]
    assert funnel.table()[0]["dropped"] == {"wrong answer": marked.count(False)}
    # right and wrong rationales for the same question: 263 by the data's own description
    assert sum(bool(row.rationales and row.rejected) for row in kept) == 263
    funnel, kept = dropped(quarel, task, step("agree"))
    assert all(len({one.answer for one in row.rationales}) == 1 and len(row.rationales) >= 3 for row in kept)
    funnel, kept = dropped(quarel, task, step("leak"), step("consistent"))
    assert funnel.table()[-1]["left"] >= 0.99 * 9650  # the set's authors kept explanations that explain


def test_quarel_duplicates(quarel: list[Annotation]) -> None:
    task = registry.load("tasks", "quarel")()
    exact = sum(len(row.rationales) - len({one.text.casefold() for one in row.rationales}) for row in quarel)
    inside, kept = dropped(quarel, task, step("dedup"))
    everywhere, _ = dropped(quarel, task, step("dedup", scope="corpus"))
    assert exact <= inside.steps[0].total() <= everywhere.steps[0].total() <= 0.2 * 9650
    assert all(len({one.text.casefold() for one in row.rationales}) == len(row.rationales) for row in kept)


def test_svamp_contradictions_are_found_and_agreement_is_left_alone(svamp: list[Annotation]) -> None:
    funnel, right = dropped(svamp, Numbers(), step("correct"))
    assert (len(svamp), funnel.left) == (630, 4216)
    funnel, _ = dropped(right, Numbers(), step("consistent"))
    assert funnel.steps[0].total() <= 0.002 * 4216  # false alarms
    # each right rationale with the answer of another question: now they do contradict
    swapped = [
        replace(row, rationales=tuple(replace(one, answer=other.example.label) for one in row.rationales))
        for row, other in zip(right, [*right[1:], right[0]], strict=True)
        if not arithmetic.equal(row.example.label or "", other.example.label or "")
    ]
    total = sum(len(row.rationales) for row in swapped)
    funnel, _ = dropped(swapped, Numbers(), step("consistent"))
    assert funnel.steps[0].total() >= 0.85 * total


def test_svamp_selections(svamp: list[Annotation]) -> None:
    for one in ("random_k", "diverse"):
        _, kept = dropped(svamp[:150], Numbers(), step(one, k=3))
        assert {len(row.rationales) for row in kept} == {3}
    _, kept = dropped(svamp, Numbers(), step("open_ended"))
    sizes = [len(row.rationales) for row in kept]
    assert sorted(set(sizes)) == [1, 3, 5, 7, 9]
    assert all(abs(sizes.count(size) - 126) <= 1 for size in (1, 3, 5, 7, 9))  # quintiles of 630


def test_diverse_choices_are_less_alike_than_random_ones(svamp: list[Annotation]) -> None:
    from lmdistill.curation._minhash import character_shingles, jaccard

    def alike(rows: Sequence[Annotation]) -> float:
        pairs = []
        for row in rows:
            sets = [character_shingles(one.text) for one in row.rationales]
            pairs += [jaccard(left, right) for i, left in enumerate(sets) for right in sets[:i]]
        return sum(pairs) / len(pairs)

    _, random_ones = dropped(svamp[:200], Numbers(), step("random_k", k=4))
    _, diverse_ones = dropped(svamp[:200], Numbers(), step("diverse", k=4))
    assert alike(diverse_ones) < 0.85 * alike(random_ones)
