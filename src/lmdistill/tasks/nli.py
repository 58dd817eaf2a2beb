"""A small inference task whose label is one bit while its rationale names everything the label rests on."""

from __future__ import annotations

import functools
import random
import re
from dataclasses import dataclass

from lmdistill.errors import ConfigError
from lmdistill.tasks._made import WORDS, Draw, Made, pick, word

CLASSES = ("bird", "tool", "fruit", "fish", "cloth", "drink", "metal", "tree", "game", "dance")
LINKS = ("sits near", "stands by", "lies under", "hangs over")
_QUESTION = re.compile(r"the (\w+) \w+ \w+ the (\w+) \. is a (\w+) there \?")


@dataclass(frozen=True)
class Nli(Made):
    """Is a thing of some class there? 'the vorak sits near the budek . is a tool there ?'

    Each of `nouns` made-up nouns belongs to one of `classes` classes; the label is yes where one of the two nouns
    belongs to the class that is asked for. A label tells one bit of two nouns' classes, the rationale names both: here
    multi-task training on rationales helps a student that answers without one.
    """

    nouns: int = 160
    classes: int = 10

    choices = ("yes", "no")
    lettered = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 3 <= self.classes <= self.nouns <= WORDS // 2:
            raise ConfigError(f"expected 3 <= classes <= nouns <= {WORDS // 2}, got {self.classes} and {self.nouns}")

    @property
    def instruction(self) -> str:
        return f"say which class each thing belongs to . then end with '{self.answer_cue} yes' or 'no' ."

    def noun(self, index: int) -> str:
        """The noun of a number."""
        return word(index + self.seed * 1009)

    def class_of(self, index: int) -> int:
        """The class of the noun of a number; classes are equally large."""
        return (index + self.seed) % self.classes

    def class_name(self, index: int) -> str:
        """The name of a class."""
        return CLASSES[index] if index < len(CLASSES) else f"class{index}"

    def draw(self, rng: random.Random) -> Draw:
        first = int(rng.random() * self.nouns)
        second = (first + 1 + int(rng.random() * (self.nouns - 1))) % self.nouns
        answer = pick(rng, self.choices)
        if answer == "yes":
            asked = self.class_of(first if rng.random() < 0.5 else second)
        else:
            asked = int(rng.random() * self.classes)
            while asked in (self.class_of(first), self.class_of(second)):
                asked = (asked + 1) % self.classes
        link = pick(rng, LINKS)
        question = f"the {self.noun(first)} {link} the {self.noun(second)} . is a {self.class_name(asked)} there ?"
        return Draw(question, answer)

    def explain(self, question: str, rng: random.Random, *, wrong: bool = False) -> tuple[str, str]:
        match = _QUESTION.fullmatch(question.strip())
        if match is None:
            raise ValueError(f"not a question of task 'nli': {question!r}")
        asked = match[3]
        nouns = [match[1], match[2]]
        unknown = [noun for noun in nouns if noun not in _nouns(self)]
        if unknown:
            raise ValueError(f"task 'nli' with seed {self.seed} knows no {unknown[0]!r}")
        named = [self.class_name(self.class_of(_nouns(self)[noun])) for noun in nouns]
        if wrong:
            named = self._mistaken(named, asked, rng)
        answer = "yes" if asked in named else "no"
        pairs = list(zip(nouns, named, strict=True))
        if rng.random() < 0.25:
            pairs.reverse()
        (a, a_class), (b, b_class) = pairs
        wordings = (
            f"{a} is a {a_class} . {b} is a {b_class} .",
            f"the {a} is a {a_class} and the {b} is a {b_class} .",
            f"{a} : {a_class} . {b} : {b_class} .",
        )
        return pick(rng, wordings), answer

    def _mistaken(self, named: list[str], asked: str, rng: random.Random) -> list[str]:
        """The classes with the mistake that turns the answer: a noun taken for another class."""
        if asked not in named:
            place = int(rng.random() * len(named))
            return [asked if i == place else name for i, name in enumerate(named)]
        others = [self.class_name(i) for i in range(self.classes) if self.class_name(i) != asked]
        return [pick(rng, others) if name == asked else name for name in named]


@functools.lru_cache(maxsize=16)
def _nouns(task: Nli) -> dict[str, int]:
    return {task.noun(index): index for index in range(task.nouns)}
