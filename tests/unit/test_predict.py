"""Prediction: voting, scoring choices, confidence, abstention, and opening a student folder."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lmdistill.errors import ConfigError, StoreError
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.predict import Decoding, open_student, predict
from lmdistill.tasks import Task
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Completion, Example, Rationale, Sampling


class Colours(Task):
    """A task for these tests."""

    def examples(self, split: str) -> Sequence[Example]:
        return [Example("e1", "sky", "blue", ("red", "blue")), Example("e2", "rose", "red", ("red", "blue"))]


@dataclass
class Says:
    """A student that says what it is told to, and scores by table."""

    texts: dict[str, list[str]]
    scores: dict[tuple[str, str], float] = field(default_factory=dict)
    asked: list[Sampling] = field(default_factory=list)

    def generate(self, prompts: Sequence[str], sampling: Sampling, **_: Any) -> list[list[Completion]]:
        self.asked.append(sampling)
        return [[Completion(text) for text in self.texts[prompt][: sampling.n]] for prompt in prompts]

    def logprobs(
        self, sources: Sequence[str], targets: Sequence[str], given: Sequence[str] = (), **_: Any
    ) -> list[float]:
        return [self.scores[pair] for pair in zip(sources, targets, strict=True)]


ITEMS = [Annotation(example) for example in Colours().examples("test")]


def test_greedy_decoding_asks_once_and_reads_the_text_as_the_answer() -> None:
    student = Says({"sky": ["blue"], "rose": [""]})
    found = predict(student, LabelOnly(), Colours(), ITEMS)
    assert [one.answer for one in found] == ["blue", None]
    assert found[1].reason == "empty" and found[0].confidence is None
    assert (student.asked[0].n, student.asked[0].temperature, student.asked[0].top_k) == (1, 0.0, 0)


def test_a_rationale_that_was_learnt_apart_is_asked_for_apart(tmp_path: Path) -> None:
    texts = {
        "predict: sky": ["blue"],
        "predict: rose": ["red"],
        "explain: sky": [" it is day "],
        "explain: rose": ["so"],
    }
    student = Says(texts)
    plain = predict(student, StepByStep(), Colours(), ITEMS)
    told = predict(student, StepByStep(), Colours(), ITEMS, rationale_tokens=7)
    assert [one.rationale for one in plain] == ["", ""] and [one.rationale for one in told] == ["it is day", "so"]
    assert [replace(one, rationale="") for one in told] == plain, "the answers do not change by it"
    assert student.asked[-1] == Sampling(max_tokens=7)
    for objective in (LabelOnly(), RationaleThenLabel(), StepByStep(rationale_weight=0)):
        with pytest.raises(ConfigError, match="learns no rationale as a task of its own"):
            predict(Says({"sky": ["x"], "rose": ["x"], **texts}), objective, Colours(), ITEMS, rationale_tokens=7)


def test_votes_are_counted_on_the_canonical_form() -> None:
    cue = " So the answer is: "
    student = Says(
        {
            "sky": [f"it is{cue}Blue", f"no{cue}red", f"as said{cue}blue.", "nothing"],
            "rose": ["a", "b", "c", "d"],
        }
    )
    found = predict(student, RationaleThenLabel(), Colours(), ITEMS, decoding=Decoding(samples=4))
    assert dict(found[0].votes) == {"blue": 2, "red": 1}
    assert found[0].confidence == 0.5 and found[0].rationale == "it is"
    assert found[1].answer is None and found[1].reason == "no answer after the rationale"
    assert student.asked[0].temperature == 0.7


def test_constrained_decoding_takes_the_likeliest_choice() -> None:
    scores = {("sky", "red"): -2.0, ("sky", "blue"): -1.0, ("rose", "red"): 0.0, ("rose", "blue"): -9.0}
    found = predict(Says({}, scores), LabelOnly(), Colours(), ITEMS, decoding=Decoding(constrained=True))
    assert [one.answer for one in found] == ["blue", "red"]
    assert found[0].confidence == pytest.approx(1 / (1 + math.exp(-1)))  # softmax of (-2, -1)


def test_constrained_decoding_needs_choices() -> None:
    with pytest.raises(ConfigError, match=r"decoding.constrained needs choices; example 'e9' has none"):
        predict(Says({}), LabelOnly(), Colours(), [Annotation(Example("e9", "x"))], decoding=Decoding(constrained=True))


def test_confidence_and_abstention() -> None:
    scores = {("sky", "blue"): math.log(0.9), ("rose", "red"): math.log(0.4)}
    student = Says({"sky": ["blue"], "rose": ["red"]}, scores)
    decoding = Decoding(confidence=True, abstain_below=0.5)
    sure, unsure = predict(student, LabelOnly(), Colours(), ITEMS, decoding=decoding)
    assert (sure.answer, sure.confidence) == ("blue", pytest.approx(0.9))
    assert unsure.answer is None and unsure.reason == "abstained: confidence 0.40 is below 0.5"


def test_predictions_are_kept_and_another_decoding_is_refused(tmp_path: Path) -> None:
    student = Says({"sky": ["blue"], "rose": ["red"]})
    first = predict(student, LabelOnly(), Colours(), ITEMS, folder=tmp_path)
    again = predict(Says({}), LabelOnly(), Colours(), ITEMS, folder=tmp_path)
    assert list(first) == list(again)
    with pytest.raises(StoreError, match="decoding"):
        predict(student, LabelOnly(), Colours(), ITEMS, folder=tmp_path, decoding=Decoding(beams=2))


def test_a_student_folder_opens_alone(tmp_path: Path) -> None:
    from lmdistill.students.seq2seq import Seq2seq

    items = [
        Annotation(item.example, (Rationale(f"{item.example.input} is so", item.example.label),)) for item in ITEMS
    ]
    objective = RationaleThenLabel(cue="answer:")
    student = Seq2seq(dropout=0.0).open(["sky rose is so answer: blue red"], seed=0)
    card = {"student": {"name": "seq2seq"}, "task": {"name": "table"}}
    settings = TrainSettings(steps=60, batch_size=2, learning_rate=1e-2, device="cpu")
    trained = train(student, objective, items, settings=settings, folder=tmp_path, card=card)
    opened = open_student(trained.folder)
    assert opened.objective == objective
    found = predict(opened.student, opened.objective, Colours(), ITEMS, decoding=Decoding(max_tokens=12))
    assert [(one.rationale, one.answer) for one in found] == [("sky is so", "blue"), ("rose is so", "red")]
    sure = predict(
        opened.student, opened.objective, Colours(), ITEMS, decoding=Decoding(max_tokens=12, confidence=True)
    )
    assert all(one.confidence is not None and 0.5 < one.confidence <= 1.0 for one in sure)


@pytest.mark.parametrize("lacking", ["lmdistill.json", "model.safetensors", "config.json"])
def test_a_student_folder_that_lacks_a_file_names_it(tmp_path: Path, lacking: str) -> None:
    from lmdistill.students.seq2seq import Seq2seq

    student = Seq2seq().open(["a b c"], seed=0)
    student.save(tmp_path)
    card = {"student": {"name": "seq2seq"}, "objective": {"name": "label_only"}}
    (tmp_path / "lmdistill.json").write_text(json.dumps(card))
    assert open_student(tmp_path).objective == LabelOnly()
    (tmp_path / lacking).unlink()
    with pytest.raises(StoreError, match=lacking):
        open_student(tmp_path)


def test_one_student_s_predictions_are_not_served_for_another_s(tmp_path: Path) -> None:
    from lmdistill.students.seq2seq import Seq2seq

    first, second = (Seq2seq().open(["sky rose blue red"], seed=seed) for seed in (0, 1))
    predict(first, LabelOnly(), Colours(), ITEMS, folder=tmp_path, decoding=Decoding(max_tokens=3))
    with pytest.raises(StoreError, match="input student"):
        predict(second, LabelOnly(), Colours(), ITEMS, folder=tmp_path, decoding=Decoding(max_tokens=3))


@pytest.mark.parametrize("damage", ["no tokenizer", "cut weights"])
def test_a_damaged_student_folder_is_refused(tmp_path: Path, damage: str) -> None:
    from lmdistill.students.seq2seq import Seq2seq

    Seq2seq().open(["a b c"], seed=0).save(tmp_path)
    if damage == "no tokenizer":
        (tmp_path / "tokenizer.json").unlink()
    else:
        (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:500])
    with pytest.raises(StoreError, match="has no tokenizer" if damage == "no tokenizer" else "weights are damaged"):
        Seq2seq(model=str(tmp_path)).open()


def test_votes_of_scored_choices_and_the_thought_that_is_shown() -> None:
    """Five thoughts, the first for red: blue wins by the others, so one that speaks for blue is shown."""
    cue = " So the answer is: "
    student = Says({"sky": [f"because red{cue}red", *[f"because blue {i}{cue}blue" for i in range(4)]]})

    def logprobs(sources: Sequence[str], targets: Sequence[str], given: Sequence[str] = (), **_: Any) -> list[float]:
        return [
            (0.0 if f"because {target.split()[-1]}" in target else -5.0) + ("blue 2" in target) for target in targets
        ]

    student.logprobs = logprobs  # type: ignore[method-assign]
    decoding = Decoding(samples=5, constrained=True)
    (found,) = predict(student, RationaleThenLabel(), Colours(), ITEMS[:1], decoding=decoding)
    assert found.answer == "blue" and dict(found.votes) == {"red": 1, "blue": 4}
    assert found.rationale.startswith("because blue") and found.text == f"{found.rationale}{cue}blue"
    assert found.confidence == pytest.approx((4 + math.exp(-5)) / (1 + math.exp(-5)) / 5, abs=1e-6)


def test_abstaining_alone_asks_for_the_confidence() -> None:
    scores = {("sky", "blue"): math.log(0.9), ("rose", "red"): math.log(0.4)}
    student = Says({"sky": ["blue"], "rose": ["red"]}, scores)
    sure, unsure = predict(student, LabelOnly(), Colours(), ITEMS, decoding=Decoding(abstain_below=0.5))
    assert (sure.answer, unsure.answer) == ("blue", None)


def test_predictions_are_kept_for_one_task_and_one_way_of_reading(tmp_path: Path) -> None:
    from dataclasses import replace

    from lmdistill.students.causal import Causal
    from lmdistill.tasks.table import Table

    data = tmp_path / "data.csv"
    data.write_text("question,answer\nsky,7 apples\n")
    tasks = [Table(test=data, input="question", label="answer", answer=kind) for kind in ("text", "number")]  # type: ignore[arg-type]
    items = [Annotation(Example("a", "sky", "7"))]
    told = Says({"sky": ["7 apples"]})
    assert predict(told, LabelOnly(), tasks[0], items, folder=tmp_path / "one")[0].answer == "7 apples"
    with pytest.raises(StoreError, match=r"task\.answer was 'text', now 'number'"):
        predict(told, LabelOnly(), tasks[1], items, folder=tmp_path / "one")
    texts = ["sky rose blue red"]
    first = Causal(dropout=0.0).open(texts, seed=0)
    first.save(tmp_path / "student")
    decoding = Decoding(max_tokens=3)
    predict(first, LabelOnly(), Colours(), ITEMS, folder=tmp_path / "two", decoding=decoding)
    shorter = replace(Causal(dropout=0.0), max_source=2).open(texts, seed=0)
    with pytest.raises(StoreError, match=r"student\.max_source was 1024, now 2"):
        predict(shorter, LabelOnly(), Colours(), ITEMS, folder=tmp_path / "two", decoding=decoding)


def test_the_batch_size_reaches_the_student() -> None:
    sizes: list[int] = []

    class Counts(Says):
        def generate(self, prompts: Sequence[str], sampling: Sampling, **more: Any) -> list[list[Completion]]:
            sizes.append(more["batch_size"])
            return super().generate(prompts, sampling)

    student = Counts({"sky": ["blue"], "rose": ["red"]})
    predict(student, LabelOnly(), Colours(), ITEMS, decoding=Decoding(batch_size=512))
    predict(student, LabelOnly(), Colours(), ITEMS, decoding=Decoding(batch_size=1))
    assert sizes == [512, 1, 1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("samples", 0),
        ("temperature", -0.1),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("beams", 0),
        ("max_tokens", 0),
        ("answer_tokens", -1),
        ("stop", ("a", "")),
        ("abstain_below", 1.5),
        ("abstain_below", -0.1),
        ("batch_size", 0),
    ],
)
def test_decoding_that_cannot_be_is_refused_at_once(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{setting}: "):
        Decoding(**{setting: value})
