"""Recipes x students x data fractions x seeds x any setting -> runs; `report` then says which wins, and by how much.

    comparison = read(Path("compare.yaml"))
    compare(comparison, Path("runs/compare"), workers=2)

Each cell of the grid is a recorded recipe call in a process of its own, in a folder named by its settings: a cell that
is done is never made again, one that failed is tried again next time and stops nothing but what needs it. The
teacher's answers, and the annotations where cells ask the same, are shared; one cell asks at a time.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmdistill import __version__, config, runfile
from lmdistill.beforehand import Step
from lmdistill.codec import encode
from lmdistill.contents import found_below
from lmdistill.errors import LmdistillError, StoreError, UnknownName
from lmdistill.grid import Cell, Comparison, cells_of, check_rows, first_steps
from lmdistill.progress import Bar, note, progress
from lmdistill.purse import NAME, open_purse
from lmdistill.runs import Call, Ended, finished, run_many
from lmdistill.standing import Standing
from lmdistill.store import Manifest, read_manifest, versions, write_json

PURSE = "purse.json"
"""The account of what all cells ask."""
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
    runs = [
        Cell(one.name, one.recipe, {}, one.seed, one.settings, one.folder, one.needs) for one in steps if one.recipe
    ]
    cells = [*runs, *cells_of(comparison, out)]
    check_rows(cells)
    running = _Running(comparison, out, cells, {one.folder: one.name for one in steps}, tell)
    lines = Standing(cells, comparison.metric, shown=sys.stderr.isatty())
    try:
        with progress("compare", len(cells), "cells") as bar, lines:
            running.bar, running.lines = bar, lines
            running.go(steps, workers, threads)
    except BaseException:
        running.write("interrupted")
        raise
    running.write("partial" if any(ended.report is None for ended in running.ends.values()) else "complete")
    return [running.ends[cell.folder] for cell in cells]


class _Running:
    """A comparison under way: how its cells ended, and what its folder says of them."""

    bar: Bar
    lines: Standing

    def __init__(
        self, comparison: Comparison, out: Path, cells: Sequence[Cell], names: Mapping[Path, str], tell: Tell | None
    ) -> None:
        self.out, self.tell, self.told = out, tell, 0
        self.manifest = _manifest(comparison, out)
        self.cells = {cell.folder: cell for cell in cells}
        self.calls = {
            folder: Call(names.get(folder, cell.name), cell.recipe, cell.settings, folder)
            for folder, cell in self.cells.items()
        }
        found = (finished(call) for call in self.calls.values())
        self.ends = {ended.call.out: ended for ended in found if ended is not None}
        self.write("partial")
        open_purse(out / PURSE, comparison.budget)

    def go(self, steps: Sequence[Step], workers: int, threads: int) -> None:
        """Make what is not done: first the steps, then the cells that have what they need."""
        for ended in list(self.ends.values()):
            self.note(ended)
        self.tell_of_versions()
        lost: dict[str, str] = {}
        for step in steps:
            why = self.missing(step.needs, lost) or self.made_first(step, workers * threads)
            if why:
                lost[step.name] = why
                if step.recipe and step.folder not in self.ends:
                    self.note(Ended(self.calls[step.folder], None, why))
                elif not step.recipe:
                    note(f"first.{step.name} failed: {why}")
        first = {step.folder for step in steps}
        rest = [folder for folder in self.calls if folder not in self.ends and folder not in first]
        able: list[Call] = []
        for folder in rest:
            why = self.missing(self.cells[folder].needs, lost)
            if why:
                self.note(Ended(self.calls[folder], None, why))
            else:
                able.append(self.calls[folder])
        self.run(able, workers, threads)

    def run(self, calls: Sequence[Call], workers: int, threads: int) -> None:
        environment = {NAME: str((self.out / PURSE).absolute())}
        for ended in run_many(calls, workers=workers, threads=threads, environment=environment):
            self.note(ended)

    def made_first(self, step: Step, threads: int) -> str:
        """Do a step, unless it is done; what it said where it failed."""
        if not step.recipe:
            try:
                step.prune()
            except LmdistillError as error:
                return str(error)
            return ""
        if step.folder not in self.ends:
            self.run([self.calls[step.folder]], 1, threads)
        ended = self.ends[step.folder]
        if ended.report is None:
            return ended.error
        for student in list(ended.report.facts.get("students", {}).values())[:1]:
            step.link(found_below(step.folder, student))
        return ""

    @staticmethod
    def missing(needs: Iterable[str], lost: Mapping[str, str]) -> str:
        """Why something cannot be run: a step that it needs failed."""
        return next(
            (f"first.{name} failed, and this needs it; it said:\n{lost[name]}" for name in needs if name in lost), ""
        )

    def note(self, ended: Ended) -> None:
        """A cell ended, now or before."""
        self.ends[ended.call.out] = ended
        self.told += 1
        self.write("partial")
        self.bar.advance(failed=sum(one.report is None for one in self.ends.values()) or None)
        self.lines.note(self.cells[ended.call.out], ended.report)
        if self.tell is not None:
            self.tell(ended, self.told, len(self.cells))

    def tell_of_versions(self) -> None:
        """Say which cells another version made: they are compared with what this one makes."""
        others = Counter(one.version for one in self.ends.values() if one.version not in ("", __version__))
        for version, count in others.items():
            cells = "cell was" if count == 1 else "cells were"
            told = f"{count} {cells} made by lmdistill {version}, this is {__version__}"
            note(f"{told}; remove a cell's folder to make it with this one")

    def write(self, status: str) -> None:
        """The manifest and `cells.json`, as they stand now."""
        rows = []
        for folder, cell in self.cells.items():
            ended = self.ends.get(folder)
            row: dict[str, Any] = {"name": cell.name, "method": cell.method, "recipe": cell.recipe}
            row |= {"about": dict(cell.about), "seed": cell.seed, "folder": str(folder.relative_to(self.out))}
            row["status"] = "waiting" if ended is None else "failed" if ended.report is None else "done"
            row |= {"seconds": ended.seconds, "error": ended.error, "version": ended.version} if ended else {}
            rows.append(row)
        states = [row["status"] for row in rows]
        self.manifest.status = status
        self.manifest.counts = {"cells": len(rows), "done": states.count("done"), "failed": states.count("failed")}
        write_json(self.out / "cells.json", rows)
        write_json(self.out / "manifest.json", dataclasses.asdict(self.manifest))


# --- the folder ------------------------------------------------------------------------------------------------------


def _file_of(source: Path) -> Path:
    if source.suffix or source.exists():
        return source
    if str(source) not in studies():
        raise UnknownName("study", str(source), studies())
    return STUDIES / f"{source}.yaml"


def _manifest(comparison: Comparison, out: Path) -> Manifest:
    ours = (out / "cells").is_dir() and (out / "cells.json").exists()
    try:
        before = read_manifest(out)
    except StoreError:
        if not ours:
            raise
        before = None
        note(f"{out / 'manifest.json'} was damaged and is written anew; the cells are as they were")
    if before is not None and before.stage != "compare":
        raise StoreError(f"{out} holds the stage {before.stage!r}, not a comparison; choose another --out")
    if before is None and not ours and out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
        raise StoreError(f"{out} holds something that is no comparison; choose another --out")
    settings = json.loads(json.dumps(encode(config.settings_of(comparison))))
    return Manifest("compare", settings, {}, versions=versions())
