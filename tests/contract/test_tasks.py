"""Every task of the folder keeps the contract."""

from __future__ import annotations

import inspect
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill import registry
from lmdistill.config import rebuild, settings_of
from lmdistill.errors import UnknownName
from lmdistill.store import decode, encode
from lmdistill.tasks import SPLITS, Generated, Task
from lmdistill.types import Example

NAMES = registry.names("tasks")
GENERATED = [name for name in NAMES if issubclass(registry.load("tasks", name), Generated)]
PLAIN = [name for name in NAMES if name != "table"]


def small(name: str) -> Task:
    sizes = {"train": 60, "valid": 20, "test": 40, "unlabelled": 10} if name in GENERATED else {}
    task = registry.load("tasks", name)(**sizes)
    assert isinstance(task, Task)
    return task


def test_the_tasks_of_the_design_are_there() -> None:
    published = "svamp cqa esnli anli medqa strategyqa obqa quarel fairytaleqa squad_qg xsum art"
    assert {*published.split(), "table"} <= set(NAMES)
    assert set(GENERATED) == {"sums", "nli", "facts", "paths", "retell"}


@pytest.mark.parametrize("name", PLAIN)
def test_it_is_a_frozen_dataclass_that_a_run_file_can_hold(name: str) -> None:
    task = small(name)
    assert rebuild("tasks", settings_of(task)) == task
    with pytest.raises(AttributeError):
        task.seed = 1  # type: ignore[attr-defined]
    assert inspect.getdoc(type(task))


@pytest.mark.parametrize("name", PLAIN)
def test_it_says_what_to_do_and_shows_how(name: str) -> None:
    task = small(name)
    assert task.metric in registry.names("metrics")
    assert len(task.instruction) > 20
    assert task.bare or task.answer_cue.rstrip(":").split()[0] in task.instruction
    shown = task.exemplars
    assert 2 <= len(shown) <= 4
    for exemplar in shown:
        choices = choices_of(task, exemplar.input)
        example = Example("e", exemplar.input, choices=choices)
        text = f"{exemplar.rationale} {task.answer_cue} {exemplar.answer}"
        parsed = task.parse(example, text)
        assert parsed.answer is not None, parsed
        assert parsed.rationale == exemplar.rationale.strip(" ,;")
        if choices:
            assert task.shown(example, parsed.answer) == exemplar.answer
        else:
            assert task.canonical(parsed.answer) == task.canonical(exemplar.answer)


@pytest.mark.parametrize("name", PLAIN)
def test_where_the_answer_alone_is_wanted_nobody_is_told_to_reason(name: str) -> None:
    from lmdistill.prompting import Prompter, Prompting

    task = small(name)
    told = Prompter(Prompting(style="kd4gen"), task).ask(Example("e", task.exemplars[0].input)).messages[0].content
    assert told == task.answer_instruction
    assert not re.search("step by step|then end with|one by one|say which|say what", told), told
    assert ("nothing else" in told) or ("the answer alone" in told)


def choices_of(task: Task, text: str) -> tuple[str, ...]:
    """The choices that stand in an input, or those that the task always has."""
    lettered = re.findall(r"(?:\(([a-eA-E])\)|(?<=\s)([A-E])\.) (.+?)(?=\s*(?:\([a-eA-E]\)|\s[A-E]\. |$))", text)
    if task.lettered and lettered:
        return tuple(choice for _, _, choice in lettered)
    if hasattr(task, "separator"):
        return ("entailment", "neutral", "contradiction")
    return getattr(task, "choices", ())


@pytest.mark.parametrize("name", PLAIN)
@given(text=st.one_of(st.text(), st.from_regex(r"(so )?the answer is[ :]{0,2}\(?[a-e]?\)?.{0,20}", fullmatch=True)))
@settings(max_examples=60)
def test_parse_is_total(name: str, text: str) -> None:
    task = small(name)
    for choices in ((), ("yes", "no"), ("one", "two", "one two")):
        parsed = task.parse(Example("e", "?", choices=choices), text)
        assert (parsed.answer is None) == (parsed.reason is not None)
        assert parsed.answer is None or not choices or parsed.answer in choices
        assert task.canonical(text) == task.canonical(text)
        if parsed.answer is not None:
            assert task.canonical(parsed.answer)


@pytest.mark.parametrize("name", PLAIN)
def test_an_unknown_split_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnknownName, match="did you mean 'train'"):
        small(name).examples("trian")


