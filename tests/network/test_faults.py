"""A real server that fails in every way: each answer is stored once, and only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lmdistill.annotate import annotate
from lmdistill.errors import TeacherError
from lmdistill.flow import Limits
from lmdistill.response_cache import ResponseCache
from lmdistill.store import read_manifest
from lmdistill.tasks import Task
from lmdistill.teachers.openai import OpenAI
from lmdistill.types import Example, Sampling

pytestmark = pytest.mark.network


@dataclass(frozen=True)
class Lookup(Task):
    """Questions whose one right answer the server derives from their text."""

    def examples(self, split: str) -> Sequence[Example]:
        return []


def questions(count: int) -> list[Example]:
    return [Example(f"q{i}", f"What is the number of thing {i}?") for i in range(count)]


def asked(server: Any, folder: Path, count: int, *, samples: int = 1, timeout: float = 30.0, **options: Any) -> Any:
    limits = Limits(backoff=0.01, backoff_most=0.5, **options)
    teacher = OpenAI(model="m", base_url=server.url, timeout=timeout, limits=limits)
    sampling = Sampling(n=samples, temperature=1.0)
    return annotate(
        Lookup(), teacher, questions(count), folder=folder / "a", cache=folder / "c.sqlite", sampling=sampling,
        progress=False,
    )  # fmt: skip


@pytest.fixture
def check(answer_to: Callable[[str], str]) -> Callable[..., None]:
    """Exactly one stored answer for each (example, sample), each the right one, and none paid for twice."""

    def check(rows: Any, server: Any, cache: Path, count: int, samples: int) -> None:
        assert len(rows) == count
        for row in rows:
            assert [one.sample for one in row.rationales] == list(range(samples))
            assert {one.answer for one in row.rationales} == {answer_to(row.example.input)}
        with ResponseCache(cache) as opened:
            assert opened.count() == count * samples
            stored = [(entry["key"], sample) for entry in opened.entries() for sample in entry["samples"]]
        assert len(set(stored)) == len(stored) == count * samples
        assert max(server.stats()["answered"].values()) == 1

    return check


KINDS = ("429", "500", "hang", "garbage", "half", "reset")
SIZES = [pytest.param(60, id="360"), pytest.param(1700, id="10200", marks=pytest.mark.slow)]


@pytest.mark.parametrize("each", SIZES)
def test_each_fault_at_a_fifth_in_turn(
    serve: Callable[..., Any], check: Callable[..., None], tmp_path: Path, each: int
) -> None:
    for kind in KINDS:
        server = serve(faults={kind: 0.2}, latency=0.002)
        (tmp_path / kind).mkdir()
        rows = asked(server, tmp_path / kind, each, timeout=3.0 if kind == "hang" else 30.0)
        check(rows, server, tmp_path / kind / "c.sqlite", each, 1)
        assert server.stats()["counts"][kind] > each * 0.1
        server.stop()


@pytest.mark.parametrize("each", [pytest.param(300, id="1500"), pytest.param(2000, id="10000", marks=pytest.mark.slow)])
def test_all_faults_at_a_fifth_each(
    serve: Callable[..., Any], check: Callable[..., None], tmp_path: Path, each: int
) -> None:
    """Every first attempt fails, in one of five ways; several samples a question."""
    faults = dict.fromkeys(("429", "500", "hang", "garbage", "half"), 0.2)
    server = serve(faults=faults, first_only=True, latency=0.002)
    rows = asked(server, tmp_path, each, samples=5, timeout=3.0)
    check(rows, server, tmp_path / "c.sqlite", each, 5)
    counts = server.stats()["counts"]
    assert all(counts[kind] > each * 0.1 for kind in faults) and counts["answered"] == each


def test_a_server_with_little_room_is_not_overrun(
    serve: Callable[..., Any], check: Callable[..., None], tmp_path: Path
) -> None:
    server = serve(capacity=8, latency=0.01)
    rows = asked(server, tmp_path, 600, tries=100)
    check(rows, server, tmp_path / "c.sqlite", 600, 1)
    counts = server.stats()["counts"]
    assert counts["429"] < 0.4 * counts["requests"]


def test_retry_after_is_obeyed_over_the_wire(
    serve: Callable[..., Any], check: Callable[..., None], tmp_path: Path
) -> None:
    server = serve(faults={"429": 0.1}, retry_after="0.05")
    rows = asked(server, tmp_path, 100, concurrency=4)
    check(rows, server, tmp_path / "c.sqlite", 100, 1)


def test_a_server_that_ignores_n(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(ignores_n=True)
    rows = asked(server, tmp_path, 40, samples=3)
    assert all(len(row.rationales) == 3 for row in rows)
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert cache.count() == 120


def test_a_few_rows_refused_for_good_cost_one_try_each(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(faults={"400": 0.02})
    with pytest.raises(
        TeacherError, match=r"\d+ of 500 answers are missing: \d+ x HTTP 400: this prompt is not allowed"
    ):
        asked(server, tmp_path, 500)
    counts = server.stats()["counts"]
    assert counts["requests"] == 500 and counts["answered"] == 500 - counts["400"] and counts["400"] > 2
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None and manifest.status == "partial" and manifest.counts["failed"] == counts["400"]
    assert manifest.counts["parsed"] == 500 - counts["400"]


def test_truncated_answers_are_asked_once_more(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(faults={"length": 0.1})
    rows = asked(server, tmp_path, 200)
    counts = server.stats()["counts"]
    assert sum(bool(row.rationales) for row in rows) == 200 and 200 < counts["requests"] < 240


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    class Nowhere:
        url = "http://127.0.0.1:9/v1"

    with pytest.raises(TeacherError, match=r"no answer for .* cannot connect"):
        asked(Nowhere(), tmp_path, 10, patience=0.3, tries=1000)


def test_a_slow_tail_holds_nobody_up(serve: Callable[..., Any], tmp_path: Path) -> None:
    import time

    server = serve(latency=0.01, tail=0.02, tail_latency=1.0)
    started = time.monotonic()
    asked(server, tmp_path, 300, concurrency=16)
    # in batches of 16, six of about 19 batches would each last a second
    assert time.monotonic() - started < 3.5
