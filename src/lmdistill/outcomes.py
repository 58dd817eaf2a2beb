"""What runs left, read back for a report: of a comparison, of a run, or of several runs side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdistill import config
from lmdistill.arms import Arm, Run
from lmdistill.codec import decode
from lmdistill.costing import Costs
from lmdistill.errors import ConfigError, StoreError, did_you_mean
from lmdistill.evaluate import lower_is_better
from lmdistill.grid import brief
from lmdistill.store import read_manifest
from lmdistill.types import Estimate, Report

__all__ = ["Arm", "Outcomes", "Run", "load"]


@dataclass(frozen=True)
class Outcomes:
    """Everything a report is about."""

    title: str
    question: str
    arms: tuple[Arm, ...]
    metric: str
    baseline: str
    costs: Costs
    ceiling: str | None = None
    failed: Sequence[Mapping[str, Any]] = ()
    waiting: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lower(self) -> bool:
        """Whether less of the metric is better."""
        return lower_is_better(self.metric)

    @property
    def aside(self) -> frozenset[str]:
        """Methods that compete with none: what was made beforehand, and the ceiling, unless it is the baseline."""
        first = self.settings.get("first")
        named = {*(first if isinstance(first, Mapping) else ()), self.ceiling}
        return frozenset(one for one in named if one not in (None, self.baseline))

    def contenders(self) -> dict[tuple[tuple[str, str], ...], list[Arm]]:
        """The groups without what stands aside."""
        found = {
            key: [arm for arm in arms if arm.method not in self.aside and arm.estimate(self.metric)]
            for key, arms in self.groups().items()
        }
        return {key: arms for key, arms in found.items() if arms}

    def has_baseline(self) -> bool:
        """Whether any run of the baseline is done."""
        return any(arm.method == self.baseline for arm in self.arms)

    def groups(self) -> dict[tuple[tuple[str, str], ...], list[Arm]]:
        """Arms that differ in their method alone, by what they have in common.

        A method without one of the axes (one that trains nothing) belongs to every group that agrees in the others.
        """
        keys = [frozenset((key, brief(value)) for key, value in arm.about.items()) for arm in self.arms]
        widest = [key for key in dict.fromkeys(keys) if not any(key < other for other in keys)]
        return {
            tuple(sorted(key)): [arm for arm, own in zip(self.arms, keys, strict=True) if own <= key] for key in widest
        }

    def teachers(self) -> list[tuple[Estimate, list[Arm]]]:
        """The teachers' own values that differ, each with its arms: of one teacher the same for every seed, so never a
        mean over them."""
        found: dict[Estimate, list[Arm]] = {}
        for arm in self.arms:
            reports = (run.report for run in arm.runs.values())
            one = next((own for report in reports if (own := report.metrics.get(f"teacher_{self.metric}"))), None)
            if one is not None:
                found.setdefault(one, []).append(arm)
        return list(found.items())

    def teacher(self) -> Estimate | None:
        """The teacher's own value, where a run measured it and no other run another one."""
        found = self.teachers()
        return found[0][0] if len(found) == 1 else None

    def full(self) -> list[Arm]:
        """For each method and student the arm with the most data and the last of every other setting."""
        last: dict[tuple[str, str], Arm] = {}
        for arm in self.arms:
            own = arm.method, brief(arm.about.get("student", ""))
            kept = last.get(own)
            if kept is None or arm.about.get("fraction", 1) >= kept.about.get("fraction", 1):
                last[own] = arm
        return list(last.values())


def load(folders: Sequence[Path], *, costs: Costs | None = None, metric: str | None = None) -> Outcomes:
    """The outcomes of a comparison's folder, or of the folders of single runs.

    Raises:
        StoreError: nothing is there to report on. ConfigError: no run has that metric.
    """
    found: list[tuple[Path, bool, list[Arm]]] = []
    about: dict[str, Any] = {}
    failed: list[Mapping[str, Any]] = []
    waiting = 0
    for folder in {folder.resolve(): folder for folder in folders}.values():
        manifest = read_manifest(folder)
        if manifest is not None and manifest.stage == "compare":
            rows = _cells(folder)
            found.append((folder, True, list(_arms(folder, [row for row in rows if row["status"] == "done"]))))
            failed += [row for row in rows if row["status"] == "failed"]
            waiting += sum(row["status"] == "waiting" for row in rows)
            about = about or manifest.settings
        else:
            found.append((folder, False, [_single(folder)]))
    arms = _told_apart(found)
    if not arms:
        raise StoreError(
            f"{', '.join(map(str, folders))}: no run is done yet; run `lmdistill compare` to its end first"
        )
    shown = next((arm for arm in arms if arm.method not in about.get("first", {})), arms[0])
    known = [name for name in shown.report.metrics if not name.startswith("teacher_")]
    chosen = metric or about.get("metric") or known[0]
    if not any(arm.estimate(chosen) for arm in arms):
        raise ConfigError(f"metric: {chosen!r} is in no report{did_you_mean(chosen, known)} Known: {', '.join(known)}")
    stated = costs or (config.build(Costs, about["cost"]) if "cost" in about else Costs())
    present = [arm.method for arm in arms if arm.method not in about.get("first", {})] or [arms[0].method]
    baseline = about.get("baseline") or next(iter(_planned(about)), present[0])
    title = about.get("title") or (arms[0].report.name if len(arms) == 1 else _title(arms))
    settings = about or {arm.title: arm.report.settings for arm in arms}
    return Outcomes(
        title=title,
        question=about.get("question", ""),
        arms=tuple(arms),
        metric=chosen,
        baseline=baseline,
        costs=stated,
        ceiling=about.get("ceiling"),
        failed=failed,
        waiting=waiting,
        settings=settings,
    )


