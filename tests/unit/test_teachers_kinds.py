"""The kinds that need no network: scripted and replay, and the settings of openai."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, registry
from lmdistill.errors import ConfigError, DataError, TeacherError
from lmdistill.flow import Limits
from lmdistill.pricing import FREE, Price
from lmdistill.teachers import Teacher
from lmdistill.teachers._client import retry_after
from lmdistill.teachers.openai import OpenAI
from lmdistill.teachers.replay import Replay
from lmdistill.teachers.scripted import Scripted, questions
from lmdistill.types import Example, Sampling
from lmdistill.wire import Message, Prompt, plain

PATHS = registry.load("tasks", "paths")()
SUMS = registry.load("tasks", "sums")()


def texts(teacher: Teacher, prompt: str | Prompt, **sampling: Any) -> list[str]:
    return [one.text for one in teacher.generate([prompt], Sampling(**sampling))[0]]


# --- scripted --------------------------------------------------------------------------------------------------------


def test_scripted_answers_the_last_question_whatever_stands_before_it() -> None:
    teacher = Scripted().open(SUMS)
    asked, other = SUMS.examples("train")[0], SUMS.examples("train")[1]
    chat = Prompt(
        (
            Message("system", "Be brief."),
            Message("user", other.input),
            Message("assistant", "so the answer is 99"),
            Message("user", asked.input),
        )
    )
    forms: list[str | Prompt] = [
        asked.input,
        f"Q: {other.input}\nA: so the answer is 99.\n\nQ: {asked.input}\nA:",
        f"Some words first.\n\n{asked.input}",
        f"{asked.input}\nThe correct answer is {asked.label}. Explain step by step why.",
        chat,
    ]
    for form in forms:
        (text,) = texts(teacher, form)
        assert SUMS.is_correct(asked, SUMS.parse(asked, text).answer), (form, text)


def test_at_temperature_zero_a_question_has_one_derivation_and_above_many() -> None:
    example = PATHS.examples("train")[0]
    teacher = Scripted().open(PATHS)
    assert len(set(texts(teacher, example.input, n=20))) == 1
    varied = texts(teacher, example.input, n=20, temperature=1.0)
    assert len(set(varied)) >= 3
    assert all(PATHS.is_correct(example, PATHS.parse(example, text).answer) for text in varied)


def test_samples_are_the_same_however_they_are_gathered() -> None:
    example = PATHS.examples("train")[0]
    together = texts(Scripted().open(PATHS), example.input, n=6, temperature=1.0)
    single = Scripted().open(PATHS)
    single.most_samples = 1
    assert texts(single, example.input, n=6, temperature=1.0) == together
    assert texts(Scripted(seed=1).open(PATHS), example.input, n=6, temperature=1.0) != together


def test_scripted_is_wrong_and_unparsable_as_often_as_told() -> None:
    examples = SUMS.examples("train")[:500]
    teacher = Scripted(error_rate=0.2, unparsable_rate=0.1).open(SUMS)
    answers = [
        (example, SUMS.parse(example, completions[0].text))
        for example, completions in zip(
            examples, teacher.generate([example.input for example in examples], Sampling()), strict=True
        )
    ]
    lost = sum(parsed.answer is None for _, parsed in answers) / 500
    wrong = sum(parsed.answer is not None and not SUMS.is_correct(e, parsed.answer) for e, parsed in answers) / 500
    assert abs(lost - 0.1) < 0.04 and abs(wrong - 0.2) < 0.05


def test_scripted_says_how_sure_it_is_and_what_it_used() -> None:
    examples = SUMS.examples("train")[:200]
    prompts = [example.input for example in examples]
    right = Scripted().open(SUMS).generate(prompts, Sampling())
    wrong = Scripted(error_rate=1.0).open(SUMS).generate(prompts, Sampling())

    def mean(rows: Any) -> float:
        return sum(row[0].logprob for row in rows) / len(rows)

    assert mean(wrong) < mean(right) - 0.05 < 0
    for row in right:
        assert row[0].usage.completion_tokens == len(row[0].tokens) > 5
        assert "".join(token.token for token in row[0].tokens) == row[0].text


def test_scripted_obeys_stop_strings_and_the_room_it_has() -> None:
    teacher = Scripted().open(SUMS)
    question = SUMS.examples("train")[0].input
    (cut,) = teacher.generate([question], Sampling(max_tokens=4))[0]
    assert cut.finish_reason == "length" and len(cut.tokens) == 4
    (stopped,) = teacher.generate([question], Sampling(stop=(" so",)))[0]
    assert stopped.finish_reason == "stop" and " so" not in stopped.text


def test_scripted_failures_are_tried_again() -> None:
    examples = SUMS.examples("train")[:100]
    teacher = Scripted(failure_rate=0.5, limits=Limits(backoff=0.0)).open(SUMS)
    found = teacher.generate([example.input for example in examples], Sampling())
    assert all(SUMS.is_correct(e, SUMS.parse(e, row[0].text).answer) for e, row in zip(examples, found, strict=True))
    assert 20 < sum(teacher.retries.values()) < 80 and set(teacher.retries) == {"HTTP 429", "HTTP 500"}


def test_scripted_knows_when_it_is_not_asked_a_question() -> None:
    assert texts(Scripted().open(SUMS), "Tell me a story.") == ["I do not see a question that I can answer."]


def test_scripted_refuses_tasks_that_it_cannot_solve() -> None:
    with pytest.raises(ConfigError, match=r"generated tasks only .* Use teacher 'replay'"):
        Scripted().open(None)
    with pytest.raises(ConfigError, match=r"failure_rate: 1\.5 is no share"):
        Scripted(failure_rate=1.5)


def test_places_where_a_question_may_stand() -> None:
    body = {"prompt": "Q: one?\nA: 1\n\nQ: two?\nA:"}
    assert "two?" in questions(body) and questions(body).index("two?") < questions(body).index("Q: one?\nA: 1")


# --- replay ----------------------------------------------------------------------------------------------------------

ROWS = [
    {"id": "a", "row": 5, "input": "first", "raw": "why. So the answer is 1.", "many": ["x", "So the answer is 2."],
     "rationales": [{"teacher": "t", "text": "because", "label": 3}, {"teacher": "u", "text": "since", "label": 4}]},
    {"id": "b", "row": 6, "input": "second", "raw": None, "many": [], "rationales": []},
]  # fmt: skip


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "palm.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    return path


def replayed(settings: Replay, example: Example, n: int = 1) -> list[tuple[str, str]]:
    import asyncio

    teacher = settings.open(SUMS)
    request = teacher.request(plain(example.input), Sampling(), example, tuple(range(n)))

    async def run() -> list[tuple[str, str]]:
        async def source() -> Any:
            yield request

        return [
            (c.text, c.finish_reason)
            for reply in [r async for r in teacher.answers(source())]
            for c in reply.completions
        ]

    return asyncio.run(run())


FIRST = Example("a", "first", fields={"row": 5})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"text": "raw"}, ["why. So the answer is 1."]),
        ({"text": "many"}, ["x", "So the answer is 2."]),
        ({"text": "rationales[].text"}, ["because", "since"]),
        (
            {"text": "rationales[].text", "answer": "rationales[].label"},
            ["because so the answer is 3", "since so the answer is 4"],
        ),
        ({"text": "rationales[].text", "only": {"teacher": "u"}}, ["since"]),
        ({"text": "raw", "match": "row"}, ["why. So the answer is 1."]),
        ({"text": "raw", "match": "input"}, ["why. So the answer is 1."]),
    ],
)
def test_replay_finds_what_was_recorded(recorded: Path, settings: dict[str, Any], expected: list[str]) -> None:
    found = replayed(Replay(path=recorded, **settings), FIRST, n=len(expected) + 1)
    assert found == [*((text, "stop") for text in expected), ("", "not recorded")]


def test_replay_says_what_was_not_recorded(recorded: Path) -> None:
    settings = Replay(path=recorded, text="raw")
    assert replayed(settings, Example("b", "second")) == [("", "not recorded")]
    assert replayed(settings, Example("zzz", "unknown")) == [("", "not recorded")]


def test_replay_names_a_column_that_is_not_there(recorded: Path) -> None:
    with pytest.raises(DataError, match=r"palm\.jsonl\.gz:1: has no column 'uid'"):
        Replay(path=recorded, text="raw", id_column="uid").open(SUMS)
    with pytest.raises(DataError, match="no row has a text in 'palm'"):
        Replay(path=recorded, text="palm").open(SUMS)
    with pytest.raises(DataError, match="no such file"):
        Replay(path=recorded.with_name("none.jsonl")).open(SUMS)
    with pytest.raises(ConfigError, match="only: selects among a list of objects"):
        Replay(path=recorded, text="raw", only={"a": "b"})
    with pytest.raises(ConfigError, match="has no field 'row'"):
        replayed(Replay(path=recorded, text="raw", match="row"), Example("a", "first"))


def test_replay_is_named_after_its_file(recorded: Path) -> None:
    assert Replay(path=recorded, text="raw").open(SUMS).source == "palm"
    assert Replay(path=recorded, text="raw", source="PaLM-540B").open(SUMS).source == "PaLM-540B"


# --- openai ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"headers": {"X-Api-Key": "abc"}}, r"headers\.X-Api-Key: .* write secret_headers"),
        ({"headers": {"Authorization": "Bearer abc"}}, "must not stand in a run file"),
        ({"base_url": "https://me:pass@host/v1"}, "must hold no user, password or query"),
        ({"base_url": "https://host/v1?key=abc"}, "must hold no user, password or query"),
        ({"base_url": "host/v1"}, "is no address"),
        ({"body": {"user": "sk-test-123456"}}, "the key itself stands in the settings"),
    ],
)
def test_secrets_cannot_be_written_into_settings(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-123456")
    with pytest.raises(ConfigError, match=message) as caught:
        OpenAI(model="m", **settings)
    assert "sk-test-123456" not in str(caught.value)


def test_a_word_for_a_local_server_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    teacher = OpenAI(model="none-such", base_url="http://localhost/v1", body={"user": "none"}).open()
    assert teacher.secrets == () and teacher.clean("none of them") == "none of them"


def test_the_hosted_endpoint_needs_a_key_and_a_local_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the variable OPENAI_API_KEY is not set"):
        OpenAI(model="gpt-4o").open()
    local = OpenAI(model="llama", base_url="http://localhost:11434/v1/").open()
    assert local.price == FREE and local.endpoint == "http://localhost:11434/v1"
    with pytest.raises(ConfigError, match=r"secret_headers\.X-Key: the variable MY_KEY is not set"):
        OpenAI(model="m", base_url="http://x/v1", secret_headers={"X-Key": "MY_KEY"}).open()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert OpenAI(model="gpt-4o-mini").open().price == Price(0.15, 0.6, 0.075, 0.5)
    assert OpenAI(model="unheard-of").open().price is None


def test_how_it_is_asked_is_no_part_of_what_it_says() -> None:
    one = OpenAI(model="m", base_url="http://x/v1", limits=Limits(concurrency=3), timeout=5, headers={"A": "b"})
    two = OpenAI(model="m", base_url="http://x/v1", price=Price(1, 2))
    assert one.identity() == two.identity()
    assert one.identity() != OpenAI(model="m", base_url="http://y/v1").identity()


def test_beams_are_refused_by_a_sampler() -> None:
    with pytest.raises(ConfigError, match=r"no beam search; set sampling\.beams to 1, not 4"):
        Scripted().open(SUMS).generate(["x"], Sampling(beams=4))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after-ms": "20"}, 0.02), ({"retry-after": "3"}, 3.0), ({"retry-after": "-1"}, 0.0), ({}, None)],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    import email.utils
    import time

    wait = retry_after({"retry-after": email.utils.formatdate(time.time() + 30, usegmt=True)})
    assert wait is not None and 25 < wait <= 30
    assert retry_after({"retry-after": "Wed, 01 Jan 2020 00:00:00 GMT"}) == 0.0


def test_settings_come_from_a_run_file() -> None:
    built = config.rebuild("teachers", {
        "name": "openai", "model": "m", "base_url": "http://x/v1", "limits": {"concurrency": 2},
        "price": {"input": 1, "output": 2}, "body": {"temperature": None}, "batch": {"poll": 5},
    })  # fmt: skip
    assert built.limits.concurrency == 2 and built.price == Price(1.0, 2.0) and built.batch.poll == 5.0
    assert config.rebuild("teachers", config.settings_of(built)) == built


def test_generate_raises_what_was_refused() -> None:
    teacher = Scripted(failure_rate=1.0, limits=Limits(tries=1)).open(SUMS)
    with pytest.raises(TeacherError, match=r"scripted: gave up: HTTP (429|500)"):
        teacher.generate(["x"], Sampling())