@pytest.mark.parametrize("name", GENERATED)
class TestGenerated:
    def test_examples_are_the_same_every_time_and_in_any_order(self, name: str) -> None:
        task = small(name)
        for split in SPLITS:
            rows = task.examples(split)
            forward = list(rows)
            assert forward == [rows[i] for i in range(len(rows))] == list(small(name).examples(split))
            assert rows[-1] == forward[-1] and rows[2:5] == forward[2:5]
            assert len({example.id for example in forward}) == len(rows)
            with pytest.raises(IndexError):
                rows[len(rows)]

    def test_sizes_do_not_change_examples_and_seeds_do(self, name: str) -> None:
        cls = registry.load("tasks", name)
        few, many = cls(train=5).examples("train"), cls(train=50).examples("train")
        assert list(few) == many[:5]
        assert [e.input for e in cls(seed=1).examples("train")[:20]] != [e.input for e in many[:20]]

    def test_no_test_question_is_in_another_split(self, name: str) -> None:
        task = registry.load("tasks", name)(train=1500, valid=300, test=300, unlabelled=300)
        seen = {split: {example.input for example in task.examples(split)} for split in SPLITS}
        assert not seen["test"] & (seen["train"] | seen["valid"] | seen["unlabelled"])
        assert not seen["valid"] & (seen["train"] | seen["unlabelled"])
        assert len(seen["train"]) > 600

    def test_texts_are_lower_case_tokens_with_single_spaces(self, name: str) -> None:
        task = small(name)
        rng = random.Random(0)
        for example in task.examples("train"):
            rationale, answer = task.explain(example.input, rng)
            for text in (example.input, example.label, rationale, answer, *example.choices):
                assert text == " ".join(text.split()).lower()
                assert re.fullmatch(r"(?:[a-z0-9]+|[.,:?])(?: (?:[a-z0-9]+|[.,:?]))*", text), text

    def test_explanations_are_right_and_read_back(self, name: str) -> None:
        task = small(name)
        for example in task.examples("test"):
            for sample in range(4):
                rationale, answer = task.explain(example.input, random.Random(f"{example.id} {sample}"))
                assert task.is_correct(example, answer)
                for text in (f"{rationale} {task.answer_cue} {answer}", f"{rationale} So the answer is: {answer}."):
                    parsed = task.parse(example, text)
                    assert parsed.rationale == rationale
                    assert task.is_correct(example, parsed.answer)

    def test_wrong_explanations_are_wrong_to_the_end(self, name: str) -> None:
        task = small(name)
        for example in task.examples("test"):
            for sample in range(4):
                rng = random.Random(f"{example.id} {sample}")
                right = task.explain(example.input, random.Random(f"{example.id} {sample}"))
                wrong = task.explain(example.input, rng, wrong=True)
                assert wrong[0] != right[0]
                assert not task.is_correct(example, wrong[1])
                assert task.parse(example, f"{wrong[0]} {task.answer_cue} {wrong[1]}").answer is not None

    def test_wording_varies(self, name: str) -> None:
        task = small(name)
        for example in task.examples("train")[:5]:
            told = {task.explain(example.input, random.Random(sample))[0] for sample in range(40)}
            assert len(told) >= 2

    def test_what_is_no_question_is_refused(self, name: str) -> None:
        task = small(name)
        for text in (
            "",
            "what ?",
            "how many apples does anna have now ?",
            "the answer is 4",
            "the x sits near the y .",
        ):
            with pytest.raises(ValueError, match=name):
                task.explain(text, random.Random(0))

    def test_unlabelled_rows_have_no_label(self, name: str) -> None:
        assert all(example.label is None for example in small(name).examples("unlabelled"))
        assert all(example.label is not None for example in small(name).examples("train"))

    def test_examples_go_to_json_and_back(self, name: str) -> None:
        task = small(name)
        for example in task.examples("train")[:5]:
            back = decode(Example, encode(example))
            assert (back.id, back.input, back.label, back.choices) == (
                example.id,
                example.input,
                example.label,
                example.choices,
            )
            assert task.relevant(back) == task.relevant(example)
            assert task.is_correct(back, back.label)


@pytest.mark.parametrize("name", PLAIN)
def test_an_answer_that_stands_alone_is_read(name: str) -> None:
    task = small(name)
    for exemplar in task.exemplars:
        choices = choices_of(task, exemplar.input)
        example = Example("e", exemplar.input, choices=choices)
        found = task.read(example, exemplar.answer)
        assert found.answer is not None and found.reason is None
        assert task.shown(example, found.answer) == exemplar.answer or not choices
        assert task.read(example, " ").answer is None
