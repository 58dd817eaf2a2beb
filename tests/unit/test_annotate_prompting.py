"""What teachers are shown, and how their words come back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lmdistill import registry
from lmdistill.errors import ConfigError, DataError
from lmdistill.prompting import Prompter, Prompting, read_exemplars
from lmdistill.tasks import Exemplar, Task
from lmdistill.types import Completion, Example, Sampling


@dataclass(frozen=True)
class Colours(Task):
    """A task small enough to write its prompts down."""

    def examples(self, split: str) -> Sequence[Example]:
        return [SKY]

    @property
    def instruction(self) -> str:
        return "Choose."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        return SHOTS


SKY = Example("sky", "What is the sky?\nAnswer Choices:\n(a) blue\n(b) red", "blue", ("blue", "red"))
SHOTS = (
    Exemplar("What is blood?\nAnswer Choices:\n(a) blue\n(b) red", "It is red.", "(b) red"),
    Exemplar("What is grass?\nAnswer Choices:\n(a) green\n(b) pink", "Leaves are green.", "(a) green"),
    Exemplar("What is snow in the sky?\nAnswer Choices:\n(a) white\n(b) pink", "Snow is white.", "(a) white"),
)
TASK = Colours()


def asked(sample: int = 0, example: Example = SKY, **settings: Any) -> str:
    prompt = Prompter(Prompting(**settings), TASK).ask(example, sample)
    if prompt.plain:
        return prompt.messages[0].content
    return "\n".join(f"[{message.role}] {message.content}" for message in prompt.messages)


def test_the_standard_chat() -> None:
    assert asked(shots=1) == (
        "[system] Choose.\n"
        "[user] What is blood?\nAnswer Choices:\n(a) blue\n(b) red\n"
        "[assistant] It is red. So the answer is (b) red.\n"
        "[user] What is the sky?\nAnswer Choices:\n(a) blue\n(b) red"
    )


def test_the_standard_text() -> None:
    assert asked(shots=1, form="plain") == (
        "Choose.\n\n"
        "Q: What is blood?\nAnswer Choices:\n(a) blue\n(b) red\nA: It is red. So the answer is (b) red.\n\n"
        "Q: What is the sky?\nAnswer Choices:\n(a) blue\n(b) red\nA:"
    )


def test_distilling_step_by_step() -> None:
    assert asked(style="dss", shots=1) == (
        "Q: What is blood?\nAnswer Choices:\n(a) blue\n(b) red\nA: It is red. So the answer is (b) red.\n\n"
        "Q: What is the sky?\nAnswer Choices:\n(a) blue\n(b) red\nA:"
    )


def test_scotd_shuffles_its_triples_for_each_sample() -> None:
    first = asked(style="scotd")
    assert "A: It is red. So the answer is: (b) red\n\n" in first and first.endswith("(b) red\nA:")
    assert len({asked(sample, style="scotd") for sample in range(20)}) > 3
    assert asked(3, style="scotd") == asked(3, style="scotd")


def test_kard_shows_the_gold_answer_before_the_explanation() -> None:
    assert asked(style="kard", shots=1) == (
        "The following are multiple-choice questions. "
        "Generate detailed step-by-step explanations for each question and answer.\n\n"
        "Question: What is blood?\nAnswer Choices:\n(a) blue\n(b) red\nAnswer: (b) red\nExplanation: It is red.\n\n"
        "Question: What is the sky?\nAnswer Choices:\n(a) blue\n(b) red\nAnswer: (a) blue\nExplanation:"
    )


def test_qcrd_has_its_strict_format() -> None:
    text = asked(style="qcrd", shots=1)
    assert "question answering robot" in text
    assert "[assistant] <Explanation>: It is red.\n<Answer>: (b) red." in text


def test_zero_shot_chain_of_thought_asks_twice() -> None:
    prompter = Prompter(Prompting(style="zero_shot_cot"), TASK)
    first = prompter.ask(SKY)
    assert first.text == "Q: What is the sky?\nAnswer Choices:\n(a) blue\n(b) red\nA: Let's think step by step."
    second = prompter.follow(SKY, first, " Look up.\n")
    assert second.text == first.text + " Look up.\nTherefore, among (a) through (b), the answer is"
    said = [Completion(" Look up.\n"), Completion(" (a).")]
    assert TASK.parse(SKY, prompter.text(SKY, said))[:2] == ("Look up.", "blue")


def test_two_stages_in_a_chat() -> None:
    prompter = Prompter(Prompting(stages=2, shots=0), TASK)
    first = prompter.ask(SKY)
    assert first.messages[-1].content.endswith("(b) red Let's think step by step.")
    second = prompter.follow(SKY, first, "Look up.")
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "user"]


def test_show_answer_tells_the_gold_label() -> None:
    text = asked(show_answer=True, shots=0)
    assert text.endswith("The correct answer is (a) blue. Explain step by step why.")
    unlabelled = Example("x", SKY.input, None, SKY.choices)
    assert "correct answer" not in asked(example=unlabelled, show_answer=True, shots=0)
    assert "correct answer" not in asked(style="kard", show_answer=False)


def test_the_nearest_exemplar_stands_last() -> None:
    snowy = Example("x", "Is there snow in the sky now?")
    prompt = Prompter(Prompting(exemplars="nearest", shots=2), TASK).ask(snowy)
    users = [message.content for message in prompt.messages if message.role == "user"]
    assert "snow in the sky" in users[-2] and len(users) == 3


def test_a_question_is_never_its_own_exemplar() -> None:
    known = Example("snow", SHOTS[2].input, "white", ("white", "pink"))
    for order in ("fixed", "shuffled", "nearest"):
        prompt = Prompter(Prompting(exemplars=order), TASK).ask(known)
        assert sum("snow" in message.content for message in prompt.messages) == 1


def test_instruction_question_and_exemplars_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "shots.jsonl"
    path.write_text(json.dumps({"input": "My own?", "rationale": "Mine.", "answer": "(a) blue"}))
    text = asked(instruction="Think.", question="{{ id }}: {{ input }}", exemplar_file=path)
    assert "[system] Think." in text and "[user] My own?" in text and "[user] sky: What is the sky?" in text
    path.write_text('{"input": "x"}')
    with pytest.raises(DataError, match=r"shots\.jsonl:1: an exemplar needs the text rationale and answer"):
        read_exemplars(path)


def test_choices_are_told_where_nothing_else_does() -> None:
    bare = Example("x", "Is it?", None, ("yes", "no"))
    assert asked(example=bare, shots=0).endswith("Is it?\nAnswer Choices:\n(a) yes\n(b) no")
    spam = registry.load("tasks", "table")(data=Path("x.csv"), input="a", label="b", choices=("spam", "ham"))
    prompt = Prompter(Prompting(shots=0), spam).ask(Example("x", "Buy now", None, ("spam", "ham")))
    assert prompt.question == "Buy now\nAnswer with one of: spam, ham."


def test_a_premise_and_a_hypothesis_are_written_out() -> None:
    nli = registry.load("tasks", "esnli")()
    example = Example("x", "It rains.</s>It is wet.", fields={"premise": "It rains.", "hypothesis": "It is wet."})
    prompt = Prompter(Prompting(style="dss"), nli).ask(example)
    assert prompt.text.endswith("Q: Premise: It rains.\nHypothesis: It is wet.\nA:") and "</s>" not in prompt.text


def test_json_is_asked_for_and_read() -> None:
    prompter = Prompter(Prompting(answer="json", shots=1), TASK)
    prompt = prompter.ask(SKY)
    assert prompt.schema is not None
    assert prompt.schema["properties"]["answer"]["enum"] == ["(a) blue", "(b) red"]
    assert json.loads(prompt.messages[2].content) == {"rationale": "It is red.", "answer": "(b) red"}
    said = '```json\n{"rationale": "Light scatters.", "answer": "(a) blue"}\n```'
    assert TASK.parse(SKY, prompter.text(SKY, [Completion(said)]))[:2] == ("Light scatters.", "blue")
    assert prompter.text(SKY, [Completion("no {json")]) == "no {json"


@pytest.mark.parametrize(
    ("setting", "text", "rationale"),
    [
        ("fallback", "So the answer is (a).", "Thinking hard."),
        ("fallback", "It is blue. So the answer is (a).", "It is blue."),
        ("prepend", "It is blue. So the answer is (a).", "Thinking hard.\nIt is blue."),
        ("ignore", "So the answer is (a).", ""),
    ],
)
def test_what_becomes_of_separate_reasoning(setting: Any, text: str, rationale: str) -> None:
    prompter = Prompter(Prompting(reasoning=setting), TASK)
    read = TASK.parse(SKY, prompter.text(SKY, [Completion(text, reasoning="Thinking hard.")]))
    assert (read.rationale, read.answer) == (rationale, "blue")


def test_qcrds_marks_are_read() -> None:
    prompter = Prompter(Prompting(style="qcrd"), TASK)
    read = TASK.parse(SKY, prompter.text(SKY, [Completion("<Explanation>: Light.\n<Answer>: (a) blue.")]))
    assert read[:2] == ("Light.", "blue")


def test_text_tasks_have_no_rationale_in_kd4gens_way() -> None:
    retell = registry.load("tasks", "retell")()
    prompter = Prompter(Prompting(style="kd4gen"), retell)
    example = retell.examples("train")[0]
    assert retell.parse(example, prompter.text(example, [Completion("a retold story")])).answer == "a retold story"


def test_plain_forms_bring_their_stop_strings() -> None:
    assert Prompter(Prompting(form="plain"), TASK).sampling(Sampling()).stop == ("\n\nQ:",)
    assert Prompter(Prompting(style="scotd"), TASK).sampling(Sampling()).stop == ("\n\n",)
    assert Prompter(Prompting(), TASK).sampling(Sampling()).stop == ()
    assert Prompter(Prompting(form="plain"), TASK).sampling(Sampling(stop=("!",))).stop == ("!",)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="shots: -1 is negative"):
        Prompting(shots=-1)
    with pytest.raises(ConfigError, match="more_room"):
        Prompting(more_room=0.5)
