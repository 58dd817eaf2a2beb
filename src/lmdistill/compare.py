"""Recipes x students x data fractions x seeds x any setting -> runs; `report` then says which wins, and by how much.

    comparison = read(Path("compare.yaml"))
    compare(comparison, Path("runs/compare"), workers=2)

Each cell of the grid is a recorded recipe call in a process of its own, in a folder named by its settings: a cell that
is done is never made again, one that failed is tried again next time and stops nothing. The teacher's answers, and the
annotations where cells ask the same, are shared.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmdistill import config, runfile
from lmdistill.beforehand import Step
from lmdistill.codec import encode
from lmdistill.errors import ConfigError, StoreError, UnknownName
from lmdistill.grid import Cell, Comparison, cells_of, first_steps
from lmdistill.progress import progress
from lmdistill.runs import Call, Ended, run_many
from lmdistill.store import Manifest, read_manifest, versions, write_json

STUDIES = Path(__file__).parent / "studies"
"""Comparisons that ask the papers' questions, by name."""

Tell = Callable[[Ended, int, int], None]


def read(source: Path | str | None, sets: Sequence[str] = ()) -> Comparison:
    """A comparison from a file, or a study of the package by its name, with `--set` assignments laid over it.

    Raises:
        ConfigError: every wrong setting at once. UnknownName: neither a file nor a study.
    """
    return config.build(Comparison, runfile.load(None if source is None else _file_of(Path(source)), sets))


def studies() -> list[str]:
    """The names of the package's studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def compare(
    comparison: Comparison, out: Path, *, workers: int = 2, threads: int = 1, tell: Tell | None = None
) -> list[Ended]:
    """Run every cell that is not done; returns how each ended, in the grid's order. Then see `report.write`.

    Args:
        tell: called after each cell with how it ended, how many are done, and how many there are.

    Raises:
        ConfigError: wrong settings in any cell, all at once, before anything runs.
        StoreError: the folder belongs to something else.
    """
    steps = first_steps(comparison, out)
    runs = [Cell(one.name, one.recipe, {}, one.seed, one.settings, one.folder) for one in steps if one.recipe]
    rest = cells_of(comparison, out)
    cells = [*runs, *rest]
    manifest = _manifest(comparison, out)
    calls = [Call(cell.name, cell.recipe, cell.settings, cell.folder) for cell in rest]
    ends: dict[Path, Ended] = {}
    _write(out, manifest, cells, ends)

    def note(ended: Ended) -> None:
        ends[ended.call.out] = ended
        _write(out, manifest, cells, ends)
        bar.advance(failed=sum(one.report is None for one in ends.values()) or None)
        if tell is not None:
            tell(ended, len(ends), len(cells))

    try:
        with progress("compare", len(cells), "cells") as bar:
            for step in steps:
                _beforehand(step, threads * workers, note)
            for ended in run_many(calls, workers=workers, threads=threads):
                note(ended)
    except BaseException:
        manifest.status = "interrupted"
        _write(out, manifest, cells, ends)
        raise
    manifest.status = "partial" if any(ended.report is None for ended in ends.values()) else "complete"
    _write(out, manifest, cells, ends)
    return [ends[cell.folder] for cell in cells]


def _beforehand(step: Step, threads: int, note: Callable[[Ended], None]) -> None:
    """One thing that cells need.

    Raises:
        ConfigError: it failed, so that no cell can be run; the message holds what it said.
    """
    if not step.recipe:
        step.prune()
        return
    call = Call(step.name, step.recipe, step.settings, step.folder)
    (ended,) = run_many([call], workers=1, threads=threads)
    note(ended)
    if ended.report is None:
        raise ConfigError(f"first.{step.name} failed, and the cells need it; it said:\n{ended.error}")
    students = ended.report.facts.get("students", {})
    if students:
        step.link(next(iter(students.values())))


# --- the folder ------------------------------------------------------------------------------------------------------


def _file_of(source: Path) -> Path:
    if source.suffix or source.exists():
        return source
    if str(source) not in studies():
        raise UnknownName("study", str(source), studies())
    return STUDIES / f"{source}.yaml"


def _manifest(comparison: Comparison, out: Path) -> Manifest:
    before = read_manifest(out)
    if before is not None and before.stage != "compare":
        raise StoreError(f"{out} holds the stage {before.stage!r}, not a comparison; choose another --out")
    if before is None and out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
        raise StoreError(f"{out} holds something that is no comparison; choose another --out")
    settings = json.loads(json.dumps(encode(config.settings_of(comparison))))
    return Manifest("compare", settings, {}, versions=versions())


def _write(out: Path, manifest: Manifest, cells: Sequence[Cell], ends: Mapping[Path, Ended]) -> None:
    """The manifest and `cells.json`, as they stand now."""
    rows = []
    for cell in cells:
        ended = ends.get(cell.folder)
        row: dict[str, Any] = {"name": cell.name, "method": cell.method, "recipe": cell.recipe}
        row |= {"about": dict(cell.about), "seed": cell.seed, "folder": str(cell.folder.relative_to(out))}
        row["status"] = "waiting" if ended is None else "failed" if ended.report is None else "done"
        row |= {"seconds": ended.seconds, "error": ended.error} if ended else {}
        rows.append(row)
    states = [row["status"] for row in rows]
    manifest.counts = {"cells": len(rows), "done": states.count("done"), "failed": states.count("failed")}
    write_json(out / "cells.json", rows)
    write_json(out / "manifest.json", dataclasses.asdict(manifest))
