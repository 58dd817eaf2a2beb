"""Tables on stdout: drawn by rich on a terminal, plain columns elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lmdistill.types import Estimate, Report


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows under their column names; every column but the first is right-aligned."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    print(plain_table(columns, rows, title))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    """
    >>> print(plain_table(["metric", "value"], [["accuracy", "0.5"], ["f1", "0.25"]]))
    metric    value
    accuracy    0.5
    f1         0.25
    """
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    shown = [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([title, *shown] if title else shown)


def estimates(metrics: Mapping[str, Estimate]) -> list[list[str]]:
    """A row for each metric: name, value, 95 % interval, number of examples."""
    return [
        [name, number(one.value), f"{number(one.low)} to {number(one.high)}", f"{one.n:,}"]
        for name, one in metrics.items()
    ]


def show_report(report: Report) -> None:
    """A run's metrics, then what was counted."""
    show_table(["metric", "value", "95 % interval", "n"], estimates(report.metrics), report.name)
    for name, count in report.counts.items():
        print(f"{name}: {count:,}")


def number(value: Any) -> str:
    """
    >>> number(0.98765), number(1234.5), number(3)
    ('0.988', '1,234', '3')
    """
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return str(value)
