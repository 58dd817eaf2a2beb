"""One teacher, all samples: what was answered, what must still be asked, and the asking.

Everything is decided from the cache: a sample's state is found by walking through its stored answers (first answer,
more room after a truncation, second stage), and what the walk lacks is the next request. So a killed run, a run with
one changed row and a run with a new parser all ask for exactly what is missing.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from lmdistill.prompting import Prompter
from lmdistill.response_cache import ResponseCache, Stored
from lmdistill.teachers import Reply, Request, Teacher, keep
from lmdistill.types import Completion, Example, Sampling

Tell = Callable[[int, int], None]
"""Hears the index of an example, and which of its samples came to an end."""


@dataclass(frozen=True, slots=True)
class State:
    """How far a sample is: what was said, what must be asked next (None: nothing), and whether the last text was cut
    off. `paid` are the answers behind it, also one that was cut off and asked again."""

    said: tuple[Completion, ...] = ()
    lacks: Request | None = None
    truncated: bool = False
    paid: tuple[Stored, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sample that waits for an answer."""

    index: int
    sample: int


@dataclass
class Asking:
    """The work with one teacher."""

    teacher: Teacher
    prompter: Prompter
    sampling: Sampling
    cache: ResponseCache
    examples: Sequence[Example]
    failures: dict[tuple[int, int], str] = field(default_factory=dict)
    found: int = 0

    def __post_init__(self) -> None:
        self._one = replace(self.prompter.sampling(self.sampling), n=1)
        self._more_room = self.prompter.prompting.more_room
        self._waiting: dict[tuple[str, int], list[Wanted]] = {}
        self._next: collections.deque[Request] = collections.deque()
        self._out = 0
        self._changed = asyncio.Event()
        self._firsts: dict[int, Request] = {}  # first requests of the examples that are being asked
        self._open: dict[int, Example] = {}

    # --- the state of a sample ---

    def state(self, index: int, sample: int) -> State:
        """Walk through what is stored of a sample of an example."""
        example = self.example(index)
        request = self._first(index, example, sample)
        paid: list[Stored] = []
        said: list[Completion] = []
        truncated = False
        for stage in range(self.prompter.stages):
            if stage:
                prompt = self.prompter.follow(example, request.prompt, said[-1].text)
                request = self.teacher.request(prompt, self._one, example)
            found = self.cache.find(request.key, sample)
            if found is not None and found.completion.finish_reason == "length" and self._more_room > 1:
                paid.append(found)
                short, request = found.completion, self._roomier(request)
                found = self.cache.find(request.key, sample)
                if found is None:  # what was said so far is kept, should there be no more
                    return State((*said, short), request, True, tuple(paid))
            if found is None:
                return State(tuple(said), request, truncated, tuple(paid))
            truncated = truncated or found.completion.finish_reason == "length"
            said.append(found.completion)
            paid.append(found)
        return State(tuple(said), None, truncated, tuple(paid))

    def _first(self, index: int, example: Example, sample: int) -> Request:
        if self.prompter.per_sample:
            return self.teacher.request(self.prompter.ask(example, sample), self._one, example)
        request = self._firsts.get(index)
        if request is None:
            if len(self._firsts) > 10_000:  # a memo only: another teacher may be far behind
                self._firsts.clear()
                self._open.clear()
            request = self._firsts[index] = self.teacher.request(self.prompter.ask(example), self._one, example)
        return request

    def example(self, index: int) -> Example:
        """An example, read or drawn once while it is being asked."""
        example = self._open.get(index)
        if example is None:
            example = self._open[index] = self.examples[index]
        return example

    def forget(self, index: int) -> None:
        """An example is done with."""
        self._firsts.pop(index, None)
        self._open.pop(index, None)

    def _roomier(self, request: Request) -> Request:
        room = int(request.sampling.max_tokens * self._more_room)
        return self.teacher.request(request.prompt, replace(request.sampling, max_tokens=room), request.example)

    # --- asking ---

    async def fill(self, tell: Tell) -> None:
        """Ask for everything that the cache lacks.

        Raises:
            TeacherError: the teacher cannot go on. BudgetReached: a cap would be passed.
        """
        async with (
            contextlib.aclosing(self._source(tell)) as source,
            contextlib.aclosing(self.teacher.answers(source)) as replies,
        ):
            async for reply in replies:
                self._take(reply, tell)

    async def _source(self, tell: Tell) -> AsyncGenerator[Request, None]:
        missing = self._missing(tell)
        while True:
            if not self._next:
                requests = next(missing, None)
                if requests:
                    self._next.extend(requests)
                elif requests is not None:
                    await asyncio.sleep(0)  # many were found: let the others work
                    continue
            if self._next:
                self._out += 1
                yield self._next.popleft()
            elif self._out:
                self._changed.clear()
                await self._changed.wait()
            else:
                return

    def lacking(self) -> Iterator[Request]:
        """The requests that would be made now."""
        for index, requests in enumerate(self._missing(lambda index, sample: None)):
            yield from requests
            if index % 1000 == 0:
                self._firsts.clear()
                self._open.clear()

    def _missing(self, tell: Tell) -> Iterator[list[Request]]:
        """What each example lacks; an empty list now and then where nothing is."""
        for index in range(len(self.examples)):
            lacking = []
            for sample in range(self.sampling.n):
                state = self.state(index, sample)
                if state.lacks is None:
                    self.found += 1
                    tell(index, sample)
                else:
                    lacking.append((Wanted(index, sample), state.lacks))
            if lacking:
                yield self._grouped(lacking)
            if index % 50 == 49:
                yield []

    def _grouped(self, lacking: Iterable[tuple[Wanted, Request]]) -> list[Request]:
        """Requests for samples, those of one prompt together; what is already on its way is waited for."""
        groups: dict[str, tuple[Request, list[int]]] = {}
        for wanted, request in lacking:
            waiting = self._waiting.setdefault((request.key, wanted.sample), [])
            waiting.append(wanted)
            if len(waiting) == 1:
                groups.setdefault(request.key, (request, []))[1].append(wanted.sample)
        requests = []
        for request, samples in groups.values():
            if samples == [0]:
                requests.append(request)
                continue
            together = self.teacher.most_samples or len(samples)
            for run in _runs(samples) if "seed" in request.body else [samples]:
                chunks = [run[at : at + together] for at in range(0, len(run), together)]
                requests += [replace(request, samples=tuple(chunk)) for chunk in chunks]
        return requests

    def _take(self, reply: Reply, tell: Tell) -> None:
        """Store a reply and find out what its samples lack now."""
        self._out -= 1
        self._changed.set()
        request = reply.request
        if reply.completions:
            keep(self.cache, self.teacher, reply)
        lacking = []
        for sample in request.samples:
            for wanted in self._waiting.pop((request.key, sample), ()):
                state = self.state(wanted.index, sample)
                if state.lacks is None:
                    tell(wanted.index, sample)
                elif not reply.completions:
                    self.failures[wanted.index, sample] = reply.reason or "no answer"
                    tell(wanted.index, sample)
                else:
                    lacking.append((wanted, state.lacks))
        if lacking:
            self._next.extend(self._grouped(lacking))


def _runs(samples: Sequence[int]) -> list[list[int]]:
    """Maximal runs of consecutive numbers: a seed counts up within one request.

    >>> _runs([0, 1, 4, 5, 7])
    [[0, 1], [4, 5], [7]]
    """
    runs: list[list[int]] = []
    for sample in samples:
        if runs and runs[-1][-1] == sample - 1:
            runs[-1].append(sample)
        else:
            runs.append([sample])
    return runs
