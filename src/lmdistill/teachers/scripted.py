"""A teacher that needs no network: an OpenAI-compatible endpoint in process that solves the generated tasks.

It reads the last question of the prompt, works it out step by step in varied wording, and is wrong, unparsable,
truncated or unavailable as often as it is told to be: everything behind it runs exactly as with a hosted model.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lmdistill.errors import ConfigError
from lmdistill.flow import Limits
from lmdistill.pricing import FREE, Ledger, Price
from lmdistill.response_cache import ResponseCache
from lmdistill.store import seed_for
from lmdistill.tasks import Generated, Task
from lmdistill.teachers import TeacherSettings
from lmdistill.teachers._client import Client, HttpAnswer
from lmdistill.types import Example, Sampling
from lmdistill.wire import Prompt, shown, write_response

WRITE = re.compile(r"Write (\d+) new inputs for this task")
TOKEN = re.compile(r"\s*\w+|\s*[^\w\s]")
MUSINGS = (
    "This one is hard to say.",
    "I would have to know more about it.",
    "There are several ways to look at this question.",
    "Let me think about this some more",
)


@dataclass(frozen=True)
class Scripted(TeacherSettings):
    """Answers questions of a generated task.

    `error_rate` of the answers follow a wrong derivation to a wrong answer; `unparsable_rate` lead to none;
    `failure_rate` of the requests fail with HTTP 429 or 500 first. At temperature 0 a question always has the same
    derivation; above, every sample has its own.
    """

    keeps: ClassVar[bool] = False
    operational: ClassVar[frozenset[str]] = frozenset({"latency", "limits", "price", "failure_rate"})

    error_rate: float = 0.0
    unparsable_rate: float = 0.0
    failure_rate: float = 0.0
    latency: float = 0.0
    seed: int = 0
    model: str = "scripted"
    source: str = "scripted"
    price: Price = FREE
    limits: Limits = field(default_factory=lambda: Limits(backoff=0.01))

    def __post_init__(self) -> None:
        rates = ("error_rate", "unparsable_rate", "failure_rate")
        wrong = [name for name in rates if not 0.0 <= getattr(self, name) <= 1.0]
        if wrong:
            raise ConfigError([f"{name}: {getattr(self, name)} is no share between 0 and 1" for name in wrong])

    def open(
        self, task: Task | None = None, *, ledger: Ledger | None = None, cache: ResponseCache | None = None
    ) -> Any:
        if not isinstance(task, Generated):
            what = "no task" if task is None else f"task {type(task).__name__!r}"
            raise ConfigError(
                f"teacher 'scripted' answers generated tasks only (sums, nli, facts, paths, retell), got {what}. "
                "Use teacher 'replay' for recorded answers or 'openai' for a live model"
            )
        return ScriptedClient(
            transport=InProcess(ScriptedEndpoint(task, self)),
            source=self.source,
            endpoint="scripted",
            model=self.model,
            logprobs=0,
            price=self.price,
            limits=self.limits,
            ledger=ledger or Ledger(),
            cache=cache,
        )


class ScriptedClient(Client):
    """The client with a seed in every request, so that a sample is the same however the samples are gathered."""

    def body(self, prompt: Prompt, sampling: Sampling, example: Example) -> dict[str, Any]:
        body = super().body(prompt, sampling, example)
        body.setdefault("seed", 0)
        return body


class InProcess:
    """Carries payloads to an endpoint object; they are bytes all the same."""

    def __init__(self, endpoint: ScriptedEndpoint) -> None:
        self.endpoint = endpoint

    async def open(self) -> None:
        pass

    async def post(self, path: str, payload: bytes) -> HttpAnswer:
        if self.endpoint.settings.latency:
            await asyncio.sleep(self.endpoint.settings.latency)
        status, body = self.endpoint(json.loads(payload))
        return HttpAnswer(status, {}, json.dumps(body).encode())

    async def call(self, method: str, path: str, payload: bytes | None, file: bytes | None) -> HttpAnswer:
        return HttpAnswer(404, {}, b"{}")

    async def close(self) -> None:
        pass


class ScriptedEndpoint:
    """`endpoint(request body) -> (status, response body)`, for chat and for completions."""

    def __init__(self, task: Generated, settings: Scripted) -> None:
        self.task = task
        self.settings = settings
        self._failed: set[int] = set()

    def __call__(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        chat = "messages" in body
        seed = int(body.get("seed") or 0)
        key = seed_for(self.settings.seed, json.dumps(body, sort_keys=True))
        if key not in self._failed and random.Random(key).random() < self.settings.failure_rate:
            self._failed.add(key)
            status = 429 if key % 2 else 500
            return status, {"error": {"message": "scripted failure", "code": status}}
        prompt = shown(body)
        texts = []
        for index in range(int(body.get("n") or 1)):
            varied = seed + index if body.get("temperature") else 0
            texts.append(self._choice(body, random.Random(seed_for(self.settings.seed, question_key(body), varied))))
        spent = sum(len(item["tokens"]) for item in texts)
        model = str(body.get("model", self.settings.model))
        prompt_tokens = len(TOKEN.findall(prompt))
        return 200, write_response(model, texts, chat=chat, prompt_tokens=prompt_tokens, completion_tokens=spent)

    def _choice(self, body: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        wanted = WRITE.search(shown(body))
        if wanted:
            return _cut(body, self._inputs(int(wanted[1]), rng), rng, sure=True)
        draw = rng.random()
        wrong = draw < self.settings.error_rate
        lost = wrong or draw < self.settings.error_rate + self.settings.unparsable_rate
        text = self._solve(body, rng, wrong=wrong)
        if text is None:
            text = "I do not see a question that I can answer."
        elif lost and not wrong:
            text = rng.choice(MUSINGS)
        return _cut(body, text, rng, sure=not lost)

    def _inputs(self, count: int, rng: random.Random) -> str:
        """New questions, among those that only training sees."""
        known = self.task.examples("train")
        drawn = [known[rng.randrange(len(known))].input for _ in range(count)] if known else []
        return "\n".join(f"<input>{question}</input>" for question in drawn)

    def _solve(self, body: Mapping[str, Any], rng: random.Random, *, wrong: bool) -> str | None:
        for question in questions(body):
            try:
                rationale, answer = self.task.explain(question, rng, wrong=wrong)
            except ValueError:
                continue
            example = Example("", question)
            if rationale and not rationale.rstrip().endswith((".", "!", "?")):
                rationale = rationale.rstrip() + "."
            return f"{rationale} {self.task.answer_cue} {self.task.shown(example, answer)}.".strip()
        return None


def questions(body: Mapping[str, Any]) -> list[str]:
    """Where the question may stand in a prompt, the likeliest place first."""
    if "messages" in body:
        users = [str(message["content"]) for message in body["messages"] if message.get("role") == "user"]
        text = users[-1] if users else ""
    else:
        text = str(body.get("prompt") or "")
    found = [text.strip()]
    last = re.split(r"(?:^|\n)(?:Q|Question|Input):\s*", text)[-1]
    found.append(re.split(r"\n(?:A|Answer|Explanation|Output|The correct answer)\b.{0,3}", last)[0].strip())
    found += [part.strip() for part in reversed(text.split("\n\n"))]
    found += [line.strip() for line in reversed(text.splitlines())]
    return [question for question in dict.fromkeys(found) if question]


def question_key(body: Mapping[str, Any]) -> str:
    """What a derivation depends on: the question, not the demonstrations before it."""
    found = questions(body)
    return found[1] if len(found) > 1 else "".join(found)


def _cut(body: Mapping[str, Any], text: str, rng: random.Random, *, sure: bool) -> dict[str, Any]:
    """The text up to a stop string or the room that was given, in tokens with log-probabilities."""
    reason = "stop"
    for stop in _stops(body):
        text = text.split(stop)[0]
    tokens = TOKEN.findall(text)
    room = int(body.get("max_tokens") or body.get("max_completion_tokens") or 1_000_000)
    if len(tokens) > room:
        tokens, reason = tokens[:room], "length"
        text = "".join(tokens)
    rate = 12.0 if sure else 4.0  # it is less sure of what is wrong
    return {
        "text": text,
        "finish_reason": reason,
        "tokens": [(token, -round(rng.expovariate(rate), 4)) for token in tokens],
    }


def _stops(body: Mapping[str, Any]) -> Sequence[str]:
    stop = body.get("stop") or ()
    return (stop,) if isinstance(stop, str) else stop
