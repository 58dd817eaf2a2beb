"""Prompts for the teacher, and its completions brought back into the task's own words.

    Prompting(exemplars="shuffled", shots=4)          settings, as they stand in a run file
    Prompter(Prompting(), task, seed).ask(example, sample)      what is asked for one sample

A prompt depends on (settings, task, example, sample, seed) only, so a resumed run asks the same questions.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lmdistill import prompt_styles
from lmdistill.errors import ConfigError, DataError, MissingExtra
from lmdistill.progress import note
from lmdistill.prompt_styles import STYLES, Form, Order, Style
from lmdistill.registry import name_of
from lmdistill.render import render, values_of
from lmdistill.store import read_jsonl, seed_for
from lmdistill.tasks import Exemplar, Task
from lmdistill.types import Completion, Example, Sampling
from lmdistill.wire import Message, Prompt

MARKED = re.compile(r"<\s*Explanation\s*>\s*:?(?P<rationale>.*?)<\s*Answer\s*>\s*:?(?P<answer>.*)", re.DOTALL | re.I)


@dataclass(frozen=True)
class Prompting:
    """How the teacher is asked. What is None is the style's own way.

    `question` is a template over an example's fields where the task's `input` is not what the teacher should read;
    `exemplar_file` holds demonstrations (JSON Lines: input, rationale, answer) to use instead of the task's. Where
    `shots` asks for more than there are, a style that shows answers alone takes training examples; others say so.
    `show_answer` tells the teacher the gold label; `stages` 2 asks for the reasoning first and for the answer in a
    second request. `answer` 'json' asks for a JSON object where the endpoint can. An answer that was cut off for
    length is asked once more with `more_room` times the tokens (1: not at all). `reasoning` says what becomes of the
    separate reasoning of reasoning models: the rationale where none else was written, always put before it, or nothing.
    """

    style: Literal["standard", "dss", "scotd", "kard", "qcrd", "kd4gen", "zero_shot_cot"] = "standard"
    form: Literal["chat", "plain"] | None = None
    instruction: str | None = None
    question: str | None = None
    exemplars: Literal["fixed", "shuffled", "nearest"] | None = None
    shots: int | None = None
    exemplar_file: Path | None = None
    show_answer: bool | None = None
    stages: Literal[1, 2] | None = None
    answer: Literal["text", "json"] = "text"
    more_room: float = 4.0
    reasoning: Literal["fallback", "prepend", "ignore"] = "fallback"

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 0:
            raise ConfigError(f"prompting.shots: {self.shots} is negative")
        if self.more_room < 1:
            raise ConfigError(f"prompting.more_room: {self.more_room} is below 1; 1 asks no second time")


class Prompter:
    """Prompts of one task under one setting."""

    def __init__(self, prompting: Prompting, task: Task, seed: int = 0) -> None:
        """Raises DataError: an unreadable file of exemplars."""
        self.prompting = prompting
        self.task = task
        self.seed = seed
        self.style: Style = STYLES[prompting.style]
        self.form: Form = prompting.form or self.style.form
        self.order: Order = prompting.exemplars or self.style.order
        self.cue = self.style.cue or task.answer_cue
        self.show_answer = self.style.show_answer if prompting.show_answer is None else prompting.show_answer
        self.stages = prompting.stages or self.style.stages
        shots = self.style.shots if prompting.shots is None else prompting.shots
        pool = tuple(read_exemplars(prompting.exemplar_file)) if prompting.exemplar_file else task.exemplars
        if shots is not None and shots > len(pool):
            if self.style.alone and prompting.exemplar_file is None:
                pool += tuple(self._from_training(shots + 1 - len(pool)))  # one more: the question itself never counts
            if shots > len(pool):
                _say_short(name_of(task), shots, len(pool))
        self.pool = pool
        self.shots = len(pool) if shots is None else min(shots, len(pool))

    @functools.cached_property
    def per_sample(self) -> bool:
        """Whether samples of one example have prompts of their own."""
        return self.order == "shuffled" and self.shots > 0

    def sampling(self, sampling: Sampling) -> Sampling:
        """The sampling with the stop strings that this form needs, where the caller named none."""
        if sampling.stop or self.form == "chat":
            return sampling
        return replace(sampling, stop=self.style.stop or ("\n\nQ:",))

    # --- asking ---

    def ask(self, example: Example, sample: int = 0) -> Prompt:
        """The prompt of a sample."""
        style = self.style
        shots = self._exemplars(example, sample)
        told = self.task.shown(example, example.label) if self.show_answer and example.label is not None else None
        question = self._question(self.question(example), told)
        question += style.last or (" Let's think step by step." if self.stages == 2 else "")
        pairs = [
            (self._question(shot.input, None if told is None else shot.answer), self._answer(shot, told))
            for shot in shots
        ]
        system = self._system()
        schema = self._schema(example) if self.prompting.answer == "json" else None
        if self.form == "plain":
            blocks = [system] if system else []
            blocks += [q + (a if a[:1].isspace() else f" {a}") for q, a in pairs]
            text = style.between.join([*blocks, question])
            return Prompt((Message("user", text),), plain=True, schema=schema)
        turns = [Message("system", system)] if system else []
        for q, a in pairs:
            turns += [Message("user", q), Message("assistant", a.strip())]
        return Prompt((*turns, Message("user", question)), schema=schema)

    def follow(self, example: Example, prompt: Prompt, text: str) -> Prompt:
        """The second request of two stages: what was said, and the demand for the answer alone."""
        cue = prompt_styles.SECOND_STAGE
        if example.choices and self.task.lettered:
            last = chr(96 + len(example.choices))
            cue = prompt_styles.SECOND_STAGE_CHOICES.format(first="a", last=last)
        if prompt.plain:
            said = f"{prompt.messages[-1].content} {text.strip()}\n{cue}"
            return Prompt((Message("user", said),), plain=True, schema=prompt.schema)
        return Prompt((*prompt.messages, Message("assistant", text.strip() or "..."), Message("user", cue)))

    def question(self, example: Example) -> str:
        """What the teacher reads of an example: its input, with the choices where nothing else tells them."""
        if self.prompting.question is not None:
            text = render(self.prompting.question, values_of(example))
        else:
            text = _readable(example.input, example.fields)
        if not example.choices or all(choice in text for choice in example.choices):
            return text
        if self.task.lettered:
            listed = "\n".join(f"({chr(97 + i)}) {choice}" for i, choice in enumerate(example.choices))
            return f"{text}\nAnswer Choices:\n{listed}"
        if all(choice in self._system() for choice in example.choices):
            return text
        return f"{text}\nAnswer with one of: {', '.join(example.choices)}."

    def _question(self, text: str, told: str | None) -> str:
        """A question in the style's frame; `told` is the answer that the teacher is shown, if it is."""
        question = self.style.question.replace("{input}", _readable(text, {}))
        if told is not None:
            question += self.style.told.replace("{answer}", told)
        if self.form == "plain" and not question.endswith(":"):
            question = f"{question}\nA:" if question.startswith("Q:") else f"Q: {question}\nA:"
        return question

    def _answer(self, shot: Exemplar, told: str | None) -> str:
        if self.prompting.answer == "json":
            return json.dumps({"rationale": shot.rationale, "answer": shot.answer}, ensure_ascii=False)
        frame = self.style.answer if told is None else self.style.explained
        parts = {"{rationale}": shot.rationale.strip(), "{cue}": self.cue, "{answer}": shot.answer.rstrip(".")}
        return re.sub(r"\{rationale\}|\{cue\}|\{answer\}", lambda match: parts[match[0]], frame)

    def _system(self) -> str:
        own = self.style.system if self.prompting.instruction is None else self.prompting.instruction
        asks = self.task.answer_instruction if self.style.alone else self.task.instruction
        system = asks if own is None else own
        return f"{system} {prompt_styles.JSON_REQUEST}".strip() if self.prompting.answer == "json" else system

    def _schema(self, example: Example) -> Mapping[str, Any]:
        answer: dict[str, Any] = {"type": "string"}
        if example.choices:
            answer["enum"] = [self.task.shown(example, choice) for choice in example.choices]
        properties = {"rationale": {"type": "string"}, "answer": answer}
        return {
            "type": "object",
            "properties": properties,
            "required": ["rationale", "answer"],
            "additionalProperties": False,
        }

    # --- demonstrations ---

    def _exemplars(self, example: Example, sample: int) -> Sequence[Exemplar]:
        asked = _readable(example.input, {})
        pool = [shot for shot in self.pool if _readable(shot.input, {}) != asked]  # never its own answer
        if self.shots == 0 or not pool:
            return ()
        if self.order == "shuffled":
            rng = random.Random(seed_for(self.seed, "exemplars", example.id, sample))
            return rng.sample(pool, min(self.shots, len(pool)))
        if self.order == "nearest":
            wanted = [self.pool[i] for i in self._nearest(self.question(example))]
            return [shot for shot in wanted if shot in pool][: self.shots][::-1]  # the nearest stands last
        return pool[: self.shots]

    def _from_training(self, count: int) -> Iterator[Exemplar]:
        """Labelled training examples as demonstrations without a rationale, the same ones for the same seed."""
        try:
            training = self.task.examples("train")
        except (DataError, MissingExtra):  # this data has no training split, or is not there
            return
        order = random.Random(seed_for(self.seed, "demonstrations")).sample(range(len(training)), len(training))
        labelled = (example for i in order if (example := training[i]).label is not None)
        for example in itertools.islice(labelled, count):
            yield Exemplar(example.input, "", self.task.shown(example, example.label or ""))

    def _nearest(self, text: str) -> list[int]:
        """Indices of the exemplars, the most alike first, by BM25."""
        import bm25s

        tokens = bm25s.tokenize([text], return_ids=False, show_progress=False)
        if not tokens[0]:
            return list(range(len(self.pool)))
        scores = self._index.get_scores(tokens[0])
        return sorted(range(len(self.pool)), key=lambda i: (-float(scores[i]), i))

    @functools.cached_property
    def _index(self) -> Any:
        try:
            import bm25s
        except ModuleNotFoundError as error:
            raise MissingExtra("bm25s", "search", "prompting.exemplars: nearest") from error
        index = bm25s.BM25()
        texts = [_readable(shot.input, {}) for shot in self.pool]
        index.index(bm25s.tokenize(texts, return_ids=False, show_progress=False), show_progress=False)
        return index

    # --- reading ---

    def text(self, example: Example, completions: Sequence[Completion]) -> str:
        """What was said in all stages, in the form that the task's parser reads: rationale, cue, answer."""
        first, last = completions[0], completions[-1]
        text = first.text
        if len(completions) > 1:
            text = f"{first.text.strip()} {self.task.answer_cue} {last.text.strip()}"
        elif self.prompting.answer == "json":
            text = self._from_json(text)
        elif self.prompting.style == "qcrd" and (marked := MARKED.search(text)):
            text = f"{marked['rationale'].strip()} {self.task.answer_cue} {marked['answer'].strip()}"
        elif self.prompting.style == "kd4gen":
            text = f"{self.task.answer_cue} {text.strip()}"
        if first.reasoning and self.prompting.reasoning != "ignore":
            bare = not self.task.parse(example, text).rationale
            if self.prompting.reasoning == "prepend" or bare:
                text = f"{first.reasoning.strip()}\n{text.strip()}"
        return text

    def _from_json(self, text: str) -> str:
        try:
            value = json.loads(text[text.index("{") : text.rindex("}") + 1])
            return f"{str(value['rationale']).strip()} {self.task.answer_cue} {str(value['answer']).strip()}"
        except (ValueError, KeyError, TypeError):
            return text


