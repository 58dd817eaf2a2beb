from __future__ import annotations

import gzip
import json
import os
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdistill import store
from lmdistill.errors import DataError, StoreError
from lmdistill.types import (
    Annotation,
    Candidates,
    Completion,
    Estimate,
    Example,
    Hit,
    Passage,
    Prediction,
    Rationale,
    Report,
    TokenLogprob,
    Usage,
)

# --- JSON ---

text = st.text(max_size=8)
number = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53).map(float)
plain = st.recursive(st.none() | st.booleans() | st.integers() | text, lambda x: st.lists(x, max_size=2), max_leaves=4)
examples = st.builds(
    Example,
    id=text,
    input=text,
    label=st.none() | text,
    choices=st.lists(text, max_size=3).map(tuple),
    fields=st.dictionaries(text, plain, max_size=2),
)
hits = st.lists(st.builds(Hit, st.builds(Passage, text, text, text), number), max_size=2).map(tuple)
rationales = st.builds(
    Rationale,
    text=text,
    answer=st.none() | text,
    sample=st.integers(0, 99),
    logprob=st.none() | number,
    hits=hits,
    scores=st.dictionaries(text, number, max_size=2),
    reason=st.none() | text,
)
several = st.lists(rationales, max_size=2).map(tuple)
annotations = st.builds(Annotation, examples, several, several, several, hits)
completions = st.builds(
    Completion,
    text=text,
    logprob=st.none() | number,
    tokens=st.lists(
        st.builds(TokenLogprob, text, number, st.lists(st.tuples(text, number), max_size=2).map(tuple)), max_size=2
    ).map(tuple),
    usage=st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    reasoning=st.none() | text,
)
predictions = st.builds(
    Prediction,
    examples,
    st.none() | text,
    text,
    hits,
    st.dictionaries(text, st.integers(1, 9), max_size=2),
    st.none() | number,
)
nouns = annotations | completions | predictions | st.builds(Candidates, text, text, st.just(()), st.just((1.0, 2.5)))


@given(nouns)
def test_nouns_go_to_json_and_back(noun: Any) -> None:
    text = json.dumps(store.encode(noun), allow_nan=False)
    assert store.decode(type(noun), json.loads(text)) == noun


def test_defaults_are_left_out_and_unknown_keys_passed_over() -> None:
    assert store.encode(Example("1", "q")) == {"id": "1", "input": "q"}
    assert store.decode(Example, {"id": "1", "input": "q", "from_a_newer_version": 3}) == Example("1", "q")


def test_numbers_that_json_lacks_survive_in_standard_json() -> None:
    report = Report("r", {"nll": Estimate(float("inf"), float("-inf"), 1.0, 2)})
    text = json.dumps(store.encode(report), allow_nan=False)
    assert store.decode(Report, json.loads(text)) == report


def test_digests_do_not_depend_on_order_or_process() -> None:
    value = {"b": 1, "a": {"x", "y", "z", "w"}, "c": 0.1}
    assert store.digest(value) == store.digest(dict(reversed(value.items())))
    code = f"from lmdistill import store; print(store.digest({value!r}))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in "123"
    }
    assert told == {store.digest(value)}


def test_what_json_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match="cannot write function as JSON"):
        store.encode({"metric": test_what_json_cannot_hold_is_named})


def test_seeds_are_stable_and_distinct() -> None:
    # printf '0\x1f1\x1fitem-7' | sha256sum: the first 16 digits, 12cb1e52c5797ba2, halved
    assert store.seed_for(0, 1, "item-7") == 0x12CB1E52C5797BA2 // 2
    assert len({store.seed_for(0, r, i) for r in range(50) for i in range(50)}) == 2500
    assert all(0 <= store.seed_for(i) < 2**63 for i in range(100))


# --- rows ---


