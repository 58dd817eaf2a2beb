"""Killed at random moments, interrupted, resumed: what was stored stays, and is not asked again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmdistill.response_cache import ResponseCache
from lmdistill.store import Rows, read_manifest
from lmdistill.types import Annotation

pytestmark = pytest.mark.network
PROGRAM = Path(sys.executable).with_name("lmdistill")


def run_file(folder: Path, url: str, count: int, concurrency: int = 16) -> Path:
    """A run of `lmdistill annotate` on questions in a table."""
    data = folder / "questions.jsonl"
    rows = [{"id": f"q{i}", "text": f"What is the number of thing {i}?", "answer": "0"} for i in range(count)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = {
        "task": {"name": "table", "train": str(data), "input": "text", "label": "answer", "answer": "number",
                 "valid_fraction": 0.0001, "test_fraction": 0.0001},
        "teacher": {"name": "openai", "model": "m", "base_url": url,
                    "limits": {"concurrency": concurrency, "backoff": 0.01}},
        "prompting": {"shots": 0}, "cache": str(folder / "c.sqlite"),
    }  # fmt: skip
    path = folder / "run.json"
    path.write_text(json.dumps(run))
    return path


def start(path: Path, out: Path) -> subprocess.Popen[str]:
    command = [str(PROGRAM), "annotate", "--config", str(path), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(path: Path) -> int:
    if not path.exists():
        return 0
    with ResponseCache(path) as cache:
        return cache.count()


@pytest.mark.parametrize("kills", [pytest.param(5, id="5"), pytest.param(20, id="20", marks=pytest.mark.slow)])
def test_killed_at_random_moments(
    serve: Callable[..., Any], answer_to: Callable[[str], str], tmp_path: Path, kills: int
) -> None:
    """SIGKILL again and again: only what was in flight is asked a second time."""
    in_flight = 16
    server = serve(latency=0.02)
    count = 150 * kills
    path = run_file(tmp_path, server.url, count, in_flight)
    rng = random.Random(kills)
    out, cache = tmp_path / "a", tmp_path / "c.sqlite"
    done = 0
    for _ in range(kills):
        process = start(path, out)
        target = done + rng.randrange(20, 140)
        while stored(cache) < target and process.poll() is None:
            time.sleep(rng.random() * 0.02)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        now = stored(cache)
        assert now >= done  # nothing stored is ever lost
        done = now
        manifest = read_manifest(out)
        if now < count:
            assert manifest is None or manifest.status == "partial"
            assert not (out / "rows.jsonl").exists()
    process = start(path, out)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    rows = Rows(out / "rows.jsonl", Annotation)
    with ResponseCache(cache) as opened:
        assert opened.count() == len(rows)
    assert all(row.rationales[0].answer == answer_to(row.example.input) for row in rows)
    answered = server.stats()["answered"]
    again = sum(answered.values()) - len(answered)
    assert again <= kills * in_flight
    assert len(answered) == len(rows) >= count * 0.98


def test_ctrl_c_keeps_what_is_in_flight(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(latency=0.2)
    path = run_file(tmp_path, server.url, 2000, 8)
    out = tmp_path / "a"
    process = start(path, out)
    while server.stats()["counts"].get("requests", 0) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    counts = server.stats()["counts"]
    assert counts["answered"] == counts["requests"] == stored(tmp_path / "c.sqlite")  # all that was sent is kept
    manifest = read_manifest(out)
    assert manifest is not None and manifest.status == "interrupted" and manifest.facts["complete"] is False
    assert not (out / "rows.jsonl").exists() and (out / "partial.jsonl").exists()


def test_a_second_ctrl_c_does_not_wait(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(latency=0.01, tail=1.0, tail_latency=20.0)
    path = run_file(tmp_path, server.url, 50, 8)
    process = start(path, tmp_path / "a")
    while server.stats()["counts"].get("requests", 0) < 8:
        time.sleep(0.01)
    started = time.monotonic()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    process.communicate(timeout=15)
    assert process.returncode == 130 and time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("options", "faults", "code", "status"),
    [
        ([], {}, 0, "complete"),
        (["--max-requests", "7"], {}, 4, "budget"),
        ([], {"400": 0.3}, 3, "partial"),
        (["--samples", "0"], {}, 2, None),
    ],
)
def test_exit_codes(
    serve: Callable[..., Any],
    tmp_path: Path,
    options: list[str],
    faults: dict[str, float],
    code: int,
    status: str | None,
) -> None:
    server = serve(faults=faults)
    path = run_file(tmp_path, server.url, 40)
    command = [str(PROGRAM), "annotate", "--config", str(path), "--out", str(tmp_path / "a"), *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == code, done.stderr
    assert ("Traceback" in done.stderr) is False
    manifest = read_manifest(tmp_path / "a")
    assert (None if manifest is None else manifest.status) == status
    if code == 4:
        assert server.stats()["counts"]["requests"] == 7 and "max_requests = 7 is reached" in done.stderr


def test_two_processes_on_one_cache(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(latency=0.005)
    path = run_file(tmp_path, server.url, 300)
    processes = [start(path, tmp_path / name) for name in ("a", "b")]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    first, second = (Rows(tmp_path / name / "rows.jsonl", Annotation) for name in ("a", "b"))
    assert [row.rationales for row in first] == [row.rationales for row in second]
    assert stored(tmp_path / "c.sqlite") == len(first)
