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
from lmdistill.pricing import Bound

R = TypeVar("R")
Verdict = Literal["answered", "again", "slow down", "refused", "fatal"]


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
            f"limits.{name}: {getattr(self, name)} is too small; at least {least} was expected"
            for name, least in (("concurrency", 1), ("tries", 1))
            if getattr(self, name) < least
        ]
        problems += [
            f"limits.{name}: {getattr(self, name)} is not above 0"
            for name in ("requests_per_minute", "tokens_per_minute", "patience")
            if getattr(self, name) is not None and getattr(self, name) <= 0
        ]
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


class Flow(Generic[R]):
    """Runs attempts at requests under limits. One flow serves one endpoint and may run several streams in turn."""

    def __init__(self, limits: Limits, *, rng: random.Random | None = None) -> None:
        self.limits = limits
        self.limit = float(limits.concurrency)  # adapts
        self.attempts = 0
        self.retries: collections.Counter[str] = collections.Counter()
        self._rng = rng or random.Random()
        self._active = 0
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._backlog = 0  # requests that wait for another try
        self._resume_at = 0.0
        self._next_request = 0.0
        self._next_tokens = 0.0
        self._answered = 0
        self._refused = 0
        self._last_answer = 0.0
        self._failures_since = 0
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
        while self._waiting:
            self._wake()

    async def stream(
        self,
        requests: AsyncIterable[R],
        attempt: Callable[[R], Awaitable[Attempt]],
        bound: Callable[[R], Bound],
    ) -> AsyncGenerator[tuple[R, Attempt, float], None]:
        """Yield (request, its last attempt, seconds) as they come to an end, in any order.

        A request that was stopped before it was answered is not yielded.

        Raises:
            BudgetReached: an attempt was not admitted. TeacherError: the endpoint fails, or refuses everything.
        """
        done: asyncio.Queue[tuple[R, Attempt, float] | None] = asyncio.Queue()
        self._last_answer = time.monotonic()
        feeder = asyncio.create_task(self._feed(requests, attempt, bound, done))
        try:
            while (item := await done.get()) is not None:
                yield item
            await feeder
        finally:
            feeder.cancel()
            with contextlib.suppress(asyncio.CancelledError, TeacherError):
                await feeder
        if self._stop_error is not None:
            raise self._stop_error

    async def _feed(
        self,
        requests: AsyncIterable[R],
        attempt: Callable[[R], Awaitable[Attempt]],
        bound: Callable[[R], Bound],
        done: asyncio.Queue[tuple[R, Attempt, float] | None],
    ) -> None:
        tasks: set[asyncio.Task[None]] = set()
        source = aiter(requests)
        try:
            while not self._stopped.is_set():
                await self._acquire(first=False)
                request = await self._pull(source)
                if request is None:
                    self._release()
                    break
                task = asyncio.create_task(self._serve(request, attempt, bound, done))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(self._check)
            while tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            done.put_nowait(None)

    async def _pull(self, source: AsyncIterator[R]) -> R | None:
        """The next request, or None at the end or when stopped meanwhile."""
        if self._stopped.is_set():
            return None
        self._puller = asyncio.current_task()
        try:
            return await anext(source, None)
        except asyncio.CancelledError:
            if not self._stopped.is_set():
                raise
            if self._puller is not None:
                self._puller.uncancel()
            return None  # stopped while there was nothing to take
        finally:
            self._puller = None

    async def _serve(
        self,
        request: R,
        attempt: Callable[[R], Awaitable[Attempt]],
        bound: Callable[[R], Bound],
        done: asyncio.Queue[tuple[R, Attempt, float] | None],
    ) -> None:
        """All tries of one request; begins with a slot held."""
        most = bound(request)
        started = time.monotonic()
        tries = 0
        while True:
            try:
                await self._pace(most)
                if self._stopped.is_set():
                    return
                tries += 1
                self.attempts += 1
                outcome = await attempt(request)
            except TeacherError as error:
                self._fail(error)
                return
            finally:
                self._release()
            self._learn(outcome, most)
            if outcome.verdict == "answered":
                done.put_nowait((request, outcome, time.monotonic() - started))
                return
            if outcome.verdict in ("refused", "fatal") or tries >= self.limits.tries:
                done.put_nowait((request, outcome, time.monotonic() - started))
                return
            self.retries[outcome.why] += 1
            if not await self._back_off(tries, outcome.wait):
                return
            await self._acquire(first=True)
            if self._stopped.is_set():
                self._release()
                return

    # --- slots ---

    async def _acquire(self, *, first: bool) -> None:
        """Wait for a slot; a request that is tried again goes before new ones, which wait while too many wait."""
        crowded = not first and self._backlog > 2 * self.limits.concurrency
        if not crowded and self._active < int(self.limit) and (first or not self._waiting):
            self._active += 1
            return
        if self._stopped.is_set():
            self._active += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if first else self._waiting.append)(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._release()
            raise

    def _release(self) -> None:
        self._active -= 1
        while self._waiting and self._active < int(self.limit):
            self._wake()

    def _wake(self) -> None:
        future = self._waiting.popleft()
        if not future.done():
            self._active += 1
            future.set_result(None)

    # --- waiting ---

    async def _pace(self, most: Bound) -> None:
        """Wait for 'Retry-After' and for the budgets per minute."""
        now = time.monotonic()
        start = max(now, self._resume_at)
        if self.limits.requests_per_minute:
            start = max(start, self._next_request)
            self._next_request = start + 60.0 / self.limits.requests_per_minute
        if self.limits.tokens_per_minute:
            start = max(start, self._next_tokens)
            tokens = most.prompt_tokens / 4 + most.completion_tokens
            self._next_tokens = start + 60.0 * tokens / self.limits.tokens_per_minute
        while start > now and not self._stopped.is_set():
            await self._sleep(start - now)
            now = time.monotonic()
            start = max(start, self._resume_at)

    async def _back_off(self, tries: int, wait: float | None) -> bool:
        """Wait outside the slots before the next try; False when stopped meanwhile."""
        delay = self._rng.uniform(0.0, min(self.limits.backoff * 2 ** (tries - 1), self.limits.backoff_most))
        self._backlog += 1
        try:
            await self._sleep(max(delay, wait or 0.0))
        finally:
            self._backlog -= 1
        return not self._stopped.is_set()

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    # --- learning ---

    def _learn(self, outcome: Attempt, most: Bound) -> None:
        """Adapt to what an attempt came to; stop when there is no hope.

        A refusal for load takes one slot away and an answer gives 0.3 back: the limit settles where less than a
        quarter of the attempts are refused, and random refusals below that share cost no speed.
        """
        now = time.monotonic()
        if outcome.verdict == "answered":
            self._answered += 1
            self._last_answer = now
            self._failures_since = 0
            self.limit = min(self.limit + 0.3, float(self.limits.concurrency))
            if self.limits.tokens_per_minute and outcome.tokens is not None:
                guessed = most.prompt_tokens / 4 + most.completion_tokens
                self._next_tokens += 60.0 * (outcome.tokens - guessed) / self.limits.tokens_per_minute
            return
        if outcome.verdict == "slow down":
            self.limit = max(self.limit - 1.0, 1.0)
        if outcome.wait:
            self._resume_at = max(self._resume_at, now + outcome.wait)
            self._last_answer = max(self._last_answer, self._resume_at)  # waiting as told is not failing
        if outcome.verdict == "fatal":
            self._fail(TeacherError(outcome.why))
        elif outcome.verdict == "refused":
            self._refused += 1
            if self._refused >= 20 and not self._answered:
                self._fail(TeacherError(f"the endpoint refused all of the first {self._refused}: {outcome.why}"))
        else:
            self._failures_since += 1
            patience = self.limits.patience if self._answered else self.limits.patience / 3
            if now - self._last_answer > patience and self._failures_since >= 3:
                seconds = f"{patience:g} seconds"
                message = f"no answer for {seconds} and {self._failures_since} failures, the last: {outcome.why}"
                self._fail(TeacherError(f"{message}. What was answered is kept; run again when the endpoint is back"))

    def _check(self, task: asyncio.Task[None]) -> None:
        """An error that nobody expected stops everything and is raised, instead of losing its request."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._stop_error is None or isinstance(self._stop_error, BudgetReached):
            self._stop_error = error
        self.stop()
