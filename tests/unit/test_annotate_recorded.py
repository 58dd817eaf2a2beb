"""What others recorded, read as annotations."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lmdistill import registry
from lmdistill.errors import DataError, UnknownName
from lmdistill.recorded import Columns, import_annotations
from lmdistill.store import read_manifest
from lmdistill.teachers.replay import Replay
from lmdistill.types import Annotation

SUMS = registry.load("tasks", "sums")()
SAID = "Two and two. So the answer is 4."


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(tmp_path: Path, layout: str, path: Path, task: Any = SUMS, **options: Any) -> list[Annotation]:
    return list(import_annotations(layout, path, task, folder=tmp_path / "out", **options))


QUESTION = {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": SAID}
COMPLETION = {"model": "gpt-x", "choices": [{"message": ANSWER, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": "Add."}, QUESTION, ANSWER]},  # a fine-tuning file
        {"messages": [QUESTION], "completion": COMPLETION},
        {"request": {"model": "gpt-x", "messages": [QUESTION]}, "response": COMPLETION},  # a gateway's log
        {"input": [QUESTION], "output": [{"type": "message", "role": "assistant", "content": [{"text": SAID}]}]},
        {"input": "2 + 2?", "output": SAID},
        {"messages": [QUESTION], **COMPLETION},  # a stored completion
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": SAID}]},  # ShareGPT
        {"request": {"prompt": "2 + 2?"}, "response": {"choices": [{"text": SAID}]}},
        {"messages": [QUESTION], "response": {"content": SAID}},
        {"body": {"messages": [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}]}, "response": SAID},
    ],
)
def test_one_call_in_many_forms(tmp_path: Path, row: dict[str, Any]) -> None:
    (annotation,) = read(tmp_path, "chat", write(tmp_path / "log.jsonl", [row]))
    assert annotation.example.input == "2 + 2?" and annotation.example.id == "log-1"
    (rationale,) = annotation.rationales
    assert (rationale.text, rationale.answer, rationale.raw) == ("Two and two.", "4", SAID)
    assert rationale.source in ("gpt-x", "log")


def test_calls_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "messages": [QUESTION, ANSWER]},
        {"id": "b", "messages": [ANSWER]},
        {"id": "c", "messages": [QUESTION]},
        {"id": "d", "messages": [QUESTION, {"role": "assistant", "content": "Hm?"}]},
        {"id": "e", "messages": [QUESTION], "choices": [{"text": SAID, "finish_reason": "length"}]},
    ]
    found = read(tmp_path, "chat", write(tmp_path / "log.jsonl", rows))
    assert [one.id for one in found] == ["a", "d", "e"]
    assert found[2].rejected[0].reason == "truncated" and not found[1].rationales
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    counts = manifest.counts
    assert counts["left out: no turn of a user"] == 1 and counts["left out: no answer"] == 1
    assert (counts["examples"], counts["answers"], counts["parsed"]) == (3, 3, 1)


def test_several_answers_to_one_question_are_samples(tmp_path: Path) -> None:
    rows = [{"id": "a", "messages": [QUESTION, ANSWER], "model": model} for model in ("x", "y", "x")]
    rows.append({"id": "a", "messages": [{"role": "user", "content": "3 + 3?"}, ANSWER]})
    first, second = read(tmp_path, "chat", write(tmp_path / "log.jsonl", rows))
    assert [(one.source, one.sample) for one in first.rationales] == [("x", 0), ("y", 0), ("x", 1)]
    assert second.id != first.id and second.example.input == "3 + 3?"


def test_records_find_their_examples(tmp_path: Path) -> None:
    known = SUMS.examples("train")[:3]
    rows = [
        {"id": known[0].id, "messages": [{"role": "user", "content": "by id"}, ANSWER]},
        {"id": "x", "messages": [{"role": "user", "content": f"Please solve:  {known[1].input.upper()}"}, ANSWER]},
        {"id": "y", "messages": [{"role": "user", "content": "another thing"}, ANSWER]},
    ]
    found = read(tmp_path, "chat", write(tmp_path / "log.jsonl", rows), split="train")
    assert [one.example for one in found] == [known[0], known[1]]
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and manifest.counts["left out: no such example in the split"] == 1


def test_batch_outputs_meet_what_went_in(tmp_path: Path) -> None:
    went_in = write(tmp_path / "in.jsonl", [
        {"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "gpt-x", "messages": [{"role": "user", "content": f"{i} + 1?"}]}} for i in range(3)
    ])  # fmt: skip
    came_out = write(tmp_path / "out.jsonl", [
        {"custom_id": "r1", "response": {"status_code": 200, "body": COMPLETION}, "error": None},
        {"custom_id": "r0", "response": {"status_code": 500, "body": {}}},
        {"custom_id": "r9", "response": {"status_code": 200, "body": COMPLETION}},
    ])  # fmt: skip
    (found,) = read(tmp_path, "batch", came_out, inputs=went_in)
    assert (found.id, found.example.input, found.rationales[0].source) == ("r1", "1 + 1?", "gpt-x")
    with pytest.raises(DataError, match="name the file that went in"):
        import_annotations("batch", came_out, SUMS, folder=tmp_path / "other")


def test_the_release_of_distilling_step_by_step(tmp_path: Path) -> None:
    folder = tmp_path / "cqa"
    (folder / "llm").mkdir(parents=True)
    write(folder / "cqa_train.json", [
        {"id": f"q{i}", "question": f"Where is {i}?", "choices": ["here", "there"], "answer": "there"} for i in range(3)
    ])  # fmt: skip
    outputs = ["Far off. So the answer is (b) there.\n\nQ: What else?\nA:", "No idea."]
    (folder / "llm" / "train_CoT_0.json").write_text(json.dumps(outputs))
    (folder / "llm" / "train_CoT_1.json").write_text(json.dumps(["Near. So the answer is (a) here."]))
    cqa = registry.load("tasks", "cqa")()
    found = read(tmp_path, "dss", folder, cqa, source="PaLM-540B")
    assert [one.id for one in found] == ["q0", "q1", "q2"]
    assert found[0].example.input == "Where is 0?\nAnswer Choices:\n(a) here\n(b) there"
    assert (found[0].rationales[0].text, found[0].answer, found[0].example.label) == ("Far off.", "there", "there")
    assert found[0].rationales[0].source == "PaLM-540B" and found[1].rejected and found[2].answer == "here"
    with pytest.raises(DataError, match=r"has no files llm/SPLIT_CoT_N\.json"):
        import_annotations("dss", tmp_path, cqa, folder=tmp_path / "other")


def test_the_release_of_step_by_step_for_inference(tmp_path: Path) -> None:
    folder = tmp_path / "esnli"
    (folder / "llm").mkdir(parents=True)
    write(folder / "esnli_valid.json", [{"premise": "It rains.", "hypothesis": "It is wet.", "label": 0}])
    (folder / "llm" / "valid_CoT_0.json").write_text(json.dumps(["Rain is wet.\nAnswer: entailment\n\nPremise: A"]))
    esnli = registry.load("tasks", "esnli")()
    (found,) = read(tmp_path, "dss", folder, esnli)
    assert found.example.input == "It rains.</s>It is wet." and found.example.label == "entailment"
    assert (found.rationales[0].text, found.answer) == ("Rain is wet.", "entailment")


@pytest.mark.parametrize("dump", [False, True])
def test_the_release_of_kard(tmp_path: Path, dump: bool) -> None:
    rows = [
        {"id": f"k{i}", "sent1": "Which?", "ending0": "this", "ending1": "that", "ending2": "", "label": 1}
        for i in range(2)
    ]
    data = write(tmp_path / "train.json", rows)
    if dump:
        path = write(tmp_path / "train_dump.jsonl", [{"correct": ["Because."], "wrong": ["Although."]}])
    else:
        path = tmp_path / "train"
        path.mkdir()
        choices = [{"message": {"content": text}} for text in ("Because.", "Although.")]
        (path / "00000.json").write_text(json.dumps({"choices": choices}))
    obqa = registry.load("tasks", "obqa")()
    (found,) = read(tmp_path, "kard", path, obqa, inputs=data)
    assert found.example.choices == ("this", "that") and found.example.label == "that"
    assert found.example.input == "Which? A. this B. that"
    assert [(one.text, one.answer) for one in found.rationales] == [("Because.", "that"), ("Although.", "that")]
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and manifest.counts["left out: no chain of thought"] == 1
    with pytest.raises(DataError, match="name the data file"):
        import_annotations("kard", path, obqa, folder=tmp_path / "other")


def table(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    if path.suffix == ".jsonl":
        return write(path, [dict(zip(header, row, strict=True)) for row in rows])
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_prompts_and_completions(tmp_path: Path, kind: str) -> None:
    rows = [["2 + 2?", f"Line one.\n{SAID}", "4"], ["3 + 3?", "Hm.", "6"], ["", "x", ""]]
    path = table(tmp_path / f"t.{kind}", ["prompt", "completion", "label"], rows)
    found = read(tmp_path, "table", path)
    assert [(one.example.input, one.example.label, one.answer) for one in found] == [
        ("2 + 2?", "4", "4"),
        ("3 + 3?", "6", None),
    ]
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and manifest.counts["left out: an empty input or output"] == 1


def test_a_tables_own_column_names(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ["frage", "antwort", "gold", "nr"], [["2 + 2?", SAID, "4", "n7"]])
    with pytest.raises(
        DataError, match=r"t\.csv:2: no input column found; name it \(--input-column\)\. Columns: frage"
    ):
        read(tmp_path, "table", path)
    columns = Columns(input="frage", output="antwort", label="gold", id="nr")
    (found,) = list(import_annotations("table", path, SUMS, folder=tmp_path / "b", columns=columns))
    assert (found.id, found.example.label, found.answer) == ("n7", "4", "4")
    with pytest.raises(DataError, match="no column 'reply'"):
        import_annotations("table", path, SUMS, folder=tmp_path / "c", columns=Columns(input="frage", output="reply"))


def test_alpaca_rows_and_lists_of_completions(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"instruction": "Add.", "input": "2 and 2", "output": [SAID, "Hm."]}])
    (found,) = read(tmp_path, "table", path)
    assert found.example.input == "Add.\n2 and 2" and (len(found.rationales), len(found.rejected)) == (1, 1)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown layout 'chta'; did you mean 'chat'"):
        read(tmp_path, "chta", tmp_path / "x")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="is no table that can be read"):
        read(tmp_path, "table", tmp_path / "x.txt")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path, "chat", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"holds no record of the layout 'chat' that can be used: left out: no turn"):
        import_annotations("chat", write(tmp_path / "e.jsonl", [{"a": 1}]), SUMS, folder=tmp_path / "e")


def test_imported_rows_can_be_replayed(tmp_path: Path) -> None:
    """The way to train on a log: import it, then name its rows as the teacher."""
    found = read(tmp_path, "chat", write(tmp_path / "log.jsonl", [{"id": "a", "messages": [QUESTION, ANSWER]}]))
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert rows[0]["rationales"][0]["raw"] == SAID
    flat = write(tmp_path / "flat.jsonl", [{"id": one.id, "raw": one.rationales[0].raw} for one in found])
    assert Replay(path=flat, text="raw").open(SUMS).records == {"a": [SAID]}
