"""Several recorded recipe calls at once, each a process of its own with its own threads.

    for ended in run_many([Call("dss", "dss", settings, out / "dss"), ...], workers=2):
        print(ended.call.name, ended.report or ended.error)

A call that fails does not stop the others; its error is kept. A call whose report is there already is not made again
(the recipe itself finds its finished stages). Ctrl-C ends the processes; what they wrote stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from lmdistill.codec import decode
from lmdistill.progress import Bar, progress
from lmdistill.store import write_text
from lmdistill.types import Report

LINE = re.compile(r"^(?P<title>[\w ]+): (?P<done>[\d,]+)(?:/(?P<total>[\d,]+))? (?P<unit>\w+)")


@dataclass(frozen=True)
class Call:
    """A recipe with its settings, and the folder it fills."""

    name: str
    recipe: str
    settings: Mapping[str, Any]
    out: Path


@dataclass(frozen=True)
class Ended:
    """A call that ended: its report, or the last lines of what it said."""

    call: Call
    report: Report | None
    error: str = ""


def run_many(calls: Sequence[Call], *, workers: int = 2, threads: int = 1) -> Iterator[Ended]:
    """Run the calls, `workers` at a time with `threads` threads each; yield each as it ends."""
    ended: queue.Queue[Ended] = queue.Queue()
    waiting = list(reversed(calls))
    running: dict[str, subprocess.Popen[str]] = {}
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                call = waiting.pop()
            ended.put(_run(call, threads, running))

    crew = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(calls)))]
    for thread in crew:
        thread.start()
    try:
        for _ in calls:
            yield ended.get()
    finally:
        waiting.clear()
        for process in list(running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()


def _run(call: Call, threads: int, running: dict[str, subprocess.Popen[str]]) -> Ended:
    run_file = call.out / "run.yaml"
    write_text(run_file, yaml.safe_dump({"recipe": call.recipe, **call.settings}, sort_keys=False, allow_unicode=True))
    command = [sys.executable, "-m", "lmdistill", "run", call.recipe, "--config", str(run_file), "--out", str(call.out)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "LMDISTILL_PROGRESS_EVERY": "0.5"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        running[call.name] = process
        assert process.stderr is not None
        said = _follow(call.name, process.stderr)
        process.wait()
    running.pop(call.name, None)
    report = call.out / "report.json"
    if process.returncode == 0 and report.exists():
        return Ended(call, decode(Report, json.loads(report.read_text(encoding="utf-8"))))
    return Ended(call, None, "\n".join(said[-12:]) or f"ended with exit code {process.returncode}")


def _follow(name: str, stream: IO[str]) -> list[str]:
    """Show the progress lines of a process as bars, one for each kind of work at a time; keep the other lines."""
    said: list[str] = []
    bars: dict[str, tuple[Bar, contextlib.ExitStack]] = {}
    with contextlib.ExitStack() as every:
        for line in stream:
            match = LINE.match(line)
            if match is None:
                said.append(line.rstrip())
                continue
            title, done = match["title"], int(match["done"].replace(",", ""))
            total = int(match["total"].replace(",", "")) if match["total"] else None
            if title in bars and done < bars[title][0].done:  # the same kind of work, begun again
                bars.pop(title)[1].close()
            if title not in bars:
                own = every.enter_context(contextlib.ExitStack())
                bars[title] = (own.enter_context(progress(f"{name}: {title}", total, match["unit"])), own)
            _catch_up(bars[title][0], done, line)
            if total is not None and done >= total:
                bars.pop(title)[1].close()
    return said


def _catch_up(bar: Bar, done: int, line: str) -> None:
    loss = re.search(r"\bloss (\S+?),?(?:\s|$)", line)
    live = {"loss": loss[1]} if loss else {}
    bar.advance(done - bar.done, **live)
