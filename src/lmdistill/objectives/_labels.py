"""What several objectives share: whose label is learnt, which rationales are seen, and the prefixes of the papers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from lmdistill.types import Annotation, Rationale

LabelSource = Literal["gold", "teacher", "gold_or_teacher"]
"""`gold`: the data set's label. `teacher`: the pseudo-label (majority of the teacher's samples). `gold_or_teacher`:
gold where there is one, the teacher's elsewhere (semi-supervised)."""

Selection = Literal["one", "all"]
"""`one`: one random rationale per input and epoch, so that inputs weigh the same (SCoTD's code). `all`: every rationale
in every epoch, so that pairs weigh the same (SCoTD's paper)."""

PrefixStyle = Literal["released", "paper", "qcrd", "none"]


class Prefixes(NamedTuple):
    """What stands before a source to tell the two tasks apart."""

    label: str
    rationale: str


PREFIXES: dict[PrefixStyle, Prefixes] = {
    "released": Prefixes("predict: ", "explain: "),
    "paper": Prefixes("[label] ", "[rationale] "),
    "qcrd": Prefixes("<Predict> ", "<Explain> "),
    "none": Prefixes("", ""),
}


def label_of(annotation: Annotation, labels: LabelSource) -> str | None:
    """The label that an annotation is trained with, or None where there is none."""
    if labels == "teacher":
        return annotation.answer
    gold = annotation.example.label
    return gold if gold is not None or labels == "gold" else annotation.answer


def chosen(
    rationales: Sequence[Rationale], selection: Selection, rng: random.Random
) -> Sequence[tuple[int, Rationale]]:
    """The rationales seen now, each with its index; empty texts are never targets."""
    usable = [(i, rationale) for i, rationale in enumerate(rationales) if rationale.text.strip()]
    if selection == "all" or len(usable) < 2:
        return usable
    return [rng.choice(usable)]
