"""Flow control, with attempts that are only told what to come to."""

from __future__ import annotations

import asyncio
import collections
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import pytest

from lmdistill.errors import BudgetReached, ConfigError, TeacherError
from lmdistill.flow import Attempt, Flow, Limits
from lmdistill.pacing import Pace, Slots
from lmdistill.pricing import Bound

DONE = Attempt("answered", "ok")


async def _each(items: Iterable[int]) -> AsyncIterator[int]:
    for item in items:
        yield item


def run(
    items: Iterable[int],
    attempt: Callable[[int, Bound], Awaitable[Attempt]],
    limits: Limits,
    flow: Flow[int] | None = None,
) -> tuple[Flow[int], dict[int, Attempt]]:
    """Everything that comes out of a stream."""
    flow = flow or Flow(limits, rng=random.Random(0))

    async def work() -> dict[int, Attempt]:
        ends = {}
        async for item, end, _ in flow.stream(_each(items), attempt, lambda item: Bound(4, 10)):
            assert item not in ends
            ends[item] = end
        return ends

    return flow, asyncio.run(work())


def test_every_request_ends_once_and_not_too_many_are_in_flight() -> None:
    active = most = 0

    async def attempt(item: int, bound: Bound) -> Attempt:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.001)
        active -= 1
        return DONE

    _, ends = run(range(100), attempt, Limits(concurrency=7))
    assert set(ends) == set(range(100)) and most == 7


def test_a_slow_request_holds_nobody_up() -> None:
    async def attempt(item: int, bound: Bound) -> Attempt:
        await asyncio.sleep(0.3 if item == 0 else 0.005)
        return DONE

    started = time.monotonic()
    _, ends = run(range(100), attempt, Limits(concurrency=4))
    assert len(ends) == 100
    assert time.monotonic() - started < 0.45  # 99 * 5 ms over 3 slots fit into the slow one's 0.3 s


def test_failures_are_tried_again_and_given_up() -> None:
    seen: collections.Counter[int] = collections.Counter()

    async def attempt(item: int, most: Bound) -> Attempt:
        seen[item] += 1
        if item == 3:
            return Attempt("refused", why="no")
        if item == 4 or seen[item] <= item % 3:
            return Attempt("again", why="HTTP 500")
        return DONE

    flow, ends = run(range(10), attempt, Limits(tries=4, backoff=0.0, backoff_most=0.0))
    assert seen == {item: 1 if item == 3 else 4 if item == 4 else item % 3 + 1 for item in range(10)}
    assert sorted(item for item, end in ends.items() if end.verdict != "answered") == [3, 4]
    assert ends[4].why == "HTTP 500" and flow.retries["HTTP 500"] == 3 + sum(
        i % 3 for i in range(10) if i not in (3, 4)
    )


def test_load_takes_slots_away_and_answers_give_them_back() -> None:
    active = 0
    refused = 0

    async def attempt(item: int, most: Bound) -> Attempt:
        nonlocal active, refused
        active += 1
        try:
            await asyncio.sleep(0.002)
            if active > 8:  # what the endpoint bears
                refused += 1
                return Attempt("slow down", why="HTTP 429")
            return DONE
        finally:
            active -= 1

    flow, ends = run(range(600), attempt, Limits(concurrency=64, tries=50, backoff=0.001, backoff_most=0.01))
    assert len(ends) == 600 and all(end.verdict == "answered" for end in ends.values())
    assert flow.slots.limit < 24  # it began at 64
    assert refused < 300


def test_slots_recover_when_the_load_is_gone() -> None:
    slots = Slots(10)
    for _ in range(20):
        slots.refused()
    assert slots.limit == 1.0
    for _ in range(30):
        slots.answered()
    assert slots.limit == pytest.approx(10.0)


def test_retry_after_holds_everybody_back() -> None:
    starts: list[float] = []

    async def attempt(item: int, most: Bound) -> Attempt:
        starts.append(time.monotonic())
        if item == 0 and len(starts) == 1:
            return Attempt("slow down", why="HTTP 429", wait=0.2)
        await asyncio.sleep(0.001)
        return DONE

    _, ends = run(range(20), attempt, Limits(concurrency=1, backoff=0.0))
    assert len(ends) == 20
    assert starts[1] - starts[0] >= 0.19


def test_requests_per_minute_are_spread_evenly() -> None:
    started = time.monotonic()

    async def attempt(item: int, most: Bound) -> Attempt:
        return DONE

    run(range(11), attempt, Limits(requests_per_minute=60 / 0.02))
    assert time.monotonic() - started >= 0.2


