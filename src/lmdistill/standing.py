"""How far each method of a comparison is, on a terminal: a line each, with its mean so far."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from lmdistill.grid import Cell
from lmdistill.progress import Bar, progress
from lmdistill.types import Report

LINES = 24
"""Methods up to which each has a line."""


class Standing:
    """The lines; entered while cells run. `shown` False: there are none."""

    def __init__(self, cells: Sequence[Cell], metric: str | None, *, shown: bool) -> None:
        self.metric = metric
        self.counts = Counter(_arm(cell) for cell in cells)
        self.shown = shown and 1 < len(self.counts) <= LINES
        self.values: dict[str, list[float]] = {}
        self.bars: dict[str, Bar] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Standing:
        if self.shown:
            self.bars = {arm: self._open.enter_context(progress(arm, n, "cells")) for arm, n in self.counts.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def note(self, cell: Cell, report: Report | None) -> None:
        """A cell ended."""
        arm = _arm(cell)
        found = value(report, self.metric)
        if found is not None:
            self.values.setdefault(arm, []).append(found[1])
        if arm in self.bars:
            live: dict[str, Any] = {found[0]: f"{statistics.mean(self.values[arm]):.3f}"} if found else {}
            self.bars[arm].advance(**live)


def value(report: Report | None, metric: str | None) -> tuple[str, float] | None:
    """The metric that a comparison looks at (else the report's first) and its value; None where there is no report."""
    if report is None or not report.metrics:
        return None
    name = metric if metric is not None and metric in report.metrics else next(iter(report.metrics))
    return name, report.metrics[name].value


def _arm(cell: Cell) -> str:
    return cell.name if cell.seed is None else cell.name.removesuffix(f" seed {cell.seed}")
