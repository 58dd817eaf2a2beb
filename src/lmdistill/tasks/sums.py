"""Word problems: what matters is to work step by step, and to pass over what does not count."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import NamedTuple

from lmdistill.errors import ConfigError
from lmdistill.tasks._made import Draw, Made, pick
from lmdistill.tasks._steps import Line, derivation, mistaken, orders, told

PEOPLE = ("anna", "ben", "clara", "david", "emma", "felix", "greta", "henry")
THINGS = ("apples", "books", "coins", "dolls", "eggs", "kites", "marbles", "pens")
GAINS = ("finds", "buys")
LOSSES = ("loses", "sells")
WEATHER = ("the day is warm .", "it rains a little .", "the street is quiet .", "the shop is near .")
_QUESTION = re.compile(r"how many (\w+) does (\w+) have now \?")


class _Story(NamedTuple):
    start: int
    amounts: list[int]


@dataclass(frozen=True)
class Sums(Made):
    """A person has some things, gets and loses some, and something else is told too.

    'anna has 8 apples . ben has 4 kites . anna finds 5 more . anna sells 3 . how many apples does anna have now ?'
    Numbers are single tokens, and a test question's numbers stand together in no question of another split.
    Rationale-then-label learns this fast, labels alone slowly, and rationales as a second task do not help: the work is
    done in the writing.
    """

    steps: int = 2
    largest: int = 10
    largest_step: int = 5
    distractors: int = 1
    wordings: int = 2
    reordered: float = 0.1

    reads = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.steps <= 5 or not 0 <= self.distractors <= 5:
            raise ConfigError(f"expected 1 to 5 steps and 0 to 5 distractors, got {self.steps} and {self.distractors}")
        if self.largest < 2 or self.largest_step < 2:
            raise ConfigError("largest and largest_step must be 2 or more")

    @property
    def instruction(self) -> str:
        return f"work step by step and say what there is after each step . then end with '{self.answer_cue} ...' ."

    def draw(self, rng: random.Random) -> Draw:
        person, thing = pick(rng, PEOPLE), pick(rng, THINGS)
        start = 1 + int(rng.random() * self.largest)
        total, changes, amounts = start, [], []
        for _ in range(self.steps):
            amount = 1 + int(rng.random() * self.largest_step)
            if rng.random() < 0.5 and amount <= total:
                changes.append(f"{person} {pick(rng, LOSSES)} {amount} .")
                amounts.append(-amount)
            else:
                changes.append(f"{person} {pick(rng, GAINS)} {amount} more .")
                amounts.append(amount)
            total += amounts[-1]
        for _ in range(self.distractors):
            changes.insert(int(rng.random() * (len(changes) + 1)), self._aside(person, thing, rng))
        question = f"{person} has {start} {thing} . {' '.join(changes)} how many {thing} does {person} have now ?"
        return Draw(question, str(total), f"{start} {amounts}")

    def _aside(self, person: str, thing: str, rng: random.Random) -> str:
        """A sentence that has nothing to do with the question, half of the time with a number in it."""
        if rng.random() < 0.5:
            return pick(rng, WEATHER)
        other = pick(rng, [name for name in PEOPLE if name != person])
        what = pick(rng, [name for name in THINGS if name != thing])
        return f"{other} has {1 + int(rng.random() * self.largest_step)} {what} ."

    def explain(self, question: str, rng: random.Random, *, wrong: bool = False) -> tuple[str, str]:
        story = _read(question)
        told_order, *others = orders(story.start, story.amounts)
        order = rng.choice(others) if others and rng.random() < self.reordered else told_order
        lines: list[Line] = derivation(story.start, order)
        if wrong:
            lines = mistaken(lines, rng)
        return told(lines, rng, self.wordings), str(lines[-1][2])


def _read(question: str) -> _Story:
    """The numbers that count.

    Raises:
        ValueError: the text is no question of this task.
    """
    *sentences, asked = question.strip().split(" . ")
    match = _QUESTION.fullmatch(asked)
    first = re.fullmatch(r"(\w+) has (\d+) (\w+)", sentences[0]) if sentences else None
    if match is None or first is None or (first[1], first[3]) != (match[2], match[1]):
        raise ValueError(f"not a question of task 'sums': {question!r}")
    amounts = []
    for sentence in sentences[1:]:
        change = re.fullmatch(rf"{match[2]} (\w+) (\d+)(?: more)?", sentence)
        if change and change[1] in (*GAINS, *LOSSES):
            amounts.append(int(change[2]) if change[1] in GAINS else -int(change[2]))
    if not amounts:
        raise ValueError(f"task 'sums' found no change in {question!r}")
    return _Story(int(first[2]), amounts)
