"""The Batch API: requests go up in a file, are worked on within a day, and cost less.

A batch is written into the response cache before it is made, so a restart goes on with the batches that the endpoint
is working on and makes none twice. What fails in a batch is judged like a live answer: asked again in the next one,
or given up with its reason.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmdistill.errors import BudgetReached, ConfigError, TeacherError
from lmdistill.flow import Attempt
from lmdistill.pacing import Batch
from lmdistill.pricing import Bound, bound
from lmdistill.teachers import Reply, Request
from lmdistill.teachers._client import Broken, Client, HttpAnswer
from lmdistill.wire import shown

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass
class BatchClient(Client):
    """A client that answers by batches."""

    batch: Batch = field(default_factory=Batch)
    batched = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wanted: dict[str, Request] = {}  # by custom id: not yet in a batch
        self._sent: dict[str, Request] = {}  # in a batch
        self._tries: collections.Counter[str] = collections.Counter()
        self._bounds: dict[str, Bound] = {}
        self._open: list[str] = []
        self._halt = asyncio.Event()
        self._refused: BudgetReached | None = None

    def stop(self) -> None:
        self._halt.set()

    async def answers(self, requests: AsyncIterable[Request]) -> AsyncGenerator[Reply, None]:
        if self.cache is None:
            raise ConfigError("the Batch API needs a response cache, where it keeps its batches; none was given")
        self._halt = asyncio.Event()
        await self.transport.open()
        source = _Source(aiter(requests))
        try:
            await self._recover()
            while not self._halt.is_set():
                await self._take(source)
                await self._submit()
                if not self._open:
                    if self._refused is not None:
                        raise self._refused
                    if not self._wanted and source.ended:
                        return
                    continue
                for number in list(self._open):
                    async for reply in self._look(number):
                        yield reply
                if self._open:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._halt.wait(), self.batch.poll)
        finally:
            await source.close()
            await self.transport.close()

    # --- what is asked ---

    async def _take(self, source: _Source) -> None:
        """Everything that is there to be asked; what an open batch already works on is only waited for."""
        known = {custom: number for number, members in self._batches().items() for custom in members}
        async for request in source.available(0.01 if self._open else 0.2):
            custom = f"{request.key}-{request.samples[0]}-{len(request.samples)}"
            if custom in known:
                self._sent[custom] = request
                if known[custom] not in self._open:
                    self._open.append(known[custom])
            else:
                self._wanted[custom] = request

    def _batches(self) -> dict[str, dict[str, Any]]:
        assert self.cache is not None
        return {number: state["members"] for number, state in self.cache.open_batches(self.endpoint)}

    async def _submit(self) -> None:
        """Make batches of what is wanted, as far as the budget goes."""
        while self._wanted:
            chunk: dict[str, Request] = {}
            for custom, request in list(self._wanted.items())[: self.batch.size]:
                most = self._bound(request)
                try:
                    self.ledger.admit_now(most)
                except BudgetReached as error:
                    self._refused = error
                    break
                self._bounds[custom] = most
                chunk[custom] = self._wanted.pop(custom)
            if not chunk:
                return
            self._refused = None
            self._sent.update(chunk)
            self._open.append(await self._create(chunk))

    def _bound(self, request: Request) -> Bound:
        room = int(request.body.get(self.room) or request.sampling.max_tokens)
        text = shown(request.body)
        return bound(request.body, text, self.price, samples=len(request.samples), room=room, batch=True)

    async def _create(self, chunk: Mapping[str, Request]) -> str:
        assert self.cache is not None
        url = "/v1/chat/completions" if self.chat else "/v1/completions"
        lines = [
            json.dumps({"custom_id": custom, "method": "POST", "url": url, "body": json.loads(self.live_payload(one))})
            for custom, one in chunk.items()
        ]
        mark = hashlib.sha256("\n".join(chunk).encode()).hexdigest()[:32]
        members = {custom: list(one.samples) for custom, one in chunk.items()}
        pending = f"pending-{mark}"
        self.cache.save_batch(pending, self.endpoint, "open", {"mark": mark, "members": members})
        uploaded = await self._call("POST", "files", file="\n".join(lines).encode())
        job = {"input_file_id": uploaded["id"], "endpoint": url, "completion_window": "24h"}
        made = await self._call("POST", "batches", body={**job, "metadata": {"lmdistill": mark}})
        self._adopt(pending, str(made["id"]), {"mark": mark, "members": members})
        return str(made["id"])

    def _adopt(self, pending: str, number: str, state: Mapping[str, Any]) -> None:
        assert self.cache is not None
        self.cache.save_batch(number, self.endpoint, "open", state)
        self.cache.save_batch(pending, self.endpoint, "done", {})

    async def _recover(self) -> None:
        """Find out what became of batches that were being made when a run was killed."""
        assert self.cache is not None
        pending = {n: s for n, s in self.cache.open_batches(self.endpoint) if n.startswith("pending-")}
        if not pending:
            return
        listed = (await self._call("GET", "batches?limit=100")).get("data") or []
        made = {(one.get("metadata") or {}).get("lmdistill"): str(one["id"]) for one in listed}
        for number, state in pending.items():
            if state.get("mark") in made:
                self._adopt(number, made[state["mark"]], state)
            else:
                self.cache.save_batch(number, self.endpoint, "done", {})

    # --- what came of it ---

    async def _look(self, number: str) -> AsyncIterator[Reply]:
        """The replies of a batch that has ended; nothing while it is worked on."""
        assert self.cache is not None
        batch = await self._call("GET", f"batches/{number}")
        status = batch.get("status")
        if status not in ENDED:
            return
        members = self._batches().get(number, {})
        if status == "failed":
            self.cache.save_batch(number, self.endpoint, "done", {})
            errors = ((batch.get("errors") or {}).get("data")) or [{}]
            why = self.clean(str(errors[0].get("message") or "no reason was given"))
            raise TeacherError(f"the endpoint did not accept a batch of {len(members)} requests: {why}")
        for name in ("output_file_id", "error_file_id"):
            if batch.get(name):
                content = await self._fetch(f"files/{batch[name]}/content")
                for line in content.splitlines():
                    reply = self._read(line)
                    if reply is not None:
                        yield reply
        for custom in members:  # what the batch left unanswered: it expired, or was cancelled
            if custom in self._sent:
                reply = self._judged(custom, Attempt("again", why=f"the batch ended as {status!r}"))
                if reply is not None:
                    yield reply
        self.cache.save_batch(number, self.endpoint, "done", {})  # after everything was stored
        self._open.remove(number)

    def _read(self, line: bytes) -> Reply | None:
        try:
            row = json.loads(line)
            custom = str(row["custom_id"])
        except (ValueError, KeyError, TypeError):
            return None  # its request stays unanswered and is asked again
        if custom not in self._sent:
            return None
        response = row.get("response") or {}
        status = int(response.get("status_code") or 500)
        answer = HttpAnswer(status, {}, json.dumps(response.get("body") or row.get("error") or {}).encode())
        return self._judged(custom, self._judge(answer, len(self._sent[custom].samples)))

    def _judged(self, custom: str, end: Attempt) -> Reply | None:
        """A reply, or None where the request goes into the next batch."""
        request = self._sent.pop(custom)
        raw, completions = end.response or (b"", ())
        most = self._bounds.pop(custom, None)  # None: an earlier run reserved it
        if most is not None:
            used = completions[0].usage if completions else None
            self.ledger.settle(most, self.price, used, batch=True, billed=bool(completions))
        if completions:
            return Reply(request, raw, completions, batch=True)
        self._tries[custom] += 1
        if end.verdict in ("again", "slow down") and self._tries[custom] < self.limits.tries:
            self._retries[end.why] += 1
            self._wanted[custom] = request
            return None
        return Reply(request, reason=end.why)

    # --- calls ---

    async def _fetch(self, path: str) -> bytes:
        return (await self._answer("GET", path)).payload

    async def _call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, file: bytes | None = None
    ) -> dict[str, Any]:
        payload = None if body is None else json.dumps(body).encode()
        answer = await self._answer(method, path, payload, file)
        try:
            value = json.loads(answer.payload)
        except ValueError as error:
            raise TeacherError(f"{method} {path}: the endpoint answered with no JSON; has it a Batch API?") from error
        if not isinstance(value, dict):
            raise TeacherError(f"{method} {path}: the endpoint answered with no JSON object; has it a Batch API?")
        return value

    async def _answer(
        self, method: str, path: str, payload: bytes | None = None, file: bytes | None = None
    ) -> HttpAnswer:
        """One call, tried again while that may help."""
        why = ""
        for turn in range(self.limits.tries):
            try:
                answer = await self.transport.call(method, path, payload, file)
            except Broken as error:
                why = self.clean(str(error))
            else:
                if 200 <= answer.status < 300:
                    return answer
                why = f"HTTP {answer.status}: {self._error(answer.payload)}"
                if answer.status < 500 and answer.status not in (408, 409, 429):
                    break
            await asyncio.sleep(min(self.limits.backoff * 2**turn, self.limits.backoff_most))
        raise TeacherError(f"{method} {path}: {why}. Batches that were made are kept; run again to go on with them")


class _Source:
    """Requests as they become known: an asynchronous iterator of which only what is there is taken."""

    def __init__(self, requests: AsyncIterator[Request]) -> None:
        self._requests = requests
        self._next: asyncio.Task[Any] | None = None
        self.ended = False

    async def available(self, patience: float) -> AsyncIterator[Request]:
        """What comes before a pause of so many seconds."""
        while not self.ended:
            if self._next is None:
                self._next = asyncio.ensure_future(anext(self._requests, None))  # type: ignore[arg-type]
            done, _ = await asyncio.wait({self._next}, timeout=patience)
            if not done:
                return
            request, self._next = self._next.result(), None
            if request is None:
                self.ended = True
                return
            yield request

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await self._next
