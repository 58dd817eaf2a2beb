"""A method's bill, from what its runs left: also what was trained and written before its student, and for it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmdistill import registry
from lmdistill.arms import Arm, Run
from lmdistill.codec import from_line
from lmdistill.contents import found_below
from lmdistill.costing import Bill, Costs, Speed, bill
from lmdistill.errors import LmdistillError
from lmdistill.outcomes import Outcomes
from lmdistill.rounds import askings_of, stages_before_test
from lmdistill.store import Manifest, read_manifest
from lmdistill.timing import Opens, speed_of
from lmdistill.types import Report

NOBODY = {"cost_of_all_answers": 0.0}
"""The facts of a run that asked nobody."""


def costed(arm: Arm, costs: Costs, *, timed: bool) -> tuple[Bill, Speed | None]:
    """An arm's bill and its first student's speed; with `timed` False the speed is not looked for."""
    run = next(iter(arm.runs.values()))
    found = student_of(run) if timed else None
    speed = None if found is None else speed_of(found, run.predictions(), costs)
    facts = dict(run.report.facts)
    seconds = [_trained(one.folder, one.report) for one in arm.runs.values()]
    facts["train_seconds"] = {seed: value for own in seconds for seed, value in own.items()}
    before = statistics.mean(beforehand(one.folder, one.report) for one in arm.runs.values())
    if facts.get("annotation"):
        facts["annotation"] = {**facts["annotation"], "cost_of_all_answers": _paid(run.folder, run.report, costs)}
    paid, asks = paid_beforehand(run.folder, run.report, costs), _asks_at_test(arm.recipe)
    samples = int((arm.report.settings.get("sampling") or {}).get("n", 1))
    return bill(costs, facts, speed, samples, before, paid_beforehand=paid, asks_at_test=asks), speed


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
    return sum(_stages(folder, report)) + sum(_whole(*one) for one in _given(folder, report))


def paid_beforehand(folder: Path, report: Report, costs: Costs) -> float | None:
    """Dollars of the teachers who were asked for the models that a run was given; None where a bill is not known."""
    return _total([_paid(run, made, costs) for run, made in _given(folder, report) if made is not None])


def _paid(folder: Path, report: Report, costs: Costs) -> float | None:
    """What everybody was paid whom a run asked before its test; where its answers are gone, what its report tells."""
    asked = askings_of(folder, _test_split(report)) if (folder / "annotations").exists() else []
    return _total([costs.of_answers(one) for one in asked or [report.facts.get("annotation") or NOBODY]])


def _total(dollars: list[float | None]) -> float | None:
    """The sum, or None where one is not known."""
    known = [one for one in dollars if one is not None]
    return sum(known) if len(known) == len(dollars) else None


def _asks_at_test(recipe: str) -> bool:
    try:
        return bool(getattr(registry.load("recipes", recipe), "asks_at_test", False))
    except LmdistillError:  # a recipe of another version, or one whose package is missing here
        return False


def _test_split(report: Report) -> str:
    return str(report.settings.get("test_split", "test"))


def _trained(folder: Path, report: Report) -> dict[str, float]:
    """Seconds of each seed's student: of all trainings in its folder (one may come before it, or follow on the labels),
    however deep they lie."""
    told: Mapping[str, float] = report.facts.get("train_seconds", {})
    return {seed: sum(_trainings(folder / f"seed-{seed}")) or value for seed, value in told.items()}


def _trainings(folder: Path) -> Iterator[float]:
    for path in sorted(folder.glob("**/manifest.json")):
        manifest = read_manifest(path.parent)
        if manifest is not None and manifest.stage == "train":
            yield _of(manifest)


def _stages(folder: Path, report: Report) -> Iterator[float]:
    """What the stages of a run took that come before its students. Asking somebody else costs no machine time."""
    for manifest in stages_before_test(folder, _test_split(report)):
        if manifest.stage != "annotate" or manifest.facts.get("cost_of_all_answers") == 0:
            yield _of(manifest)


def _of(manifest: Manifest) -> float:
    """A stage's seconds; those of a training that was resumed are in its facts, over all of its parts."""
    return float(manifest.facts.get("train_seconds", manifest.seconds))


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


def _given(folder: Path, report: Report) -> Iterator[tuple[Path, Report | None]]:
    """What made the models that a run was given; never the run itself."""
    return _made(folder, _models(report.settings), {folder.resolve()})


def _made(folder: Path, models: Iterator[str], counted: set[Path]) -> Iterator[tuple[Path, Report | None]]:
    """The folders of ours that made models, each once, and of what these were made from; a pruned one has no report."""
    for model in models:
        told = _moved(folder, model) or Path(model)
        if not (told.is_absolute() or told.exists()):  # a model's name, and no path
            continue
        here = told.resolve()
        run = next((one for one in (here, *here.parents[:4]) if _is_made(one)), None)
        if run is None or run in counted:
            continue
        counted.add(run)
        pruned = read_manifest(run)
        if pruned is not None and pruned.stage == "prune":
            yield run, None
            yield from _made(run, iter([str(pruned.settings.get("model", ""))]), counted)
            continue
        report = from_line(Report, (run / "report.json").read_bytes())
        yield run, report
        yield from _made(run, _models(report.settings), counted)


def _whole(run: Path, report: Report | None) -> float:
    """Seconds of one run of ours up to its student (the mean over seeds), or of a pruning."""
    if report is None:
        pruned = read_manifest(run)
        return 0.0 if pruned is None else pruned.seconds
    seconds = _trained(run, report).values()
    return (statistics.mean(seconds) if seconds else 0.0) + sum(_stages(run, report))


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
