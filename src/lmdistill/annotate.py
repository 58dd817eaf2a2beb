"""Example -> Annotation: ask the teacher, read its answers, and keep every one of them.

    rows = annotate(task, teacher, task.examples("train"), folder=Path("out/annotate"), sampling=Sampling(n=5))

The response cache is filled with what it lacks, answer by answer and with no batch barrier, and rows are read out of
it. A run that was killed, interrupted, or stopped by its budget goes on
where it was, and only a whole one leaves `rows.jsonl` and the status 'complete'.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lmdistill import response_cache
from lmdistill.answering import Answers
from lmdistill.asking import Asking, Tell
from lmdistill.config import settings_of
from lmdistill.errors import BudgetReached, ConfigError, StoreError, TeacherError
from lmdistill.pricing import Budget, Ledger
from lmdistill.progress import progress as show_progress
from lmdistill.prompting import Prompter, Prompting, read_exemplars
from lmdistill.purse import from_purse
from lmdistill.response_cache import ResponseCache
from lmdistill.shared import alone
from lmdistill.store import Rows, Stage, digest_file, encode, read_manifest, stage
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings, run_async
from lmdistill.types import Annotation, Example, Sampling

PROMPTING = Prompting()
ROOM = Sampling(max_tokens=256)
NO_CAP = Budget()


def annotate(
    task: Task,
    teacher: TeacherSettings | Sequence[TeacherSettings],
    examples: Sequence[Example],
    *,
    folder: Path,
    prompting: Prompting = PROMPTING,
    sampling: Sampling = ROOM,
    budget: Budget = NO_CAP,
    seed: int = 0,
    cache: Path | None = None,
    allow_failed: float = 0.0,
    reparse: bool = False,
    progress: bool | None = None,
    ledger: Ledger | None = None,
    known: int = 0,
) -> Rows[Annotation]:
    """Every example with `sampling.n` rationales of each teacher, parsed by the task; a whole folder is simply read.

    Args:
        cache: where raw answers are kept; by default the user's cache file (`lmdistill cache`) for teachers that cost
            something, and nowhere for those that do not.
        allow_failed: the share of answers that may be missing for good (refused rows) in a complete run.
        reparse: read a complete folder's answers again, with the parser as it is now; nothing is asked twice.
        progress: False for none.
        ledger: where a run that asks several times keeps its one account; its budget holds then, for all of them.
        known: so many samples of each example were counted by an earlier round of such a run, and cost nothing here.

    Raises:
        TeacherError: the teacher cannot go on, or answers are missing at the end (exit code 3).
        BudgetReached: the next request might pass a cap (exit code 4). KeyboardInterrupt: after what was in flight
            (exit code 130). What was answered is kept in all three; the same call goes on.
        ConfigError: a setting is wrong. StoreError: the folder belongs to another run.
    """
    teachers = (teacher,) if isinstance(teacher, TeacherSettings) else tuple(teacher)
    check(teachers, sampling)
    settings = {
        "task": settings_of(task),
        "teachers": [one.identity() for one in teachers],
        "prompting": settings_of(prompting),
        "sampling": settings_of(sampling),
    }
    inputs = {"examples": digest_examples(examples)}
    for number, one in enumerate(teachers):
        inputs |= {f"teacher {number}, {name}": found for name, found in one.digests().items()}
    if prompting.exemplar_file is not None:
        read_exemplars(prompting.exemplar_file)  # so that what is wrong with it is said first
        inputs["exemplars"] = digest_file(prompting.exemplar_file)
    if reparse and not _annotated(folder):
        raise StoreError(f"{folder} holds no annotations to parse again; leave 'reparse' out")
    held = stage(folder, "annotate", settings=settings, inputs=inputs, seed=seed, again=reparse)
    with alone(folder), held as opened:
        if opened.done:
            return opened.rows(Annotation)
        ledger = Ledger(budget) if ledger is None else ledger
        before = replace(ledger)
        with from_purse(ledger), open_cache(teachers, cache) as store:
            askings = prepare(task, teachers, examples, prompting, sampling, seed, store, ledger)
            with contextlib.closing(Answers(task, askings, folder, known)) as answers:
                ended = _fill(answers, ledger, progress)
                _finish(opened, answers, ledger.since(before), allow_failed, ended)
        return opened.rows(Annotation)


def prepare(
    task: Task,
    teachers: Sequence[TeacherSettings],
    examples: Sequence[Example],
    prompting: Prompting,
    sampling: Sampling,
    seed: int,
    cache: ResponseCache,
    ledger: Ledger,
) -> list[Asking]:
    """The work with each teacher.

    Raises:
        ConfigError: no teacher, two of one name, samples below one, a cap on cost without a price.
    """
    check(teachers, sampling)
    prompter = Prompter(prompting, task, seed)
    opened = [one.open(task, ledger=ledger, cache=cache) for one in teachers]
    names = [one.source for one in opened]
    twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if twice:
        raise ConfigError(f"two teachers are called {twice[0]!r}; give each its own 'source'")
    unpriced = [one.source for one in opened if one.price is None]
    if ledger.budget.max_cost is not None and unpriced:
        message = "max_cost needs the price of every teacher; write price: {input: 0.15, output: 0.60} (dollars per "
        raise ConfigError(f"{message}million tokens) into the settings of {', '.join(map(repr, unpriced))}")
    return [Asking(one, prompter, sampling, cache, examples) for one in opened]


def check(teachers: Sequence[TeacherSettings], sampling: Sampling) -> None:
    """Raises ConfigError: nobody to ask, or nothing."""
    if not teachers:
        raise ConfigError("annotate needs at least one teacher, got none")
    if sampling.n < 1:
        raise ConfigError(f"sampling.n: {sampling.n} samples; at least 1 was expected")


@contextlib.contextmanager
def open_cache(teachers: Sequence[TeacherSettings], path: Path | None) -> Iterator[ResponseCache]:
    """The response cache that these teachers use."""
    if path is None and any(one.keeps for one in teachers):
        path = response_cache.default_path()
    with ResponseCache(path) as cache:
        yield cache


def digest_examples(examples: Sequence[Example]) -> str:
    """The digest of examples in their order, 16 hex digits; memory stays flat."""
    found = hashlib.sha256()
    for example in examples:
        found.update(repr(encode(example)).encode(errors="surrogatepass"))
    return found.hexdigest()[:16]


def _annotated(folder: Path) -> bool:
    manifest = read_manifest(folder)
    return manifest is not None and manifest.stage == "annotate"


# --- asking ----------------------------------------------------------------------------------------------------------


def _fill(answers: Answers, ledger: Ledger, progress: bool | None) -> BaseException | None:
    """Ask for what is missing; what stopped it before the end, or None."""
    askings = answers.askings
    interrupted = threading.Event()
    title = f"annotate ({', '.join(asking.teacher.source for asking in askings)})"
    total = len(answers.examples) * answers.each
    with show_progress(title, total, "answers") if progress is not False else contextlib.nullcontext() as bar:

        def tell(index: int, _: int) -> None:
            answers.ended(index)
            if bar is not None:
                bar.advance(cost=f"${ledger.cost:.4f}" if ledger.cost else None)

        try:
            errors = run_async(_fill_all(askings, tell, interrupted))
        except KeyboardInterrupt as error:
            return error
        except asyncio.CancelledError:  # the second Ctrl-C
            if not interrupted.is_set():
                raise
            errors = []
    if interrupted.is_set():
        return KeyboardInterrupt()
    budget = [error for error in errors if isinstance(error, BudgetReached)]
    return (budget or errors or [None])[0]


async def _fill_all(askings: Sequence[Asking], tell: Tell, interrupted: threading.Event) -> list[BaseException]:
    def stop() -> None:
        for asking in askings:
            asking.teacher.stop()

    async def fill(asking: Asking) -> None:
        try:
            await asking.fill(tell)
        except BudgetReached:  # the budget is everybody's
            stop()
            raise
        finally:
            await asking.teacher.close()

    with _interruptible(stop, interrupted):
        ends = await asyncio.gather(*(fill(asking) for asking in askings), return_exceptions=True)
    errors = [end for end in ends if isinstance(end, BaseException)]
    for error in errors:
        if not isinstance(error, TeacherError):
            raise error
    return errors


@contextlib.contextmanager
def _interruptible(stop: Callable[[], None], interrupted: threading.Event) -> Iterator[None]:
    """While this lasts, the first Ctrl-C finishes what is in flight; the second does not wait for it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal() -> None:
        if interrupted.is_set() and task is not None:
            task.cancel()
        interrupted.set()
        stop()

    try:
        loop.add_signal_handler(signal.SIGINT, on_signal)
    except (NotImplementedError, RuntimeError):  # not on every system
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _finish(opened: Stage, answers: Answers, ledger: Ledger, allow_failed: float, ended: BaseException | None) -> None:
    """Write the rows and what the manifest says of them; raise what kept them from being whole."""
    askings = answers.askings
    failures = [why for asking in askings for why in asking.failures.values()]
    total = len(answers.examples) * answers.each
    if ended is None and len(failures) > allow_failed * total:
        shown = "; ".join(f"{count} x {why}" for why, count in collections.Counter(failures).most_common(3))
        message = f"{len(failures)} of {total} answers are missing: {shown}. The same command asks for them again"
        ended = TeacherError(message)
    answers.write(opened.folder, whole=ended is None)
    manifest = opened.manifest
    manifest.counts = {**answers.counts, "failed": len(failures), "found": sum(asking.found for asking in askings)}
    manifest.facts = answers.facts(ledger, whole=ended is None)
    if isinstance(ended, BudgetReached):
        manifest.status = "budget"
    if ended is not None:
        raise ended
