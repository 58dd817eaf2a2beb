"""Drop what concludes one thing and answers another."""

from __future__ import annotations

import dataclasses
import random
import re
from dataclasses import dataclass
from fractions import Fraction

from lmdistill import arithmetic
from lmdistill.curation import Curation
from lmdistill.curation._words import sentences, shingles, words
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example, Rationale

TURNED = frozenset(
    (
        "not",
        "no",
        "never",
        "neither",
        "nor",
        "cannot",
        "without",
        "rather",
        "instead",
        "than",
        "unlike",
        "except",
        "but",
    )
)
"""A sentence with one of these may name a choice to reject it, so nothing is concluded from it."""
VERDICTS = frozenset(("yes", "no", "true", "false"))
"""Choices that are ordinary words: they count at the start of a sentence only."""


@dataclass(frozen=True)
class Consistent(Curation):
    """Drop rationales whose own conclusion contradicts the answer that stands with them.

    The conclusion is, in this order: the answer that the task reads out of the rationale; the one choice that its last
    sentence names; for numbers, what its last sentence with a new number arrives at. Where it concludes nothing, the
    rationale stays: the step drops contradictions, not silence.

    Data:      needs rationales and the answer each led to; no label
    Differs:   (no paper) KARD asks a second model whether rationale and answer fit; this needs none
    """

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        kept: list[Rationale] = []
        dropped: list[tuple[Rationale, str]] = []
        for one in annotation.rationales:
            if one.answer is not None and contradicts(task, annotation.example, one.text, one.answer):
                dropped.append((one, "contradicts its answer"))
            else:
                kept.append(one)
        return annotation.with_rejected(kept, dropped)


def contradicts(task: Task, example: Example, rationale: str, answer: str) -> bool:
    """Whether a rationale concludes something else than its answer."""
    said = task.parse(example, rationale).answer
    if said is None and example.choices:
        said = named_choice(rationale, example.choices)
    if said is not None:
        return not task.is_correct(dataclasses.replace(example, label=answer), said)
    if example.choices:
        return False
    worth = arithmetic.value(answer)
    return worth is not None and worth not in (results := arrived_at(rationale, example.input)) and bool(results)


def named_choice(rationale: str, choices: tuple[str, ...]) -> str | None:
    """The one choice that the last sentence names in so many words; None where it names none, several, or negates.

    >>> named_choice("Ice is smooth. So the puck is faster on the ice.", ("the ice", "the court"))
    'the ice'
    >>> named_choice("It is not the ice.", ("the ice", "the court"))
    """
    last = words(sentences(rationale)[-1]) if sentences(rationale) else []
    if TURNED.intersection(last[1:]) or any(word.endswith(("n't", "n’t")) for word in last):
        return None
    runs: dict[int, set[tuple[str, ...]]] = {}
    named = []
    for choice in choices:
        wanted = tuple(words(choice))
        if not wanted:
            continue
        if len(wanted) not in runs:
            runs[len(wanted)] = set(shingles(last, len(wanted)))
        start = len(wanted) == 1 and wanted[0] in VERDICTS
        if (tuple(last[:1]) == wanted) if start else wanted in runs[len(wanted)]:
            named.append((choice, wanted))
    longest = [
        choice
        for choice, wanted in named
        if not any(len(other) > len(wanted) and wanted in shingles(other, len(wanted)) for _, other in named)
    ]
    return longest[0] if len(longest) == 1 else None


def arrived_at(rationale: str, source: str) -> set[Fraction]:
    """The numbers that the last sentence with a number arrives at: what stands right of its last '=', else all of its
    numbers, if any is new; nothing where all of them stand in the source (it retells, it does not conclude).

    >>> sorted(arrived_at("He had 3 and 4. So 3 + 4 = 7 apples.", "He had 3 and 4."))
    [Fraction(7, 1)]
    """
    given = numbers(source)
    for sentence in reversed(sentences(rationale)):
        every = numbers(sentence)
        if not every:
            continue
        left, equals, right = sentence.rpartition("=")
        found = numbers(right) if equals and left.strip() else set()
        if found:
            return found
        return every if every - given else set()
    return set()


def numbers(text: str) -> set[Fraction]:
    """The values of all numbers in a text."""
    found = (arithmetic.value(one) for one in re.findall(arithmetic.NUMBER, text))
    return {one for one in found if one is not None}
