"""Several recorded recipe calls at once, each a process of its own with its own threads.

    for ended in run_many([Call("dss", "dss", settings, out / "dss"), ...], workers=2):
        print(ended.call.name, ended.report or ended.error)

A call that fails does not stop the others; its error is kept. A call that ended well leaves `ended.json` and is not
made again; one that was cut short goes on from its finished stages. Ctrl-C ends the processes; what they wrote stays.
Where the program itself was killed, its processes go on: a new one waits for them, folder by folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import yaml

from lmdistill import __version__
from lmdistill.codec import decode, digest
from lmdistill.contents import by_content
from lmdistill.errors import LmdistillError
from lmdistill.progress import Bar, progress
from lmdistill.store import write_json, write_text
from lmdistill.types import Report

LINE = re.compile(r"^(?P<title>[\w ]+): (?P<done>[\d,]+)(?:/(?P<total>[\d,]+))? (?P<unit>\w+)")
KEPT = 12
"""How many of the last lines of a failed call are kept."""
PLACES = ("cache", "shared")
"""Settings that say where a run keeps what it shares, and nothing of what it does."""


@dataclass(frozen=True)
class Call:
    """A recipe with its settings, and the folder it fills."""

    name: str
    recipe: str
    settings: Mapping[str, Any]
    out: Path

    @property
    def key(self) -> str:
        """Equal keys: the same call on the same files, wherever they lie."""
        settings = {name: value for name, value in self.settings.items() if name not in PLACES}
        return digest([self.recipe, by_content(settings)])


@dataclass(frozen=True)
class Ended:
    """A call that ended: its report, or the last lines of what it said. `repeated` is False where it was done before;
    `seconds` is what its processes took from start to end, `version` that of the lmdistill which made it."""

    call: Call
    report: Report | None
    error: str = ""
    repeated: bool = True
    seconds: float = 0.0
    version: str = ""


def finished(call: Call) -> Ended | None:
    """The end of a call that was made before with these settings, went well and is still whole, or None."""
    try:
        mark = json.loads((call.out / "ended.json").read_text(encoding="utf-8"))
        if mark["key"] != call.key:
            return None
        report = decode(Report, json.loads((call.out / "report.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    tested = (call.out / f"seed-{seed}" / "test" / "rows.jsonl" for seed in report.facts.get("by_seed", {}))
    if not all(path.exists() for path in tested):  # somebody removed what was damaged
        return None
    version = str(mark.get("version", ""))
    return Ended(call, report, repeated=False, seconds=float(mark.get("seconds", 0.0)), version=version)


def run_many(
    calls: Sequence[Call], *, workers: int = 2, threads: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[Ended]:
    """Run the calls, `workers` at a time with `threads` threads each; yield each as it ends.

    Calls that are finished come first, and no process is started for them. `environment` is what the processes are told
    beside what this one knows.
    """
    before = {id(call): found for call in calls if (found := finished(call)) is not None}
    yield from before.values()
    rest = [call for call in calls if id(call) not in before]
    told = {**(environment or {}), "OMP_NUM_THREADS": str(threads), "LMDISTILL_PROGRESS_EVERY": "0.5"}
    ended: queue.Queue[Ended] = queue.Queue()
    waiting = list(reversed(rest))
    running: dict[Path, subprocess.Popen[str]] = {}
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                call = waiting.pop()
            try:
                ended.put(_run(call, told, running))
            except (LmdistillError, OSError) as error:  # a folder that cannot be written, no process to be had
                ended.put(Ended(call, None, str(error)))
            except Exception as error:  # whatever it is: somebody waits for the end of every call
                ended.put(Ended(call, None, f"{type(error).__name__}: {error}"))

    crew = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(rest)))]
    for thread in crew:
        thread.start()
    try:
        for _ in rest:
            yield ended.get()
    finally:
        waiting.clear()
        for process in list(running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()


def _run(call: Call, told: Mapping[str, str], running: dict[Path, subprocess.Popen[str]]) -> Ended:
    with _held(call) as hold:
        before = finished(call)  # by the process of a program that was killed, while this one waited
        if before is not None:
            return before
        key, started = call.key, time.monotonic()  # of the files as they are before anything is read
        code, said = _process(call, told, running, hold)
        seconds = round(time.monotonic() - started, 1)
        if code == 0 and (call.out / "report.json").exists():
            write_json(call.out / "ended.json", {"key": key, "seconds": seconds, "version": __version__})
            found = finished(call)
            if found is not None:
                return replace(found, repeated=True)
            return Ended(call, None, "a file that it reads was changed meanwhile; run it again", seconds=seconds)
        return Ended(call, None, "\n".join(said[-KEPT:]) or f"ended with exit code {code}", seconds=seconds)


@contextlib.contextmanager
def _held(call: Call) -> Iterator[IO[str]]:
    """The call's folder for oneself: its process inherits the lock, so it holds as long as either lives."""
    call.out.mkdir(parents=True, exist_ok=True)
    with (call.out / ".held").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress(f"{call.name}: waiting for another process to finish it", None, "folders"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _process(
    call: Call, told: Mapping[str, str], running: dict[Path, subprocess.Popen[str]], hold: IO[str]
) -> tuple[int, list[str]]:
    """The exit code of the call's process, and what it said beside its progress."""
    run_file = call.out / "run.yaml"
    write_text(run_file, yaml.safe_dump({"recipe": call.recipe, **call.settings}, sort_keys=False, allow_unicode=True))
    command = [sys.executable, "-m", "lmdistill", "run", call.recipe, "--config", str(run_file), "--out", str(call.out)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | told,
        pass_fds=(hold.fileno(),),
    ) as process:
        running[call.out] = process
        assert process.stderr is not None
        said = _follow(call.name, process.stderr)
        process.wait()
    running.pop(call.out, None)
    return process.returncode, said


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