def test_tokens_per_minute_learn_what_answers_use() -> None:
    pace = Pace(None, 60.0)  # a token a second
    assert pace.book(100.0, 10) == 100.0
    assert pace.book(100.0, 10) == 110.0
    pace.correct(10, 4)  # it used 4 of 10
    assert pace.book(100.0, 10) == 114.0
    pace.hold(200.0)
    assert pace.book(100.0, 10) == 200.0


def test_a_dead_endpoint_is_given_up() -> None:
    async def attempt(item: int, most: Bound) -> Attempt:
        await asyncio.sleep(0.001)
        return Attempt("again", why="cannot connect")

    with pytest.raises(TeacherError, match=r"no answer for 0\.1 seconds and \d+ failures, the last: cannot connect"):
        run(range(1000), attempt, Limits(patience=0.3, backoff=0.01, tries=1000))


def test_a_slow_endpoint_is_not_taken_for_dead() -> None:
    failures = 0

    async def failing(item: int, most: Bound) -> Attempt:
        nonlocal failures
        if item == 0 and failures < 8:
            failures += 1
            await asyncio.sleep(0.02)
            return Attempt("again", why="HTTP 500")
        await asyncio.sleep(0.4)  # beyond the patience of 0.1 s, but it is on its way
        return DONE

    _, ends = run(range(4), failing, Limits(patience=0.3, backoff=0.001, backoff_most=0.001, tries=20))
    assert all(end.verdict == "answered" for end in ends.values()) and failures == 8


def test_what_is_fatal_stops_at_once() -> None:
    sent = 0

    async def attempt(item: int, most: Bound) -> Attempt:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.001)
        return Attempt("fatal", why="HTTP 401: wrong key")

    with pytest.raises(TeacherError, match="wrong key"):
        run(range(1000), attempt, Limits(concurrency=4))
    assert sent <= 8


def test_an_endpoint_that_refuses_everything_is_left() -> None:
    async def attempt(item: int, most: Bound) -> Attempt:
        return Attempt("refused", why="HTTP 400: max_tokens is not supported")

    with pytest.raises(TeacherError, match=r"refused all of the first \d+: HTTP 400: max_tokens"):
        run(range(1000), attempt, Limits(concurrency=4))


def test_refusals_between_answers_stop_nothing() -> None:
    async def attempt(item: int, most: Bound) -> Attempt:
        await asyncio.sleep(0)
        return DONE if item % 2 else Attempt("refused", why="no")

    _, ends = run(range(200), attempt, Limits(concurrency=4))
    assert sum(end.verdict == "refused" for end in ends.values()) == 100


def test_a_budget_stops_new_requests_and_keeps_those_in_flight() -> None:
    admitted = 0

    async def attempt(item: int, most: Bound) -> Attempt:
        nonlocal admitted
        if admitted >= 10:
            raise BudgetReached("enough")
        admitted += 1
        await asyncio.sleep(0.01)
        return DONE

    flow: Flow[int] = Flow(Limits(concurrency=4))
    ends = []

    async def work() -> None:
        async for item, end, _ in flow.stream(_each(range(100)), attempt, lambda item: Bound(1, 1)):
            ends.append((item, end.verdict))

    with pytest.raises(BudgetReached, match="enough"):
        asyncio.run(work())
    assert len(ends) == 10 and all(verdict == "answered" for _, verdict in ends)


@pytest.mark.parametrize("busy", ["source", "backoff", "pace"])
def test_stopping_finishes_what_is_in_flight(busy: str) -> None:
    flow: Flow[int] = Flow(Limits(concurrency=2, backoff=60, requests_per_minute=60 if busy == "pace" else None))
    ends = []

    async def source() -> AsyncIterator[int]:
        yield 0
        if busy == "source":
            await asyncio.sleep(60)
        yield 1
        yield 2

    async def attempt(item: int, most: Bound) -> Attempt:
        if busy == "backoff" and item == 1:
            return Attempt("again", why="HTTP 500")
        await asyncio.sleep(0.05)
        return DONE

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.02, flow.stop)
        async for item, _, _ in flow.stream(source(), attempt, lambda item: Bound(1, 1)):
            ends.append(item)

    started = time.monotonic()
    asyncio.run(work())
    assert time.monotonic() - started < 1.0
    assert 0 in ends and (1 if busy == "backoff" else 2) not in ends


def test_an_unforeseen_error_is_raised_and_loses_no_request_silently() -> None:
    async def attempt(item: int, most: Bound) -> Attempt:
        if item == 5:
            raise KeyError("a bug")
        return DONE

    with pytest.raises(KeyError, match="a bug"):
        run(range(10), attempt, Limits(concurrency=2))


def test_limits_say_all_that_is_wrong() -> None:
    with pytest.raises(ConfigError) as caught:
        Limits(concurrency=0, tries=0, patience=0, requests_per_minute=-1, backoff=5, backoff_most=1)
    assert len(caught.value.problems) == 5
