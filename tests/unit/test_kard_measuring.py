"""The programs that measure KARD: which cells they take as done, and that engines are compared by what they find."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmdistill.types import Annotation, Example, Passage, Rationale

FOLDER = Path(__file__).parents[2] / "benchmarks"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


RETRIEVAL: dict[str, Any] = {"steps": 9, "tune": False, "preset": "tiny", "rate": 0.0, "loss": "kl"}
RETRIEVAL |= {"train_limit": 100, "per_list": 8, "candidates": 20, "weight": 0.25, "held_out": 0}


@pytest.mark.parametrize(
    "change",
    [{"steps": 8}, {"train_limit": 50}, {"per_list": 4}, {"candidates": 9}, {"rate": 0.5}, {"preset": "mini"},
     {"loss": "ce"}],
)  # fmt: skip
def test_a_cell_of_other_settings_is_another_cell(change: dict[str, Any]) -> None:
    module = program("kard_retrieval")
    names = ("openbookqa", "late_interaction", "scratch", 0)
    row = json.loads(json.dumps(module.wanted_of(*names, argparse.Namespace(**RETRIEVAL)))) | {"hits": [0.1, 0.2, 0.3]}
    assert module.same(row, module.wanted_of(*names, argparse.Namespace(**RETRIEVAL)))
    assert not module.same(row, module.wanted_of(*names, argparse.Namespace(**RETRIEVAL | change)))


@pytest.mark.parametrize("change", [{"train": 9}, {"test": 9}, {"steps": 9}, {"passages": 1}, {"silver": "rationale"}])
def test_what_is_remembered_is_measured_anew_for_other_settings(change: dict[str, Any]) -> None:
    module = program("kard_memory")
    own: dict[str, Any] = {"train": 100, "test": 20, "steps": 50, "passages": 3, "silver": "question"}
    names = (300, 0, "with passages (kard)")
    row = module.wanted_of(*names, argparse.Namespace(**own))
    assert module.same(row, module.wanted_of(*names, argparse.Namespace(**own)))
    assert not module.same(row, module.wanted_of(*names, argparse.Namespace(**own | change)))


def test_a_killed_run_goes_on_with_the_baselines_that_it_lacks() -> None:
    module = program("kard_retrieval")
    example = Example("e", "what do otters eat ?", fields={"question": "what do otters eat ?", "relevant": ["p"]})
    item = Annotation(example, (Rationale("otters eat fish ."),))
    corpus = module.Corpus([Passage("p", "otters eat fish ."), Passage("q", "horses eat grass .")], [item], [item])
    every = list(module.baselines("x", corpus))
    assert len(every) == module.BASELINES
    there = {(one["ranking"], one["questions"]) for one in every[:3]}
    assert list(module.baselines("x", corpus, there)) == every[3:]
    bare = module.Corpus(corpus.passages, [Annotation(example)], [Annotation(example)])
    assert len(list(module.baselines("x", bare))) == module.BASELINES


def test_engines_are_compared_by_what_they_find() -> None:
    module = program("retrieval")
    ours = [(3, 2.5), (1, 1.25), (7, 1.0)]
    assert module.difference(ours, [(3, 2.50001), (1, 1.25), (7, 1.0)]) is None
    assert module.difference(ours, [(3, 2.5), (1, 1.25), (8, 1.0)]) is None, "another one of equal last scores"
    assert module.difference([(1, 2.0), (2, 2.0), (3, 1.0)], [(2, 2.0), (1, 2.0), (3, 1.0)]) is None
    assert "2.50000 against 2.60000 at place 1" in str(module.difference(ours, [(3, 2.6), (1, 1.25), (7, 1.0)]))
    assert "passage 3" in str(module.difference(ours, [(1, 2.5), (3, 1.25), (7, 1.0)]))
    assert "3 passages against 2" in str(module.difference(ours, ours[:2]))
    rows = [
        {"engine": engine, "passages": 5, "rankings": [ranking]}
        for engine, ranking in (("ours", ours), ("bm25s", ours[::-1]))
    ]
    assert module.disagreements(rows)[1] and module.disagreements([rows[0], rows[0]]) == ([], [])