def _title(arms: Sequence[Arm]) -> str:
    tasks = dict.fromkeys(str(arm.report.settings.get("task", {}).get("name", "")) for arm in arms)
    methods = list(dict.fromkeys(arm.method for arm in arms))
    shown = ", ".join(methods) if len(methods) < 5 else f"{len(methods)} methods"
    return f"{shown} on {', '.join(tasks)}"


def _arms(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[Arm]:
    """The arms of a comparison; their order is the grid's."""
    runs: dict[str, dict[int, Run]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        own = folder / row["folder"]
        key = json.dumps([row["method"], row["about"]], sort_keys=True)
        first.setdefault(key, row)
        seed = row["seed"]
        runs.setdefault(key, {})[seed or 0] = Run(_report(own), own, _rows(own, seed))
    for key, row in first.items():
        yield Arm(row["method"], row["recipe"], row["about"], runs[key], seedless=row["seed"] is None)


def _single(folder: Path) -> Arm:
    """The arm of one run's folder."""
    report = _report(folder)
    recipe = str(report.settings.get("recipe", folder.name))
    seeds: list[int | None] = [int(seed) for seed in report.facts.get("by_seed", {})]
    seeds = seeds or [None]
    runs = {seed or 0: Run(report, folder, _rows(folder, seed)) for seed in seeds}
    return Arm(recipe, recipe, {}, runs, seedless=seeds == [None])


def _told_apart(found: Sequence[tuple[Path, bool, list[Arm]]]) -> list[Arm]:
    """The arms of several folders, none with another's title: where they would have it, the shortest end of the path
    that tells their folders apart names a single run, and is added to a later comparison's method."""
    titles = Counter(arm.title for _, _, arms in found for arm in arms)
    told: list[Arm] = []
    for place, (folder, several, arms) in enumerate(found):
        for arm in arms:
            if titles[arm.title] > 1 and (not several or any(arm.title == one.title for one in told)):
                others = [one for at, (one, _, own) in enumerate(found) if at != place and _holds(own, arm.title)]
                end = _end(folder, others)
                arm = arm.named(f"{arm.method} ({end})" if several else end)
            told.append(arm)
    return told


def _holds(arms: Sequence[Arm], title: str) -> bool:
    return any(arm.title == title for arm in arms)


def _end(folder: Path, others: Sequence[Path]) -> str:
    """The last parts of a folder's path, as few as no other folder ends with."""
    parts, ends = folder.resolve().parts, [other.resolve().parts for other in others]
    count = next((n for n in range(1, len(parts)) if all(parts[-n:] != end[-n:] for end in ends)), len(parts))
    return "/".join(parts[-count:])


def _planned(about: Mapping[str, Any]) -> list[str]:
    """The titles of a comparison's recipes, done or not."""
    recipes = about.get("recipes") or ()
    return [recipes] if isinstance(recipes, str) else [str(title) for title in recipes]


def _cells(folder: Path) -> list[dict[str, Any]]:
    """What a comparison's folder says of its cells."""
    path, again = folder / "cells.json", "run the same `lmdistill compare` again: it makes no finished cell anew"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        for row in rows:
            _ = row["method"], row["recipe"], row["about"], row["seed"], row["folder"], row["status"]
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); {again}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is damaged ({error}); {again}") from error
    return list(rows)


def _report(folder: Path) -> Report:
    path = folder / "report.json"
    try:
        report: Report = decode(Report, json.loads(path.read_text(encoding="utf-8")))
        _ = report.metrics, report.settings["task"]
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); name the folder of a finished run") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{path} is no report of a run ({error}); make it again with `lmdistill run`") from error
    return report


def _rows(folder: Path, seed: int | None) -> Path:
    return (folder if seed is None else folder / f"seed-{seed}") / "test" / "rows.jsonl"
