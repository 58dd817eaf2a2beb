"""What `sums` and `paths` share: a number that is changed step by step, told in words and solved in any order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from lmdistill.tasks._made import pick

Line = tuple[int, int, int]
"""One line of a derivation: what there was, what is added (negative: taken away), what there is then."""

ADDED = ("{a} plus {b} is {c} .", "{a} and {b} make {c} .", "with {b} more than {a} it is {c} .")
TAKEN = ("{a} minus {b} is {c} .", "{a} without {b} leaves {c} .", "with {b} less than {a} it is {c} .")


def orders(start: int, amounts: Sequence[int]) -> list[tuple[int, ...]]:
    """Every order of the steps in which nothing ever falls below zero, the told one first.

    >>> orders(3, [5, -4])
    [(5, -4)]
    """
    told = tuple(amounts)
    found = []
    for order in dict.fromkeys(itertools.permutations(told)):
        if all(total >= 0 for total in itertools.accumulate(order, initial=start)):
            found.append(order)
    return found


def derivation(start: int, amounts: Sequence[int]) -> list[Line]:
    """The lines of applying the steps one after another."""
    lines = []
    for amount in amounts:
        lines.append((start, amount, start + amount))
        start += amount
    return lines


def mistaken(lines: Sequence[Line], rng: random.Random) -> list[Line]:
    """The same lines with one mistake carried through to the end: a sign turned round, or a slip of one to three.

    The last number differs from the right one and none falls below zero.
    """
    right = lines[-1][2]
    while True:
        place = int(rng.random() * len(lines))
        made: list[Line] = []
        total = lines[0][0]
        turned = rng.random() < 0.4
        for index, (_, amount, _) in enumerate(lines):
            told = -amount if index == place and turned else amount
            slip = rng.choice((-3, -2, -1, 1, 2, 3)) if index == place and not turned else 0
            made.append((total, told, total + told + slip))
            total = made[-1][2]
        if total != right and all(line[2] >= 0 for line in made):
            return made


def told(lines: Sequence[Line], rng: random.Random, wordings: int = len(ADDED)) -> str:
    """A derivation in words; each line in one of the first `wordings` wordings."""
    texts = []
    for before, amount, after in lines:
        wording = pick(rng, (ADDED if amount >= 0 else TAKEN)[:wordings])
        texts.append(wording.format(a=before, b=abs(amount), c=after))
    return " ".join(texts)
