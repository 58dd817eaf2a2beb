"""A recipe: one method end to end, as a recorded call of the verbs.

A recipe is a frozen dataclass whose fields are the run file's keys and whose defaults are the paper's; `run(out)` walks
the road (annotate, curate, train, predict, evaluate) and leaves `out/report.json`. Recipes are short: what they share
stands in `_road.py`. To add one: a file `recipes/NAME.py` with a frozen dataclass `Name(Recipe)`; `lmdistill list
recipes`, `run`, `compare` and the contract test find it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from lmdistill.types import Report


class Recipe(ABC):
    """The contract; see the module's docstring."""

    @abstractmethod
    def run(self, out: Path) -> Report:
        """Do the whole of it below `out`; finished stages are skipped, a killed run goes on where it stopped."""
