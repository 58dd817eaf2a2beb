"""Harder tests: a student that learnt one task answers others (contrast sets, another domain)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmdistill.evaluate import ANSWERED, evaluate
from lmdistill.objectives import Objective
from lmdistill.predict import predict
from lmdistill.recipes._measuring import measures
from lmdistill.registry import name_of
from lmdistill.types import Estimate, Report


def names(recipe: Any) -> list[str]:
    """A name for each further task; the second one of a kind is numbered."""
    kinds = [name_of(task) for task in recipe.also_test]
    return [f"{kind}-{n + 1}" if (n := kinds[:i].count(kind)) else kind for i, kind in enumerate(kinds)]


def elsewhere(recipe: Any, objective: Objective, student: Any, folder: Path, out: Path) -> dict[str, Report]:
    """What a trained student answers to the test questions of the tasks in `also_test`, by their names.

    Its own run's retriever and reranker find the passages, in the other task's base where that has one of its own.
    """
    reports = {}
    searcher = recipe.searcher(out) if recipe.also_test and recipe.grounding.passages else None
    for name, task in zip(names(recipe), recipe.also_test, strict=True):
        other = replace(recipe, task=task, also_test=())
        questions = other.asked(recipe.test_split, None, out / f"also-{name}", searcher)
        told = predict(student, objective, task, questions, decoding=recipe.decoding, folder=folder / f"also-{name}")
        scores = folder / f"also-{name}-{ANSWERED}"
        reports[name] = evaluate(task, told, measures(task, recipe.metrics), scores=scores)
    return reports


def beside(own: Report, others: Mapping[str, Report]) -> Report:
    """A seed's report with the metrics of the other tasks behind their names, as in 'svamp.accuracy'."""
    more: dict[str, Estimate] = {
        f"{name}.{metric}": one for name, report in others.items() for metric, one in report.metrics.items()
    }
    return replace(own, metrics={**own.metrics, **more})
