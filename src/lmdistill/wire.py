"""The OpenAI dialect: how a request is written and a response is read.

Every teacher speaks it, in process or over a socket, so one response cache, one reader and one price table serve all.
Reading is pure: what was stored can be read again, by a better reader, without asking anybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmdistill.types import Completion, Sampling, TokenLogprob, Usage

THINK = re.compile(r"\A\s*<think>(.*?)(?:</think>\s*|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `role` is 'system', 'user' or 'assistant'."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a teacher is shown.

    `plain` marks one text that is to be continued (its only message is from the user); `schema` asks for an answer
    that fits a JSON schema, where the endpoint can.
    """

    messages: tuple[Message, ...]
    plain: bool = False
    schema: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The prompt as one text, for an endpoint or a model without chat turns."""
        if self.plain:
            return self.messages[-1].content
        return "\n\n".join(message.content for message in self.messages) + "\n\n"

    @property
    def question(self) -> str:
        """What the last turn of the user says."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")


def plain(text: str) -> Prompt:
    """A prompt that is one text to be continued."""
    return Prompt((Message("user", text),), plain=True)


# --- requests --------------------------------------------------------------------------------------------------------


def request_body(
    model: str,
    prompt: Prompt,
    sampling: Sampling,
    *,
    chat: bool = True,
    logprobs: int | None = None,
    room: str = "max_tokens",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body for one sample; `n` is not in it, because how samples are gathered does not change what they are.

    Args:
        logprobs: how many alternatives to each token are wanted; None for no log-probabilities at all.
        extra: fields laid over these; None takes one away (models that accept no 'temperature').
        room: the field that limits the answer's length (reasoning models want 'max_completion_tokens').
    """
    body: dict[str, Any] = {"model": model}
    if chat:
        body["messages"] = [{"role": message.role, "content": message.content} for message in prompt.messages]
    else:
        body["prompt"] = prompt.text
    body["temperature"] = sampling.temperature
    body[room] = sampling.max_tokens
    if sampling.top_p != 1.0:
        body["top_p"] = sampling.top_p
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if logprobs is not None and chat:
        body["logprobs"] = True
        body["top_logprobs"] = logprobs
    elif logprobs is not None:
        body["logprobs"] = logprobs
    if prompt.schema is not None and chat:
        named = {"name": "answer", "schema": prompt.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    body.update(extra or {})
    return {name: value for name, value in body.items() if value is not None}


def shown(body: Mapping[str, Any]) -> str:
    """All text of a request that the endpoint bills as input."""
    if "messages" in body:
        return "\n".join(str(message.get("content") or "") for message in body["messages"])
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, str) else "\n".join(map(str, prompt))


def write_json(value: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8 with sorted keys: equal values have equal bytes. Half of a surrogate pair goes as an escape."""
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# --- responses -------------------------------------------------------------------------------------------------------


def read_response(response: Any) -> list[Completion]:
    """The completions of a response, of either endpoint, in order of their index.

    `usage` stands on the first of them, so that a sum over completions is what was billed.

    Raises:
        ValueError: it is no response: the reason in words.
    """
    if not isinstance(response, dict):
        raise ValueError(f"a JSON object was expected, not a {type(response).__name__}")
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices:
        error = response.get("error")
        raise ValueError(f"no choices in the response{f': {error}' if error else ''}")
    ordered = sorted(choices, key=_index) if len(choices) > 1 else choices
    completions = [_completion(choice) for choice in ordered]
    first = completions[0]
    usage = read_usage(response)
    completions[0] = Completion(first.text, first.logprob, first.tokens, first.finish_reason, usage, first.reasoning)
    return completions


def read_usage(response: Mapping[str, Any]) -> Usage | None:
    """What was billed, or None where the endpoint did not say."""
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens")
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens"), cached]
    return Usage(*(count if isinstance(count, int) and count > 0 else 0 for count in counts))


def _index(choice: Any) -> int:
    index = choice.get("index") if isinstance(choice, dict) else None
    return index if isinstance(index, int) else 0


def _completion(choice: Any) -> Completion:
    if not isinstance(choice, dict):
        raise ValueError("a choice is not a JSON object")
    message = choice.get("message")
    reasoning = None
    if isinstance(message, dict):
        text = _text(message.get("content")) or _text(message.get("refusal"))
        reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or None
    elif "text" in choice:
        text = _text(choice["text"])
    else:
        raise ValueError("a choice has neither 'message' nor 'text'")
    thought = THINK.match(text)
    if thought and reasoning is None:
        reasoning, text = thought[1].strip() or None, text[thought.end() :]
    tokens = _tokens(choice.get("logprobs"))
    mean = sum(token.logprob for token in tokens) / len(tokens) if tokens else None
    reason = choice.get("finish_reason") or "stop"
    return Completion(text, mean, tokens, str(reason), None, reasoning)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # content in parts
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def _tokens(logprobs: Any) -> tuple[TokenLogprob, ...]:
    if not isinstance(logprobs, dict):
        return ()
    content = logprobs.get("content")
    if isinstance(content, list):
        return tuple(
            TokenLogprob(
                str(token.get("token", "")),
                float(token["logprob"]),
                tuple(_alternatives(token.get("top_logprobs"))),
            )
            for token in content
            if isinstance(token, dict) and isinstance(token.get("logprob"), int | float)
        )
    tokens, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
    tops = logprobs.get("top_logprobs")
    tops = tops if isinstance(tops, list) else [None] * len(tokens)
    return tuple(
        TokenLogprob(str(token), float(value), tuple(_alternatives(top)))
        for token, value, top in zip(tokens, values, tops, strict=False)
        if isinstance(value, int | float)
    )


def _alternatives(top: Any) -> Iterator[tuple[str, float]]:
    """The best alternatives at a token, as a list of objects or as a mapping; what is malformed is passed over."""
    if isinstance(top, dict):
        top = [{"token": token, "logprob": value} for token, value in top.items()]
    for one in top if isinstance(top, list) else ():
        if isinstance(one, dict) and isinstance(one.get("logprob"), int | float):
            yield str(one.get("token", "")), float(one["logprob"])


def write_response(
    model: str, texts: Sequence[Mapping[str, Any]], *, chat: bool, prompt_tokens: int, completion_tokens: int
) -> dict[str, Any]:
    """A response in the dialect, for teachers that answer in process.

    Args:
        texts: for each choice 'text', and where there are any 'finish_reason' and 'tokens' (pairs of token and
            log-probability).
    """
    choices = []
    for index, item in enumerate(texts):
        choice: dict[str, Any] = {"index": index, "finish_reason": item.get("finish_reason", "stop")}
        pairs = item.get("tokens")
        if chat:
            choice["message"] = {"role": "assistant", "content": item["text"]}
            if pairs is not None:
                choice["logprobs"] = {"content": [{"token": token, "logprob": value} for token, value in pairs]}
        else:
            choice["text"] = item["text"]
            if pairs is not None:
                choice["logprobs"] = {"tokens": [t for t, _ in pairs], "token_logprobs": [v for _, v in pairs]}
        choices.append(choice)
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    kind = "chat.completion" if chat else "text_completion"
    return {"object": kind, "model": model, "choices": choices, "usage": usage}
