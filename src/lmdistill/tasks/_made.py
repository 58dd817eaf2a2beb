"""What the generated tasks share: examples drawn from (seed, split, index), and splits that never meet."""

from __future__ import annotations

import functools
import hashlib
import math
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, overload

from lmdistill.errors import ConfigError
from lmdistill.store import seed_for
from lmdistill.tasks import Exemplar, Generated, known_split
from lmdistill.types import Example

SHARES = {"train": (0.0, 0.5), "unlabelled": (0.5, 0.7), "valid": (0.7, 0.8), "test": (0.8, 1.0)}
"""Which part of all possible questions a split draws from, by the question's own hash: the same for every seed."""


class Draw(NamedTuple):
    """A question, its answer, and what decides its split (the question itself where `key` is empty)."""

    question: str
    answer: str
    key: str = ""
    fields: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Made(Generated):
    """Settings of every generated task: how many examples each split has, and the seed of questions and world.

    A question belongs to one split by its hash, so no test question is ever in another split, whatever the sizes and
    seeds. Texts are lower-case tokens with single spaces between them.
    """

    train: int = field(default=2000, kw_only=True)
    valid: int = field(default=200, kw_only=True)
    test: int = field(default=500, kw_only=True)
    unlabelled: int = field(default=0, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    answer_cue = "so the answer is"
    choices: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in SHARES}
        wrong = [f"{name}: 0 or more was expected, got {size}" for name, size in sizes.items() if size < 0]
        if wrong:
            raise ConfigError(wrong)

    @abstractmethod
    def draw(self, rng: random.Random) -> Draw:
        """One question of the task."""

    def examples(self, split: str) -> Sequence[Example]:
        return Drawn(self, known_split(split), getattr(self, split))

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        """Three solved questions from those that only training sees, with different answers."""
        rng = random.Random(seed_for("exemplars", self.seed))
        made: list[Exemplar] = []
        for _ in range(10_000):
            drawn = self.draw(rng)
            fresh = drawn.answer not in {exemplar.answer for exemplar in made[-1:]}
            if fresh and split_of(drawn.key or drawn.question) == "train":
                made.append(Exemplar(drawn.question, *self.explain(drawn.question, rng)))
            if len(made) == 3:
                break
        return tuple(made)

    def origin(self, split: str) -> str:
        low, high = SHARES[known_split(split)]
        return f"drawn from {high - low:.0%} of the possible questions, by hash"


class Drawn(Sequence[Example]):
    """A split's examples, each drawn when asked for."""

    def __init__(self, task: Made, split: str, size: int) -> None:
        self.task = task
        self.split = split
        self.size = size
        self.name = type(task).__module__.rpartition(".")[2]

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(f"example {index} of {self.size}")
        return self._example(index % self.size)

    def __iter__(self) -> Iterator[Example]:
        return map(self._example, range(self.size))

    def _example(self, index: int) -> Example:
        rng = random.Random(seed_for(self.name, self.task.seed, self.split, index))
        for _ in range(100_000):
            drawn = self.task.draw(rng)
            if split_of(drawn.key or drawn.question) == self.split:
                label = None if self.split == "unlabelled" else drawn.answer
                name = f"{self.name}-{self.split}-{index}"
                return Example(name, drawn.question, label, self.task.choices, drawn.fields)
        raise ConfigError(f"task {self.name!r}: too few different questions for a split {self.split!r}; make it larger")


def split_of(key: str) -> str:
    """The split that a question belongs to."""
    share = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") / 2**32
    return next(split for split, (low, high) in SHARES.items() if low <= share < high)


# --- words -----------------------------------------------------------------------------------------------------------

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
_LAST = "bfgkpvz"  # so that no word of the tasks' own sentences ('later', 'gives', 'metal') is made up too
_LETTERS = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _LAST)
WORDS = math.prod(map(len, _LETTERS))
"""How many different made-up words there are."""


@functools.lru_cache(maxsize=WORDS)
def word(index: int) -> str:
    """The made-up word of a number below `WORDS`: five letters, different for different numbers.

    >>> word(0), word(1), word(2)
    ('babab', 'dotuk', 'ferub')
    """
    rest = index * 19_433 % WORDS
    letters = []
    for alphabet in _LETTERS:
        rest, place = divmod(rest, len(alphabet))
        letters.append(alphabet[place])
    return "".join(letters)


def pick(rng: random.Random, options: Sequence[str]) -> str:
    """One of the options; faster than `random.choice`."""
    return options[int(rng.random() * len(options))]
