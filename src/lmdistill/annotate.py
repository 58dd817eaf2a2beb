"""Example -> Annotation: ask the teacher, read its answers, and keep every one of them.

    rows = annotate(task, teacher, task.examples("train"), folder=Path("out/annotate"), sampling=Sampling(n=5))

First the response cache is filled with what it lacks, answer by answer and with no batch barrier; then all rows are
read out of it, in the order of the examples. A run that was killed, interrupted, or stopped by its budget goes on
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
from typing import Any

from lmdistill import response_cache
from lmdistill.asking import Asking, State
from lmdistill.config import settings_of
from lmdistill.errors import BudgetReached, ConfigError, StoreError, TeacherError
from lmdistill.pricing import Budget, Ledger
from lmdistill.progress import progress as show_progress
from lmdistill.prompting import Prompter, Prompting
from lmdistill.response_cache import ResponseCache
from lmdistill.store import Rows, Stage, digest_file, encode, read_manifest, stage, write_rows
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings, run_async
from lmdistill.types import Annotation, Example, Rationale, Sampling, Usage

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
) -> Rows[Annotation]:
    """Every example with `sampling.n` rationales of each teacher, parsed by the task; a whole folder is simply read.

    Args:
        cache: where raw answers are kept; by default the user's cache file (`lmdistill cache`) for teachers that cost
            something, and nowhere for those that do not.
        allow_failed: the share of answers that may be missing for good (refused rows) in a complete run.
        reparse: read a complete folder's answers again, with the parser as it is now; nothing is asked twice.
        progress: False for none.

    Raises:
        TeacherError: the teacher cannot go on, or answers are missing at the end (exit code 3).
        BudgetReached: the next request might pass a cap (exit code 4). KeyboardInterrupt: after what was in flight
            (exit code 130). What was answered is kept in all three; the same call goes on.
        ConfigError: a setting is wrong. StoreError: the folder belongs to another run.
    """
    teachers = (teacher,) if isinstance(teacher, TeacherSettings) else tuple(teacher)
    settings = {
        "task": settings_of(task),
        "teachers": [one.identity() for one in teachers],
        "prompting": settings_of(prompting),
        "sampling": settings_of(sampling),
    }
    inputs = {"examples": digest_examples(examples)}
    if prompting.exemplar_file is not None:
        inputs["exemplars"] = digest_file(prompting.exemplar_file)
    if reparse:
        _reopen(folder)
    with stage(folder, "annotate", settings=settings, inputs=inputs, seed=seed) as opened:
        if opened.done:
            return opened.rows(Annotation)
        ledger = Ledger(budget)
        with open_cache(teachers, cache) as store:
            askings = prepare(task, teachers, examples, prompting, sampling, seed, store, ledger)
            title = f"annotate ({', '.join(asking.teacher.source for asking in askings)})"
            ended = _fill(askings, ledger, title, len(examples) * sampling.n * len(askings), progress)
            _finish(opened, task, askings, ledger, allow_failed, ended)
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
    if not teachers:
        raise ConfigError("annotate needs at least one teacher, got none")
    if sampling.n < 1:
        raise ConfigError(f"sampling.n: {sampling.n} samples; at least 1 was expected")
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


def _reopen(folder: Path) -> None:
    manifest = read_manifest(folder)
    if manifest is None or manifest.stage != "annotate":
        raise StoreError(f"{folder} holds no annotations to parse again; leave 'reparse' out")
    (folder / "manifest.json").unlink()
    (folder / "rows.jsonl").unlink(missing_ok=True)
    (folder / "votes.jsonl").unlink(missing_ok=True)


# --- asking ----------------------------------------------------------------------------------------------------------


def _fill(
    askings: Sequence[Asking], ledger: Ledger, title: str, total: int, progress: bool | None
) -> BaseException | None:
    """Fill the cache; what stopped it before the end, or None."""
    interrupted = threading.Event()
    with show_progress(title, total, "answers") if progress is not False else contextlib.nullcontext() as bar:

        def tell(ended: int) -> None:
            if bar is not None and ended:
                priced = all(asking.teacher.price is not None for asking in askings)
                bar.advance(ended, cost=f"${ledger.cost:.4f}" if priced and ledger.cost else None)

        try:
            errors = run_async(_fill_all(askings, tell, interrupted))
        except KeyboardInterrupt as error:
            return error
    if interrupted.is_set():
        return KeyboardInterrupt()
    budget = [error for error in errors if isinstance(error, BudgetReached)]
    return (budget or errors or [None])[0]


async def _fill_all(
    askings: Sequence[Asking], tell: Callable[[int], None], interrupted: threading.Event
) -> list[BaseException]:
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


# --- reading ---------------------------------------------------------------------------------------------------------


def _finish(
    opened: Stage,
    task: Task,
    askings: Sequence[Asking],
    ledger: Ledger,
    allow_failed: float,
    ended: BaseException | None,
) -> None:
    """Write the rows and the manifest's counts; raise what kept them from being whole."""
    failed = sum(len(asking.failures) for asking in askings)
    total = sum(len(asking.examples) * asking.sampling.n for asking in askings)
    if ended is None and failed > allow_failed * total:
        reasons = collections.Counter(why for asking in askings for why in asking.failures.values())
        shown = "; ".join(f"{count} x {why}" for why, count in reasons.most_common(3))
        ended = TeacherError(f"{failed} of {total} answers are missing: {shown}. The same command asks for them again")
    tally = Tally()
    name = "rows.jsonl" if ended is None else "partial.jsonl"
    votes: list[dict[str, Any]] = []
    rows = (tally.see(read_row(task, askings, index), task) for index in range(len(askings[0].examples)))
    write_rows(opened.path(name), rows)
    if ended is None:
        opened.path("partial.jsonl").unlink(missing_ok=True)
        if askings[0].sampling.n * len(askings) > 1:
            votes = tally.votes
            write_rows(opened.path("votes.jsonl"), votes)
    manifest = opened.manifest
    manifest.counts = {**tally.counts, "found in cache": sum(a.found for a in askings), "failed": failed}
    manifest.counts["truncated"] = sum(asking.truncated for asking in askings)
    manifest.facts = {**tally.facts(askings), **_spent(askings, ledger), "complete": ended is None}
    if isinstance(ended, BudgetReached):
        manifest.status = "budget"
    if isinstance(ended, KeyboardInterrupt):
        manifest.status = "interrupted"
    if ended is not None:
        raise ended


