"""How the published methods asked their teachers, as far as it was published, and our own plain way.

A style is text with holes: `{input}` (the question, with its choices), `{rationale}`, `{cue}`, `{answer}` and
`{choices}`. What a paper does not say is filled with the nearest thing that it does say; docs/teachers.md lists which
is which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Form = Literal["chat", "plain"]
Order = Literal["fixed", "shuffled", "nearest"]


@dataclass(frozen=True)
class Style:
    """The parts of a prompt.

    `question` and `answer` make up one demonstration; the prompt ends after the last `question`. Where the teacher is
    shown the gold answer, `told` follows each question, and a demonstration ends in `explained`. `cue` None is the
    task's own. `system` None is the task's instruction, '' is none at all; `alone` asks for the answer without
    reasoning, by the task's `answer_instruction`. `last` is put after the last question only.
    """

    form: Form
    question: str
    answer: str
    between: str = "\n\n"
    cue: str | None = None
    system: str | None = None
    last: str = ""
    shots: int | None = None
    order: Order = "fixed"
    show_answer: bool = False
    told: str = "\nThe correct answer is {answer}. Explain step by step why."
    explained: str = "{rationale} {cue} {answer}."
    stages: Literal[1, 2] = 1
    stop: tuple[str, ...] = ()
    alone: bool = False


STYLES: Mapping[str, Style] = {
    # Ours: the instruction as the system's turn, demonstrations as turns.
    "standard": Style("chat", "{input}", "{rationale} {cue} {answer}."),
    # Distilling Step-by-Step: its prompts were never released; this is the form that PaLM's run-on text repeats.
    "dss": Style("plain", "Q: {input}\nA:", " {rationale} {cue} {answer}.", system="", stop=("\n\n",)),
    # SCoTD: the released triples, in random order for each sample; 30 samples at temperature 1.
    "scotd": Style(
        "plain",
        "Q: {input}\nA:",
        " {rationale} {cue} {answer}",
        cue="So the answer is:",
        system="",
        order="shuffled",
        stop=("\n\n",),
    ),
    # KARD: the teacher sees the gold answer and explains it, in one message; 5 demonstrations, 10 samples.
    "kard": Style(
        "plain",
        "Question: {input}",
        " {rationale} {cue} {answer}.",
        system=(
            "The following are multiple-choice questions. "
            "Generate detailed step-by-step explanations for each question and answer."
        ),
        shots=5,
        show_answer=True,
        told="\nAnswer: {answer}\nExplanation:",
        explained=" {rationale}",
        stop=("\n\nQuestion:",),
    ),
    # QCRD: a question-answering robot with a strict format; 5 samples at temperature 0.7, majority vote.
    "qcrd": Style(
        "chat",
        "{input}",
        "<Explanation>: {rationale}\n<Answer>: {answer}.",
        system=(
            "You are a question answering robot. For each question, give an explanation and an answer. The answer must "
            "be chosen from the answer choices where there are any. Obtain the explanation by thinking step by step. "
            "Keep strictly to this format:\n<Explanation>: your explanation\n<Answer>: your answer"
        ),
    ),
    # KD4Gen's extreme setup: the answer alone, three demonstrations, no chain of thought.
    "kd4gen": Style("chat", "{input}", "{answer}", shots=3, alone=True),
    # Zero-shot chain of thought (Kojima et al.): two requests, the second asks for the answer alone.
    "zero_shot_cot": Style(
        "plain", "Q: {input}\nA:", " {rationale} {cue} {answer}.", system="", shots=0,
        last=" Let's think step by step.", stages=2, stop=("\n\nQ:",),
    ),
}  # fmt: skip

SECOND_STAGE = "Therefore, the answer is"
SECOND_STAGE_CHOICES = "Therefore, among ({first}) through ({last}), the answer is"
JSON_REQUEST = "Answer with a JSON object with two strings: 'rationale', your reasoning step by step, and 'answer'."
