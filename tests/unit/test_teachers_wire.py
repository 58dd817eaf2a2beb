"""Requests and responses in the OpenAI dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdistill import wire
from lmdistill.types import Sampling, Usage
from lmdistill.wire import Message, Prompt

CHAT = Prompt((Message("system", "Be brief."), Message("user", "2 + 2?")))


def test_a_chat_body_holds_what_was_asked_and_no_more() -> None:
    body = wire.request_body("m", CHAT, Sampling(max_tokens=9))
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
        "temperature": 0.0,
        "max_tokens": 9,
    }


def test_every_sampling_setting_reaches_the_body() -> None:
    sampling = Sampling(n=7, temperature=0.7, top_p=0.9, top_k=40, max_tokens=5, stop=("\n",), seed=3)
    body = wire.request_body("m", CHAT, sampling, logprobs=2, room="max_completion_tokens", extra={"x": 1})
    assert body["top_p"] == 0.9 and body["top_k"] == 40 and body["stop"] == ["\n"] and body["seed"] == 3
    assert body["max_completion_tokens"] == 5 and "max_tokens" not in body
    assert body["logprobs"] is True and body["top_logprobs"] == 2 and body["x"] == 1
    assert "n" not in body  # how samples are gathered does not change what they are


def test_extra_fields_may_take_a_field_away() -> None:
    assert "temperature" not in wire.request_body("m", CHAT, Sampling(), extra={"temperature": None})


def test_a_completions_body_is_one_text() -> None:
    body = wire.request_body("m", CHAT, Sampling(), chat=False, logprobs=1)
    assert body["prompt"] == "Be brief.\n\n2 + 2?\n\n" and body["logprobs"] == 1
    assert wire.request_body("m", wire.plain("Q: 2 + 2?\nA:"), Sampling(), chat=False)["prompt"] == "Q: 2 + 2?\nA:"


def test_a_schema_becomes_a_response_format() -> None:
    schema = {"type": "object"}
    body = wire.request_body("m", Prompt(CHAT.messages, schema=schema), Sampling())
    assert body["response_format"]["json_schema"]["schema"] == schema


CHOICE: dict[str, Any] = {
    "index": 0,
    "finish_reason": "length",
    "message": {"role": "assistant", "content": "four", "reasoning_content": "two and two"},
    "logprobs": {
        "content": [
            {"token": "fo", "logprob": -0.5, "top_logprobs": [{"token": "fi", "logprob": -1.0}]},
            {"token": "ur", "logprob": -0.1, "top_logprobs": []},
        ]
    },
}


def test_a_chat_response_is_read_whole() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    (found,) = wire.read_response({"choices": [CHOICE], "usage": usage})
    assert (found.text, found.reasoning, found.finish_reason) == ("four", "two and two", "length")
    assert found.usage == Usage(5, 2, 3)
    assert found.logprob == pytest.approx(-0.3)
    assert found.tokens[0].top == (("fi", -1.0),)


def test_a_completions_response_is_read_whole() -> None:
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [None, -2.0], "top_logprobs": [None, {"c": -3.0}]}
    response = {"choices": [{"text": "ab", "logprobs": logprobs}], "usage": {"prompt_cache_hit_tokens": 4}}
    (found,) = wire.read_response(response)
    assert found.text == "ab" and found.logprob == -2.0 and found.tokens[0].top == (("c", -3.0),)
    assert found.usage == Usage(0, 0, 4)


def test_choices_come_in_the_order_of_their_index_and_usage_counts_once() -> None:
    choices = [{"index": i, "text": str(i)} for i in (2, 0, 1)]
    found = wire.read_response({"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 3}})
    assert [one.text for one in found] == ["0", "1", "2"]
    assert [one.usage for one in found] == [Usage(1, 3), None, None]


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "<think>\nhm\n</think>\n\nyes"}, "yes", "hm"),
        ({"content": "<think>never closed"}, "", "never closed"),
        ({"content": None, "reasoning": "why"}, "", "why"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", None),
        ({"content": None, "refusal": "I cannot"}, "I cannot", None),
    ],
)
def test_contents_in_many_forms(message: dict[str, Any], text: str, reasoning: str | None) -> None:
    (found,) = wire.read_response({"choices": [{"message": message}]})
    assert (found.text, found.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    "response", [None, [], "x", {}, {"choices": []}, {"choices": "x"}, {"choices": [1]}, {"choices": [{}]}]
)
def test_what_is_no_response_is_refused(response: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|choice"):
        wire.read_response(response)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "text", "logprobs", "tokens", "token_logprobs", "usage", "index"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_reading_either_gives_completions_or_says_why_not(value: Any) -> None:
    try:
        found = wire.read_response(value)
    except ValueError:
        return
    assert found and all(isinstance(one.text, str) for one in found)


@given(st.lists(st.tuples(st.text(), st.floats(-9, 0)), max_size=4), st.booleans())
def test_a_written_response_is_read_back(tokens: list[tuple[str, float]], chat: bool) -> None:
    text = "".join(token for token, _ in tokens)
    if text.lstrip().startswith("<think>"):
        return
    written = wire.write_response(
        "m", [{"text": text, "tokens": tokens}], chat=chat, prompt_tokens=2, completion_tokens=3
    )
    (found,) = wire.read_response(json.loads(json.dumps(written)))
    assert found.text == text and found.usage == Usage(2, 3)
    assert [(one.token, one.logprob) for one in found.tokens] == tokens


def test_half_a_surrogate_pair_can_be_sent() -> None:
    raw = wire.write_json({"prompt": "cut \ud83d"})
    assert json.loads(raw) == {"prompt": "cut \ud83d"}


def test_equal_requests_have_equal_bytes() -> None:
    assert wire.write_json({"b": 1, "a": "ä"}) == wire.write_json({"a": "ä", "b": 1}) == '{"a":"ä","b":1}'.encode()


@pytest.mark.parametrize(
    "logprobs",
    [
        {
            "content": [
                {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": None}, {"logprob": -2}]}
            ]
        },
        {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": {"b": None}}]},
        {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": 3}]},
        {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [["b"]]},
        {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": 7},
    ],
)
def test_malformed_alternatives_cost_no_answer(logprobs: Any) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "a"}, "logprobs": logprobs}
    (completion,) = wire.read_response({"choices": [choice]})
    assert completion.text == "a" and completion.tokens[0].logprob == -1.0
