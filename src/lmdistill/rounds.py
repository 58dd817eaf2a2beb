"""A run that asked several times: its folders in the order in which they were filled, and what all rounds cost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmdistill.store import Manifest, read_manifest

SPENT = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "cost", "cost_uncertain", "answers")
"""Facts that add up over rounds, each of which says what it used itself."""


def rounds_of(run: Path, stage: str) -> list[tuple[Path, Manifest]]:
    """The folders STAGE, STAGE-again-1, STAGE-again-2 ... of a run that are there, with their manifests."""
    found = {0: run / stage}
    for path in run.glob(f"{stage}-again-*"):
        number = re.fullmatch(rf"{re.escape(stage)}-again-(\d+)", path.name)
        if number:
            found[int(number[1])] = path
    pairs = [(found[number], read_manifest(found[number])) for number in sorted(found)]
    return [(path, manifest) for path, manifest in pairs if manifest is not None]


def summed_facts(run: Path) -> dict[str, Any]:
    """What the annotation of a run came to, over all its rounds; {} where it annotated nothing."""
    rounds = [manifest.facts for _, manifest in rounds_of(run, "annotations")]
    if len(rounds) < 2:
        return dict(rounds[0]) if rounds else {}
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