def test_rows_are_lazy_sequences(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    made = [Example(str(i), "ü" * i) for i in range(20)]
    assert store.write_rows(path, (one for one in made)) == 20
    rows = store.Rows(path, Example)
    assert len(rows) == 20
    assert list(rows) == made
    assert rows[-1] == made[-1]
    assert rows[3:6] == made[3:6]
    assert made[5] in rows
    with pytest.raises(IndexError):
        rows[20]


@given(st.lists(st.text(max_size=5), max_size=4))
def test_any_text_a_teacher_writes_can_be_stored(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    made = [Example(str(i), one + "\ud83d\u2028\x00\r") for i, one in enumerate(texts)]
    store.write_rows(path, made)
    assert list(store.Rows(path, Example)) == made
    assert [row["id"] for _, row in store.read_jsonl(path)] == [one.id for one in made]


def test_missing_and_damaged_rows_name_the_folder_to_remove(tmp_path: Path) -> None:
    path = tmp_path / "stage" / "rows.jsonl"
    with pytest.raises(StoreError, match=r"rows\.jsonl cannot be read .*remove the folder .*stage to make it again"):
        store.Rows(path, Example)
    store.write_rows(path, [Example("1", "a"), Example("2", "b")])
    path.write_bytes(path.read_bytes()[:-8])
    rows = store.Rows(path, Example)
    assert rows[0].id == "1"
    with pytest.raises(StoreError, match="is damaged"):
        rows[1]
    path.write_text('{"id": "1"}\n')
    with pytest.raises(StoreError, match="is damaged"):
        list(store.Rows(path, Example))


# --- reading what others wrote ---


def test_lines_of_plain_and_gzipped_files(tmp_path: Path) -> None:
    body = "\ufeffone\r\nzwei ü\n\nlast".encode()
    (tmp_path / "a.txt").write_bytes(body)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(body))
    for name in ("a.txt", "a.txt.gz"):
        assert list(store.read_lines(tmp_path / name)) == [(1, "one"), (2, "zwei ü"), (3, ""), (4, "last")]


def noise(size: int) -> bytes:
    """Text that gzip cannot shrink to one block."""
    letters = string.ascii_letters
    return "".join(letters[(i * i * 7919 + i) % 52] + ("\n" if i % 50 == 49 else "") for i in range(size)).encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a\.jsonl:2: is not JSON .*cut short"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a\.jsonl:2: holds a list; a JSON object"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": "\xff"}\n', r"a\.jsonl:3: is not UTF-8"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: is not JSON"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 50)[:-9], r"a\.jsonl\.gz:\d+: the file is cut short"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz:0: the file is cut short or damaged"),
        ("a.jsonl.gz", b"", None),
    ],
    ids=["cut", "list", "latin", "deep", "cut gzip", "no gzip", "empty"],
)
def test_bad_files_are_named_with_their_line(tmp_path: Path, name: str, content: bytes, message: str | None) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if message is None:
        assert list(store.read_jsonl(path)) == []
        return
    with pytest.raises(DataError, match=message):
        list(store.read_jsonl(path))


def test_a_flipped_byte_inside_a_gzip_file_is_a_data_error(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(noise(20_000)))
    path = tmp_path / "a.jsonl.gz"
    for place in range(20, len(packed), 331):
        broken = bytearray(packed)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"cut short or damaged|not UTF-8"):
            list(store.read_lines(path))


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(store.read_lines(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="is a folder"):
        list(store.read_lines(tmp_path))


# --- writing ---


def fill_the_disk(path: Path) -> None:
    """The next write of `path` meets ENOSPC, as from a full disk."""
    path.with_name(f".{path.name}.{os.getpid()}.part").symlink_to("/dev/full")


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    store.write_rows(path, [Example("old", "x")])
    fill_the_disk(path)
    with pytest.raises(StoreError, match=r"cannot write .*rows\.jsonl: No space left on device; what was there.*kept"):
        store.write_rows(path, [Example("new", "y")])
    assert [row.id for row in store.Rows(path, Example)] == ["old"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["rows.jsonl"]


def test_an_error_while_rows_are_made_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    store.write_rows(path, [Example("old", "x")])

    def rows() -> Any:
        yield Example("new", "y")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.write_rows(path, rows())
    assert [row.id for row in store.Rows(path, Example)] == ["old"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["rows.jsonl"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write"):
        store.write_json(tmp_path / "file" / "report.json", {})
    assert (tmp_path / "file").read_text() == "x"


def test_json_files_hold_any_text(tmp_path: Path) -> None:
    for value in ({"a": "ü"}, {"a": "\ud83d"}):
        store.write_json(tmp_path / "a.json", value)
        assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_map_rows(tmp_path: Path) -> None:
    assert store.map_rows(range(3), lambda i: {"i": i * i}, tmp_path / "squares.jsonl") == 3
    assert [row for _, row in store.read_jsonl(tmp_path / "squares.jsonl")] == [{"i": 0}, {"i": 1}, {"i": 4}]
