"""One account for all runs of a comparison: its caps hold for all of them together, and one of them asks at a time.

The comparison opens a purse, a file that its processes find by the environment variable `LMDISTILL_PURSE`. Runs that
ask in turn find each other's answers in their cache: nothing that one is being told is asked, and paid for, by another.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from lmdistill.errors import BudgetReached, StoreError
from lmdistill.pricing import Budget, Ledger
from lmdistill.shared import alone
from lmdistill.store import write_json

NAME = "LMDISTILL_PURSE"


def open_purse(path: Path, budget: Budget) -> None:
    """A full purse; what an earlier call spent does not count, as for a budget of one run."""
    write_json(path, {**asdict(budget), "cost": 0.0, "requests": 0})


@contextlib.contextmanager
def from_purse(ledger: Ledger) -> Iterator[None]:
    """While this lasts nobody else asks, and the ledger's budget holds no more than what the purse has left.

    Without a purse nothing is changed, and nobody waits.

    Raises:
        BudgetReached: the caps of all runs together would be passed. StoreError: the purse is damaged.
    """
    named = os.environ.get(NAME)
    if not named:
        yield
        return
    path, before, own = Path(named), replace(ledger), ledger.budget
    with alone(path):
        kept = _read(path)
        ledger.budget = Budget(
            _less(own.max_cost, kept["max_cost"], kept["cost"] or 0.0, ledger.cost + ledger.uncertain),
            _whole(_less(own.max_requests, kept["max_requests"], kept["requests"] or 0, ledger.requests)),
        )
        try:
            yield
        except BudgetReached as error:
            if ledger.budget == own:
                raise
            told = f"${kept['cost']:.4f} and {kept['requests']} requests went to other cells"
            raise BudgetReached(f"the comparison's budget: {told}; {error}") from error
        finally:
            used = ledger.since(before)
            kept = _read(path)  # a new call may have opened it anew, while this run outlived the old one
            kept["cost"] = (kept["cost"] or 0.0) + used.cost + used.uncertain
            kept["requests"] = (kept["requests"] or 0) + used.requests
            ledger.budget = own
            write_json(path, kept)


def _read(path: Path) -> dict[str, float | None]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {name: kept[name] for name in ("max_cost", "max_requests", "cost", "requests")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read ({error}); run `lmdistill compare` again") from error


def _less(own: float | None, cap: float | None, others: float, mine: float) -> float | None:
    """The tighter of a run's own cap and of what the purse leaves it beside what the run spent before."""
    left = None if cap is None else max(cap - others, 0) + mine
    return left if own is None else own if left is None else min(own, left)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
