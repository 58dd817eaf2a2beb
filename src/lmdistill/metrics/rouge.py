"""ROUGE-1, ROUGE-2, ROUGE-L, and their mean, by rouge-score."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.metrics import Metric
from lmdistill.metrics._share import mean
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score

KINDS = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Rouge(Metric):
    """F1 of shared words, of shared pairs of words, and of the longest common subsequence; `rouge` is their mean.

    Of several references the best counts, for each of the three on its own; no answer counts 0. `stem` compares stems
    (English). The intervals are percentile bootstraps over items, seeded.
    """

    values: ClassVar[tuple[str, ...]] = ("rouge", *KINDS)
    package: ClassVar[str] = "rouge_score"

    stem: bool = True
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def score(self, prediction: Prediction, task: Task) -> Score:
        best = dict.fromkeys(KINDS, 0.0)
        scorer = _scorer(self.stem)
        for wanted in task.references(prediction.example):
            found = scorer.score(wanted, prediction.answer or "")
            best = {kind: max(best[kind], float(found[kind].fmeasure)) for kind in KINDS}
        return Score(prediction.example.id, {**best, "rouge": sum(best.values()) / len(KINDS)})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        if not scores:
            raise ValueError("metric 'rouge' needs at least one score")
        options: dict[str, Any] = {"level": self.level, "resamples": self.resamples, "seed": self.seed}
        return {k: v for kind in ("rouge", *KINDS) for k, v in mean(scores, kind, **options).items()}


@functools.lru_cache(maxsize=2)
def _scorer(stem: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(KINDS), use_stemmer=stem)
