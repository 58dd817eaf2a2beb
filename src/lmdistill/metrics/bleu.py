"""Corpus BLEU by sacreBLEU, so that numbers can be compared with others'."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.intervals import resampled
from lmdistill.metrics import Metric
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score

ORDER = 4


@dataclass(frozen=True)
class Bleu(Metric):
    """BLEU of the whole run, from 0 to 100, with sacreBLEU's tokenizer and its 'exp' smoothing.

    An example's score holds its counts (n-gram matches and totals, lengths), which are summed before the formula is
    applied; no answer counts as an empty text, which lowers the brevity penalty. The interval is the percentile
    bootstrap over items, seeded.
    """

    package: ClassVar[str] = "sacrebleu"

    tokenize: str = "13a"
    lowercase: bool = False
    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def score(self, prediction: Prediction, task: Task) -> Score:
        references = [[wanted] for wanted in task.references(prediction.example)] or [[""]]
        found = _counter(self.tokenize, self.lowercase).corpus_score([prediction.answer or ""], references)
        values = {"bleu_length": float(found.sys_len), "bleu_reference_length": float(found.ref_len)}
        for order in range(ORDER):
            values[f"bleu_matches_{order + 1}"] = float(found.counts[order])
            values[f"bleu_totals_{order + 1}"] = float(found.totals[order])
        return Score(prediction.example.id, values)

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        import numpy

        if not scores:
            raise ValueError("metric 'bleu' needs at least one score")
        names = ["bleu_length", "bleu_reference_length"]
        names += [f"bleu_{what}_{order + 1}" for what in ("matches", "totals") for order in range(ORDER)]
        table = numpy.array([[score.values[name] for name in names] for score in scores])
        many = [_bleu(table[drawn].sum(0)) for drawn in resampled(len(table), self.resamples, self.seed)]
        edges = [(1 - self.level) / 2, (1 + self.level) / 2]
        value = _bleu(table.sum(0))
        low, high = (float(bound) for bound in numpy.quantile(many, edges))
        return {"bleu": Estimate(value, min(low, value), max(high, value), len(scores))}


@functools.lru_cache(maxsize=4)
def _counter(tokenize: str, lowercase: bool) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenize, lowercase=lowercase)


def _bleu(sums: Sequence[float]) -> float:
    """The formula, from summed counts."""
    from sacrebleu.metrics import BLEU

    length, reference, *counts = (round(float(value)) for value in sums)
    found = BLEU.compute_bleu(
        correct=counts[:ORDER], total=counts[ORDER:], sys_len=length, ref_len=reference, smooth_method="exp"
    )
    return float(found.score)
