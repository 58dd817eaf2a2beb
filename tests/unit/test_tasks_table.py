"""The user's own table: every format, every way to split, and one clear message for everything that is wrong."""

from __future__ import annotations

import gzip
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config
from lmdistill.errors import ConfigError, DataError, MissingExtra
from lmdistill.ground import Queries
from lmdistill.tasks import Exemplar
from lmdistill.tasks.table import Table
from lmdistill.types import Example

ROWS = [{"id": f"m{i}", "subject": f"offer {i}", "kind": "spam" if i % 3 == 0 else "ham", "n": i} for i in range(60)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def spam(data: Path, **settings: Any) -> Table:
    given = {"id": "id", "input": "subject", "label": "kind", "choices": ("spam", "ham"), **settings}
    return Table(data=data, **given)


def ids(task: Table, split: str) -> list[str]:
    return [example.id for example in task.examples(split)]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_every_format_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    sign = "\t" if ".tsv" in name else ","
    lines = [sign.join(map(str, row.values())) for row in ROWS]
    text = "\n".join([sign.join(ROWS[0]), *lines]) + "\n"
    if ".jsonl" in name:
        jsonl(path, ROWS)
    elif name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode("utf-8-sig")))
    else:
        path.write_text(text, encoding="utf-8-sig")
    task = spam(path)
    every = [example for split in ("train", "valid", "test") for example in task.examples(split)]
    assert sorted(example.id for example in every) == sorted(row["id"] for row in ROWS)
    one = next(example for example in every if example.id == "m3")
    assert (one.input, one.label, one.choices) == ("offer 3", "spam", ("spam", "ham"))
    assert str(one.fields["n"]) == "3"
    assert "kind" not in one.fields


def test_one_file_is_split_by_hash_and_adding_rows_moves_none(tmp_path: Path) -> None:
    few, all_ = spam(jsonl(tmp_path / "few.jsonl", ROWS[:40])), spam(jsonl(tmp_path / "all.jsonl", ROWS))
    for split in ("train", "valid", "test"):
        assert set(ids(few, split)) <= set(ids(all_, split))
    assert 4 <= len(ids(all_, "test")) <= 22
    assert "hash" in all_.origin("test")


def test_a_group_stays_together(tmp_path: Path) -> None:
    rows = [{**row, "customer": f"c{i % 12}"} for i, row in enumerate(ROWS)]
    task = spam(jsonl(tmp_path / "t.jsonl", rows), group_column="customer")
    found = {split: {e.fields["customer"] for e in task.examples(split)} for split in ("train", "valid", "test")}
    assert found["train"] and not found["train"] & found["test"] and not found["train"] & found["valid"]


def test_files_for_splits_and_what_a_missing_one_costs(tmp_path: Path) -> None:
    train, valid = jsonl(tmp_path / "a.jsonl", ROWS[:50]), jsonl(tmp_path / "b.jsonl", ROWS[50:])
    settings = {"id": "id", "input": "subject", "label": "kind"}
    both = Table(train=train, valid=valid, **settings)
    assert ids(both, "valid") == [row["id"] for row in ROWS[50:]]  # the validation file is never the test set
    assert set(ids(both, "test")) < {row["id"] for row in ROWS[:50]}
    assert not set(ids(both, "test")) & set(ids(both, "train"))
    assert both.origin("valid") == "b.jsonl, all rows"
    with pytest.raises(DataError, match="no rows for split 'train'"):
        Table(valid=valid, test=train, **settings).examples("train")


def test_a_split_column(tmp_path: Path) -> None:
    rows = [{**row, "part": ("train", "dev", "Test")[i % 3]} for i, row in enumerate(ROWS)]
    task = spam(jsonl(tmp_path / "t.jsonl", rows), split_column="part")
    assert [len(ids(task, split)) for split in ("train", "valid", "test")] == [20, 20, 20]
    wrong = spam(jsonl(tmp_path / "w.jsonl", [*rows, {**rows[0], "id": "x", "part": "tset"}]), split_column="part")
    with pytest.raises(DataError, match=r"w\.jsonl:61: split 'tset' is none of .* did you mean 'test'"):
        wrong.examples("test")


def test_rows_without_a_label_are_unlabelled_in_training_and_counted_in_tests(tmp_path: Path) -> None:
    rows = [{**row, "kind": "" if i < 20 else row["kind"]} for i, row in enumerate(ROWS)]
    task = spam(jsonl(tmp_path / "t.jsonl", rows))
    assert ids(task, "unlabelled") == [f"m{i}" for i in range(20)]
    assert all(example.label is None for example in task.examples("unlabelled"))
    assert len(ids(task, "train")) + len(ids(task, "valid")) + len(ids(task, "test")) == 40
    two = Table(
        train=jsonl(tmp_path / "a.jsonl", ROWS), test=tmp_path / "t.jsonl", id="id", input="subject", label="kind"
    )
    assert len(ids(two, "test")) == 40 and two.problems("test") == {"kind is empty": 20}


