"""Span corruption: continued pretraining of encoder-decoders on plain text."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.errors import ConfigError
from lmdistill.objectives import Objective, Part, Reduction, count_of, reduced
from lmdistill.students import Batch
from lmdistill.types import Document, View

SENTINELS = 100
"""T5's vocabulary has so many marks, `<extra_id_0>` to `<extra_id_99>`."""
MOST = 10_000
"""Among so many texts the longest is looked for, whose marks must be in the vocabulary."""


@dataclass(frozen=True)
class SpanCorruption(Objective):
    """Learn to fill in what was left out of a text.

    Paper:     T5, arXiv 1910.10683, section 3.1.4; as domain-adaptive pretraining in KARD, arXiv 2305.18395, section 5
    Equation:  L = -log p(spans left out | text with a mark in place of each)
    Data:      documents; a new choice of spans each epoch
    Shapes:    role 'span', one row per document
    Differs:   from T5: spans are of whole words, not of word pieces; a text beyond the student's limit is not cut into
               several (index the corpus with chunks that fit)

    >>> item = Document("d", "one two three four five six seven eight nine ten")
    >>> view = SpanCorruption().views(item, 0, random.Random(1))[0]
    >>> view.source, view.target
    ('one two <extra_id_0> five six seven eight nine ten', '<extra_id_0> three four <extra_id_1>')
    """

    noise: float = 0.15
    span: float = 3.0
    reduction: Reduction = "token"

    needs: ClassVar[frozenset[str]] = frozenset({"document"})

    def __post_init__(self) -> None:
        if not 0 < self.noise < 1 or self.span < 1:
            raise ConfigError("span_corruption: noise in (0, 1) and a span of 1 word or more were expected")

    def views(self, item: Document, epoch: int, rng: random.Random) -> Sequence[View]:
        words = item.text.split()
        if len(words) < 2:
            return []
        hidden = min(max(1, round(self.noise * len(words))), len(words) - 1)
        spans = min(max(1, round(hidden / self.span)), hidden, len(words) - hidden, SENTINELS - 1)
        lengths = _parts(hidden, spans, rng)
        gaps = _parts(len(words) - hidden + 2, spans + 1, rng)  # between two spans at least one word stays
        gaps[0], gaps[-1] = gaps[0] - 1, gaps[-1] - 1
        source: list[str] = []
        target: list[str] = []
        place = 0
        for number, length in enumerate(lengths):
            source += [*words[place : place + gaps[number]], f"<extra_id_{number}>"]
            place += gaps[number]
            target += [f"<extra_id_{number}>", *words[place : place + length]]
            place += length
        source += words[place:]
        target.append(f"<extra_id_{spans}>")
        return [View(" ".join(source), " ".join(target), "span")]

    def check(self, student: Any, teacher: Any, items: Sequence[Any]) -> None:
        """Refuse a decoder, and a vocabulary that cuts the marks of the longest texts into pieces."""
        model = getattr(getattr(student, "model", None), "config", None)
        if not getattr(model, "is_encoder_decoder", True):
            raise ConfigError(
                "objective 'span_corruption' fills in marks of a source, and this student is a decoder that has none; "
                "use 'causal_lm'"
            )
        longest = max((item.text for item in itertools.islice(items, MOST)), key=lambda text: len(text.split()))
        target = self.views(Document("longest", longest), 0, random.Random(0))
        marks = re.findall(r"<extra_id_\d+>", target[0].target) if target else []
        cut = [mark for mark in marks if not _is_one(student.tokenizer, mark)]
        if cut:
            raise ConfigError(
                f"objective 'span_corruption' needs marks of one token each; the student's vocabulary cuts {cut[0]} "
                f"({len(cut)} of the {len(marks)} that these texts need). Take a T5, or raise student.vocabulary_size"
            )

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"span": count_of(batch, "span", self.reduction)}

    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        return {"span": reduced(student(batch)["span"], batch, "span", self.reduction)}


def _is_one(tokenizer: Any, mark: str) -> bool:
    known = tokenizer.convert_tokens_to_ids(mark)
    return known not in (None, tokenizer.unk_token_id) and known in tokenizer(f"one {mark} two")["input_ids"]


def _parts(total: int, parts: int, rng: random.Random) -> list[int]:
    """Random whole numbers of 1 or more that sum to `total`."""
    cuts = sorted(rng.sample(range(1, total), parts - 1))
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