@functools.cache
def _say_short(task: str, asked: int, there: int) -> None:
    note(
        f"prompting.shots: {asked} demonstrations were asked for, task {task!r} has {there}; {there} are shown. "
        "Give more in prompting.exemplar_file, or set shots to what is there"
    )


def read_exemplars(path: Path) -> list[Exemplar]:
    """Demonstrations from JSON Lines with `input`, `rationale` and `answer`.

    Raises:
        DataError: an unreadable file, or a line that lacks one of them.
    """
    found = []
    for line, row in read_jsonl(path):
        lacking = [name for name in ("input", "rationale", "answer") if not isinstance(row.get(name), str)]
        if lacking:
            raise DataError(f"an exemplar needs the text {' and '.join(lacking)}", path=path, line=line)
        found.append(Exemplar(row["input"], row["rationale"], row["answer"]))
    return found


def _readable(text: str, fields: Mapping[str, Any]) -> str:
    """An input as a person would be asked: what a student reads with an end-of-sequence mark stands in two lines."""
    if isinstance(fields.get("premise"), str) and isinstance(fields.get("hypothesis"), str):
        return f"Premise: {fields['premise']}\nHypothesis: {fields['hypothesis']}"
    premise, mark, hypothesis = text.partition("</s>")
    return f"Premise: {premise.strip()}\nHypothesis: {hypothesis.strip()}" if mark else text
