"""Every teacher in the folder keeps the contract."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, registry
from lmdistill.errors import MissingExtra
from lmdistill.response_cache import ResponseCache
from lmdistill.teachers import Reply, Request, Teacher, TeacherSettings, WhiteBox, keep
from lmdistill.types import Sampling
from lmdistill.wire import Message, Prompt, plain, read_response

NAMES = registry.names("teachers")
TASK = registry.load("tasks", "sums")()
EXAMPLES = TASK.examples("train")[:6]
REQUIRED: dict[str, dict[str, Any]] = {
    "openai": {"model": "m", "base_url": "http://127.0.0.1:9/v1"},
    "replay": {"path": "answers.jsonl", "text": "raw"},
    "transformers": {"model": "a/checkpoint"},
    "vllm": {"model": "a/checkpoint"},
}
IN_PROCESS = ["replay", "scripted"]


def settings_of(name: str, folder: Path) -> TeacherSettings:
    given = dict(REQUIRED.get(name, {}))
    if name == "replay":
        given["path"] = folder / "answers.jsonl"
        rows = [{"id": e.id, "raw": [f"Why. {TASK.answer_cue} {e.label}", "What?"]} for e in EXAMPLES]
        given["path"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    built = registry.load("teachers", name)(**given)
    assert isinstance(built, TeacherSettings)
    return built


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_frozen_recorded_and_rebuilt(name: str, tmp_path: Path) -> None:
    settings = settings_of(name, tmp_path)
    assert dataclasses.is_dataclass(settings) and settings.__dataclass_params__.frozen  # type: ignore[attr-defined]
    written = json.loads(json.dumps(config.settings_of(settings)))
    assert written["name"] == name and config.rebuild("teachers", written) == settings
    names = {field.name for field in dataclasses.fields(settings)}
    assert settings.operational <= names and "source" in names
    assert set(settings.identity()) == (names | {"name"}) - settings.operational


@pytest.mark.parametrize("name", NAMES)
def test_opening_asks_nobody_and_loads_nothing(name: str, tmp_path: Path) -> None:
    with ResponseCache(None) as cache:
        teacher = settings_of(name, tmp_path).open(TASK, cache=cache)
    assert isinstance(teacher, Teacher)
    assert teacher.source and teacher.endpoint and teacher.model
    assert isinstance(teacher, WhiteBox) == (name == "transformers")


@pytest.mark.parametrize("name", NAMES)
def test_a_request_is_its_body_and_nothing_else(name: str, tmp_path: Path) -> None:
    teacher = settings_of(name, tmp_path).open(TASK)
    prompt = Prompt((Message("system", "Think."), Message("user", EXAMPLES[0].input)))
    one = teacher.request(prompt, Sampling(n=5, temperature=0.5), EXAMPLES[0], (0, 1))
    same = teacher.request(prompt, Sampling(n=1, temperature=0.5), EXAMPLES[0], (3,))
    assert one.key == same.key and "n" not in one.body
    assert json.loads(one.payload) == one.body
    other = teacher.request(plain(EXAMPLES[1].input), Sampling(temperature=0.5), EXAMPLES[1])
    assert other.key != one.key
    if name != "replay":  # what is recorded does not depend on how it would be asked
        assert teacher.request(prompt, Sampling(temperature=0.7), EXAMPLES[0]).key != one.key


async def answered(teacher: Teacher, requests: list[Request]) -> list[Reply]:
    async def source() -> AsyncIterator[Request]:
        for request in requests:
            yield request

    replies = [reply async for reply in teacher.answers(source())]
    await teacher.close()
    return replies


@pytest.mark.parametrize("name", IN_PROCESS)
def test_every_request_ends_once_in_the_dialect(name: str, tmp_path: Path) -> None:
    teacher = settings_of(name, tmp_path).open(TASK)
    requests = [teacher.request(plain(one.input), Sampling(), one, (0, 1)) for one in EXAMPLES]
    replies = asyncio.run(answered(teacher, requests))
    assert sorted(reply.request.key for reply in replies) == sorted(request.key for request in requests)
    with ResponseCache(None) as cache:
        for reply in replies:
            assert list(reply.completions) == read_response(json.loads(reply.raw)) and len(reply.completions) == 2
            assert keep(cache, teacher, reply) == 2
            found = cache.find(reply.request.key, 1)
            assert found is not None and found.completion == reply.completions[1]
        read = [TASK.parse(reply.request.example, reply.completions[0].text) for reply in replies]
    assert all(TASK.is_correct(r.request.example, p.answer) for r, p in zip(replies, read, strict=True))


@pytest.mark.parametrize("name", IN_PROCESS)
def test_nothing_asked_is_nothing_answered(name: str, tmp_path: Path) -> None:
    assert asyncio.run(answered(settings_of(name, tmp_path).open(TASK), [])) == []


def test_vllm_is_asked_for_by_its_extra(tmp_path: Path) -> None:
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(MissingExtra, match=r"lmdistill\[vllm\]"):
            settings_of("vllm", tmp_path).open(TASK).generate(["x"], Sampling())
    else:
        pytest.skip("vllm is installed; its own test runs")


def test_vllm_samples_as_it_is_told(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vllm is not installed")
    teacher = settings_of("vllm", tmp_path).open(TASK)
    parameters = teacher.parameters(Sampling(temperature=0.5, top_p=0.9, top_k=0, max_tokens=7, stop=("x",)), 3)
    assert (parameters.n, parameters.temperature, parameters.top_p, parameters.max_tokens) == (3, 0.5, 0.9, 7)
    assert parameters.top_k in (-1, 0) and parameters.stop == ["x"] and parameters.logprobs == 0
