"""A run that asked several times: its folders in the order in which they were filled, and what all of it cost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmdistill.store import Manifest, read_manifest

SPENT = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "cost", "cost_uncertain", "answers")
"""Facts that add up over rounds, each of which says what it used itself."""
AFTER = ("questions", "teacher-test", "test", "also-")
"""How the folders of a run begin that have to do with its test alone."""


def rounds_of(run: Path, stage: str) -> list[tuple[Path, Manifest]]:
    """The folders STAGE, STAGE-again-1, STAGE-again-2 ... of a run that are there, with their manifests."""
    found = {0: run / stage}
    for path in run.glob(f"{stage}-again-*"):
        number = re.fullmatch(rf"{re.escape(stage)}-again-(\d+)", path.name)
        if number:
            found[int(number[1])] = path
    pairs = [(found[number], read_manifest(found[number])) for number in sorted(found)]
    return [(path, manifest) for path, manifest in pairs if manifest is not None]


def stages_before_test(run: Path, test_split: str = "test") -> Iterator[Manifest]:
    """The stages of a run but those that have to do with its test alone."""
    after = (*AFTER, f"annotations-{test_split}")
    for path in sorted(run.glob("*/manifest.json")):
        if not path.parent.name.startswith(after):
            manifest = read_manifest(path.parent)
            if manifest is not None:
                yield manifest


def askings_of(run: Path, test_split: str = "test") -> list[Mapping[str, Any]]:
    """The facts of the stages before a run's test that asked somebody (a teacher, a verifier) and tell of its bill."""
    stages = stages_before_test(run, test_split)
    return [one.facts for one in stages if one.stage == "annotate" and "cost_of_all_answers" in one.facts]


def summed_facts(run: Path, test_split: str = "test") -> dict[str, Any]:
    """What the annotation of a run came to, over all its rounds; {} where it annotated nothing.

    `cost_of_all_answers` is that of everybody who was asked before the test, a verifier too.
    """
    rounds = [manifest.facts for _, manifest in rounds_of(run, "annotations")]
    if not rounds:
        return {}
    found = dict(rounds[0]) if len(rounds) == 1 else _added_up(rounds)
    if found.get("cost_of_all_answers") is not None:
        found["cost_of_all_answers"] = _sum([one["cost_of_all_answers"] for one in askings_of(run, test_split)])
    return found


def _added_up(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The facts of the first round with what adds up over all of them."""
    first = dict(rounds[0])
    for name in (*SPENT, "cost_of_all_answers"):
        first[name] = _sum([one.get(name) for one in rounds])
    retries: Counter[str] = Counter()
    for one in rounds:
        retries.update(_counts(one.get("retries")))
    first["retries"] = dict(retries)
    each, whole = rounds[0].get("cost_per_example"), rounds[0].get("cost_of_all_answers")
    if each and whole and first["cost_of_all_answers"] is not None:
        first["cost_per_example"] = round(each * first["cost_of_all_answers"] / whole, 8)
    return first | {"rounds": len(rounds), "complete": all(one.get("complete", True) for one in rounds)}


def _counts(value: Any) -> Mapping[str, int]:
    return value if isinstance(value, Mapping) else {}


def _sum(values: list[Any]) -> Any:
    """The sum, or None where one is not known."""
    return None if any(one is None for one in values) else round(sum(values), 6)
