"""The tasks on real data: every row is read, real teachers' outputs are parsed as recorded, damaged ones survive.

The counts of `AGREEMENT` stand in docs/parsing.md with their reasons.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmdistill import registry
from lmdistill.answers import value_in
from lmdistill.arithmetic import equal
from lmdistill.reading import read_answer
from lmdistill.store import read_jsonl
from lmdistill.tasks import Task
from lmdistill.types import Example

pytestmark = pytest.mark.real

FOLDERS = {
    "cqa": "dss_cqa",
    "svamp": "dss_svamp",
    "esnli": "dss_esnli",
    "anli": "dss_anli1",
    "obqa": "openbookqa",
    "strategyqa": "strategyqa",
    "medqa": "medqa",
    "quarel": "mario_quarel",
    "fairytaleqa": "fairytaleqa",
    "squad_qg": "squad2_dev_half",
}


def task_of(name: str, data: Path, **settings: Any) -> Task:
    task = registry.load("tasks", name)(path=data / FOLDERS[name], **settings)
    assert isinstance(task, Task)
    return task


def every(task: Task) -> Iterator[Example]:
    for split in ("train", "valid", "test"):
        yield from task.examples(split)


@pytest.mark.parametrize(
    ("name", "rows", "unusable"),
    [
        ("cqa", 9741 + 496, 0),
        ("svamp", 800 + 100, 0),
        ("esnli", 10_000 + 9842, 0),
        ("anli", 1000, 0),
        ("obqa", 4933 + 499, 0),
        ("strategyqa", 1831, 0),
        ("medqa", 1272 + 1030, 0),
        ("quarel", 1930 + 278, 0),
        ("fairytaleqa", 8548 + 1025, 0),
        ("squad_qg", 2828, 1529),
    ],
)
def test_every_row_is_an_example_or_counted(name: str, rows: int, unusable: int, real_data: Path) -> None:
    task = task_of(name, real_data)
    ids = [example.id for example in every(task)]
    assert len(ids) == len(set(ids)) == rows - unusable
    assert sum(sum(task.problems(split).values()) for split in ("train", "valid", "test")) == unusable


@pytest.mark.parametrize("name", ["cqa", "svamp", "anli", "obqa", "strategyqa", "medqa", "quarel"])
def test_gold_answers_are_read_back_as_they_are_shown(name: str, real_data: Path) -> None:
    task = task_of(name, real_data)
    for index, example in enumerate(every(task)):
        assert example.label is not None
        if index % 3 and name in ("cqa", "obqa"):
            continue
        for text in (
            f"Because. {task.answer_cue} {task.shown(example, example.label)}.",
            f"Because.\nAnswer: {task.shown(example, example.label)}",
        ):
            assert task.is_correct(example, task.parse(example, text).answer), (example.label, example.choices)


def test_cqa_inputs_are_the_published_strings(real_data: Path) -> None:
    published = {row["id"]: row["input"] for _, row in read_jsonl(real_data / "dss_cqa" / "train.jsonl.gz")}
    task = task_of("cqa", real_data)
    for example in task.examples("train"):
        lines = [line.rstrip() for line in published[example.id].splitlines()]  # a few choices end in a blank
        assert example.input.splitlines() == lines


def test_knowledge_bases_hold_what_bears_on_the_questions(real_data: Path) -> None:
    for name, count in (("obqa", 6492), ("strategyqa", 11_476)):
        task = task_of(name, real_data)
        known = {passage.id for passage in task.passages()}
        assert len(known) == count
        for example in task.examples("test"):
            assert set(task.relevant(example)) <= known


# --- recorded outputs ------------------------------------------------------------------------------------------------

AGREEMENT = {
    "cqa": {
        "the same": 9774,
        "only case, blanks or points differ": 135,
        "ours is the choice, spelt as the choice": 24,
        "none: names several choices": 293,
        "none: letter and text disagree": 11,
    },
    "svamp": {
        "the same": 856,
        "ours is the whole equation": 22,
        "ours has its units taken off": 1,
        "none: not an arithmetic expression": 18,
        "none: gives several different numbers": 3,
    },
    "esnli": {
        "the same": 19_789,
        "ours without the cut-off next question": 40,
        "none: answer is not one of the choices": 13,
    },
    "anli": {"the same": 992, "ours only": 8},
}


def difference(name: str, recorded: str | None, answer: str | None, reason: str | None) -> str:
    """How our answer stands to the recorded label."""
    if recorded == answer:
        return "the same"
    if recorded is None:
        return "ours only"
    if answer is None:
        return f"none: {reason}"
    if name == "svamp":
        return "ours is the whole equation" if answer.startswith(recorded) else "ours has its units taken off"
    if name == "esnli":
        return "ours without the cut-off next question" if recorded == f"{answer}\n\nPre" else "another label"
    fold = [" ".join(text.split()).strip(" .").casefold() for text in (recorded, answer)]
    return "only case, blanks or points differ" if fold[0] == fold[1] else "ours is the choice, spelt as the choice"


@pytest.mark.parametrize("name", sorted(AGREEMENT))
def test_real_outputs_are_parsed_as_recorded(name: str, real_data: Path) -> None:
    task = task_of(name, real_data)
    found: Counter[str] = Counter()
    for example in every(task):
        parsed = task.parse(example, example.fields["llm_raw"])
        kind = difference(name, example.fields["llm_label"], parsed.answer, parsed.reason)
        if name == "svamp" and kind == "the same":
            assert parsed.answer is None or equal(parsed.answer, example.fields["llm_label"])
        found[kind] += 1
    assert dict(found) == AGREEMENT[name]


def test_rationales_are_those_recorded(real_data: Path) -> None:
    # Where both read an answer, ours is the recorded rationale but for blanks and the point before the cue.
    for name in ("cqa", "esnli", "anli"):
        task = task_of(name, real_data)
        same = both = 0
        for example in list(task.examples("train"))[::3]:
            parsed = task.parse(example, example.fields["llm_raw"])
            if parsed.answer is not None and example.fields["llm_label"] == parsed.answer:
                both += 1
                recorded = " ".join((example.fields["llm_rationale"] or "").split())
                same += " ".join(parsed.rationale.split()).rstrip(" ,") == recorded.rstrip(" ,")
        assert same / both > 0.995, (name, same, both)


MESSY = {
    ("llama3_teacher/cqa_train.jsonl.gz", "cqa"): (0.68, 0.47),
    ("llama3_teacher/svamp_train.jsonl.gz", "svamp"): (0.74, 0.55),
    ("llama3_teacher/anli1_valid.jsonl.gz", "anli"): (0.70, 0.32),
}


@pytest.mark.parametrize(("file", "name"), sorted(MESSY))
def test_a_messier_teacher_is_read_too(file: str, name: str, real_data: Path) -> None:
    # The shares of samples that are read, and that are right, do not fall below what they were.
    task = task_of(name, real_data)
    read = right = samples = 0
    for line, row in read_jsonl(real_data / file):
        if line % 4 and name == "cqa":  # a quarter of the 19,482 samples is enough
            continue
        choices: tuple[str, ...] = ()
        if name == "cqa":
            choices = tuple(re.findall(r"^\(\w\) (.*)$", row["input"], re.MULTILINE))
        elif name == "anli":
            choices = ("entailment", "neutral", "contradiction")
        example = Example("e", row["input"], row["label"], choices)
        for text in row["llm_raw_samples"]:
            parsed = task.parse(example, text)
            samples += 1
            read += parsed.answer is not None
            right += task.is_correct(example, parsed.answer)
            assert parsed.answer is None or not choices or parsed.answer in choices
    least = MESSY[file, name]
    assert read / samples >= least[0] and right / samples >= least[1]


ZERO_SHOT = {
    "aqua.jsonl": (250, 253),
    "commonsensqa.jsonl.gz": (430, 495),
    "strategyqa.jsonl.gz": (1580, 1586),
    "coin_flip.jsonl.gz": (497, 500),
    "multiarith.jsonl.gz": (579, 593),
}


@pytest.mark.parametrize("file", sorted(ZERO_SHOT))
def test_zero_shot_outputs_agree_with_their_authors_rules(file: str, real_data: Path) -> None:
    same = either = 0
    for _, row in read_jsonl(real_data / "zero_shot_cot" / file):
        choices = tuple(re.findall(r"\([A-E]\) ?(.*?)(?= \([A-E]\)|$)", row["question"]))
        if file.startswith(("strategyqa", "coin")):
            parsed = read_answer(row["raw"], ("yes", "no"), lettered=False)
            agree = parsed.answer == row["pred"]
        elif choices:
            parsed = read_answer(row["raw"], choices)
            agree = bool(row["pred"]) and parsed.answer == dict(zip("ABCDE", choices, strict=False)).get(row["pred"])
        else:
            parsed = read_answer(row["raw"], read=value_in)
            agree = parsed.answer is not None and equal(parsed.answer, row["pred"] or "")
        either += parsed.answer is not None or bool(row["pred"])
        same += agree and parsed.answer is not None
    assert (same, either) == ZERO_SHOT[file]


@pytest.mark.parametrize("name", sorted(AGREEMENT))
def test_damaged_real_outputs_survive(name: str, real_data: Path) -> None:
    task = task_of(name, real_data)
    rows = list(task.examples("train"))
    rng = random.Random(f"damage {name}")
    for _ in range(2500):
        example = rng.choice(rows)
        parsed = task.parse(example, damaged(example.fields["llm_raw"], rng.choice(rows).fields["llm_raw"], rng))
        assert (parsed.answer is None) == (parsed.reason is not None)
        assert parsed.answer is None or not example.choices or parsed.answer in example.choices
        if parsed.answer is not None:
            assert task.canonical(parsed.answer)
            task.is_correct(example, parsed.answer)


def damaged(text: str, other: str, rng: random.Random) -> str:
    """A real output cut, doubled, mixed with another, with characters lost, changed or put in."""
    for _ in range(rng.randint(1, 4)):
        place, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        kind = rng.randrange(8)
        if kind == 0:
            text = text[:place]
        elif kind == 1:
            text = text[:place] + text[end:]
        elif kind == 2:
            text = text[:place] + other[rng.randint(0, len(other)) :]
        elif kind == 3:
            text = text[:place] + text[place:end] * 2 + text[end:]
        elif kind == 4:
            text = text.upper() if rng.random() < 0.5 else text.lower()
        elif kind == 5:
            text = (
                text[:place]
                + rng.choice(["(", ")", "\n", ".", "(a) ", " not ", "\0", "\ud800", "é", "1/0", "^" * 9])
                + text[place:]
            )
        elif kind == 6:
            text = text.replace(" ", rng.choice(["", "  ", "\t", "\u00a0"]))
        else:
            text = "".join(rng.sample(text[place:end], end - place)) + text[end:]
    return text
