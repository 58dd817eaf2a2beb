"""The errors a caller may want to tell apart.

    LmdistillError                what was expected, what was got, what to do
    |- ConfigError   (ValueError)   a run file, a flag or a setting; carries every problem at once
    |- UnknownName   (LookupError)  no component of that name; suggests the nearest
    |- DataError     (ValueError)   a row, a file or a column; carries file and line where known
    |- StoreError    (OSError)      an output folder, a manifest, a checkpoint, the disk
    |- TeacherError  (RuntimeError) an endpoint that refuses, a budget that is spent
    |  `- BudgetReached             the next request would pass the cap
    |- TrainingError (RuntimeError) not-a-number, overflow, an objective that lacks its data
    |- MissingExtra  (ImportError)  an optional package; names the extra that brings it
    `- PartlyDone    (RuntimeError) some cells of a comparison failed; the others are done and reported

All of them are the user's to mend, so the command line prints the message without a traceback and exits 2
(`TeacherError` 3, `BudgetReached` 4, `PartlyDone` 5: the work done so far is kept).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class LmdistillError(Exception):
    """Root of every error that lmdistill raises on purpose."""

    exit_code = 2


class ConfigError(LmdistillError, ValueError):
    """One or more settings are wrong; `problems` holds a line for each."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class UnknownName(LmdistillError, LookupError):
    """A name that is not among the known ones.

    >>> str(UnknownName("task", "smvap", ["svamp", "cqa"]))
    "unknown task 'smvap'; did you mean 'svamp'? Known: cqa, svamp"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, names)} Known: {', '.join(names)}")


class DataError(LmdistillError, ValueError):
    """A row or file that cannot be used.

    >>> str(DataError("label 'maybe' is not among the choices yes, no", path="a.csv", line=3))
    "a.csv:3: label 'maybe' is not among the choices yes, no"
    """

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(where + message)


class StoreError(LmdistillError, OSError):
    """An output folder, a manifest or a checkpoint that cannot be read or must not be written."""


class TeacherError(LmdistillError, RuntimeError):
    """The teacher cannot go on; what it answered so far is kept."""

    exit_code = 3


class BudgetReached(TeacherError):
    """The next request would pass the cap on cost or requests."""

    exit_code = 4


class TrainingError(LmdistillError, RuntimeError):
    """Training cannot go on, or must not start."""


class MissingExtra(LmdistillError, ImportError):
    """An optional package is not installed.

    >>> str(MissingExtra("bm25s", "search", "retriever 'bm25'"))
    "retriever 'bm25' needs the package 'bm25s': pip install 'lmdistill[search]'"
    """

    def __init__(self, package: str, extra: str, who: str) -> None:
        super().__init__(f"{who} needs the package {package!r}: pip install 'lmdistill[{extra}]'")


class PartlyDone(LmdistillError, RuntimeError):
    """Some cells of a comparison failed; the others are done and reported."""

    exit_code = 5


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest known name, or '.' where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."
