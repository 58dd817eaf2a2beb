"""Flow control: as many requests in flight as the endpoint bears, each until it is answered, refused or given up.

There is no batch barrier: a slot that becomes free takes the next request, whatever the others do. Concurrency falls
when the endpoint says that it is too much and climbs again when it answers; 'Retry-After' holds everybody back; a
request that failed waits outside the slots, so the others go on meanwhile.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from lmdistill.errors import BudgetReached, ConfigError, TeacherError
from lmdistill.pacing import Pace, Slots
from lmdistill.pricing import Bound

R = TypeVar("R")
Verdict = Literal["answered", "again", "slow down", "refused", "fatal"]
HOPELESS = 20
"""So many refusals before the first answer mean that everything is refused."""


@dataclass(frozen=True)
class Limits:
    """How hard an endpoint may be asked.

    `tries` counts all attempts at one request; waits between them grow from `backoff` to `backoff_most` seconds, with
    full jitter. `patience` is how many seconds may pass with failures and not one answer before everything stops (a
    third of it before the very first answer).
    """

    concurrency: int = 64
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tries: int = 10
    backoff: float = 0.5
    backoff_most: float = 60.0
    patience: float = 60.0

    def __post_init__(self) -> None:
        problems = [
            f"limits.{name}: {getattr(self, name)} is too small; at least 1 was expected"
            for name in ("concurrency", "tries")
            if getattr(self, name) < 1
        ]
        problems += [
            f"limits.{name}: {getattr(self, name)} is not above 0"
            for name in ("requests_per_minute", "tokens_per_minute", "patience")
            if getattr(self, name) is not None and getattr(self, name) <= 0
        ]
        if self.backoff < 0 or self.backoff_most < self.backoff:
            given = f"{self.backoff} and {self.backoff_most}"
            problems.append(f"limits: 0 <= backoff <= backoff_most was expected, got {given}")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt came to.

    `wait` is what 'Retry-After' asked for, in seconds; `tokens` what was used; `why` is in words, without secrets.
    """

    verdict: Verdict
    response: Any = None
    why: str = ""
    wait: float | None = None
    tokens: int | None = None


@dataclass(slots=True)
class _Work(Generic[R]):
    """A stream under way."""

    attempt: Callable[[R, Bound], Awaitable[Attempt]]
    bound: Callable[[R], Bound]
    done: asyncio.Queue[tuple[R, Attempt, float] | None]


