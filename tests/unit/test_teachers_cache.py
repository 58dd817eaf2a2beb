"""The response cache: nothing paid for is lost, nothing is mixed up."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lmdistill import response_cache
from lmdistill.errors import StoreError
from lmdistill.response_cache import ResponseCache, key_of
from lmdistill.types import Usage
from lmdistill.wire import read_response, write_json, write_response


def put(cache: ResponseCache, key: str, samples: Sequence[int], texts: Sequence[str], model: str = "m") -> int:
    response = write_response(
        model, [{"text": text} for text in texts], chat=True, prompt_tokens=10, completion_tokens=len(texts)
    )
    return cache.put(
        key,
        samples,
        endpoint="here",
        model=model,
        request=write_json({"model": model, "messages": [{"role": "user", "content": f"question {key}"}]}),
        raw=write_json(response),
        completions=read_response(response),
        seconds=0.5,
    )


def text_of(cache: ResponseCache, key: str, sample: int) -> str | None:
    found = cache.find(key, sample)
    return None if found is None else found.completion.text


def test_answers_survive_closing(tmp_path: Path) -> None:
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert put(cache, "k", (0,), ["one"]) == 1
        assert put(cache, "k", (2, 3), ["three", "four"]) == 2
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert [text_of(cache, "k", sample) for sample in range(5)] == ["one", None, "three", "four", None]
        assert text_of(cache, "other", 0) is None
        assert cache.count() == 3


def test_usage_stands_on_the_first_answer_of_a_response(tmp_path: Path) -> None:
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        put(cache, "k", (4, 5), ["a", "b"])
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        first, second = cache.find("k", 4), cache.find("k", 5)
        assert first is not None and second is not None
        assert first.completion.usage == Usage(10, 2) and second.completion.usage is None
        assert first.seconds == 0.5


def test_what_was_stored_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with ResponseCache(path) as one, ResponseCache(path) as two:  # two processes that asked for the same
        put(one, "k", (0, 1), ["a0", "a1"])
        put(two, "k", (0, 1, 2), ["b0", "b1", "b2"])
        put(two, "k", (0,), ["c0"])
    with ResponseCache(path) as cache:
        assert [text_of(cache, "k", sample) for sample in range(3)] == ["a0", "a1", "b2"]


def test_fewer_choices_than_samples_answer_the_first(tmp_path: Path) -> None:
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert put(cache, "k", (0, 1, 2), ["only"]) == 1
        assert [text_of(cache, "k", sample) for sample in range(3)] == ["only", None, None]


def test_the_key_tells_endpoint_model_and_request_apart() -> None:
    keys = {key_of(*parts) for parts in [("e", "m", b"r"), ("f", "m", b"r"), ("e", "n", b"r"), ("e", "m", b"s")]}
    assert len(keys) == 4 and all(len(key) == 32 for key in keys)


def test_raw_responses_are_kept_as_they_came(tmp_path: Path) -> None:
    raw = b'{"choices":[{"message":{"content":"x"},"vendor":[1,2]}],"more":"' + b"y" * 2000 + b'"}'
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        completions = read_response(json.loads(raw))
        cache.put("k", (0,), endpoint="e", model="m", request=b"{}", raw=raw, completions=completions, seconds=1.0)
        (entry,) = cache.entries()
    assert entry["response"] == json.loads(raw) and entry["samples"] == [0] and entry["request"] == {}
    assert (tmp_path / "c.sqlite").stat().st_size < 100_000


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_text("this is a letter to my aunt, long enough to be read as a header")
    with pytest.raises(StoreError, match=r"c\.sqlite failed: .*--cache"):
        ResponseCache(tmp_path / "c.sqlite")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="response cache"):
        ResponseCache(tmp_path / "file" / "c.sqlite")


def test_contents_and_rates(tmp_path: Path) -> None:
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        assert cache.recent("here", "m", 10) == []
        put(cache, "k", (0, 1), ["a", "b"])
        put(cache, "l", (0,), ["c"])
        put(cache, "k", (0,), ["d"], model="other")  # the key is there already: nothing new
        put(cache, "o", (0,), ["d"], model="other")
        rows = cache.contents()
        assert [(row["model"], row["answers"], row["responses"]) for row in rows] == [("m", 3, 2), ("other", 1, 1)]
        assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) == (20, 3)
        assert cache.recent("here", "m", 10) == [("question l", 10, 1, 1), ("question k", 10, 2, 2)]
        assert cache.recent("here", "m", 1) == [("question l", 10, 1, 1)]


def test_pruning_forgets_exactly_what_was_named(tmp_path: Path) -> None:
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        put(cache, "k", (0,), ["a"])
        put(cache, "o", (0, 1), ["b", "c"], model="other")
        assert cache.prune(before=time.time() - 3600) == 0
        assert cache.prune(endpoint="elsewhere") == 0
        assert cache.prune(model="other") == 2
        assert text_of(cache, "o", 0) is None and text_of(cache, "k", 0) == "a"
        assert cache.prune(before=time.time() + 1) == 1 and cache.count() == 0


def test_keys_are_found_by_their_beginning(tmp_path: Path) -> None:
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        put(cache, "abc", (0,), ["a"])
        put(cache, "a%c", (0,), ["b"])
        assert [entry["key"] for entry in cache.entries("ab")] == ["abc"]
        assert [entry["key"] for entry in cache.entries("a%")] == ["a%c"]
        assert [entry["key"] for entry in cache.entries(model="m")] == ["abc", "a%c"]


def _write(path: Path, start: int) -> None:
    with ResponseCache(path) as cache:
        for number in range(200):
            put(cache, f"k{(number + start) % 300}", (0, 1), [f"{start}", f"{start}"])


def test_two_processes_may_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(path, start)) for start in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with ResponseCache(path) as cache:
        assert cache.count() == 600
        for number in range(300):  # both samples are of one response
            assert text_of(cache, f"k{number}", 0) == text_of(cache, f"k{number}", 1)


def _open(path: Path) -> None:
    ResponseCache(path).close()


def test_many_processes_may_make_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(20):
        path = tmp_path / f"{turn}.sqlite"
        processes = [context.Process(target=_open, args=(path,)) for _ in range(6)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 6


def test_batches_are_remembered_until_done(tmp_path: Path) -> None:
    with ResponseCache(tmp_path / "c.sqlite") as cache:
        cache.save_batch("b1", "here", "open", {"members": {"x": [0]}})
        cache.save_batch("b2", "elsewhere", "open", {})
        assert cache.open_batches("here") == [("b1", {"members": {"x": [0]}})]
        cache.save_batch("b1", "here", "done", {})
        assert cache.open_batches("here") == []


def test_the_default_file_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMDISTILL_CACHE", str(tmp_path / "mine"))
    assert response_cache.default_path() == tmp_path / "mine" / "responses.sqlite"
    monkeypatch.delenv("LMDISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert response_cache.default_path() == tmp_path / "xdg" / "lmdistill" / "responses.sqlite"
