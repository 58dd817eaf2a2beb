"""The Batch API: submitted once, resumed after a restart, failures in the next batch, half the price."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lmdistill.annotate import annotate
from lmdistill.errors import BudgetReached, TeacherError
from lmdistill.flow import Limits
from lmdistill.pacing import Batch
from lmdistill.pricing import Budget, Price
from lmdistill.response_cache import ResponseCache
from lmdistill.store import read_manifest
from lmdistill.tasks import Task
from lmdistill.teachers.openai import OpenAI
from lmdistill.types import Example, Sampling

pytestmark = pytest.mark.network


@dataclass(frozen=True)
class Lookup(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return []


def questions(count: int) -> list[Example]:
    return [Example(f"q{i}", f"What is the number of thing {i}?") for i in range(count)]


def teacher(url: str, **options: Any) -> OpenAI:
    settings = {"limits": Limits(backoff=0.01, tries=4), "price": Price(1.0, 2.0, batch=0.5), **options}
    return OpenAI(model="m", base_url=url, batch=Batch(poll=0.02, size=options.pop("size", 50)), **settings)


def run(url: str, folder: Path, count: int = 120, name: str = "a", **options: Any) -> Any:
    sampling = Sampling(n=options.pop("samples", 1), temperature=1.0, max_tokens=options.pop("room", 256))
    budget = options.pop("budget", Budget())
    return annotate(
        Lookup(), teacher(url, **options), questions(count), folder=folder / name, cache=folder / "c.sqlite",
        sampling=sampling, budget=budget,
    )  # fmt: skip


def test_batches_bring_every_answer_at_half_the_price(
    serve: Callable[..., Any], answer_to: Callable[[str], str], tmp_path: Path
) -> None:
    server = serve()
    rows = run(server.url, tmp_path, samples=2)
    assert all([one.answer for one in row.rationales] == [answer_to(row.example.input)] * 2 for row in rows)
    counts = server.stats()["counts"]
    assert counts["batches"] == 3 and counts["batched"] == 120 and "requests" not in counts
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None
    facts = manifest.facts
    full = (facts["prompt_tokens"] + 2 * facts["completion_tokens"]) / 1e6
    assert facts["cost"] == pytest.approx(full / 2, abs=1e-6) == facts["cost_of_all_answers"]
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert all(entry["batch"] for entry in cache.entries()) and cache.open_batches(server.url) == []


def test_live_and_batched_answers_are_the_same_to_a_run(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve()
    first = list(run(server.url, tmp_path, 20))
    live = OpenAI(model="m", base_url=server.url)
    again = annotate(
        Lookup(), live, questions(20), folder=tmp_path / "a", cache=tmp_path / "c.sqlite",
        sampling=Sampling(temperature=1.0, max_tokens=256),
    )  # fmt: skip
    assert list(again) == first and "requests" not in server.stats()["counts"]


def test_failures_in_a_batch_go_into_the_next(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(faults={"500": 0.3})
    rows = run(server.url, tmp_path, 60, limits=Limits(backoff=0.01, tries=20))
    assert all(row.rationales for row in rows)
    stats = server.stats()
    assert max(stats["answered"].values()) == 1 and stats["counts"]["batches"] > 2
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None and any("HTTP 500" in why for why in manifest.facts["retries"])


def test_refused_rows_of_a_batch_are_named(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(faults={"400": 0.1})
    with pytest.raises(TeacherError, match="HTTP 400: this prompt is not allowed"):
        run(server.url, tmp_path, 60)
    stats = server.stats()
    assert stats["counts"]["batched"] == 60 and stats["counts"]["answered_in_batches"] > 40


def test_a_restart_goes_on_with_the_batches_that_are_open(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(batch_stuck=True)

    def free() -> None:
        while server.stats()["counts"].get("batches", 0) < 3:
            time.sleep(0.01)
        server.set(batch_fault="call")  # the first process dies of this

    helper = threading.Thread(target=free)
    helper.start()
    with pytest.raises(TeacherError, match="run again to go on with them"):
        run(server.url, tmp_path)
    helper.join()
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert len(cache.open_batches(server.url)) == 3 and cache.count() == 0
    server.set(batch_stuck=False, batch_fault=None)
    rows = run(server.url, tmp_path)
    assert all(row.rationales for row in rows)
    counts = server.stats()["counts"]
    assert counts["batches"] == 3 and counts["batched"] == 120  # nothing was submitted a second time


@pytest.mark.parametrize("made", [True, False])
def test_a_batch_that_was_just_being_made_is_found_again(serve: Callable[..., Any], tmp_path: Path, made: bool) -> None:
    """Killed between asking for a batch and writing down its number."""
    server = serve()
    server.set(batch_fault="after create" if made else "before create")
    with pytest.raises(TeacherError):
        run(server.url, tmp_path, 30)
    server.set(batch_fault=None)
    rows = run(server.url, tmp_path, 30)
    assert all(row.rationales for row in rows)
    assert server.stats()["counts"]["batched"] == 30


def test_an_expired_batch_is_asked_again(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(batch_expires=1)
    rows = run(server.url, tmp_path, 30)
    assert all(row.rationales for row in rows)
    stats = server.stats()
    assert stats["counts"]["batches"] == 2 and max(stats["answered"].values()) == 1


def test_a_batch_that_is_not_accepted_says_why(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(batch_refused="the model is not available for batches")
    with pytest.raises(TeacherError, match="did not accept a batch of 30 requests: the model is not available"):
        run(server.url, tmp_path, 30)


def test_the_budget_bounds_what_goes_into_batches(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve()
    with pytest.raises(BudgetReached, match="max_requests = 70 is reached"):
        run(server.url, tmp_path, budget=Budget(max_requests=70))
    assert server.stats()["counts"]["batched"] == 70
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert cache.count() == 70
    # each may cost about (150 bytes * 1 + 64 * 2) / 2 millionths, and costs far less: several rounds fit under the cap
    with pytest.raises(BudgetReached, match="max_cost"):
        run(server.url, tmp_path, 400, "b", budget=Budget(max_cost=0.003), room=64)
    manifest = read_manifest(tmp_path / "b")
    assert manifest is not None and 0.0015 < manifest.facts["cost"] <= 0.003


def test_the_file_that_goes_up_is_as_the_vendors_want_it(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve()
    run(server.url, tmp_path, 3, samples=2)
    import urllib.request

    with urllib.request.urlopen(f"{server.url}/files/file-0/content") as response:
        lines = [json.loads(line) for line in response.read().splitlines()]
    assert [(line["method"], line["url"]) for line in lines] == [("POST", "/v1/chat/completions")] * 3
    assert len({line["custom_id"] for line in lines}) == 3 and all(len(line["custom_id"]) <= 64 for line in lines)
    assert all(line["body"]["n"] == 2 and line["body"]["model"] == "m" for line in lines)