class Flow(Generic[R]):
    """Runs attempts at a stream of requests under limits."""

    def __init__(self, limits: Limits, *, rng: random.Random | None = None) -> None:
        self.limits = limits
        self.slots = Slots(limits.concurrency)
        self.pace = Pace(limits.requests_per_minute, limits.tokens_per_minute)
        self.attempts = 0
        self.retries: collections.Counter[str] = collections.Counter()
        self._rng = rng or random.Random()
        self._backlog = 0  # requests that wait for another try
        self._answered = 0
        self._refused = 0
        self._last_answer = time.monotonic()
        self._failures_since = 0
        self._in_flight: dict[int, float] = {}  # when each attempt began, the oldest first
        self._stopped = asyncio.Event()
        self._puller: asyncio.Task[Any] | None = None
        self._stop_error: BaseException | None = None

    def stop(self) -> None:
        """Take no more requests and try none again; what is in flight comes to its end."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._puller is not None and self._puller is not asyncio.current_task():
            self._puller.cancel()
        self.slots.open()

    async def stream(
        self,
        requests: AsyncIterable[R],
        attempt: Callable[[R, Bound], Awaitable[Attempt]],
        bound: Callable[[R], Bound],
    ) -> AsyncGenerator[tuple[R, Attempt, float], None]:
        """Yield (request, its last attempt, seconds) as they come to an end, in any order.

        `attempt` is told the most that the request can use.

        A request that was stopped before it was answered is not yielded.

        Raises:
            BudgetReached: an attempt was not admitted. TeacherError: the endpoint fails, or refuses everything.
        """
        work = _Work(attempt, bound, asyncio.Queue())
        self._last_answer = time.monotonic()
        feeder = asyncio.create_task(self._feed(requests, work))
        try:
            while (item := await work.done.get()) is not None:
                yield item
            await feeder
        finally:
            feeder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeder
        if self._stop_error is not None:
            raise self._stop_error

    async def _feed(self, requests: AsyncIterable[R], work: _Work[R]) -> None:
        """Give every request a task of its own, as slots become free."""
        tasks: set[asyncio.Task[None]] = set()
        source = aiter(requests)
        try:
            while not self._stopped.is_set():
                await self.slots.acquire(crowded=self._backlog > 2 * self.limits.concurrency)
                request = await self._pull(source)
                if request is None:
                    self.slots.release()
                    break
                task = asyncio.create_task(self._serve(request, work))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(self._check)
            while tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            work.done.put_nowait(None)

    async def _pull(self, source: AsyncIterator[R]) -> R | None:
        """The next request, or None at the end or when stopped meanwhile."""
        if self._stopped.is_set():
            return None
        self._puller = asyncio.current_task()
        try:
            return await anext(source, None)
        except asyncio.CancelledError:
            if not self._stopped.is_set() or self._puller is None:
                raise
            self._puller.uncancel()
            return None  # stopped while there was nothing to take
        finally:
            self._puller = None

    async def _serve(self, request: R, work: _Work[R]) -> None:
        """All tries of one request; begins with a slot held."""
        most = work.bound(request)
        guessed = most.prompt_tokens / 4 + most.completion_tokens
        started = time.monotonic()
        tries = 0
        while True:
            try:
                await self._wait_until(self.pace.book(time.monotonic(), guessed))
                if self._stopped.is_set():
                    return
                tries += 1
                outcome = await self._try(request, most, work)
            except TeacherError as error:
                self._fail(error)
                return
            finally:
                self.slots.release()
            self._learn(outcome, guessed)
            if outcome.verdict in ("answered", "refused", "fatal") or tries >= self.limits.tries:
                work.done.put_nowait((request, outcome, time.monotonic() - started))
                return
            self.retries[outcome.why] += 1
            await self._back_off(tries, outcome.wait)
            if self._stopped.is_set():
                return
            await self.slots.acquire(first=True)

    async def _try(self, request: R, most: Bound, work: _Work[R]) -> Attempt:
        self.attempts += 1
        number = self.attempts
        self._in_flight[number] = time.monotonic()
        try:
            return await work.attempt(request, most)
        finally:
            del self._in_flight[number]

    # --- waiting ---

    async def _wait_until(self, start: float) -> None:
        """Sleep until a time, and longer where everybody was told to wait meanwhile."""
        while not self._stopped.is_set():
            start = max(start, self.pace.resume_at)
            left = start - time.monotonic()
            if left <= 0:
                return
            await self._sleep(left)

    async def _back_off(self, tries: int, wait: float | None) -> None:
        """Wait outside the slots before the next try."""
        delay = self._rng.uniform(0.0, min(self.limits.backoff * 2 ** (tries - 1), self.limits.backoff_most))
        self._backlog += 1
        try:
            await self._sleep(max(delay, wait or 0.0))
        finally:
            self._backlog -= 1

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    # --- learning ---

    def _learn(self, outcome: Attempt, guessed: float) -> None:
        """Adapt to what an attempt came to; stop when there is no hope."""
        now = time.monotonic()
        if outcome.verdict == "answered":
            self._answered += 1
            self._last_answer = now
            self._failures_since = 0
            self.slots.answered()
            if outcome.tokens is not None:
                self.pace.correct(guessed, outcome.tokens)
            return
        if outcome.verdict == "slow down":
            self.slots.refused()
        if outcome.wait:
            self.pace.hold(now + outcome.wait)
            self._last_answer = max(self._last_answer, self.pace.resume_at)  # waiting as told is not failing
        if outcome.verdict == "fatal":
            self._fail(TeacherError(outcome.why))
        elif outcome.verdict == "refused":
            self._refused += 1
            if self._refused >= HOPELESS and not self._answered:
                self._fail(TeacherError(f"the endpoint refused all of the first {self._refused}: {outcome.why}"))
        else:
            self._failures_since += 1
            self._lose_patience(now, outcome.why)

    def _lose_patience(self, now: float, why: str) -> None:
        """Stop when nothing was answered for long and nothing that was sent in that time can still be."""
        patience = self.limits.patience if self._answered else self.limits.patience / 3
        oldest = next(iter(self._in_flight.values()), now)
        if min(now, oldest) - self._last_answer > patience and self._failures_since >= 3:
            message = f"no answer for {patience:g} seconds and {self._failures_since} failures, the last: {why}"
            self._fail(TeacherError(f"{message}. What was answered is kept; run again when the endpoint is back"))

    def _check(self, task: asyncio.Task[None]) -> None:
        """An error that nobody expected stops everything and is raised, instead of losing its request."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._stop_error is None or isinstance(self._stop_error, BudgetReached):
            self._stop_error = error
        self.stop()
