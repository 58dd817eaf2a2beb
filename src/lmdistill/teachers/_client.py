"""The client of an endpoint in the OpenAI dialect, over a socket or in process.

It sends what a request says, decides what an answer, a refusal or a failure means, keeps the ledger, and lets nothing
secret through: what an endpoint says is cleaned of the key before it is kept or shown.
"""

from __future__ import annotations

import collections
import contextlib
import email.utils
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from lmdistill.errors import ConfigError
from lmdistill.flow import Attempt, Flow, Limits
from lmdistill.pricing import Bound, Ledger, Price, bound
from lmdistill.response_cache import ResponseCache
from lmdistill.teachers import Reply, Request, Teacher
from lmdistill.types import Example, Sampling
from lmdistill.wire import Prompt, read_response, request_body, shown, write_json

AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
SPENT = ("insufficient_quota", "billing_hard_limit", "exceeded your current quota", "insufficient balance")
SECRET = re.compile(r"\b(?:sk|pk|rk|gsk|hf|xai)[-_][A-Za-z0-9_\-*.]{6,}|(?i:bearer)\s+[A-Za-z0-9_\-.=]{6,}")


class HttpAnswer(NamedTuple):
    """What came back: `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    payload: bytes


class Broken(Exception):
    """No answer came back; `billed` says whether the endpoint may have worked, and charged, all the same."""

    def __init__(self, why: str, *, billed: bool) -> None:
        super().__init__(why)
        self.billed = billed


class Transport(Protocol):
    """Carries a payload to a path below the endpoint."""

    async def open(self) -> None: ...
    async def post(self, path: str, payload: bytes) -> HttpAnswer:
        """Raises Broken where no whole answer came back."""
        ...

    async def call(self, method: str, path: str, payload: bytes | None, file: bytes | None) -> HttpAnswer:
        """Any other call; `file` is uploaded for a batch. Raises Broken."""
        ...

    async def close(self) -> None: ...


@dataclass
class Client(Teacher):
    """A teacher behind an endpoint. `secrets` are texts that must never be kept or shown."""

    transport: Transport
    source: str
    endpoint: str
    model: str
    chat: bool = True
    logprobs: int | None = None
    room: str = "max_tokens"
    extra: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    price: Price | None = None
    most_samples: int | None = None
    ledger: Ledger = field(default_factory=Ledger)
    cache: ResponseCache | None = None
    secrets: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._flow: Flow[Request] | None = None
        self._retries: collections.Counter[str] = collections.Counter()
        self._answered = False
        self._knows_n = False  # whether it ever gave several samples to one request

    def body(self, prompt: Prompt, sampling: Sampling, example: Example) -> dict[str, Any]:
        if sampling.beams != 1:
            message = f"teacher {self.source!r} samples, it has no beam search; set sampling.beams to 1, not"
            raise ConfigError(f"{message} {sampling.beams}, or use teacher 'transformers'")
        return request_body(
            self.model,
            prompt,
            sampling,
            chat=self.chat,
            logprobs=self.logprobs,
            room=self.room,
            extra=self.extra,
        )

    async def answers(self, requests: AsyncIterable[Request]) -> AsyncGenerator[Reply, None]:
        flow = self._flow = Flow(self.limits)
        await self.transport.open()
        try:
            async with contextlib.aclosing(flow.stream(requests, self._attempt, self._bound)) as ends:
                async for request, end, seconds in ends:
                    raw, completions = end.response or (b"", ())
                    given_up = "gave up: " if end.verdict in ("again", "slow down") else ""
                    yield Reply(request, raw, completions, None if completions else given_up + end.why, seconds)
        finally:
            self._retries += flow.retries
            self._flow = None
            await self.transport.close()

    def stop(self) -> None:
        if self._flow is not None:
            self._flow.stop()

    @property
    def retries(self) -> Mapping[str, int]:
        return self._retries + (self._flow.retries if self._flow else collections.Counter())

    # --- one attempt ---

    def _bound(self, request: Request) -> Bound:
        room = int(request.body.get(self.room) or request.sampling.max_tokens)
        text = shown(request.body)
        return bound(request.body, text, self.price, samples=len(request.samples), room=room, batch=False)

    def live_payload(self, request: Request) -> bytes:
        """What is sent: the request with the number of samples, and a seed of its own where one is set."""
        if len(request.samples) == 1 and "seed" not in request.body:
            return request.payload
        body = dict(request.body)
        if len(request.samples) > 1:
            body["n"] = len(request.samples)
        if isinstance(body.get("seed"), int):
            body["seed"] += request.samples[0]
        return write_json(body)

    async def _attempt(self, request: Request, most: Bound) -> Attempt:
        end = await self._send(request, most)
        if end.verdict == "refused" and len(request.samples) > 1 and not self._knows_n:
            single = replace(request, samples=request.samples[:1])  # does it refuse `n`?
            alone = await self._send(single, self._bound(single))
            if alone.verdict == "answered":
                self.most_samples = 1
                return alone
        return end

    async def _send(self, request: Request, most: Bound) -> Attempt:
        await self.ledger.admit(most)
        used, billed = None, True
        try:
            path = "chat/completions" if self.chat else "completions"
            answer = await self.transport.post(path, self.live_payload(request))
            end = self._judge(answer, len(request.samples))
            billed = 200 <= answer.status < 300
            if end.verdict == "answered":
                self._answered = True
                used = end.response[1][0].usage
        except Broken as error:
            billed = error.billed
            end = Attempt("again", why=self.clean(str(error)))
        finally:
            self.ledger.settle(most, self.price, used, batch=False, billed=billed)
        return end

    def _judge(self, answer: HttpAnswer, wanted: int) -> Attempt:
        if 200 <= answer.status < 300:
            return self._accept(answer, wanted)
        why = f"HTTP {answer.status}: {self._error(answer.payload)}"
        wait = retry_after(answer.headers)
        if answer.status == 401 or answer.status == 402:
            return Attempt("fatal", why=f"{why}. Check the key and the account; nothing more was sent")
        if answer.status in (403, 404) and not self._answered:
            return Attempt("fatal", why=f"{why}. Check base_url and model; nothing more was sent")
        if 300 <= answer.status < 400:
            where = answer.headers.get("location", "another address")
            return Attempt("fatal", why=f"HTTP {answer.status}: the endpoint moved to {where}; set base_url to it")
        if answer.status == 429 and any(word in why.lower() for word in SPENT):
            return Attempt("fatal", why=f"{why}. The account has nothing left; what was answered is kept")
        if wait is not None and wait > LONGEST_WAIT:
            why = f"HTTP {answer.status}: the endpoint asks to wait {wait:,.0f} s"
            return Attempt("fatal", why=f"{why}; what was answered is kept, so the same command goes on later")
        if answer.status in (429, 529) or (answer.status == 503 and wait is not None):
            return Attempt("slow down", why=f"HTTP {answer.status}", wait=wait)
        if answer.status in AGAIN:
            return Attempt("again", why=f"HTTP {answer.status}", wait=wait)
        return Attempt("refused", why=why)

    def _accept(self, answer: HttpAnswer, wanted: int) -> Attempt:
        raw = answer.payload
        for secret in self.secrets:
            raw = raw.replace(secret.encode(), b"***")
        try:
            completions = read_response(json.loads(raw))[:wanted]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            return Attempt("again", why=f"no valid response ({type(error).__name__})")
        if len(completions) < wanted:  # the endpoint does not know `n`, or caps it
            self.most_samples = min(len(completions), self.most_samples or wanted)
        self._knows_n = self._knows_n or len(completions) > 1
        usage = completions[0].usage
        tokens = usage.prompt_tokens + usage.completion_tokens if usage else None
        return Attempt("answered", (raw, completions), tokens=tokens)

    def _error(self, payload: bytes) -> str:
        text = payload[:2000].decode("utf-8", errors="replace")
        with contextlib.suppress(ValueError):
            body = json.loads(payload)
            error = body.get("error", body) if isinstance(body, Mapping) else body
            if isinstance(error, Mapping):
                parts = [str(error[part]) for part in ("message", "detail", "code", "type") if error.get(part)]
                text = "; ".join(dict.fromkeys(parts)) or text
            else:
                text = str(error)
        return self.clean(" ".join(text.split())[:300]) or "no message"

    def clean(self, text: str) -> str:
        """The text without the secrets that it may hold."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return SECRET.sub("***", text)


LONGEST_WAIT = 900.0
"""Seconds; an endpoint that asks for more is not waited for."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """What the endpoint asks to wait, in seconds: 'retry-after-ms', or 'retry-after' as seconds or as a date.

    >>> retry_after({"retry-after-ms": "1500"}), retry_after({"retry-after": "2"}), retry_after({"retry-after": "soon"})
    (1.5, 2.0, None)
    """
    with contextlib.suppress(KeyError, ValueError):
        return max(float(headers["retry-after-ms"]) / 1000.0, 0.0)
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(float(value), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None
