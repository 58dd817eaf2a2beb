"""Inputs written by the teacher: varied, de-duplicated, and as many as were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdistill import registry
from lmdistill.annotate import annotate
from lmdistill.errors import BudgetReached, TeacherError
from lmdistill.inventing import Pool, ask, invent, read_inputs
from lmdistill.pricing import Budget
from lmdistill.store import read_manifest
from lmdistill.teachers.scripted import Scripted

TASK = registry.load("tasks", "sums")()


def test_invented_inputs_are_different_and_can_be_answered(tmp_path: Path) -> None:
    inputs = invent(TASK, Scripted(), 60, folder=tmp_path / "inputs")
    assert len(inputs) == 60 and len({example.input for example in inputs}) == 60
    assert all(example.label is None for example in inputs)
    rows = annotate(TASK, Scripted(), inputs, folder=tmp_path / "a")
    assert sum(row.answer is not None for row in rows) == 60
    again = invent(TASK, Scripted(), 60, folder=tmp_path / "inputs")
    assert list(again) == list(inputs)
    manifest = read_manifest(tmp_path / "inputs")
    assert manifest is not None and manifest.status == "complete" and manifest.counts["written"] >= 60


def test_a_teacher_that_repeats_itself_is_stopped(tmp_path: Path) -> None:
    few = registry.load("tasks", "sums")(train=3)
    with pytest.raises(
        TeacherError, match=r"\d different inputs of 50 were written, then 3 rounds brought nothing new"
    ):
        invent(few, Scripted(), 50, folder=tmp_path / "inputs")
    manifest = read_manifest(tmp_path / "inputs")
    assert manifest is not None and manifest.status == "partial" and not (tmp_path / "inputs" / "rows.jsonl").exists()


def test_the_budget_holds_here_too(tmp_path: Path) -> None:
    with pytest.raises(BudgetReached):
        invent(TASK, Scripted(), 500, folder=tmp_path / "inputs", budget=Budget(max_requests=2))
    manifest = read_manifest(tmp_path / "inputs")
    assert manifest is not None and manifest.status == "budget"


def test_the_request_shows_inputs_but_never_the_same_five() -> None:
    known = [f"input {i}" for i in range(20)]
    prompts = {ask("Add.", known, 10, seed).question for seed in range(10)}
    assert len(prompts) == 10
    for prompt in prompts:
        assert prompt.startswith("The task: Add.") and prompt.count("<input>input") == 5
        assert "Write 10 new inputs for this task." in prompt


def test_inputs_are_read_from_marks_or_lists() -> None:
    assert read_inputs("Sure!\n<input>one\ntwo</input> and <INPUT> three </INPUT>") == ["one\ntwo", "three"]
    assert read_inputs("1. one\n2) two\n- three\n* four\nnot this") == ["one", "two", "three", "four"]
    assert read_inputs("nothing here") == []


def test_alike_texts_count_once() -> None:
    pool = Pool(["What is the capital of France?"], 0.7)
    offered = [
        "what is the capital of france ?",  # the same but for case
        "What is the capital city of France?",  # nearly
        "What is the capital of Spain?",  # another question
        "Name a river in Spain.",
    ]
    assert pool.add(offered) == 4
    assert pool.new == ["What is the capital of Spain?", "Name a river in Spain."] and pool.alike_seen == 2


@given(st.lists(st.text(min_size=1, max_size=12), max_size=12))
def test_a_pool_never_holds_the_same_text_twice(texts: list[str]) -> None:
    pool = Pool((), 0.7)
    pool.add(texts)
    pool.add(texts)
    folded = [" ".join(text.casefold().split()) for text in pool.new if any(c.isalnum() for c in text)]
    assert len(folded) == len(set(folded))
    assert len(pool.new) + pool.alike_seen == 2 * len(texts)
