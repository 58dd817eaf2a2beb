"""The curated rationales as a data set: rows, files that other tools read, and the card."""

from __future__ import annotations

import dataclasses
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
    origin = dataclasses.replace(origin, steps=[*origin.steps[:-1], {**origin.steps[-1], "encoder": "/models/e5"}])
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
    assert '| `random_k` {"k": 2, "encoder": "e5"}' in text


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


def test_the_cue_is_that_of_the_run(tmp_path: Path) -> None:
    from lmdistill.objectives.rationale_then_label import RationaleThenLabel
    from lmdistill.students.causal import Causal
    from lmdistill.train import TrainSettings, train

    made = annotate(TASK, Scripted(), TASK.examples("train")[:4], folder=tmp_path / "annotations")
    objective = RationaleThenLabel("Therefore I say:")
    texts = [f"{one.example.input} {one.rationales[0].text} Therefore I say:" for one in made]
    student = Causal(preset="nano").open(texts, seed=0)
    settings = TrainSettings(steps=1, batch_size=4, device="cpu")
    train(student, objective, list(made), settings=settings, folder=tmp_path / "seed-0" / "train")
    for more, cue in ((), "Therefore I say:"), (("--cue", "Thus"), "Thus"):
        out = tmp_path / cue
        result = CliRunner().invoke(app, ["export-corpus", str(tmp_path), "--out", str(out), *more])
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in (out / "prompt_completion.jsonl").open()]
        assert all(f" {cue} " in row["completion"] for row in rows)
        assert f"then `{cue}`" in (out / "README.md").read_text()


def test_the_card_of_recorded_answers_tells_no_prompt_and_no_place(tmp_path: Path) -> None:
    from lmdistill.tasks.table import Table
    from lmdistill.teachers.replay import Replay

    data = tmp_path / "deep" / "questions.jsonl"
    data.parent.mkdir()
    told = [("1+1?", "2", "one and one . so the answer is 2"), ("2+1?", "3", "more . so the answer is 3")]
    lines = [json.dumps(dict(zip(("question", "label", "said"), row, strict=True))) for row in told]
    data.write_text("\n".join(lines))
    task = Table(train=data, input="question", label="label")
    teacher = Replay(path=data, text="said", match="input", id_column="question", model="/models/somebody-7b")
    annotate(task, teacher, task.examples("train"), folder=tmp_path / "run" / "annotations")
    rows, origin = origin_of(tmp_path / "run")
    export_corpus(rows, task, tmp_path / "out", origin=origin)
    text = (tmp_path / "out" / "README.md").read_text()
    assert str(tmp_path) not in text and "/models" not in text
    assert '"questions.jsonl"' in text and "somebody-7b" in text
    assert "A prompt as it was sent" not in text and "prompting" not in text and "- sampling" not in text


def test_the_card_lists_every_round_and_the_last_one_is_exported(run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run")
    sampling = Sampling(n=8, temperature=1.0, max_tokens=100)
    asked = TASK.examples("train")[:5]
    for number in (2, 10):
        folder = tmp_path / "run" / f"annotations-again-{number}"
        again = annotate(TASK, Scripted(error_rate=0.3), asked, folder=folder, sampling=sampling, known=4)
        curate(again, TASK, RandomK(number), folder=tmp_path / "run" / f"curated-again-{number}")
    rows, origin = origin_of(tmp_path / "run")
    assert origin.steps[0]["k"] == 10, "the tenth round is the last, not the second"
    export_corpus(rows, TASK, tmp_path / "out", origin=origin)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "- round 1: 30 inputs, 4 samples each\n- round 2: 5 inputs, 8 samples each\n" in text
    assert f"- used in all: {origin.asked['requests']:,} requests" in text and origin.asked["rounds"] == 3
