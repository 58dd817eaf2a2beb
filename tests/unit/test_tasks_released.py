"""Published data: exact input strings, honest splits, folders and the Hub (rows made up here)."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from lmdistill import registry
from lmdistill.errors import ConfigError, DataError
from lmdistill.tasks.anli import Anli
from lmdistill.tasks.cqa import CQA
from lmdistill.tasks.esnli import Esnli
from lmdistill.tasks.fairytaleqa import FairytaleQA
from lmdistill.tasks.obqa import Obqa
from lmdistill.tasks.quarel import Quarel
from lmdistill.tasks.squad_qg import SquadQG
from lmdistill.tasks.strategyqa import StrategyQA
from lmdistill.tasks.svamp import Svamp


def put(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def nli_rows(name: str, count: int) -> list[dict[str, Any]]:
    labels = ("entailment", "neutral", "contradiction")
    return [{"id": f"{name}{i}", "premise": "P.", "hypothesis": f"H{i}.", "label": labels[i % 3]} for i in range(count)]


def ids(task: Any, split: str) -> set[str]:
    return {example.id for example in task.examples(split)}


def test_three_files_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        put(tmp_path / f"{name}.jsonl", nli_rows(name, 20))
    task = Esnli(path=tmp_path)
    assert ids(task, "valid") == {f"validation{i}" for i in range(20)}
    assert ids(task, "test") == {f"test{i}" for i in range(20)}
    assert len(ids(task, "train")) == 20
    assert task.digests().keys() == {"train.jsonl", "validation.jsonl", "test.jsonl"}
    assert len(task.examples("unlabelled")) == 0


@pytest.mark.parametrize("second", ["dev", "val", "valid"])
def test_without_a_test_file_the_development_file_is_the_test_set(tmp_path: Path, second: str) -> None:
    put(tmp_path / "train.jsonl", nli_rows("t", 400))
    put(tmp_path / f"{second}.jsonl", nli_rows("d", 30))
    task = Esnli(path=tmp_path)
    assert ids(task, "test") == {f"d{i}" for i in range(30)}
    assert not ids(task, "valid") & ids(task, "test")
    assert ids(task, "valid") | ids(task, "train") == {f"t{i}" for i in range(400)}
    assert 20 <= len(ids(task, "valid")) <= 60
    assert task.origin("test") == f"{second}.jsonl, all rows"
    assert task.origin("valid") == "train.jsonl, 10% of the rows, by hash"


def test_one_file_is_shared_out(tmp_path: Path) -> None:
    task = Esnli(path=put(tmp_path / "questions.jsonl", nli_rows("q", 600)).parent)
    parts = [ids(task, split) for split in ("train", "valid", "test")]
    assert set.union(*parts) == {f"q{i}" for i in range(600)} and sum(map(len, parts)) == 600
    assert 90 <= len(parts[2]) <= 150
    assert ids(Esnli(path=tmp_path / "questions.jsonl"), "test") == parts[2]


def test_folders_that_do_not_say_what_is_what(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        Esnli(path=tmp_path / "gone").examples("train")
    with pytest.raises(DataError, match="no data file"):
        Esnli(path=tmp_path).examples("train")
    put(tmp_path / "a.jsonl", nli_rows("a", 2))
    put(tmp_path / "b.jsonl", nli_rows("b", 2))
    with pytest.raises(DataError, match="none named after a split"):
        Esnli(path=tmp_path).examples("train")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Esnli(valid_fraction=0)
    with pytest.raises(ConfigError, match="less than 1"):
        Esnli(valid_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ConfigError, match="round: 1, 2 or 3"):
        Anli(round=4)


def test_what_is_wrong_names_file_and_line(tmp_path: Path) -> None:
    rows = nli_rows("t", 40)
    put(tmp_path / "train.jsonl", [*rows, {**rows[0], "id": "x", "label": "entailmnt"}])
    put(tmp_path / "test.jsonl", rows)
    task = Esnli(path=tmp_path, valid_fraction=0.0001)
    with pytest.raises(DataError, match=r"train\.jsonl:41: label 'entailmnt' is not among the choices entailment"):
        task.examples("train")
    put(tmp_path / "train.jsonl", [{"id": "1", "premises": "P", "hypothesis": "H", "label": "neutral"}])
    with pytest.raises(DataError, match=r"train\.jsonl:1: no column 'premise'; did you mean 'premises'"):
        task.examples("train")
    put(tmp_path / "train.jsonl", [*rows, {**rows[0], "id": "y", "premise": None}])
    assert len(task.examples("train")) == 40 and task.problems("train") == {"premise is empty": 1}
    with pytest.raises(DataError, match=r"train\.jsonl:41: premise is empty; mend the row"):
        Esnli(path=tmp_path, valid_fraction=0.0001, strict=True).examples("train")


def test_input_strings_of_the_papers(tmp_path: Path) -> None:
    put(tmp_path / "nli/test.jsonl", nli_rows("t", 1))
    (one,) = Esnli(path=tmp_path / "nli", test_fraction=0.98, valid_fraction=0.01).examples("test")
    assert one.input == "P.</s>H0." and one.choices == ("entailment", "neutral", "contradiction")
    spaced = Anli(path=tmp_path / "nli", separator=" [SEP] ", test_fraction=0.98, valid_fraction=0.01)
    assert spaced.examples("test")[0].input == "P. [SEP] H0."

    row = {"question": "Why?", "choices": ["sun", "rain", "snow"], "label": "rain"}
    for task, text in (
        (CQA(path=put(tmp_path / "c/all.jsonl", [row])), "Why?\nAnswer Choices:\n(a) sun\n(b) rain\n(c) snow"),
        (Obqa(path=put(tmp_path / "o/all.jsonl", [row])), "Why? A. sun B. rain C. snow"),
        (Obqa(path=tmp_path / "o/all.jsonl", style="inline"), "Why? (a) sun (b) rain (c) snow"),
    ):
        (one,) = (e for split in ("train", "valid", "test") for e in task.examples(split))
        assert (one.input, one.label) == (text, "rain")
        assert task.shown(one, "rain") == "(b) rain"


def test_svamp_compares_values(tmp_path: Path) -> None:
    row = {"ID": "1", "Body": "He had 9.", "Question": "How many?", "Equation": "( 9.0 - 4.0 )", "Answer": 5}
    task = Svamp(path=put(tmp_path / "all.jsonl", [row]))
    (one,) = (e for split in ("train", "valid", "test") for e in task.examples(split))
    assert (one.id, one.input, one.label) == ("1", "He had 9.\nHow many?", "( 9.0 - 4.0 )")
    assert task.parse(one, "9 - 4 = 5. The answer is (9 - 4).\n\nQ: He").answer == "(9 - 4)"
    assert task.is_correct(one, "(9 - 4)") and task.is_correct(one, "5") and not task.is_correct(one, "(4 - 9)")
    assert task.canonical("(9 - 4)") == task.canonical("5.0") == "5"
    assert not task.is_correct(one, "__import__('os')")


def test_quarel_finds_its_choices_in_the_question(tmp_path: Path) -> None:
    rows = [{"question": f"It is {i} hot. Where? (A) on the sand (B) in a cave", "label": "(b)"} for i in range(3)]
    task = Quarel(path=put(tmp_path / "all.jsonl", [*rows, {"question": "No choices?", "label": "(a)"}]))
    every = [e for split in ("train", "valid", "test") for e in task.examples(split)]
    assert {(e.label, e.choices) for e in every} == {("in a cave", ("on the sand", "in a cave"))}
    assert {e.id for e in every} == {"all-1", "all-2", "all-3"}
    assert sum(sum(task.problems(split).values()) for split in ("train", "valid", "test")) == 1


def test_knowledge_bases_and_what_bears_on_a_question(tmp_path: Path) -> None:
    row = {"qid": "q", "question": "Is it?", "label": "no", "gold_pids_in_kb": ["p2"]}
    put(tmp_path / "questions.jsonl", [row])
    passages = [{"pid": "p1", "title": "A", "text": "One."}, {"pid": "p2", "title": "B", "text": "Two."}]
    put(tmp_path / "kb_paragraphs.jsonl", passages)
    task = StrategyQA(path=tmp_path)
    assert [(p.id, p.title, p.text) for p in task.passages()] == [("p1", "A", "One."), ("p2", "B", "Two.")]
    (one,) = (e for split in ("train", "valid", "test") for e in task.examples(split))
    assert task.relevant(one) == ("p2",) and one.input == "Is it? A. yes B. no"
    assert task.parse(one, "It is not.\nAnswer: B").answer == "no"
    assert StrategyQA(path=tmp_path, style="none").shown(one, "no") == "no"
    put(tmp_path / "kb_paragraphs.jsonl", [*passages, passages[0]])
    with pytest.raises(DataError, match=r"kb_paragraphs\.jsonl:3: id 'p1' stands in the knowledge base already"):
        task.passages()
    put(tmp_path / "kb_more.jsonl", passages)
    with pytest.raises(DataError, match="several knowledge bases"):
        task.passages()


def test_text_to_text_tasks_take_the_whole_completion(tmp_path: Path) -> None:
    rows = [
        {"story": f"s{i // 4}", "context": f"It {i}  rained.", "question": f"Q{i}?", "answer": "rain"}
        for i in range(80)
    ]
    task = FairytaleQA(path=put(tmp_path / "all.jsonl", rows), prefix="ask: ")
    one = task.examples("train")[0]
    assert one.input.startswith("ask: It ") and one.input.endswith(" rained.; answer: rain")
    assert task.parse(one, " Who said: the answer is no? ").answer == "Who said: the answer is no?"
    assert task.parse(one, "It is about rain. Question: What fell?") == ("It is about rain.", "What fell?", None)
    assert task.parse(one, "").reason == "empty"
    stories = [{e.fields["story"] for e in task.examples(split)} for split in ("train", "valid", "test")]
    assert not stories[0] & stories[2] and not stories[0] & stories[1]


STORY = "A hen sat on the wall. The red fox came by at noon. Nobody saw the fox but a crow. Night fell, all was still."


@pytest.mark.parametrize(
    ("answer", "words", "kept"),
    [
        ("the red fox", 0, STORY),
        ("the red fox", 100, STORY),
        ("The red fox.", 8, "The red fox came by at noon."),
        ("a crow saw the fox", 8, "Nobody saw the fox but a crow."),
        ("a hen", 14, "A hen sat on the wall. The red fox came by at noon."),  # what follows is taken along
        (
            "nothing of it",
            7,
            "The red fox came by at noon.",
        ),  # no word of it: the longest run, the first of equals
        ("still", 2, "Night fell, all was still."),  # one sentence at least
    ],
)
def test_a_passage_may_be_cut_to_what_the_answer_is_about(answer: str, words: int, kept: str, tmp_path: Path) -> None:
    row = {"story": "s", "context": STORY, "question": "Q?", "answer": answer}
    rows = put(tmp_path / "all.jsonl", [row, *({**row, "story": f"s{i}"} for i in range(40))])
    fairytale = FairytaleQA(path=rows, passage_words=words)
    assert {one.input for one in fairytale.examples("train")} == {f"{kept}; answer: {answer}"}
    paragraphs = [
        {"id": str(i), "context": STORY, "question": "Q?", "answers": {"text": [answer], "answer_start": [0]}}
        for i in range(40)
    ]
    squad = SquadQG(path=put(tmp_path / "squad.jsonl", paragraphs), passage_words=words, prefix="ask: ")
    assert {one.input for one in squad.examples("train")} <= {f"ask: {kept}; answer: {answer}"}


def test_a_passage_of_fewer_than_no_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="passage_words: 0"):
        SquadQG(passage_words=-1)


# --- the Hub, with rows as the published sets have them --------------------------------------------------------------

HUB: dict[str, tuple[dict[str, Any], str, str]] = {
    "svamp": (
        {"ID": "chal-1", "Body": "He had 9.", "Question": "How many?", "Equation": "( 9.0 - 4.0 )", "Type": "Sub"},
        "He had 9.\nHow many?",
        "( 9.0 - 4.0 )",
    ),
    "cqa": (
        {"id": "x", "question": "Why?", "choices": ["a", "b"], "answer": "b", "abstractive_explanation": "so"},
        "Why?\nAnswer Choices:\n(a) a\n(b) b",
        "b",
    ),
    "esnli": ({"premise": "P", "hypothesis": "H", "label": 2, "explanation_1": "so"}, "P</s>H", "contradiction"),
    "anli": ({"uid": "u", "premise": "P", "hypothesis": "H", "label": 1, "reason": "so"}, "P</s>H", "neutral"),
    "obqa": (
        {
            "id": "7",
            "question_stem": "The sun",
            "choices": {"text": ["sets", "talks"], "label": ["A", "B"]},
            "answerKey": "A",
            "fact1": "f",
        },
        "The sun A. sets B. talks",
        "sets",
    ),
    "strategyqa": ({"qid": "q", "question": "Is it?", "answer": True, "facts": "f"}, "Is it? A. yes B. no", "yes"),
    "medqa": (
        {"question": "What?", "answer": "Gout", "options": {"A": "Flu", "B": "Gout"}, "answer_idx": "B"},
        "What? A. Flu B. Gout",
        "Gout",
    ),
    "quarel": (
        {"id": "1", "question": "Where? (A) here (B) there", "answer_index": 1, "world_literals": {}},
        "Where? (A) here (B) there",
        "there",
    ),
    "fairytaleqa": (
        {"story_name": "s", "story_section": "It rained.", "question": "What fell?", "answer1": "rain", "answer2": ""},
        "It rained.; answer: rain",
        "What fell?",
    ),
    "squad_qg": (
        {"id": "1", "title": "T", "context": "C.", "question": "Q?", "answers": {"text": ["a"], "answer_start": [0]}},
        "C.; answer: a",
        "Q?",
    ),
    "xsum": ({"id": "1", "document": "Long.", "summary": "Short."}, "Long.", "Short."),
    "art": (
        {"observation_1": "A.", "observation_2": "B.", "hypothesis_1": "H1.", "hypothesis_2": "H2.", "label": 2},
        "A.; outcome: B.",
        "H2.",
    ),
}


@pytest.mark.parametrize("name", sorted(HUB))
def test_rows_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, text, label = HUB[name]
    asked: list[str] = []

    class Rows(list[dict[str, Any]]):
        column_names = list(row)
        features = dict.fromkeys(row)

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> Rows:
        asked.append(split)
        return Rows([dict(row)])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    task = registry.load("tasks", name)(hub_config="tests")
    (one,) = task.examples("test")
    assert (one.input, one.label) == (text, label)
    assert one.id
    assert asked == [{"anli": "test_r1", "art": "validation"}.get(name, "test")]
    assert task.is_correct(one, one.label)
    assert "explanation_1" not in row or one.fields["explanation_1"] == "so"


def test_a_row_of_art_that_nobody_labelled_is_counted_and_left_out(tmp_path: Path) -> None:
    rows = [
        {"observation_1": f"A{i}.", "observation_2": "B.", "hypothesis_1": "H1.", "hypothesis_2": "H2.", "label": label}
        for i, label in enumerate([1, 2, 0, "2", "0"])
    ]
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = registry.load("tasks", "art")(path=tmp_path)
    assert [one.label for one in task.examples("train")] == ["H1.", "H2.", "H2."]
    assert task.problems("train") == {"no label": 2}
