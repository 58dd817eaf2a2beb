"""A comparison as runs would leave it, without running any: known answers, so that every number can be checked."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmdistill.config import settings_of
from lmdistill.evaluate import evaluate
from lmdistill.store import Manifest, write_json, write_rows
from lmdistill.tasks.nli import Nli
from lmdistill.types import Annotation, Estimate, Example, Hit, Passage, Prediction, Rationale, Report

HOSTILE = "<script>document.title='broken in'</script><img src=x onerror=alert(1)>\n</script> & \"quotes\" | pipe"
TASK = Nli(train=8, valid=4, test=4)


def examples(count: int) -> list[Example]:
    return [Example(f"t{i}", f"Question {i}?", ("yes", "no")[i % 2], ("yes", "no")) for i in range(count)]


def predictions(right: Sequence[bool], *, rationale: str = "because", confident: bool = True) -> list[Prediction]:
    """Answers that are right where told so; every 50th wrong one is missing."""
    told = []
    for i, (example, good) in enumerate(zip(examples(len(right)), right, strict=True)):
        answer = example.label if good else ("no", "yes")[i % 2]
        gone = not good and i % 50 == 1
        hits = (Hit(Passage("p1", f"A passage for {i}", "Source"), 2.0),) if i == 0 else ()
        confidence = (0.9 if good else 0.6) if confident else None
        told.append(
            Prediction(example, None, rationale, reason="no answer", text="??")
            if gone
            else Prediction(example, answer, rationale, hits, confidence=confidence)
        )
    return told


def some(share: float, count: int, seed: int) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < share for _ in range(count)]


def run_folder(
    folder: Path,
    seed: int | None,
    told: Sequence[Prediction],
    *,
    recipe: str,
    facts: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = (),
) -> Report:
    """A run's folder with its predictions and its report."""
    inner = folder if seed is None else folder / f"seed-{seed}"
    write_rows(inner / "test" / "rows.jsonl", told)
    report = evaluate(TASK, told, list(metrics))
    own: dict[str, Any] = {} if seed is None else {"train_seconds": {str(seed): 30.0}, "students": {}, "steps": {}}
    if seed is not None:
        own["by_seed"] = {str(seed): {name: one.value for name, one in report.metrics.items()}}
    settings = {"recipe": recipe, "task": settings_of(TASK), "sampling": {"n": 1}, "note": HOSTILE}
    metrics = dict(report.metrics)
    if seed == 0:
        metrics["teacher_accuracy"] = Estimate(0.9, 0.85, 0.94, len(told))
    whole = Report(f"{recipe} on nli", metrics, report.counts, settings, {**own, **(facts or {})})
    write_json(folder / "report.json", whole)
    return whole


def comparison_folder(out: Path, *, items: int = 200, fractions: Sequence[float] = (0.25, 1.0)) -> Path:
    """Three methods at several shares of the data with three seeds, one that was only asked, and one failed cell."""
    rows: list[dict[str, Any]] = []
    levels = {"finetune": 0.60, "dss": 0.72, "single task": 0.80}
    bill = {"cost_of_all_answers": 1.5, "cost_per_example": 0.003, "complete": True}
    for method, level in levels.items():
        for fraction in fractions:
            for seed in (0, 1, 2):
                share = level - 0.15 * (1 - fraction)
                told = predictions(
                    some(share, items, hash_of(method, fraction, seed)),
                    rationale=HOSTILE if method == "dss" else "plain words",
                )
                cell = out / "cells" / f"{method}-{fraction}" / f"seed-{seed}"
                facts = {"annotation": bill} if method != "finetune" else {}
                run_folder(cell, seed, told, recipe=method.replace(" ", "_"), facts=facts)
                if method != "finetune":
                    funnel(cell)
                row = {"name": f"{method} {fraction} {seed}", "method": method, "recipe": method.replace(" ", "_")}
                place = str(cell.relative_to(out))
                rows.append({**row, "about": {"fraction": fraction}, "seed": seed, "folder": place, "status": "done"})
    cell = out / "cells" / "asked"
    run_folder(cell, None, predictions(some(0.7, items, 99), confident=False), recipe="few_shot_cot")
    teacher(out / rows[0]["folder"], items)
    row = {"name": "few_shot_cot", "method": "few_shot_cot", "recipe": "few_shot_cot", "about": {}, "seed": None}
    rows.append({**row, "folder": "cells/asked", "status": "done"})
    row = {"name": f"broken {HOSTILE}", "method": "broken", "recipe": "dss", "about": {}, "seed": 0}
    rows.append({**row, "folder": "cells/broken", "status": "failed", "error": f"Traceback\n{HOSTILE}"})
    write_json(out / "cells.json", rows)
    settings = {"title": f"Three ways {HOSTILE}", "question": "Which wins?", "baseline": "finetune", "metric": None}
    settings |= {"cost": {"hourly": 0.36, "watts": 100.0, "measure": False}}
    write_json(out / "manifest.json", dataclasses.asdict(Manifest("compare", settings, {}, status="partial")))
    return out


def cell_of(
    out: Path,
    method: str,
    seed: int | None,
    right: Sequence[bool],
    *,
    status: str = "done",
    facts: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = (),
    **about: Any,
) -> dict[str, Any]:
    """A run of a comparison and its line of `cells.json`; `about` are the settings that set it apart (`n` is
    `sampling.n`)."""
    told = {{"n": "sampling.n"}.get(key, key): value for key, value in about.items()}
    name = "-".join([method, *map(str, about.values()), str(seed)])
    if status == "done":
        run_folder(out / "cells" / name, seed, predictions(right), recipe=method, facts=facts, metrics=metrics)
    row = {"name": name, "method": method, "recipe": method, "about": told, "seed": seed, "folder": f"cells/{name}"}
    return {**row, "status": status, "error": None if status == "done" else "it broke"}


def cells_folder(out: Path, rows: Sequence[Mapping[str, Any]], **settings: Any) -> Path:
    """A comparison's folder of such lines."""
    write_json(out / "cells.json", list(rows))
    whole = {"title": "T", "question": "", "baseline": None, "metric": None, "cost": {"measure": False}, **settings}
    write_json(out / "manifest.json", dataclasses.asdict(Manifest("compare", whole, {}, status="partial")))
    return out


def funnel(cell: Path) -> None:
    """The manifests of annotation and curation."""
    counts = {"parsed": 95, "rejected: no answer": 3, "rejected: <b>odd</b>": 2}
    write_json(cell / "annotations" / "manifest.json", dataclasses.asdict(Manifest("annotate", {}, {}, counts=counts)))
    steps = [{"step": "correct", "reached": 95, "dropped": {"wrong answer": 15}, "left": 80}]
    manifest = Manifest("curate", {}, {}, facts={"funnel": steps})
    write_json(cell / "curated" / "manifest.json", dataclasses.asdict(manifest))


def teacher(cell: Path, items: int) -> None:
    """The teacher's answers to the test questions."""
    told = [Annotation(one, (Rationale(f"teacher says {HOSTILE}", one.label),)) for one in examples(items)]
    write_rows(cell / "teacher-test" / "rows.jsonl", told)


def hash_of(*parts: Any) -> int:
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(repr(parts)))