def test_a_template_and_choices_in_a_column(tmp_path: Path) -> None:
    rows = [{"q": "Why?", "a b": "see", "options": "red|dark blue", "right": "(b)"}]
    settings = {"input": '{{ q }} {{ row["a b"] }} {{ choices | length }}', "label": "right"}
    task = Table(test=jsonl(tmp_path / "t.jsonl", rows), choices_column="options", style="lines", **settings)
    (one,) = task.examples("test")
    assert one.input == "Why? see 2\nAnswer Choices:\n(a) red\n(b) dark blue"
    assert (one.id, one.label, task.shown(one, "dark blue")) == ("t-1", "dark blue", "(b) dark blue")
    assert task.parse(one, "So the answer is (b).").answer == "dark blue"


def test_a_knowledge_base_is_searched_without_the_choices(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,answer\nWhat does the otter eat?,fish\n?? !!,grass\n")
    options: dict[str, Any] = {"input": "q", "label": "answer", "choices": ("fish", "grass"), "style": "letters"}
    examples = list(Table(train=path, test=path, **options).examples("test"))
    assert examples[0].input != "What does the otter eat?"
    assert [Queries().of_question(one) for one in examples] == ["What does the otter eat?", "?? !!"]
    plain = next(iter(Table(train=path, test=path, **{**options, "style": "none"}).examples("test")))
    assert "question" not in plain.fields and Queries().of_question(plain) == plain.input


def test_a_description_file_with_settings_over_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    jsonl(tmp_path / "data" / "mail.jsonl", ROWS)
    (tmp_path / "mail.yaml").write_text(
        "data: data/mail.jsonl\nid: id\ninput: subject\nlabel: kind\nchoices: [spam, ham]\nmetric: accuracy\n"
        "instruction: Is it spam?\nexemplars:\n  - {input: win, rationale: Nobody gives., answer: spam}\n"
    )
    task = config.build(Table, {"file": str(tmp_path / "mail.yaml"), "instruction": "Say spam or ham."})
    assert task.instruction == "Say spam or ham."
    assert task.exemplars == (Exemplar("win", "Nobody gives.", "spam"),)
    assert len(task.examples("train")) > 20
    assert config.rebuild("tasks", config.settings_of(task)) == task
    assert task.digests().keys() == {"mail.jsonl"}


@pytest.mark.parametrize(
    ("answer", "text", "found"),
    [
        ("number", "So the answer is 42 apples.", "42"),
        ("equation", "So the answer is (84 / 2).", "(84 / 2)"),
        ("line", "So the answer is Paris.\nIt is big.", "Paris"),
        ("text", "It is big. It is old.", "It is big. It is old."),
    ],
)
def test_ways_to_read_an_answer(answer: Any, text: str, found: str) -> None:
    task = Table(test=Path("t.csv"), input="q", label="a", answer=answer)
    assert task.parse(Example("e", "?"), text).answer == found


def test_a_pattern_reads_its_group() -> None:
    task = Table(test=Path("t.csv"), input="q", label="a", answer="pattern", pattern=r"<final>(.*?)</final>")
    example = Example("e", "?")
    assert task.parse(example, "Thus. <final> 7 </final>") == ("Thus.", "7", None)
    assert task.parse(example, "none").reason == "the pattern matches nothing"
    assert task.parse(example, "<final>7</final> <final>8</final>").reason == "gives several different answers"
    assert task.parse(example, "").reason == "empty"
    assert task.metric == "exact_match"
    chosen = Example("e", "?", choices=("red", "blue"))
    assert task.parse(chosen, "<final>Blue.</final>").answer == "blue"
    assert task.parse(chosen, "<final>green</final>").reason == "answer is not one of the choices"


# --- what is wrong ---------------------------------------------------------------------------------------------------


def refused(task: Table, split: str = "train") -> str:
    with pytest.raises(DataError) as raised:
        task.examples(split)
    assert raised.value.exit_code == 2
    return str(raised.value)


def test_a_misspelt_column(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", ROWS)
    message = refused(spam(path, input="subjet"))
    assert message == f"{path}:1: no column 'subjet'; did you mean 'subject'? Columns: id, kind, n, subject"
    assert "no column 'lable'" in refused(spam(path, label="lable"))
    assert "no column 'ids'" in refused(spam(path, id="ids"))
    assert f"{path}:1: " in (told := refused(spam(path, input="{{ subjct }}"))) and "did you mean 'subject'" in told


def test_labels_ids_and_lines(tmp_path: Path) -> None:
    def with_row(**changes: Any) -> Path:
        return jsonl(tmp_path / "t.jsonl", [*ROWS[:3], {**ROWS[3], **changes}])

    whole = {"test_fraction": 0.01, "valid_fraction": 0.01}
    assert refused(spam(with_row(kind="spm"), **whole)) == (
        f"{tmp_path / 't.jsonl'}:4: label 'spm' is not among the choices spam, ham; did you mean 'spam'?"
    )
    assert "t.jsonl:4: id 'm0' stands in line 1 already" in refused(spam(with_row(id="m0"), **whole))
    assert "t.jsonl:4: empty id" in refused(spam(with_row(id=" "), **whole))
    numbers = Table(data=with_row(kind="twelve"), input="subject", label="n", answer="number", **whole)
    assert len(numbers.examples("train")) == 4
    wrong = Table(data=with_row(n="twelve"), input="subject", label="n", answer="number", **whole)
    assert "t.jsonl:4: label 'twelve' is not a number" in refused(wrong)


def test_damaged_files(tmp_path: Path) -> None:
    whole = jsonl(tmp_path / "whole.jsonl.gz", ROWS).read_bytes()
    (tmp_path / "short.jsonl.gz").write_bytes(whole[:-30])
    assert "cut short or damaged" in refused(spam(tmp_path / "short.jsonl.gz"))
    (tmp_path / "cut.jsonl").write_text(json.dumps(ROWS[0]) + '\n{"id": "m1", "subj')
    assert "cut.jsonl:2: is not JSON" in refused(spam(tmp_path / "cut.jsonl"))
    (tmp_path / "latin.csv").write_bytes(b"id,subject,kind\n1,ok,ham\n2,caf\xe9,ham\n")
    assert "latin.csv:3: is not UTF-8" in refused(spam(tmp_path / "latin.csv"))
    (tmp_path / "quote.csv").write_text('id,subject,kind\n1,"open,ham\n2,b,ham\n')
    assert "a quote may be left open" in refused(spam(tmp_path / "quote.csv"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
    assert "is not a whole Parquet file" in refused(spam(tmp_path / "bad.parquet"))
    (tmp_path / "empty.csv").write_text("")
    assert "a header line was expected" in refused(spam(tmp_path / "empty.csv"))
    (tmp_path / "semi.csv").write_text("id;subject;kind\n1;a;ham\n")
    assert "is the delimiter ';'?" in refused(spam(tmp_path / "semi.csv"))
    assert len(spam(tmp_path / "semi.csv", delimiter=";").examples("train")) <= 1
    (tmp_path / "twice.csv").write_text("id,kind,kind\n")
    assert "column 'kind' stands twice" in refused(spam(tmp_path / "twice.csv"))
    assert "no such file" in refused(spam(tmp_path / "gone.csv"))
    assert "expected a file ending in" in refused(spam(tmp_path / "t.xlsx"))


def test_unusable_rows_are_counted_or_with_strict_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,subject,kind\n1,a,ham\n2,,ham\n3,b\n4,c,spam\n5, ,spam\n\n")
    settings = {"test_fraction": 0.01, "valid_fraction": 0.01}
    task = spam(path, **settings)
    assert ids(task, "train") == ["1", "4"]
    assert task.problems("train") == {"subject is empty": 2, "another number of cells than the header": 1}
    message = refused(spam(path, strict=True, **settings))
    assert message.startswith(f"{path}:3: subject is empty; mend the row")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", ROWS[:30])
    before = len(spam(path).examples("train"))
    import os

    jsonl(path, ROWS)
    os.utime(path, ns=(1, 1))
    assert len(spam(path).examples("train")) > before


def test_every_setting_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        Table(
            data=Path("a.csv"),
            hub="x/y",
            choices=("a", "b"),
            choices_column="c",
            metric="acuracy",
            pattern="(a)(b)",
            valid_fraction=0.9,
        )
    told = str(raised.value)
    for part in ("hub and data", "input: is required", "label: is required", "choices and choices_column"):
        assert part in told
    assert "did you mean 'accuracy'" in told and "exactly one group" in told and "together below 1" in told
    with pytest.raises(ConfigError, match="no regular expression"):
        Table(data=Path("a.csv"), input="q", label="a", answer="pattern", pattern="(")
    with pytest.raises(ConfigError, match="answer: 'number' reads no choices"):
        Table(data=Path("a.csv"), input="q", label="a", choices=("a", "b"), answer="number")
    with pytest.raises(ConfigError, match="data: is required"):
        Table(input="q", label="a")
    with pytest.raises(ConfigError, match="input: template"):
        Table(data=Path("a.csv"), input="{{ q ", label="a")


def test_a_description_file_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text("dta: x.csv\ninput: q\nlabel: a\n")
    with pytest.raises(ConfigError, match=r"d\.yaml: dta: unknown setting; did you mean 'data'"):
        Table(file=path)
    path.write_text("data: x.csv\ninput: q\nlabel: a\nchoices: [yes, no]\n")
    assert Table(file=path).choices == ("yes", "no")
    with pytest.raises(ConfigError, match="cannot be read"):
        Table(file=tmp_path / "gone.yaml")


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", ROWS)
    for template in (
        "{{ ''.__class__.__mro__ }}",
        "{{ row.__init__.__globals__ }}",
        "{% for i in range(10 ** 9) %}.{% endfor %}",
    ):
        assert f"{path}:" in refused(spam(path, input=template))


class HubRows(list[dict[str, Any]]):
    """What the tests' `datasets` gives: rows, their columns, their kinds."""

    features: dict[str, Any]

    @property
    def column_names(self) -> list[str]:
        return list(self.features)


def fake_hub(monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[dict[str, Any]]], **features: Any) -> list[Any]:
    calls: list[Any] = []

    def load_dataset(name: str, config_name: str | None, *, split: str, revision: str | None) -> HubRows:
        calls.append((name, config_name, split, revision))
        if split not in splits:
            raise ValueError(f"Unknown split {split!r}")
        rows = HubRows(dict(row) for row in splits[split])
        rows.features = {column: features.get(column) for column in splits[split][0]}
        return rows

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = types.SimpleNamespace(names=["ham", "spam"])
    rows = [{"text": f"t{i}", "label": i % 2 if i else -1} for i in range(6)]
    calls = fake_hub(monkeypatch, {"train": rows, "test": rows[:3]}, label=kinds)
    settings = {"hub": "some/mail", "hub_splits": {"train": "train", "test": "test"}, "revision": "abc"}
    task = Table(input="text", label="label", choices=("ham", "spam"), **settings)
    assert [example.label for example in task.examples("test")] == ["spam", "ham"]
    assert task.problems("test") == {"label is empty": 1}
    assert [example.input for example in task.examples("unlabelled")] == ["t0"]
    assert calls[0] == ("some/mail", None, "test", "abc")
    assert task.digests() == {"some/mail": "abc"}
    with pytest.raises(DataError, match="some/mail: split 'validation' cannot be loaded from the Hub"):
        Table(hub="some/mail", input="text", label="label").examples("valid")


def test_the_hub_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"lmdistill\[hub\]"):
        Table(hub="a/b", input="text", label="label").examples("train")


def test_a_knowledge_base_and_marks_of_ones_own(tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "subject": f"offer {i}", "kind": "spam", "rule": f"r{i} | r9"} for i in range(3)]
    rows += [
        {"id": "q3", "subject": "mail", "kind": "ham", "rule": ["r1"]},
        {"id": "q4", "subject": "no", "kind": "ham"},
    ]
    jsonl(tmp_path / "mail.jsonl", rows)
    jsonl(tmp_path / "rules.jsonl", [{"id": f"r{i}", "text": f"rule {i}", "title": "Rules"} for i in range(10)])
    described = "test: mail.jsonl\ntrain: mail.jsonl\ninput: subject\nlabel: kind\nid: id\nchoices: [spam, ham]\n"
    (tmp_path / "mail.yaml").write_text(described + "knowledge: rules.jsonl\nrelevant_column: rule\n")
    task = Table(file=tmp_path / "mail.yaml")
    assert [passage.id for passage in task.passages()] == [f"r{i}" for i in range(10)]
    assert task.passages()[2].title == "Rules"
    marks = [task.relevant(example) for example in task.examples("test")]
    assert marks == [("r0", "r9"), ("r1", "r9"), ("r2", "r9"), ("r1",), ()]
    assert Table(data=tmp_path / "mail.jsonl", input="subject", label="kind").relevant(task.examples("test")[0]) == ()
    wrong = Table(data=tmp_path / "mail.jsonl", input="subject", label="kind", relevant_column="rules")
    with pytest.raises(DataError, match="no column 'rules'; did you mean 'rule'"):
        list(wrong.examples("train"))
    with pytest.raises(DataError, match="no such file of passages"):
        Table(data=tmp_path / "mail.jsonl", input="subject", label="kind", knowledge=tmp_path / "no.jsonl").passages()
