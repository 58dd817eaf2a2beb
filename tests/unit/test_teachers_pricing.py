"""Prices, and a budget that is never passed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.errors import BudgetReached, ConfigError
from lmdistill.pricing import FREE, Bound, Budget, Ledger, Price, bound, price_of, prices
from lmdistill.types import Usage

PRICE = Price(input=10.0, output=20.0, cached_input=1.0, batch=0.5)


def test_cached_input_and_batches_are_cheaper() -> None:
    # 600 fresh at 10, 400 cached at 1, 100 written at 20 dollars a million
    usage = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=400)
    assert PRICE.of(usage) == pytest.approx((6000 + 400 + 2000) / 1e6)
    assert PRICE.of(usage, batch=True) == pytest.approx(PRICE.of(usage) / 2)
    assert FREE.of(usage) == 0.0


def test_a_dated_name_has_the_price_of_its_family() -> None:
    assert price_of("gpt-4o-mini-2024-07-18") == price_of("gpt-4o-mini") == prices()["gpt-4o-mini"]
    assert price_of("openai/gpt-4o-mini") == price_of("gpt-4o-mini")
    assert price_of("gpt-4o-mini-audio") is None


def test_the_users_table_is_laid_over_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("mine: {input: 1, output: 2}\ngpt-4o: {input: 7.0, output: 8.0}\n")
    monkeypatch.setenv("LMDISTILL_PRICES", str(table))
    assert price_of("mine") == Price(1.0, 2.0) and price_of("gpt-4o") == Price(7.0, 8.0)
    assert price_of("gpt-4o-mini") is not None


@pytest.mark.parametrize(
    "text", ["mine: 3", "mine: {input: a, output: 2}", "mine: {in: 1}", "- x", "a: {input: -1, output: 0}"]
)
def test_a_table_that_is_none_says_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(text)
    monkeypatch.setenv("LMDISTILL_PRICES", str(table))
    with pytest.raises(ConfigError, match=r"dollars per million tokens"):
        prices()


def test_a_missing_table_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMDISTILL_PRICES", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"none\.yaml: the price table cannot be read"):
        prices()


def test_bytes_bound_tokens() -> None:
    most = bound({"messages": [{}, {}]}, "äöü", PRICE, samples=3, room=100, batch=False)
    assert most.prompt_tokens == 6 + 8 * 2 + 16 and most.completion_tokens == 300
    assert most.cost == pytest.approx((38 * 10 + 300 * 20) / 1e6)


async def _spend(ledger: Ledger, requests: list[tuple[Bound, Usage | None, bool]], seed: int) -> int:
    """Many requests at once, each using at most what it reserved; how many were admitted."""
    rng = random.Random(seed)
    admitted = 0

    async def one(most: Bound, used: Usage | None, billed: bool) -> None:
        nonlocal admitted
        await ledger.admit(most)
        admitted += 1
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        ledger.settle(most, PRICE, used, batch=False, billed=billed)

    await asyncio.gather(*(one(*request) for request in requests), return_exceptions=True)
    return admitted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 500), st.integers(1, 500), st.floats(0, 1), st.sampled_from("uub-")), max_size=40
    ),
    st.floats(0, 0.2),
    st.integers(0, 40),
    st.integers(0, 5),
)
def test_the_caps_are_never_passed(
    sizes: list[tuple[int, int, float, str]], max_cost: float, max_requests: int, seed: int
) -> None:
    requests = []
    for prompt, room, share, end in sizes:
        most = Bound(prompt, room, PRICE.of(Usage(prompt, room)))
        used = Usage(prompt, int(room * share)) if end == "u" else None
        requests.append((most, used, end == "b"))
    ledger = Ledger(Budget(max_cost, max_requests))
    admitted = asyncio.run(_spend(ledger, requests, seed))
    assert ledger.cost + ledger.uncertain <= max_cost + 1e-9
    assert ledger.requests == admitted <= max_requests
    assert ledger.in_flight == 0 and ledger.reserved == pytest.approx(0.0, abs=1e-12)


def test_a_request_waits_for_room_that_others_may_leave() -> None:
    most = Bound(100, 100, PRICE.of(Usage(100, 100)))  # 0.003 dollars at most, 0.001 when nothing is written
    ledger = Ledger(Budget(max_cost=0.0041))
    # one at a time fits beside what was spent before: 0.001, 0.002; the third would need 0.005
    assert asyncio.run(_spend(ledger, [(most, Usage(100, 0), False)] * 3, 0)) == 2
    assert ledger.cost == pytest.approx(0.002)


def test_what_broke_off_counts_as_spent() -> None:
    most = Bound(100, 100, PRICE.of(Usage(100, 100)))
    ledger = Ledger(Budget(max_cost=0.004))

    async def run() -> None:
        await ledger.admit(most)
        ledger.settle(most, PRICE, None, batch=False, billed=True)
        with pytest.raises(BudgetReached, match=r"up to \$0\.0030 more may be billed"):
            await ledger.admit(most)

    asyncio.run(run())
    assert ledger.uncertain == pytest.approx(0.003) and ledger.cost == 0.0


def test_a_cap_on_cost_needs_a_price() -> None:
    with pytest.raises(BudgetReached, match="set the teacher's 'price'"):
        asyncio.run(Ledger(Budget(max_cost=1.0)).admit(Bound(1, 1)))


def test_the_message_says_what_to_do() -> None:
    ledger = Ledger(Budget(max_requests=0))
    with pytest.raises(BudgetReached, match=r"max_requests = 0 is reached; raise it and run again"):
        asyncio.run(ledger.admit(Bound(1, 1)))
