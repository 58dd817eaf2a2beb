"""How many requests may be in flight at once, and when the next may start: the two brakes of `flow`; and the pace of
batches."""

from __future__ import annotations

import asyncio
import collections
from dataclasses import dataclass

from lmdistill.errors import ConfigError


class Slots:
    """A limit on what is in flight that adapts: load takes one slot away, an answer gives 0.3 back.

    So the limit settles where less than a quarter of the attempts are refused for load, and random refusals below that
    share cost no speed.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.active = 0
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()

    def answered(self) -> None:
        self.limit = min(self.limit + 0.3, float(self.most))

    def refused(self) -> None:
        self.limit = max(self.limit - 1.0, 1.0)

    async def acquire(self, *, first: bool = False, crowded: bool = False) -> None:
        """Wait for a slot; `first` goes before those that wait, and who is `crowded` out waits for a release."""
        if not crowded and self.active < int(self.limit) and (first or not self._waiting):
            self.active += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if first else self._waiting.append)(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release()
            raise

    def release(self) -> None:
        self.active -= 1
        while self._waiting and self.active < int(self.limit):
            self._wake()

    def open(self) -> None:
        """Let everybody through: there is nothing more to limit."""
        self.limit = float("inf")
        while self._waiting:
            self._wake()

    def _wake(self) -> None:
        future = self._waiting.popleft()
        if not future.done():
            self.active += 1
            future.set_result(None)


class Pace:
    """When the next request may start: budgets per minute, spread evenly, and what 'Retry-After' asked for."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._per_request = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._next_request = 0.0
        self._next_tokens = 0.0
        self.resume_at = 0.0

    def book(self, now: float, tokens: float) -> float:
        """Take the next place for a request that may use so many tokens; when it may start."""
        start = max(now, self.resume_at)
        if self._per_request:
            start = max(start, self._next_request)
            self._next_request = start + self._per_request
        if self._per_token:
            start = max(start, self._next_tokens)
            self._next_tokens = start + self._per_token * tokens
        return start

    def correct(self, guessed: float, used: float) -> None:
        """A request used other than it was booked for."""
        self._next_tokens += self._per_token * (used - guessed)

    def hold(self, until: float) -> None:
        """Nobody starts before then."""
        self.resume_at = max(self.resume_at, until)


@dataclass(frozen=True)
class Batch:
    """Settings of the Batch API: seconds between looks at a batch, and requests in one (vendors allow 50,000)."""

    poll: float = 30.0
    size: int = 20_000

    def __post_init__(self) -> None:
        if self.poll <= 0 or not 1 <= self.size <= 50_000:
            message = f"batch: poll must be above 0 and size between 1 and 50000, got {self.poll} and {self.size}"
            raise ConfigError(message)