def read_row(task: Task, askings: Sequence[Asking], index: int) -> tuple[Annotation, list[State]]:
    """One example with everything that was said of it, and the states it was read from."""
    example = askings[0].examples[index]
    states: list[State] = []
    kept: list[Rationale] = []
    rejected: list[Rationale] = []
    answers: dict[str, str] = {}  # canonical form -> the form first seen, so that equal answers are equal strings
    for asking in askings:
        for sample in range(asking.sampling.n):
            state = asking.state(example, sample)
            states.append(state)
            failure = asking.failures.get((example.id, sample), "not asked") if state.lacks is not None else None
            rationale = read_state(task, asking, example, sample, state, failure)
            if rationale.answer is not None:
                form = answers.setdefault(task.canonical(rationale.answer), rationale.answer)
                rationale = replace(rationale, answer=form)
            (rejected if rationale.reason else kept).append(rationale)
    return Annotation(example, tuple(kept), tuple(rejected)), states


def read_state(
    task: Task, asking: Asking, example: Example, sample: int, state: State, failure: str | None
) -> Rationale:
    """What was said in one sample as a rationale; its `reason` says why it cannot be used."""
    source = asking.teacher.source
    if not state.said:
        return Rationale("", None, source, sample, reason=failure)
    parsed = task.parse(example, asking.prompter.text(example, state.said))
    reason, answer = failure or parsed.reason, parsed.answer
    last = state.said[-1]
    if state.truncated and failure is None:
        reason = "truncated"
    elif answer is None and last.finish_reason not in ("stop", "length"):
        reason = last.finish_reason
    elif answer is None and asking.prompter.show_answer and parsed.rationale and example.label is not None:
        reason, answer = failure, example.label  # it was told the answer and only explained it
    tokens = [token.logprob for one in state.said for token in one.tokens]
    logprob = sum(tokens) / len(tokens) if tokens else last.logprob
    raw = "\n".join(one.text for one in state.said)
    return Rationale(parsed.rationale, answer, source, sample, logprob, reason=reason, raw=raw)


class Tally:
    """Counts what the rows hold, while they pass."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(("examples", "answers", "parsed", "correct", "labelled"), 0)
        self.votes: list[dict[str, Any]] = []
        self.voted_right = 0
        self.paid: dict[tuple[int, int], tuple[Usage, float]] = {}

    def see(self, row: tuple[Annotation, list[State]], task: Task) -> Annotation:
        annotation, _ = row
        counts, example = self.counts, annotation.example
        counts["examples"] += 1
        every = (*annotation.rationales, *annotation.rejected)
        counts["answers"] += sum(1 for rationale in every if rationale.raw)
        counts["parsed"] += len(annotation.rationales)
        for rationale in annotation.rejected:
            reason = f"rejected: {rationale.reason}"
            counts[reason] = counts.get(reason, 0) + 1
        vote = annotation.vote
        if vote.tied:
            counts["tied"] = counts.get("tied", 0) + 1
        if example.label is not None:
            counts["labelled"] += len(annotation.rationales)
            counts["correct"] += sum(task.is_correct(example, one.answer) for one in annotation.rationales)
        self.votes.append({"id": example.id, "answer": vote.answer, "counts": vote.counts, "tied": vote.tied})
        return annotation

    def facts(self, askings: Sequence[Asking]) -> dict[str, Any]:
        counts = self.counts
        accuracy = counts["correct"] / counts["labelled"] if counts["labelled"] else None
        named = [f"{asking.teacher.source} ({asking.teacher.model} at {asking.teacher.endpoint})" for asking in askings]
        return {"teachers": named, "accuracy": accuracy}


def _spent(askings: Sequence[Asking], ledger: Ledger) -> dict[str, Any]:
    """What this call cost, in requests, tokens and dollars (None where a price is unknown)."""
    unknown = any(asking.teacher.price is None for asking in askings) and ledger.unpriced > 0
    examples = max(len(askings[0].examples), 1)
    retries: collections.Counter[str] = collections.Counter()
    for asking in askings:
        retries.update(asking.teacher.retries)
    return {
        "requests": ledger.requests,
        "retries": dict(retries),
        "prompt_tokens": ledger.usage.prompt_tokens,
        "completion_tokens": ledger.usage.completion_tokens,
        "cached_tokens": ledger.usage.cached_tokens,
        "cost": None if unknown else round(ledger.cost, 6),
        "cost_per_example": None if unknown else round(ledger.cost / examples, 8),
        "cost_uncertain": round(ledger.uncertain, 6),
    }
