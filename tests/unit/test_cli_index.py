"""`lmdistill index` from a file to hits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmdistill.cli.main import main


def write(path: Path, count: int = 5) -> Path:
    rows = [{"id": f"p{i}", "text": f"animal{i} eats plant{i} ."} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code in (0, None), leaving.value.code


def test_index_search_and_open_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path / "facts.jsonl"), tmp_path / "base"
    run(["index", str(source), "--out", str(out), "--search", "what eats plant3?", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["passages"] == 5
    assert shown["hits"][0]["id"] == "p3"
    assert len(list(out.glob("bm25-*"))) == 1
    run(["index", str(source), "--out", str(out), "--search", "zebra"])
    printed = capsys.readouterr().out
    assert "nothing found" in printed and f"knowledge base: {out}" in printed


def test_an_index_of_other_settings_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path / "facts.jsonl"), tmp_path / "base"
    run(["index", str(source), "--out", str(out), "--retriever", "none"])
    with pytest.raises(SystemExit) as leaving:
        main(["index", str(source), "--out", str(out), "--words", "7"])
    assert leaving.value.code == 2
    assert "belongs to another run" in capsys.readouterr().err


def test_wrong_settings_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "facts.jsonl")
    with pytest.raises(SystemExit) as leaving:
        main(["index", str(source), "--out", str(tmp_path / "base"), "--set", "k2=1"])
    assert leaving.value.code == 2
    assert "k2: unknown setting; did you mean 'k1'?" in capsys.readouterr().err
