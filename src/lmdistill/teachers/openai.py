"""Any endpoint that speaks the OpenAI dialect: hosted APIs, vLLM, Ollama, llama.cpp, servers of your own."""

from __future__ import annotations

import functools
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lmdistill.errors import ConfigError
from lmdistill.flow import Limits
from lmdistill.pacing import Batch
from lmdistill.pricing import FREE, Ledger, Price, price_of
from lmdistill.response_cache import ResponseCache
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings
from lmdistill.teachers._batch import BatchClient
from lmdistill.teachers._client import Broken, Client, HttpAnswer

HOSTED = "https://api.openai.com/v1"
LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
SHORTEST_SECRET = 8
"""What is shorter is no secret but a word for local servers ('none', 'EMPTY'), and may stand in any answer."""
SECRET_NAME = re.compile(r"authorization|api[-_]?key|token|secret|cookie|password", re.IGNORECASE)


@dataclass(frozen=True)
class OpenAI(TeacherSettings):
    """A chat or completions endpoint below `base_url`.

    Secrets come from the environment only: the key from the variable that `api_key_env` names, and headers that hold
    a secret from the variables that `secret_headers` names. `headers` and `body` are sent as they stand, and recorded.
    """

    operational: ClassVar[frozenset[str]] = frozenset(
        {"limits", "timeout", "price", "headers", "secret_headers", "api_key_env", "samples_per_request", "batch"}
    )

    model: str
    base_url: str = HOSTED
    api_key_env: str = "OPENAI_API_KEY"
    api: Literal["chat", "completions"] = "chat"
    source: str = ""
    logprobs: int | None = None
    room: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    samples_per_request: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    price: Price | None = None
    batch: Batch | None = None
    limits: Limits = field(default_factory=Limits)
    timeout: float = 120.0

    def __post_init__(self) -> None:
        problems = [
            f"headers.{name}: a header that holds a secret must not stand in a run file; "
            f"write secret_headers: {{{name}: NAME_OF_A_VARIABLE}}"
            for name in self.headers
            if SECRET_NAME.search(name)
        ]
        url = urllib.parse.urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            problems.append(f"base_url: {self.base_url!r} is no address; expected something like {HOSTED}")
        if url.username or url.password or url.query:
            problems.append("base_url: must hold no user, password or query; secrets go into secret_headers")
        own = [os.environ.get(name, "") for name in (self.api_key_env, *self.secret_headers.values())]
        written = repr((self.base_url, self.headers, self.body))
        if any(len(secret) >= SHORTEST_SECRET and secret in written for secret in own):
            problems.append(f"the key itself stands in the settings; leave it in the variable {self.api_key_env}")
        if problems:
            raise ConfigError(problems)

    def open(
        self, task: Task | None = None, *, ledger: Ledger | None = None, cache: ResponseCache | None = None
    ) -> Any:
        headers, secrets = self._headers()
        url = self.base_url.rstrip("/")
        price = self.price or price_of(self.model)
        if price is None and urllib.parse.urlsplit(url).hostname in LOCAL:
            price = FREE
        kind: Any = Client if self.batch is None else functools.partial(BatchClient, batch=self.batch)
        return kind(
            transport=HttpTransport(url, headers, self.timeout),
            source=self.source or self.model,
            endpoint=url,
            model=self.model,
            chat=self.api == "chat",
            logprobs=self.logprobs,
            room=self.room,
            extra=self.body,
            limits=self.limits,
            price=price,
            most_samples=self.samples_per_request,
            ledger=ledger or Ledger(),
            cache=cache,
            secrets=secrets,
        )

    def _headers(self) -> tuple[dict[str, str], tuple[str, ...]]:
        key = os.environ.get(self.api_key_env, "")
        if not key and self.base_url.rstrip("/") == HOSTED:
            raise ConfigError(f"teacher 'openai': the variable {self.api_key_env} is not set; export the key in it")
        headers = dict(self.headers)
        secrets = [key] if key else []
        if key:
            headers["Authorization"] = f"Bearer {key}"
        for name, variable in self.secret_headers.items():
            if variable not in os.environ:
                raise ConfigError(f"secret_headers.{name}: the variable {variable} is not set")
            headers[name] = os.environ[variable]
            secrets.append(os.environ[variable])
        return headers, tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)


class HttpTransport:
    """Posts over HTTP with aiohttp; connections are kept, as many as are in flight."""

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout: float) -> None:
        self._base_url = base_url
        self._headers = headers
        self._timeout = timeout
        self._session: Any = None

    async def open(self) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(self._timeout, 15.0)),
        )

    async def post(self, path: str, payload: bytes) -> HttpAnswer:
        return await self._request("POST", path, payload)

    async def call(self, method: str, path: str, payload: bytes | None, file: bytes | None) -> HttpAnswer:
        import aiohttp

        if file is None:
            return await self._request(method, path, payload)
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", file, filename="batch.jsonl", content_type="application/jsonl")
        return await self._request(method, path, form)

    async def _request(self, method: str, path: str, data: Any) -> HttpAnswer:
        import aiohttp

        headers = {"Content-Type": "application/json"} if isinstance(data, bytes) else {}
        try:
            url = f"{self._base_url}/{path}"
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False
            ) as response:
                body = await response.read()
                if response.status == 200:
                    return HttpAnswer(200, {}, body)
                return HttpAnswer(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
        except aiohttp.ClientConnectorError as error:
            raise Broken(f"cannot connect ({error.os_error.strerror or error})", billed=False) from error
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            what = "cannot connect (timeout)" if connecting else f"no answer within {self._timeout:g} s"
            raise Broken(what, billed=not connecting) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(f"the connection broke ({type(error).__name__})", billed=True) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
