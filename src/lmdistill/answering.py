"""From what is stored of an example to its annotation, and the rows and counts of a run.

Rows are read as soon as all samples of an example came to an end, while others are still asked; a spool keeps them, in
whatever order, until they can be written in the order of the examples.
"""

from __future__ import annotations

import array
import collections
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmdistill.asking import Asking, State
from lmdistill.codec import to_line
from lmdistill.errors import StoreError
from lmdistill.pricing import Ledger
from lmdistill.store import writing
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example, Rationale, Usage

NOT_ASKED = "not asked"


def read_state(
    task: Task, asking: Asking, example: Example, sample: int, state: State, failure: str | None = None
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


class Answers:
    """The rows of a run as they come to an end."""

    def __init__(self, task: Task, askings: Sequence[Asking], folder: Path, known: int = 0) -> None:
        self.task = task
        self.askings = askings
        self.known = known
        self.examples = askings[0].examples
        self.each = sum(asking.sampling.n for asking in askings)
        self.counts: dict[str, int] = dict.fromkeys(("examples", "answers", "parsed", "correct", "labelled"), 0)
        self.worth = 0.0
        self._prompts = self._texts = 0.0  # what `worth` is made of: what was read, and what was written
        self._responses = self._samples = self._steps = 0
        self._open = array.array("I", [self.each]) * len(self.examples)
        self._rows = Spool(folder / ".rows.spool", len(self.examples))
        self._votes = Spool(folder / ".votes.spool", len(self.examples))

    def ended(self, index: int) -> None:
        """A sample of an example came to its end; the last one makes the row."""
        self._open[index] -= 1
        if not self._open[index]:
            self._read(index)

    def _read(self, index: int) -> None:
        example = self.askings[0].example(index)
        kept: list[Rationale] = []
        rejected: list[Rationale] = []
        forms: dict[str, str] = {}  # canonical form -> the form first seen, so that equal answers are equal strings
        for asking in self.askings:
            for sample in range(asking.sampling.n):
                state = asking.state(index, sample)
                failure = asking.failures.get((index, sample), NOT_ASKED) if state.lacks is not None else None
                rationale = read_state(self.task, asking, example, sample, state, failure)
                if rationale.answer is not None:
                    form = forms.setdefault(self.task.canonical(rationale.answer), rationale.answer)
                    if form != rationale.answer:
                        rationale = replace(rationale, answer=form)
                (rejected if rationale.reason else kept).append(rationale)
                self._count(asking, state, sample)
            asking.forget(index)
        annotation = Annotation(example, tuple(kept), tuple(rejected))
        self._rows.add(index, to_line(annotation))
        if self.each > 1:
            vote = annotation.vote
            self.counts["tied"] = self.counts.get("tied", 0) + bool(vote.tied)
            row = {"id": example.id, "answer": vote.answer, "counts": vote.counts, "tied": vote.tied}
            self._votes.add(index, to_line(row))
        self._tally(annotation)

    def _count(self, asking: Asking, state: State, sample: int) -> None:
        """What the answers behind a sample cost, whenever they were asked (those known before were counted then)."""
        price = asking.teacher.price
        if sample >= self.known:
            self._samples += 1
            self._steps += len(state.paid)
        for stored in state.paid if sample >= self.known else ():
            used = stored.completion.usage
            if price is not None and used is not None:  # it stands on the first answer of a response
                cost = price.of(used, batch=stored.batch)
                written = price.of(Usage(0, used.completion_tokens), batch=stored.batch)
                self.worth += cost
                self._texts += written
                self._prompts += cost - written
                self._responses += 1
        if state.truncated:
            self.counts["truncated"] = self.counts.get("truncated", 0) + 1

    def _tally(self, annotation: Annotation) -> None:
        counts, example = self.counts, annotation.example
        counts["examples"] += 1
        counts["answers"] += sum(bool(one.raw) for one in (*annotation.rationales, *annotation.rejected))
        counts["parsed"] += len(annotation.rationales)
        for rationale in annotation.rejected:
            reason = f"rejected: {rationale.reason}"
            counts[reason] = counts.get(reason, 0) + 1
        if example.label is not None:
            counts["labelled"] += len(annotation.rationales)
            counts["correct"] += sum(self.task.is_correct(example, one.answer) for one in annotation.rationales)

    def write(self, folder: Path, *, whole: bool) -> None:
        """Write all rows in order: `rows.jsonl` and the votes where the run is whole, else `partial.jsonl`."""
        for index, left in enumerate(self._open):
            if left:
                self._read(index)
        if not whole:
            _write_lines(folder / "partial.jsonl", self._rows)
            return
        if self.each > 1:
            _write_lines(folder / "votes.jsonl", self._votes)
        _write_lines(folder / "rows.jsonl", self._rows)
        (folder / "partial.jsonl").unlink(missing_ok=True)

    def close(self) -> None:
        self._rows.close()
        self._votes.close()

    def facts(self, ledger: Ledger, *, whole: bool) -> dict[str, Any]:
        """What is worth knowing of the run: who answered, how well, for how much (None where a price is unknown)."""
        teachers = [asking.teacher for asking in self.askings]
        known = all(teacher.price is not None for teacher in teachers)
        told = known and not any(teacher.recorded for teacher in teachers)  # what somebody else paid nobody knows
        retries: collections.Counter[str] = collections.Counter()
        for teacher in teachers:
            retries.update(teacher.retries)
        labelled, examples = self.counts["labelled"], max(len(self.examples), 1)
        return {
            "complete": whole,
            "teachers": [f"{teacher.source}: {teacher.model} at {teacher.endpoint}" for teacher in teachers],
            "accuracy": self.counts["correct"] / labelled if labelled else None,
            "requests": ledger.requests,
            "retries": dict(retries),
            **vars_of(ledger.usage),
            "cost": round(ledger.cost, 6) if known else None,
            "cost_uncertain": round(ledger.uncertain, 6),
            "answers": self.counts["answers"],
            "cost_of_all_answers": round(self.worth, 6) if told else None,
            "cost_per_example": round(self.worth / examples, 8) if told else None,
            "cost_per_answer": round(self._one_answer(), 8) if told else None,
        }

    def _one_answer(self) -> float:
        """What one sample of each teacher would cost by itself: several samples of one request share its prompt."""
        if not self._responses:
            return 0.0
        prompts = self._prompts / self._responses * self._steps / self._samples
        return (prompts + self._texts / self._samples) * len(self.askings)


def vars_of(usage: Usage) -> dict[str, int]:
    """Token counts by name."""
    return {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}


class Spool:
    """Lines that are added in any order and read back in theirs; memory holds one offset a line."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._offsets = array.array("q", [-1]) * size
        self._end = 0
        try:
            self._file = path.open("w+b")
        except OSError as error:
            raise StoreError(f"cannot write {path} ({error.strerror})") from error

    def add(self, index: int, line: str) -> None:
        raw = line.encode() + b"\n"
        self._offsets[index] = self._end
        self._end += len(raw)
        try:
            self._file.write(raw)
        except OSError as error:
            raise StoreError(f"cannot write {self._path} ({error.strerror}); answers are kept") from error

    def __iter__(self) -> Iterator[bytes]:
        self._file.flush()
        for offset in self._offsets:
            if offset >= 0:
                self._file.seek(offset)
                yield self._file.readline()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
            self._path.unlink(missing_ok=True)


def _write_lines(path: Path, lines: Iterable[bytes]) -> None:
    with writing(path) as temporary, temporary.open("wb") as file:
        file.writelines(lines)
