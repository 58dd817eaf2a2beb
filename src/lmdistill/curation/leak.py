"""Drop what explains nothing."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from lmdistill.curation import Curation
from lmdistill.curation._words import EMPTY, shingles, words
from lmdistill.errors import ConfigError
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Rationale

_STEP = re.compile(
    r"""\d\s*(?:[+*×÷]|\b(?:plus|minus|times|x)\b)\s*\$?\d
    | \d\s+[-/−]\s+\$?\d
    | \d\s*[-/−]\s*\$?\d[\d.,]*\s*=
    | \d\s+and\s+\$?\d[\d.,]*\s+(?:is|are|makes?|gives?|equals?)\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""An operation on two numbers; a date (2020-05-01) is none."""


@dataclass(frozen=True)
class Leak(Curation):
    """Drop rationales that merely state the answer, or merely copy the input (with the answer put behind it).

    Data:      needs rationales and the answer each led to
    Equation:  own words = words of the rationale - words of its answer - empty words; copied = share of its runs of
               three words that stand in the input, the answer, or the input followed by the answer
               (an operation counts as one more own word: '5 + 5 = 10' and '10 - 5 = 5' are reasons)
    Differs:   (no paper) DSS and KARD train on such rationales as they come
    """

    own_words: int = 2
    """Fewer own words than this merely state the answer."""
    copied: float = 0.9
    """The share of the rationale's runs of three words from which on it is a copy."""

    def __post_init__(self) -> None:
        if not 0 < self.copied <= 1:
            raise ConfigError(f"copied: a share above 0 and up to 1 was expected, got {self.copied}")

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        source = words(annotation.example.input)
        kept: list[Rationale] = []
        dropped: list[tuple[Rationale, str]] = []
        for one in annotation.rationales:
            said = words(one.text)
            answer = words(task.shown(annotation.example, one.answer)) if one.answer is not None else []
            own = {word for word in said if word not in EMPTY} - set(answer)
            runs = shingles(said, 3)
            known = set(shingles([*source, *words(one.answer or "")], min(3, len(said))))
            if not said:
                dropped.append((one, "empty"))
            elif len(own) + bool(_STEP.search(one.text)) < self.own_words:
                dropped.append((one, "merely states the answer"))
            elif sum(run in known for run in runs) >= self.copied * len(runs):
                dropped.append((one, "merely copies the input"))
            else:
                kept.append(one)
        return annotation.with_rejected(kept, dropped)
