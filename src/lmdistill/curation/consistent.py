"""Drop what concludes one thing and answers another."""

from __future__ import annotations

import dataclasses
import random
import re
from dataclasses import dataclass
from fractions import Fraction

from lmdistill import arithmetic
from lmdistill.curation import Curation
from lmdistill.curation._words import EMPTY, sentences, shingles, words
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

    The conclusion is, in this order: the answer that the task reads out of the rationale; the choice that its last
    sentence consists of, empty words aside ('So it is the ice.'); for numbers, what its last sentence with a new
    number arrives at. Where it concludes nothing, the rationale stays: the step drops contradictions, not silence.

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
    if said is not None and task.is_correct(dataclasses.replace(example, label=answer), said):
        return False
    if example.choices:
        return said is not None
    worth = arithmetic.value(answer)
    if worth is None:  # text: 'Paris, of course' does not contradict 'Paris'
        wanted = tuple(words(answer))
        return said is not None and bool(wanted) and wanted not in shingles(words(said), len(wanted))
    results = numbers(said or "") or arrived_at(rationale, example.input)
    return bool(results) and abs(worth) not in results


def named_choice(rationale: str, choices: tuple[str, ...]) -> str | None:
    """The one choice that the last sentence consists of, empty words aside.

    A sentence that merely mentions a choice says too little: 'Thus Milo sweats more' argues for the other one where
    the question was who sweats less.

    >>> named_choice("Ice is smooth. So it must be the ice.", ("the ice", "the court"))
    'the ice'
    >>> named_choice("So it slides on the ice.", ("the ice", "the court"))
    """
    last = words(sentences(rationale)[-1]) if sentences(rationale) else []
    said = [word for word in last if word not in EMPTY]
    if len(said) == 0:  # 'Yes, it is.'
        fitting = [choice for choice in choices if words(choice) and words(choice) == last[:1]]
    else:
        fitting = [choice for choice in choices if [word for word in words(choice) if word not in EMPTY] == said]
    return fitting[0] if len(fitting) == 1 else None


def arrived_at(rationale: str, source: str) -> set[Fraction]:
    """The numbers that the last sentence with a number arrives at: what stands right of its last '=', else all of its
    numbers, if any is new; nothing where all of them stand in the source (it retells, it does not conclude). Signs are
    left out, since a dash may be a sign or a minus.

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
