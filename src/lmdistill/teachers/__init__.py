"""A teacher: the large model that is asked, or a record of what it said.

A kind is a frozen dataclass of settings with `open(task)`, which gives a `Teacher`: it turns a prompt into a request
body, and answers a stream of requests in any order, each with a response in the OpenAI dialect (`lmdistill.wire`).
Nothing of the settings may hold a secret: they go into manifests. White-box teachers also give distributions over
their vocabulary.

To add one: a file `teachers/NAME.py` with a frozen dataclass `Name(TeacherSettings)`; the contract test finds it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from lmdistill.config import settings_of
from lmdistill.distributions import TokenDistributions
from lmdistill.errors import TeacherError
from lmdistill.pricing import FREE, Ledger, Price
from lmdistill.response_cache import ResponseCache, key_of
from lmdistill.tasks import Task
from lmdistill.types import Completion, Example, Sampling
from lmdistill.wire import Prompt, plain, read_response, write_json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """A question to a teacher: `body` is the full request without the number of samples, `payload` the same in bytes,
    `key` its place in the cache, `samples` the indices that are wanted of it."""

    example: Example
    prompt: Prompt
    sampling: Sampling
    body: Mapping[str, Any]
    payload: bytes
    key: str
    samples: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a request: the raw response and the completions read from it, which answer `request.samples` in order
    (there may be fewer), or the reason why there is none."""

    request: Request
    raw: bytes = b""
    completions: Sequence[Completion] = ()
    reason: str | None = None
    seconds: float = 0.0
    batch: bool = False


class Teacher(ABC):
    """An open teacher. `endpoint` and `model` say who answers (without secrets), `source` names it on rationales."""

    source: str
    endpoint: str
    model: str
    price: Price | None = FREE
    batched: bool = False
    """Whether it answers by the Batch API, at its price."""
    recorded: bool = False
    """Whether its answers are there already, so that reading them asks nobody."""
    most_samples: int | None = None
    """How many samples one request may ask for; None where there is no limit."""
    cache: ResponseCache | None = None

    @abstractmethod
    def body(self, prompt: Prompt, sampling: Sampling, example: Example) -> dict[str, Any]:
        """The full request for one sample, without `n`: equal bodies may share an answer.

        Raises:
            ConfigError: the teacher cannot sample that way.
        """

    @abstractmethod
    def answers(self, requests: AsyncIterable[Request]) -> AsyncGenerator[Reply, None]:
        """Answer a stream of requests as they come, in any order, with no batch barrier.

        Raises:
            TeacherError: the teacher cannot go on. BudgetReached: the next request might pass a cap.
        """

    def request(self, prompt: Prompt, sampling: Sampling, example: Example, samples: Sequence[int] = (0,)) -> Request:
        """The request that asks for samples of a prompt."""
        body = self.body(prompt, sampling, example)
        payload = write_json(body)
        return Request(
            example, prompt, sampling, body, payload, key_of(self.endpoint, self.model, payload), tuple(samples)
        )

    def stop(self) -> None:  # noqa: B027 (nothing to do is a fair answer)
        """Take no more requests; `answers` ends when what is in flight is answered."""

    async def close(self) -> None:  # noqa: B027
        """Give back sockets, threads and memory."""

    @property
    def retries(self) -> Mapping[str, int]:
        """How many attempts failed and were made again, by reason."""
        return {}

    def generate(self, prompts: Sequence[str | Prompt], sampling: Sampling) -> list[list[Completion]]:
        """`sampling.n` completions for each prompt, in order: a teacher used like a student.

        Raises:
            TeacherError: a prompt was refused, or the teacher cannot go on.
        """
        return run_async(self._generate(prompts, sampling))

    async def _generate(self, prompts: Sequence[str | Prompt], sampling: Sampling) -> list[list[Completion]]:
        cache = self.cache or ResponseCache(None)
        one = replace(sampling, n=1)
        shown = [plain(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        asked = [self.request(prompt, one, Example(str(i), prompt.question)) for i, prompt in enumerate(shown)]
        for _ in range(sampling.n):  # an endpoint that ignores `n` brings one sample a round
            lacking: dict[str, Request] = {}
            for request in asked:
                samples = tuple(k for k in range(sampling.n) if cache.find(request.key, k) is None)
                if samples and request.key not in lacking:
                    lacking[request.key] = replace(request, samples=samples[: self.most_samples])
            if not lacking:
                break
            async for reply in self.answers(_each(lacking.values())):
                if not reply.completions:
                    raise TeacherError(f"{self.source}: {reply.reason}")
                keep(cache, self, reply)
        stored = [[cache.find(request.key, k) for k in range(sampling.n)] for request in asked]
        return [[found.completion for found in row if found is not None] for row in stored]


class WhiteBox(Teacher):
    """A teacher whose probabilities can be read."""

    @abstractmethod
    def distributions(self, sources: Sequence[str], targets: Sequence[str]) -> TokenDistributions:
        """The teacher's distribution at every token of every target, given its source."""


class TeacherSettings(ABC):
    """The contract of a kind's settings; see the module's docstring."""

    keeps: ClassVar[bool] = True
    """Whether answers are worth keeping between runs (False: they are made again for nothing)."""
    recorded: ClassVar[bool] = False
    """Whether nobody is asked: what somebody answered earlier is read."""
    operational: ClassVar[frozenset[str]] = frozenset()
    """Settings that change how answers are fetched but not what they are: they are no part of a run's identity."""

    @abstractmethod
    def open(
        self, task: Task | None = None, *, ledger: Ledger | None = None, cache: ResponseCache | None = None
    ) -> Any:
        """A `Teacher`, ready to be asked.

        Args:
            task: what it will be asked about, where its answers depend on it.
            ledger: where it asks leave for every request. cache: where it looks before `generate`, and keeps state.

        Raises:
            ConfigError: a setting or an environment variable is missing. DataError: an unreadable record.
        """

    def identity(self) -> dict[str, Any]:
        """The settings that decide what the answers are."""
        settings: dict[str, Any] = settings_of(self)
        return {key: value for key, value in settings.items() if key not in self.operational}

    def digests(self) -> Mapping[str, str]:
        """A hash of each file that decides what the answers are, by name: they belong to the inputs of a stage."""
        return {}


def keep(cache: ResponseCache, teacher: Teacher, reply: Reply) -> int:
    """Store a reply's response; how many samples it answered."""
    request = reply.request
    return cache.put(
        request.key,
        request.samples,
        endpoint=teacher.endpoint,
        model=teacher.model,
        request=request.payload,
        raw=reply.raw,
        completions=reply.completions,
        seconds=reply.seconds,
        batch=reply.batch,
    )


def in_process(request: Request, response: Mapping[str, Any], seconds: float = 0.0) -> Reply:
    """The reply of a teacher that made its response itself."""
    return Reply(request, write_json(response), read_response(response), None, seconds)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where a loop is already running (a notebook): then in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def main() -> T:
        task = asyncio.ensure_future(work)
        running.append((asyncio.get_running_loop(), task))
        return await task

    def target() -> None:
        try:
            done.set_result(asyncio.run(main()))
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=target, name="lmdistill")
    thread.start()
    try:
        return done.result()
    except KeyboardInterrupt:
        for loop, task in running:
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise


async def _each(requests: Any) -> AsyncIterator[Request]:
    for request in requests:
        yield request
