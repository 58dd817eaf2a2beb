"""What teachers that run in this process share: requests gathered into batches, worked on in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any

from lmdistill.teachers import Reply, Request, Teacher, in_process
from lmdistill.types import Example, Sampling
from lmdistill.wire import Prompt, request_body, write_response


class LocalTeacher(Teacher):
    """A teacher whose model is here. `batch_size` counts sequences: prompts times samples."""

    batch_size: int

    @abstractmethod
    def respond(self, requests: Sequence[Request]) -> Sequence[Sequence[Mapping[str, Any]]]:
        """For each request one choice a sample: 'text', 'finish_reason' and where known 'tokens'; all requests of a
        call sample alike. A choice may say how many 'prompt_tokens' its request had."""

    def body(self, prompt: Prompt, sampling: Sampling, example: Example) -> dict[str, Any]:
        body = request_body(self.model, prompt, sampling, chat=not prompt.plain)
        if sampling.beams != 1:
            body["beams"] = sampling.beams
        return body

    def stop(self) -> None:
        self._halted = True

    async def answers(self, requests: AsyncIterable[Request]) -> AsyncGenerator[Reply, None]:
        self._halted = False
        source = aiter(requests)
        pulled: asyncio.Future[Request | None] | None = None
        ended = False
        waiting: list[Request] = []
        try:
            while not self._halted:
                size = sum(len(request.samples) for request in waiting)
                while not ended and size < self.batch_size:
                    if pulled is None:
                        pulled = asyncio.ensure_future(_next(source))
                    done, _ = await asyncio.wait({pulled}, timeout=0.01 if waiting else None)
                    if not done:
                        break  # there is nothing more just now
                    request, pulled = pulled.result(), None
                    if request is None:
                        ended = True
                    else:
                        waiting.append(request)
                        size += len(request.samples)
                if not waiting:
                    return
                batch, waiting = _alike(waiting)
                started = time.monotonic()
                answered = await asyncio.to_thread(self.respond, batch)
                seconds = (time.monotonic() - started) / len(batch)
                for request, choices in zip(batch, answered, strict=True):
                    yield in_process(request, self._response(request, choices), seconds)
        finally:
            if pulled is not None:
                pulled.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await pulled

    def _response(self, request: Request, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        written = sum(len(choice.get("tokens") or ()) for choice in choices)
        read = int(choices[0].get("prompt_tokens") or 0)
        chat = not request.prompt.plain
        return write_response(self.model, choices, chat=chat, prompt_tokens=read, completion_tokens=written)


async def _next(source: AsyncIterator[Request]) -> Request | None:
    return await anext(source, None)


def _alike(requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """Those that sample like the first, with as many samples; and the rest."""
    first = (requests[0].sampling, len(requests[0].samples))
    batch = [request for request in requests if (request.sampling, len(request.samples)) == first]
    return batch, [request for request in requests if (request.sampling, len(request.samples)) != first]
