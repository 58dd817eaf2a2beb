"""Money: what a request costs, how much was spent, and when to stop.

Prices are dollars per million tokens. The package's `prices.yaml` is a start; the file that `LMDISTILL_PRICES` names,
or `~/.config/lmdistill/prices.yaml`, is laid over it, and a teacher's own `price` setting beats both.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lmdistill.errors import BudgetReached, ConfigError
from lmdistill.types import Usage

MILLION = 1_000_000
DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest)$")


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens; `cached_input` defaults to `input`; `batch` is the factor of the Batch API.

    >>> Price(input=1.0, output=2.0, cached_input=0.5).of(Usage(1_000_000, 500_000, cached_tokens=1_000_000))
    1.5
    """

    input: float
    output: float
    cached_input: float | None = None
    batch: float = 1.0

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input", "batch"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"price.{name}: {value} is negative; dollars per million tokens were expected")

    def of(self, usage: Usage, *, batch: bool = False) -> float:
        """The cost of what was billed, in dollars."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        dollars = (usage.prompt_tokens - cached) * self.input + cached * cached_price
        dollars += usage.completion_tokens * self.output
        return dollars * (self.batch if batch else 1.0) / MILLION


FREE = Price(0.0, 0.0)


def price_of(model: str) -> Price | None:
    """The price of a model by its name, also where the name ends in a date; None where no table has it.

    Raises:
        ConfigError: the user's table cannot be read.
    """
    table = prices()
    return table.get(model) or table.get(DATED.sub("", model)) or table.get(model.rpartition("/")[2])


def prices() -> dict[str, Price]:
    """The package's table with the user's laid over it."""
    table = _read(Path(__file__).with_name("prices.yaml"))
    named = os.environ.get("LMDISTILL_PRICES")
    own = Path(named) if named else Path.home() / ".config" / "lmdistill" / "prices.yaml"
    if named or own.exists():
        table.update(_read(own))
    return table


def _read(path: Path) -> dict[str, Price]:
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return {str(model): Price(**{key: float(value) for key, value in row.items()}) for model, row in rows.items()}
    except OSError as error:
        raise ConfigError(f"{path}: the price table cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        expected = "expected 'model: {input: 1.0, output: 2.0}', in dollars per million tokens"
        raise ConfigError(f"{path}: {expected} ({error})") from error


@dataclass(frozen=True)
class Budget:
    """Caps that one call never passes: a request that might pass one is not sent.

    What an earlier call of the same command spent does not count; its answers are kept and cost nothing again.
    """

    max_cost: float | None = None
    max_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that one request can use: input and output tokens, and dollars (None where the price is unknown)."""

    prompt_tokens: int
    completion_tokens: int
    cost: float | None = None


def bound(body: Mapping[str, Any], text: str, price: Price | None, *, samples: int, room: int, batch: bool) -> Bound:
    """The most a request can cost. A token covers at least one byte of UTF-8, so bytes bound tokens from above."""
    messages = len(body.get("messages") or ()) or 1
    most = Usage(len(text.encode(errors="surrogatepass")) + 8 * messages + 16, room * samples)
    return Bound(most.prompt_tokens, most.completion_tokens, None if price is None else price.of(most, batch=batch))


@dataclass
class Ledger:
    """What was spent, and what is in flight and may still be.

    A request is admitted only while everything spent, everything in flight at its bound, and its own bound stay
    within the budget. What broke off after it was sent may have been billed: its bound stays in `uncertain`.
    """

    budget: Budget = field(default_factory=Budget)
    cost: float = 0.0
    uncertain: float = 0.0
    requests: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    unpriced: int = 0
    reserved: float = 0.0
    in_flight: int = 0
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    async def admit(self, most: Bound) -> None:
        """Reserve a request's bound, waiting for what is in flight where that may make room.

        Raises:
            BudgetReached: the request might pass the cap on cost, or would be one too many.
        """
        while True:
            refusal = self._refusal(most)
            if refusal is None:
                break
            if not self.in_flight or self._hopeless():
                raise BudgetReached(refusal)
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(settled)
            await settled
        self._reserve(most)

    def admit_now(self, most: Bound) -> None:
        """`admit` without waiting for what is in flight."""
        refusal = self._refusal(most)
        if refusal is not None:
            raise BudgetReached(refusal)
        self._reserve(most)

    def _reserve(self, most: Bound) -> None:
        self.requests += 1
        self.in_flight += 1
        self.reserved += most.cost or 0.0

    def settle(self, most: Bound, price: Price | None, used: Usage | None, *, batch: bool, billed: bool) -> float:
        """Replace a reservation by what was used; the cost in dollars.

        Args:
            billed: whether the endpoint may have charged for it although no usage came back.
        """
        self.in_flight -= 1
        self.reserved = max(self.reserved - (most.cost or 0.0), 0.0)
        spent = 0.0
        if used is not None:
            self.usage = Usage(
                self.usage.prompt_tokens + used.prompt_tokens,
                self.usage.completion_tokens + used.completion_tokens,
                self.usage.cached_tokens + used.cached_tokens,
            )
            if price is None:
                self.unpriced += 1
            else:
                spent = price.of(used, batch=batch)
                self.cost += spent
        elif billed:
            self.uncertain += most.cost or 0.0
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        return spent

    def since(self, before: Ledger) -> Ledger:
        """What was used after a copy of this ledger was made."""
        used = {name: getattr(self.usage, name) - getattr(before.usage, name) for name in Usage.__dataclass_fields__}
        names = ("cost", "uncertain", "requests", "failed", "unpriced")
        numbers = {name: getattr(self, name) - getattr(before, name) for name in names}
        return Ledger(self.budget, usage=Usage(**used), **numbers)

    def _hopeless(self) -> bool:
        cap = self.budget.max_requests
        return cap is not None and self.requests >= cap

    def _refusal(self, most: Bound) -> str | None:
        budget = self.budget
        if budget.max_requests is not None and self.requests >= budget.max_requests:
            return f"max_requests = {budget.max_requests} is reached; raise it and run again: what was answered is kept"
        if budget.max_cost is None:
            return None
        if most.cost is None:
            return "max_cost needs a price for every teacher, and one has none; set the teacher's 'price'"
        if self.cost + self.uncertain + self.reserved + most.cost > budget.max_cost + 1e-12:
            spent = f"${self.cost:.4f} is spent"
            if self.uncertain:
                spent += f" and up to ${self.uncertain:.4f} more may be billed for requests that broke off"
            return (
                f"max_cost = ${budget.max_cost:g}: {spent}, and the next request may cost up to ${most.cost:.4f}; "
                "raise it and run again: what was answered is kept"
            )
        return None
