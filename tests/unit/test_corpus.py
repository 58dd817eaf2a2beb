"""The curated rationales as a data set: rows, files that other tools read, and the card."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lmdistill.annotate import annotate
from lmdistill.cli.main import app
from lmdistill.corpus import export_corpus, origin_of, rows_of
from lmdistill.curate import curate
from lmdistill.curation.correct import Correct
from lmdistill.curation.random_k import RandomK
from lmdistill.datacard import COLUMNS
from lmdistill.errors import ConfigError, StoreError
from lmdistill.tasks.sums import Sums
from lmdistill.teachers.scripted import Scripted
from lmdistill.types import Annotation, Example, Rationale, Sampling

TASK = Sums(train=30, valid=0, test=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples of thirty questions, of which a third are wrong; two right ones stay."""
    out = tmp_path_factory.mktemp("run")
    sampling = Sampling(n=4, temperature=1.0, max_tokens=100)
    teacher = Scripted(error_rate=0.3)
    rows = annotate(TASK, teacher, TASK.examples("train"), folder=out / "annotations", sampling=sampling)
    curate(rows, TASK, Correct(), RandomK(2), folder=out / "curated")
    return out


def test_a_run_becomes_a_data_set(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    result = CliRunner().invoke(app, ["export-corpus", str(run), "--out", str(out), "--licence", "cc-by-4.0"])
    assert result.exit_code == 0, result.output
    rows, _ = origin_of(run)
    expected = list(rows_of(rows, TASK, "So the answer is:", rejected=False))
    table = pq.read_table(out / "corpus.parquet")
    assert table.column_names == list(COLUMNS)
    assert table.to_pylist() == expected
    assert all(row["correct"] and row["kept"] and row["teacher"] == "scripted" for row in expected)
    pairs = [json.loads(line) for line in (out / "prompt_completion.jsonl").open()]
    talks = [json.loads(line) for line in (out / "messages.jsonl").open()]
    assert [set(row) for row in pairs[:1]] == [{"id", "prompt", "completion"}]
    assert len(pairs) == len(talks) == len(expected) > 30
    for row, pair, talk in zip(expected, pairs, talks, strict=True):
        assert pair["prompt"] == row["input"]
        assert pair["completion"] == f"{row['rationale']} So the answer is: {row['answer']}"
        assert [turn["role"] for turn in talk["messages"]] == ["user", "assistant"]
        assert talk["messages"][1]["content"] == pair["completion"]


def test_the_card_tells_how_it_came_to_be(run: Path, tmp_path: Path) -> None:
    rows, origin = origin_of(run)
    made = export_corpus(rows, TASK, tmp_path, licence="cc0-1.0", origin=origin)
    text = (tmp_path / "README.md").read_text()
    head = text.split("---")[1]
    assert "license: cc0-1.0" in head and "data_files: corpus.parquet" in head
    assert f"{made.counts['kept']:,} rationales" in text
    assert '"temperature": 1.0' in text and '"name": "scripted"' in text
    assert rows[0].example.input in text.split("A prompt as it was sent:")[1]
    (funnel,) = [line for line in text.splitlines() if line.startswith("| `correct`")]
    wrong = 120 - sum(len(one.rationales) for one in curate(_all(run), TASK, Correct()))
    assert f"| 120 | wrong answer: {wrong} | {120 - wrong} |" in funnel
    assert '| `random_k` {"k": 2}' in text


def _all(run: Path) -> list[Annotation]:
    from lmdistill.store import Rows

    return list(Rows(run / "annotations" / "rows.jsonl", Annotation))


def test_what_was_set_aside_can_be_kept_with_its_reason(run: Path, tmp_path: Path) -> None:
    rows, origin = origin_of(run)
    made = export_corpus(rows, TASK, tmp_path, rejected=True, origin=origin)
    table = pq.read_table(tmp_path / "corpus.parquet").to_pylist()
    aside = [row for row in table if not row["kept"]]
    assert len(table) == 120 and made.counts["set aside"] == len(aside)
    assert {row["reason"] for row in aside} == {"wrong answer", "not drawn"}
    assert {row["correct"] for row in aside if row["reason"] == "wrong answer"} == {False}
    assert sum(1 for _ in (tmp_path / "prompt_completion.jsonl").open()) == made.counts["kept"]


def test_an_input_without_label_has_no_correctness(tmp_path: Path) -> None:
    item = Annotation(
        Example("1", "how many ?"), (Rationale("one and one", "2", "t"), Rationale("who knows", None, "t"))
    )
    rows = list(rows_of([item], TASK, "so", rejected=False))
    assert [row["correct"] for row in rows] == [None, None]
    assert [row["completion"] for row in rows] == ["one and one so 2", "who knows"]


def test_nothing_to_export_and_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to export"):
        export_corpus([Annotation(Example("1", "x"))], TASK, tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    with pytest.raises(StoreError, match="holds no annotations"):
        origin_of(tmp_path)
