"""Every objective in the folder: rows, counts and parts agree, and settings go to a run file and back."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lmdistill import registry
from lmdistill.config import rebuild, settings_of
from lmdistill.objectives import Objective
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.types import Annotation, Example, Hit, Passage, Rationale, View

NAMES = registry.names("objectives")
ITEM = Annotation(
    Example("e1", "the sum of 2 and 3", "5", ("4", "5")),
    (Rationale("2 and 3 make 5", "5", "a teacher", 0), Rationale("count 3 up from 2", "5", "a teacher", 1)),
    rejected=(Rationale("2 and 3 make 4", "4", "a teacher", 2, reason="another answer"),),
    negatives=(Rationale("3 and 3 make 4", "4", "student@round-0"),),
    hits=(Hit(Passage("p1", "2 and 3 make 5"), 1.0),),
)
CLASSES = {name: registry.load("objectives", name) for name in NAMES}
LEARNS_TEXT = [name for name, cls in CLASSES.items() if cls.trains == "student" and "teacher" not in cls.needs]


def make(name: str) -> Objective:
    made = registry.load("objectives", name)()
    assert isinstance(made, Objective)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_frozen_and_go_to_a_run_file_and_back(name: str) -> None:
    objective = make(name)
    assert dataclasses.is_dataclass(objective) and type(objective).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert rebuild("objectives", settings_of(objective)) == objective


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_tells_the_source_and_what_differs(name: str) -> None:
    text = type(make(name)).__doc__ or ""
    assert "Paper:" in text or "Source:" in text
    assert "Differs:" in text and "Data:" in text


@pytest.mark.parametrize("name", LEARNS_TEXT)
def test_views_follow_from_their_arguments(name: str) -> None:
    objective = make(name)
    if not _reads_annotations(objective):
        pytest.skip("learns from another kind of item; tested with its recipe")
    once, again = (objective.views(ITEM, 3, random.Random(7)) for _ in range(2))
    assert once and list(once) == list(again)
    assert all(isinstance(view, View) and view.source and view.target for view in once)
    bare = Annotation(Example("e2", "nothing is known of this"))
    assert list(objective.views(bare, 0, random.Random(0))) == [], "an item without targets is left out"


@pytest.mark.parametrize("name", LEARNS_TEXT)
def test_parts_have_the_counts_that_were_promised(name: str) -> None:
    objective = make(name)
    if not _reads_annotations(objective):
        pytest.skip("learns from another kind of item; tested with its recipe")
    views = list(objective.views(ITEM, 0, random.Random(0)))
    student = Seq2seq(dropout=0.0).open([text for view in views for text in (view.source, view.target)], seed=0)
    made = objective.companions(student)
    assert all(isinstance(one.module, torch.nn.Module) for one in made.values())
    batch = student.collate([ITEM], [views])
    counts = objective.counts(batch)
    parts = objective.loss(student, None, batch, 0.0)
    assert parts.keys() <= counts.keys()
    for key, part in parts.items():
        assert part.count == pytest.approx(counts[key]) and bool(torch.isfinite(part.total))
    total = sum(part.weight * part.total for part in parts.values())
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in student.parameters())


def _reads_annotations(objective: Any) -> bool:
    try:
        return bool(objective.views(ITEM, 0, random.Random(0)))
    except AttributeError:
        return False


def test_the_folder_is_the_registry() -> None:
    folder = Path(registry.__file__).parent / "objectives"
    assert {"label_only", "step_by_step", "rationale_then_label", "rationale_as_input"} <= set(NAMES)
    assert sorted(path.stem for path in folder.glob("[a-z]*.py")) == NAMES
