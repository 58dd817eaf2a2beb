"""Problems with several really different derivations: the same steps in any order."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from lmdistill.errors import ConfigError
from lmdistill.tasks._made import Draw, Made, pick
from lmdistill.tasks._steps import derivation, mistaken, orders, told

_PLUS = ("add", "put in")
_MINUS = ("take", "drop")
_QUESTION = re.compile(r"start with (\d+) ((?:\. (?:add|put in|take|drop) \d+ )+)\. what is there then \?")


@dataclass(frozen=True)
class Paths(Made):
    """A start and three changes: 'start with 14 . add 5 . take 3 . put in 4 . what is there then ?'

    With three changes there are up to six orders of doing them, and each is a derivation of its own, with other numbers
    on the way: more rationales per question teach more here, where paraphrases would not. A test question's numbers
    stand together in no question of another split.
    """

    steps: int = 3
    largest: int = 20
    largest_step: int = 5
    wordings: int = 1

    reads = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.steps <= 6:
            raise ConfigError(f"steps: 1 to 6 were expected, got {self.steps}")
        if self.largest_step < 2 or self.largest < self.steps * self.largest_step:
            least = self.steps * self.largest_step
            raise ConfigError(f"largest: {least} (steps * largest_step) or more was expected, got {self.largest}")

    @property
    def instruction(self) -> str:
        say = "do the changes one by one , in any order , and say what there is after each"
        return f"{say} . then end with '{self.answer_cue} ...' ."

    def draw(self, rng: random.Random) -> Draw:
        amounts = [int(1 + rng.random() * self.largest_step) for _ in range(self.steps)]
        amounts = [amount if rng.random() < 0.5 else -amount for amount in amounts]
        lowest = -sum(min(amount, 0) for amount in amounts)
        start = lowest + int(rng.random() * (self.largest - lowest + 1))
        changes = " ".join(f"{pick(rng, _PLUS if amount > 0 else _MINUS)} {abs(amount)} ." for amount in amounts)
        question = f"start with {start} . {changes} what is there then ?"
        return Draw(question, str(start + sum(amounts)), f"{start} {amounts}")

    def explain(self, question: str, rng: random.Random, *, wrong: bool = False) -> tuple[str, str]:
        match = _QUESTION.fullmatch(question.strip())
        if match is None:
            raise ValueError(f"not a question of task 'paths': {question!r}")
        amounts = [int(n) if verb in _PLUS else -int(n) for verb, n in re.findall(r"\. (\D+) (\d+) ", match[2])]
        lines = derivation(int(match[1]), rng.choice(orders(int(match[1]), amounts)))
        if wrong:
            lines = mistaken(lines, rng)
        return told(lines, rng, self.wordings), str(lines[-1][2])
