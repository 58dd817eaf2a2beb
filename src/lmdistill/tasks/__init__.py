"""A task: inputs, what a right answer is, and how to read one out of free text.

A task is a frozen dataclass of settings; `examples(split)` opens the data. Splits are `train`, `valid` and `test`, and
`unlabelled` where a task has such rows; selection happens on `valid`, never on `test`. `parse` is total: any text gives
a `Parsed`, whose `reason` says why no answer could be read. Answers are compared, never evaluated as code.

To add one: a file `tasks/NAME.py` with a frozen dataclass `Name(Task)` that has `examples`, and overrides of the class
attributes below, `instruction` and `exemplars` where the defaults do not fit (`_made.py` and `_released.py` do the rest
for generated and for published data). `tests/contract/test_tasks.py` tests it from then on.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmdistill import arithmetic
from lmdistill.answers import Found, canonical_value, choice_in, line_in, text_in, value_in
from lmdistill.errors import ConfigError, UnknownName
from lmdistill.reading import RUN_ON, read_answer, read_text
from lmdistill.types import Example, Parsed, Passage

SPLITS = ("train", "valid", "test", "unlabelled")

Reads = Literal["line", "text", "value"]
ANSWER_ALONE = "Answer at once, with the answer alone: no reasoning, no explanation."


@dataclass(frozen=True)
class Exemplar:
    """A demonstration `(x, r, y)` for the teacher's prompt; the answer stands as `Task.shown` would write it."""

    input: str
    rationale: str
    answer: str


class Task(ABC):
    """The contract; see the module's docstring."""

    metric: str = "accuracy"
    """The metric of a run, unless others are asked for."""
    also: tuple[str, ...] = ()
    """Metrics that are reported beside it, where their packages are installed."""
    answer_cue: str = "So the answer is"
    """What the teacher is asked to write before its answer, and what a student that thinks aloud is taught to write."""
    lettered: bool = True
    """Whether the choices stand in the input with letters, so that '(b)' is an answer."""
    reads: Reads = "line"
    """How an answer is read where an example has no choices: the rest of the line, all the rest, or a number."""
    bare: bool = False
    """Whether a completion without the cue is all answer; only where `reads` is 'text'."""
    run_on: tuple[str, ...] = RUN_ON
    """Beginnings of a line at which a completion has gone on to a next, invented question."""

    @abstractmethod
    def examples(self, split: str) -> Sequence[Example]:
        """The examples of a split, lazily where the data is large; `unlabelled` may be empty.

        Raises:
            DataError: no such file, split, column; a label outside the choices; an empty or duplicate id.
        """

    def check(self) -> None:  # noqa: B027  # a task that makes its examples has nothing to look at
        """Look at the first rows, where that is cheap: what is wrong with all rows is told before anything is run.

        Raises:
            DataError: as `examples` would.
        """

    def with_rows(self, path: Path) -> Task:
        """The same task over other rows, which need no label: they are its `unlabelled` split.

        Raises:
            ConfigError: its examples are not rows of a file of one's own.
        """
        raise ConfigError("rows: only a task that reads a table of one's own ('table') takes other rows")

    def problems(self, split: str) -> Mapping[str, int]:
        """Rows of a split that cannot be used and are not among its examples, counted by reason."""
        return {}

    def origin(self, split: str) -> str:
        """Where a split's rows come from, in a few words for manifests and reports."""
        return "made by the task itself"

    def digests(self) -> Mapping[str, str]:
        """A hash of each file that the task reads, by name: they belong to the inputs of a stage."""
        return {}

    @property
    def instruction(self) -> str:
        """What the teacher is told to do; one or two sentences."""
        return f"Think step by step, then end with '{self.answer_cue} ...'."

    @property
    def answer_instruction(self) -> str:
        """What the teacher is told where it is to answer without reasoning."""
        return self.instruction if self.bare else ANSWER_ALONE

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        """Demonstrations for the teacher's prompt; none by default."""
        return ()

    def shown(self, example: Example, answer: str) -> str:
        """How an answer is written out for a reader, with its letter where it has one: '(d) math problem'."""
        if self.lettered and answer in example.choices:
            return f"({chr(97 + example.choices.index(answer))}) {answer}"
        return answer

    def parse(self, example: Example, text: str) -> Parsed:
        """Read a rationale and an answer out of a completion; never raises."""
        if self.reads == "text" and not example.choices:
            return read_text(text, cue=self.answer_cue, bare=self.bare, run_on=self.run_on)
        return read_answer(
            text,
            example.choices,
            lettered=self.lettered,
            cue=self.answer_cue,
            run_on=self.run_on,
            read=_READERS[self.reads],
        )

    def read(self, example: Example, text: str) -> Found:
        """Read an answer that stands alone, without a rationale or a cue; never raises."""
        if example.choices:
            return choice_in(text, example.choices, lettered=self.lettered)
        return _READERS[self.reads](text)

    def canonical(self, answer: str) -> str:
        """The form under which equal answers are equal strings (votes are counted on it)."""
        plain = " ".join(answer.split()).strip().rstrip(".").rstrip().casefold()
        return (canonical_value(answer) or plain) if self.reads == "value" else plain

    def is_correct(self, example: Example, answer: str | None) -> bool:
        """Whether an answer is the gold one; False where there is no answer or no gold label."""
        if answer is None or example.label is None:
            return False
        if self.reads == "value" and not example.choices:
            return arithmetic.equal(answer, example.label)
        return self.canonical(answer) == self.canonical(example.label)

    def references(self, example: Example) -> tuple[str, ...]:
        """Every gold answer, for metrics that take the best of several; the label alone by default."""
        return () if example.label is None else (example.label,)

    def passages(self) -> Sequence[Passage]:
        """The task's own knowledge base; empty where it has none."""
        return ()

    def relevant(self, example: Example) -> tuple[str, ...]:
        """Ids of the passages that are known to bear on an example; empty where nobody marked them."""
        return ()


_READERS = {"line": line_in, "text": text_in, "value": value_in}


class Generated(Task):
    """A task whose examples are made, and which can solve them in words: what the `scripted` teacher answers from."""

    @abstractmethod
    def explain(self, question: str, rng: random.Random, *, wrong: bool = False) -> tuple[str, str]:
        """A rationale in varied wording and its answer, read from the question's text alone.

        With `wrong`, a plausible mistake is made and carried through, so the answer is wrong too.

        Raises:
            ValueError: the text is no question of this task.
        """


def known_split(split: str) -> str:
    """The split itself.

    Raises:
        UnknownName: it is none of `SPLITS`; the message suggests the nearest.
    """
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    return split
