"""Progress of long work, on stderr: how far, how fast, how long still, and what the work wants to say (loss, cost).

    with progress("train", total=500, unit="steps") as bar:
        for batch in batches:
            bar.advance(loss=loss)

On a terminal it is a bar that appears after two seconds; elsewhere a plain line every half minute at most, and nothing
at all on the other processes of a distributed run. Bars may be nested and may run in several threads.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import TaskID

T = TypeVar("T")

SILENCE = 2.0
"""Seconds of work before a terminal shows anything."""
PLAIN_EVERY = float(os.environ.get("LMDISTILL_PROGRESS_EVERY", "30"))
"""Seconds between plain lines where stderr is not a terminal."""


class Bar:
    """One piece of work under way; see `progress`."""

    def __init__(self, title: str, total: int | None, unit: str, done: int) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self.done_before = done
        self.live: dict[str, Any] = {}
        self.started = time.monotonic()

    def advance(self, by: int = 1, **live: Any) -> None:
        """Count work done; `live` values are shown from then on (`loss=0.31`, `cost="$0.12"`; None takes one away)."""
        with _board.lock:
            self.done += by
            self._say(live)

    def say(self, *, total: int | None = None, **live: Any) -> None:
        """Show values without counting work; `total` may become known late."""
        with _board.lock:
            self.total = self.total if total is None else total
            self._say(live)

    def _say(self, live: dict[str, Any]) -> None:
        self.live.update(live)
        self.live = {name: value for name, value in self.live.items() if value is not None}
        _board.refresh(self)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Units a second since the start; what was done before does not count."""
        return (self.done - self.done_before) / max(self.seconds, 1e-9)

    def line(self) -> str:
        """The state in one line of plain text."""
        parts = [f"{self.done:,}/{self.total:,} {self.unit}" if self.total else f"{self.done:,} {self.unit}"]
        if self.total:
            parts[0] += f" ({100 * self.done // self.total} %)"
        parts.append(_rate(self.rate, self.unit))
        if self.total and self.rate > 0 and self.done < self.total:
            parts.append(f"{_clock((self.total - self.done) / self.rate)} left")
        parts += [f"{name} {_shown(value)}" for name, value in self.live.items()]
        return f"{self.title}: " + ", ".join(part for part in parts if part)

    def summary(self) -> str:
        """What remains to be read of finished work."""
        parts = [f"{self.done:,} {self.unit} in {_clock(self.seconds)}", _rate(self.rate, self.unit)]
        parts += [f"{name} {_shown(value)}" for name, value in self.live.items()]
        return f"{self.title}: " + ", ".join(part for part in parts if part)


class _Board:
    """All bars under way, and the one display they share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.bars: dict[Bar, TaskID | None] = {}
        self.timers: dict[Bar, threading.Timer] = {}
        self.said: dict[Bar, float] = {}
        self.display: Display | None = None

    def add(self, bar: Bar) -> None:
        with self.lock:
            if not first_process():
                return
            self.bars[bar] = None
            if _is_terminal():
                timer = self.timers[bar] = threading.Timer(SILENCE, self.show, [bar])
                timer.daemon = True
                timer.start()
            else:
                self.said[bar] = bar.started

    def show(self, bar: Bar) -> None:
        """Give a bar its line on the terminal; called by its timer."""
        with self.lock:
            if bar not in self.bars:
                return
            if self.display is None:
                self.display = _display()
                self.display.start()
            task = self.display.add_task(bar.title, total=bar.total, completed=bar.done_before, unit=bar.unit, live="")
            self.bars[bar] = task
            self.refresh(bar)

    def refresh(self, bar: Bar) -> None:
        task = self.bars.get(bar)
        if self.display is not None and task is not None:
            live = "  ".join(f"{name} {_shown(value)}" for name, value in bar.live.items())
            self.display.update(task, completed=bar.done, total=bar.total, live=live)
        elif bar in self.said and time.monotonic() - self.said[bar] >= PLAIN_EVERY:
            self.said[bar] = time.monotonic()
            note(bar.line())

    def remove(self, bar: Bar) -> None:
        with self.lock:
            timer = self.timers.pop(bar, None)
            if timer is not None:
                timer.cancel()
            self.said.pop(bar, None)
            task = self.bars.pop(bar, None)
            if self.display is None or task is None:
                return
            self.display.remove_task(task)
            if any(other is not None for other in self.bars.values()):  # nested: the outer bar goes on
                return
            self.display.stop()
            self.display = None
            note(bar.summary())


_board = _Board()


@contextlib.contextmanager
def progress(title: str, total: int | None = None, unit: str = "rows", done: int = 0) -> Iterator[Bar]:
    """Show work while it lasts.

    Args:
        total: how much there is; None where nobody knows. done: how much an earlier run did (a resumed stage).
    """
    bar = Bar(title, total, unit, done)
    _board.add(bar)
    try:
        yield bar
    finally:
        _board.remove(bar)


def track(items: Iterable[T], title: str, total: int | None = None, unit: str = "rows") -> Iterator[T]:
    """The items, with their progress shown.

    >>> list(track("abc", "letters"))
    ['a', 'b', 'c']
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(title, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()


# --- how it looks ----------------------------------------------------------------------------------------------------


def _display() -> Display:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_rate(task.finished_speed or task.speed or 0.0, str(task.fields["unit"])))

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), Rate(), TimeLeft())
    live = TextColumn("{task.fields[live]}", markup=False)
    to_terminal = sys.stdout.isatty()  # a redirected stdout must stay as it is
    return Progress(*columns, live, console=Console(file=_stderr()), redirect_stdout=to_terminal, transient=True)


def _stderr() -> Any:
    """Where progress goes; None where there is nowhere."""
    return None if sys.stderr is None or sys.stderr.closed else sys.stderr


def _is_terminal() -> bool:
    stream = _stderr()
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def first_process() -> bool:
    """Whether this process is the one of several that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def note(line: str) -> None:
    """A line for whoever watches; it goes where progress goes."""
    stream = _stderr()
    if stream is not None:
        with contextlib.suppress(OSError):  # a broken pipe stops no work
            print(line, file=stream, flush=True)


def _rate(rate: float, unit: str) -> str:
    if rate <= 0:
        return ""
    return f"{_shown(rate)} {unit}/s" if rate >= 0.1 else f"{_shown(1 / rate)} s/{unit.removesuffix('s')}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _clock(seconds: float) -> str:
    """
    >>> _clock(75), _clock(3 * 3600 + 62)
    ('1:15', '3:01:02')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
