"""`lmdistill annotate`, `import` and `cache`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lmdistill.cli.main import app
from lmdistill.response_cache import ResponseCache

RUNNER = CliRunner()
SUMS = ["--task", "sums", "--teacher", "scripted"]


def run(*arguments: str | Path, code: int = 0) -> str:
    result = RUNNER.invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return str(result.output)


def test_annotate_counts_and_prices(tmp_path: Path) -> None:
    shown = run("annotate", *SUMS, "--limit", "20", "-n", "2", "--temperature", "1", "--out", tmp_path / "a")
    assert "answers: 40" in shown and "accuracy of what parsed: 1.000" in shown and "in 20 requests" in shown
    assert len((tmp_path / "a" / "rows.jsonl").read_text().splitlines()) == 20


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    told = json.loads(run("annotate", *SUMS, "--limit", "20", "--dry-run", "--json", "--set", "teacher.price.input=10",
                          "--set", "teacher.price.output=10"))  # fmt: skip
    assert told[0]["requests"] == 20 and told[0]["cost"] > 0
    shown = run("annotate", *SUMS, "--limit", "20", "--dry-run")
    assert "nothing was asked" in shown and "--limit 20" in shown
    assert list(tmp_path.iterdir()) == []


def test_a_preview_prints_prompts_and_parses() -> None:
    shown = run("annotate", *SUMS, "--preview", "3")
    assert shown.count("--- scripted is shown ---") == 3 and "rationale: (reasoning)" in shown


def test_invented_inputs_are_answered(tmp_path: Path) -> None:
    run("annotate", *SUMS, "--invent", "15", "--out", tmp_path / "a")
    assert len((tmp_path / "a" / "rows.jsonl").read_text().splitlines()) == 15
    assert (tmp_path / "a-inputs" / "manifest.json").exists()
    assert "asks the teacher for inputs" in run("annotate", *SUMS, "--invent", "15", "--dry-run", code=2)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (SUMS, 2, "--out: name the folder"),
        (["--teacher", "scripted", "--out", "x"], 2, "task: is required"),
        (["--task", "smus", "--teacher", "scripted", "--out", "x"], 2, "did you mean 'sums'"),
        ([*SUMS, "--out", "x", "--set", "samplign.n=3"], 2, "samplign: unknown setting; did you mean 'sampling'"),
        ([*SUMS, "--out", "x", "--samples", "0"], 2, "at least 1 was expected"),
        (["--task", "sums", "--teacher", "openai", "--out", "x"], 2, "teacher.model: is required"),
        ([*SUMS, "--limit", "9", "--out", "x", "--max-requests", "3"], 4, "max_requests = 3 is reached"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run("annotate", *arguments, code=code)
    assert message in shown and "Traceback" not in shown


def test_parsing_again(tmp_path: Path) -> None:
    run("annotate", *SUMS, "--limit", "5", "--out", tmp_path / "a", "--cache", tmp_path / "c.sqlite")
    before = (tmp_path / "a" / "rows.jsonl").read_text()
    told = run(
        "annotate", *SUMS, "--limit", "5", "--out", tmp_path / "a", "--cache", tmp_path / "c.sqlite", "--reparse"
    )
    assert (tmp_path / "a" / "rows.jsonl").read_text() == before and "in 0 requests" in told


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    run("annotate", *SUMS, "--limit", "8", "-n", "2", "--out", tmp_path / "a", "--cache", tmp_path / "c.sqlite")
    return tmp_path / "c.sqlite"


def test_the_cache_can_be_looked_into(filled: Path, tmp_path: Path) -> None:
    (row,) = json.loads(run("cache", "ls", "--cache", filled, "--json"))
    assert (row["model"], row["answers"], row["responses"]) == ("scripted", 16, 8)
    assert "scripted" in run("cache", "ls", "--cache", filled)
    run("cache", "export", tmp_path / "all.jsonl", "--cache", filled)
    entries: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert len(entries) == 8 and all(entry["samples"] == [0, 1] for entry in entries)
    shown = json.loads(run("cache", "show", entries[3]["key"][:12], "--cache", filled))
    assert shown == entries[3]
    assert "no key in" in run("cache", "show", "zzz", "--cache", filled, code=2)


def test_the_cache_forgets_only_when_told_twice(filled: Path) -> None:
    assert "say what to forget" in run("cache", "prune", "--cache", filled, code=2)
    assert "add --yes" in run("cache", "prune", "--model", "scripted", "--cache", filled, code=2)
    assert run("cache", "prune", "--older-than", "1", "--yes", "--cache", filled) == "0 answers forgotten\n"
    assert run("cache", "prune", "--model", "scripted", "--yes", "--cache", filled) == "16 answers forgotten\n"
    with ResponseCache(filled) as cache:
        assert cache.count() == 0


def test_a_cache_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "there is no response cache at" in run("cache", "ls", "--cache", tmp_path / "none.sqlite", code=2)
    assert not (tmp_path / "none.sqlite").exists()


def test_import_from_the_command_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"messages": [{"role": "user", "content": "1 + 1?"},
                                            {"role": "assistant", "content": "So the answer is 2."}]}))  # fmt: skip
    shown = run("import", "chat", log, "--task", "sums", "--out", tmp_path / "a")
    assert "examples: 1" in shown and (tmp_path / "a" / "rows.jsonl").exists()
    table = tmp_path / "t.csv"
    table.write_text("q,a\n1 + 1?,So the answer is 2.\n")
    shown = run("import", "table", table, "--task", "sums", "--set", "train=5", "--out", tmp_path / "b",
                "--input-column", "q", "--output-column", "a")  # fmt: skip
    assert "parsed: 1" in shown
    assert "unknown layout" in run("import", "chatt", log, "--task", "sums", "--out", tmp_path / "c", code=2)
