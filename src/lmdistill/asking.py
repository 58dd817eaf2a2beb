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
from lmdistill.wire import Prompt


@dataclass(frozen=True, slots=True)
class State:
    """How far a sample is: what was said, what must be asked next (None: nothing), and whether the last text was cut
    off although it had more room. `paid` are the answers behind it, those that were cut off too."""

    said: tuple[Completion, ...] = ()
    lacks: Request | None = None
    truncated: bool = False
    paid: tuple[Stored, ...] = ()


@dataclass
class Asking:
    """The work with one teacher."""

    teacher: Teacher
    prompter: Prompter
    sampling: Sampling
    cache: ResponseCache
    examples: Sequence[Example]
    failures: dict[tuple[str, int], str] = field(default_factory=dict)
    asked: int = 0
    found: int = 0
    truncated: int = 0

    def __post_init__(self) -> None:
        self._one = replace(self.prompter.sampling(self.sampling), n=1)
        self._waiting: dict[tuple[str, int], list[tuple[Example, int]]] = {}
        self._next: collections.deque[Request] = collections.deque()
        self._out = 0
        self._changed = asyncio.Event()
        self._memo: tuple[Example, Prompt, Request] | None = None

    # --- the state of a sample ---

    def state(self, example: Example, sample: int) -> State:
        """Walk through what is stored of a sample."""
        request = self._first(example, sample)
        paid: list[Stored] = []
        said: list[Completion] = []
        truncated = False
        for stage in range(self.prompter.stages):
            if stage:
                prompt = self.prompter.follow(example, request.prompt, said[-1].text)
                request = self.teacher.request(prompt, self._one, example)
            found = self.cache.find(request.key, sample)
            if found is not None and self._cut(found) and self.prompter.prompting.more_room > 1:
                paid.append(found)
                first, request = found, self._roomier(request)
                found = self.cache.find(request.key, sample)
                if found is None:  # what was said so far is kept, should there be no more
                    return State((*said, first.completion), request, True, tuple(paid))
            if found is None:
                return State(tuple(said), request, truncated, tuple(paid))
            truncated = truncated or self._cut(found)
            said.append(found.completion)
            paid.append(found)
        return State(tuple(said), None, truncated, tuple(paid))

    def _first(self, example: Example, sample: int) -> Request:
        memo = self._memo
        if memo is not None and memo[0] is example and not self.prompter.per_sample:
            return memo[2]
        prompt = self.prompter.ask(example, sample)
        request = self.teacher.request(prompt, self._one, example)
        self._memo = (example, prompt, request)
        return request

    def _cut(self, stored: Stored) -> bool:
        return stored.completion.finish_reason == "length"

    def _roomier(self, request: Request) -> Request:
        room = int(request.sampling.max_tokens * self.prompter.prompting.more_room)
        return self.teacher.request(request.prompt, replace(request.sampling, max_tokens=room), request.example)

    # --- asking ---

    async def fill(self, tell: Callable[[int], None]) -> None:
        """Ask for everything that the cache lacks; `tell` hears how many samples came to an end.

        Raises:
            TeacherError: the teacher cannot go on. BudgetReached: a cap would be passed.
        """
        async with (
            contextlib.aclosing(self._source(tell)) as source,
            contextlib.aclosing(self.teacher.answers(source)) as replies,
        ):
            async for reply in replies:
                tell(self._take(reply))

    async def _source(self, tell: Callable[[int], None]) -> AsyncGenerator[Request, None]:
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
                self.asked += 1
                yield self._next.popleft()
            elif self._out:
                self._changed.clear()
                await self._changed.wait()
            else:
                return

    def _missing(self, tell: Callable[[int], None]) -> Iterator[list[Request]]:
        """What each example lacks; an empty list now and then where nothing is."""
        complete = 0
        for count, example in enumerate(self.examples):
            steps = [(sample, self.state(example, sample)) for sample in range(self.sampling.n)]
            lacking = [(example, sample, state.lacks) for sample, state in steps if state.lacks is not None]
            self.found += len(steps) - len(lacking)
            complete += len(steps) - len(lacking)
            if lacking:
                yield self._grouped(lacking)
            if count % 50 == 49:
                tell(complete)
                complete = 0
                yield []
        tell(complete)

    def _grouped(self, lacking: Iterable[tuple[Example, int, Request]]) -> list[Request]:
        """Requests for samples, those of one prompt together; what is already on its way is waited for."""
        groups: dict[str, tuple[Request, list[int]]] = {}
        for example, sample, request in lacking:
            waiting = self._waiting.setdefault((request.key, sample), [])
            waiting.append((example, sample))
            if len(waiting) == 1:
                groups.setdefault(request.key, (request, []))[1].append(sample)
        requests = []
        for request, samples in groups.values():
            together = self.teacher.most_samples or len(samples)
            for run in _runs(samples) if "seed" in request.body else [samples]:
                chunks = [run[at : at + together] for at in range(0, len(run), together)]
                requests += [replace(request, samples=tuple(chunk)) for chunk in chunks]
        return requests

    def _take(self, reply: Reply) -> int:
        """Store a reply, find out what its samples lack now; how many came to an end."""
        self._out -= 1
        self._changed.set()
        request = reply.request
        ended = 0
        if reply.response is not None:
            keep(self.cache, self.teacher, reply)
        lacking = []
        for sample in request.samples:
            for example, number in self._waiting.pop((request.key, sample), ()):
                state = self.state(example, number)
                if state.lacks is None:
                    ended += 1
                    self.truncated += state.truncated
                elif reply.response is None:
                    ended += 1
                    self.failures[example.id, number] = reply.reason or "no answer"
                else:
                    lacking.append((example, number, state.lacks))
        self._next.extend(self._grouped(lacking))
        return ended


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
