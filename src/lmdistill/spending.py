"""A method's bill, from what its runs left: also what was trained and written before its student, and for it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmdistill.arms import Arm, Run
from lmdistill.codec import from_line
from lmdistill.contents import found_below
from lmdistill.costing import Bill, Costs, Speed, bill
from lmdistill.outcomes import Outcomes
from lmdistill.store import Manifest, read_manifest
from lmdistill.timing import Opens, speed_of
from lmdistill.types import Report

AFTER = ("questions", "teacher-test", "test", "also-")
"""How the folders of a run begin that have to do with its test alone."""


def costed(arm: Arm, costs: Costs, *, timed: bool) -> tuple[Bill, Speed | None]:
    """An arm's bill and its first student's speed; with `timed` False the speed is not looked for."""
    run = next(iter(arm.runs.values()))
    found = student_of(run) if timed else None
    speed = None if found is None else speed_of(found, run.predictions(), costs)
    facts = dict(run.report.facts)
    seconds = [_trained(one.folder, one.report) for one in arm.runs.values()]
    facts["train_seconds"] = {seed: value for own in seconds for seed, value in own.items()}
    before = statistics.mean(beforehand(one.folder, one.report) for one in arm.runs.values())
    sampling = arm.report.settings.get("sampling") or {}
    return bill(costs, facts, speed, int(sampling.get("n", 1)), before), speed


def measure(outcomes: Outcomes, opens: Opens, *, again: bool = False) -> None:
    """Measure the students of the arms whose speed a report tells; `opens` finds the passages of those that read."""
    for arm in outcomes.full():
        run = next(iter(arm.runs.values()))
        student = student_of(run)
        if student is not None:
            speed_of(student, run.predictions(), outcomes.costs, opens=opens, again=again)


def student_of(run: Run) -> Path | None:
    """Where a run's first student lies, also after its folder was moved; None where nothing can be asked of it."""
    told = list(run.report.facts.get("students", {}).values())
    return found_below(run.folder, told[0]) if told and run.rows.exists() else None


def beforehand(folder: Path, report: Report) -> float:
    """Seconds of this machine before a run's own students were trained, with those of the models it was given."""
    return sum(_stages(folder)) + sum(_made(folder, _models(report.settings), set()))


def _trained(folder: Path, report: Report) -> dict[str, float]:
    """Seconds of each seed's student: of all trainings in its folder (a second one may follow on the labels)."""
    told: Mapping[str, float] = report.facts.get("train_seconds", {})
    return {seed: sum(_seconds(folder / f"seed-{seed}", "train")) or value for seed, value in told.items()}


def _stages(folder: Path) -> Iterator[float]:
    """What the stages of a run took that come before its students. Asking somebody else costs no machine time."""
    for manifest in _manifests(folder):
        if manifest.stage != "annotate" or manifest.facts.get("cost_of_all_answers") == 0:
            yield _of(manifest)


def _seconds(folder: Path, stage: str) -> list[float]:
    return [_of(one) for one in _manifests(folder) if one.stage == stage]


def _of(manifest: Manifest) -> float:
    """A stage's seconds; those of a training that was resumed are in its facts, over all of its parts."""
    return float(manifest.facts.get("train_seconds", manifest.seconds))


def _manifests(folder: Path) -> Iterator[Manifest]:
    for path in sorted(folder.glob("*/manifest.json")):
        if not path.parent.name.startswith(AFTER):
            manifest = read_manifest(path.parent)
            if manifest is not None:
                yield manifest


def _models(settings: Any) -> Iterator[str]:
    """The models that settings name, wherever they stand."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            if key == "model" and isinstance(value, str) and value:
                yield value
            else:
                yield from _models(value)
    elif isinstance(settings, list | tuple):
        for one in settings:
            yield from _models(one)


def _made(folder: Path, models: Iterator[str], counted: set[Path]) -> Iterator[float]:
    """Seconds that went into models which runs of ours made, each once, and into what they were made from."""
    for model in models:
        here = (_moved(folder, model) or Path(model)).resolve()
        run = next((one for one in (here, *here.parents[:4]) if _is_made(one)), None)
        if run is None or run in counted:
            continue
        counted.add(run)
        pruned = read_manifest(run)
        if pruned is not None and pruned.stage == "prune":
            yield pruned.seconds
            yield from _made(run, iter([str(pruned.settings.get("model", ""))]), counted)
            continue
        report = from_line(Report, (run / "report.json").read_bytes())
        seconds = _trained(run, report).values()
        yield statistics.mean(seconds) if seconds else 0.0
        yield sum(_stages(run))
        yield from _made(run, _models(report.settings), counted)


def _is_made(folder: Path) -> bool:
    if (folder / "report.json").exists() and (folder / "run.yaml").exists():
        return True
    manifest = read_manifest(folder) if (folder / "manifest.json").exists() else None
    return manifest is not None and manifest.stage == "prune"


def _moved(folder: Path, model: str) -> Path | None:
    """Where a model lies that was made for the same comparison, whose folder may have been moved."""
    if Path(model).exists() or not Path(model).is_absolute():
        return None
    ends = (found_below(above, model) for above in folder.absolute().parents[:5])
    return next((end for end in ends if end != Path(model)), None)
