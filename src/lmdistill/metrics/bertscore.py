"""BERTScore: F1 of the best matches between the contextual word vectors of answer and reference."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmdistill.errors import StoreError
from lmdistill.metrics import Metric
from lmdistill.metrics._share import mean
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score


@dataclass(frozen=True)
class Bertscore(Metric):
    """BERTScore F1, from 0 to 1, without the rescaling by a baseline.

    `model` is a folder or Hub id of an encoder (KD4Gen: microsoft/deberta-base-mnli), `layer` the layer whose states
    are compared (theirs: 9). Of several references the best counts; no answer, or an empty one, counts 0. The interval
    is the percentile bootstrap over items, seeded.
    """

    model: str = "microsoft/deberta-base-mnli"
    layer: int = 9
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def score(self, prediction: Prediction, task: Task) -> Score:
        references = [wanted for wanted in task.references(prediction.example) if wanted.strip()]
        answer = (prediction.answer or "").strip()
        if not answer or not references:
            return Score(prediction.example.id, {"bertscore": 0.0})
        _, _, f1 = _scorer(self.model, self.layer).score([answer] * len(references), references)
        return Score(prediction.example.id, {"bertscore": min(1.0, max(0.0, float(f1.max())))})

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        if not scores:
            raise ValueError("metric 'bertscore' needs at least one score")
        return mean(scores, "bertscore", level=self.level, resamples=self.resamples, seed=self.seed)


@functools.lru_cache(maxsize=1)
def _scorer(model: str, layer: int) -> Any:
    from bert_score import BERTScorer

    try:
        return BERTScorer(model_type=model, num_layers=layer)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise StoreError(f"metrics.bertscore.model {model!r} cannot be opened: {first}; give a folder") from error
