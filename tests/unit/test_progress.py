from __future__ import annotations

import io
import re
import sys
import threading
import time
from collections.abc import Callable

import pytest

from lmdistill import progress as module
from lmdistill.progress import progress, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(module, "_stderr", lambda: stream)
    return stream


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(module, "_stderr", lambda: stream)
    monkeypatch.setattr(module, "SILENCE", 0.02)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR")
    return stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited five seconds in vain")


def plain(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_nothing_but_a_line_each_half_minute_where_stderr_is_no_terminal(
    stderr: io.StringIO, clock: Callable[[float], None]
) -> None:
    with progress("annotate", total=1000, unit="rows") as bar:
        for _ in range(70):
            clock(1.0)
            bar.advance(10, cost="$0.10")
    assert stderr.getvalue().splitlines() == [
        "annotate: 300/1,000 rows (30 %), 10 rows/s, 1:10 left, cost $0.10",
        "annotate: 600/1,000 rows (60 %), 10 rows/s, 0:40 left, cost $0.10",
    ]


def test_a_resumed_run_does_not_count_old_work_into_its_rate(
    stderr: io.StringIO, clock: Callable[[float], None]
) -> None:
    with progress("train", total=100, unit="steps", done=80) as bar:
        clock(40.0)
        bar.advance(2, loss=0.31234)
    assert stderr.getvalue() == "train: 82/100 steps (82 %), 20 s/step, 6:00 left, loss 0.312\n"


def test_short_work_shows_nothing_on_a_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 5.0)
    assert list(track(range(100), "short")) == list(range(100))
    assert terminal.getvalue() == ""
    assert not module._board.bars
    assert not module._board.timers


def test_a_terminal_shows_a_bar_and_then_one_line(terminal: Terminal) -> None:
    with progress("train", total=4, unit="steps") as bar:
        until(lambda: module._board.display is not None)
        bar.advance(3, loss=0.25)
        until(lambda: "loss 0.25" in plain(terminal))
    assert "train" in plain(terminal)
    assert "3/4" in plain(terminal)
    assert re.fullmatch(r"train: 3 steps in 0:0\d, .*loss 0.25", plain(terminal).splitlines()[-1].strip())
    assert module._board.display is None


def test_an_error_inside_leaves_no_bar_behind(terminal: Terminal) -> None:
    def work() -> None:
        with progress("broken"):
            until(lambda: module._board.display is not None)
            raise KeyError("x")

    with pytest.raises(KeyError):
        work()
    assert module._board.display is None
    assert not module._board.bars


def test_bars_nest_and_run_in_threads(terminal: Terminal) -> None:
    def work(number: int) -> None:
        with progress(f"inner {number}", total=50) as inner:
            for _ in range(50):
                inner.advance()
                time.sleep(0.002)

    with progress("outer", total=4) as outer:
        until(lambda: module._board.display is not None)
        threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
            outer.advance()
        assert module._board.display is not None
    assert outer.done == 4
    assert module._board.display is None
    assert [line for line in plain(terminal).splitlines() if " in 0:" in line] == [
        line for line in plain(terminal).splitlines() if line.strip().startswith("outer: 4 rows in")
    ]


def test_other_processes_of_a_distributed_run_are_silent(
    stderr: io.StringIO, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with progress("train", total=2) as bar:
        clock(100.0)
        bar.advance()
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("closed", [True, False])
def test_a_lost_stderr_stops_no_work(
    closed: bool, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    with progress("train", total=2) as bar:
        clock(100.0)
        bar.advance()
    assert bar.done == 1


def test_totals_and_fields_may_come_and_go(stderr: io.StringIO, clock: Callable[[float], None]) -> None:
    with progress("read") as bar:
        clock(10.0)
        bar.advance(5, eta="?")
        assert bar.line() == "read: 5 rows, 0.5 rows/s, eta ?"
        bar.say(total=10, eta=None)
        assert bar.line() == "read: 5/10 rows (50 %), 0.5 rows/s, 0:10 left"
