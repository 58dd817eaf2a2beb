"""BERTScore: F1 of the best matches between the contextual word vectors of answer and reference."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmdistill.errors import StoreError
from lmdistill.metrics import Metric
from lmdistill.metrics._share import mean
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Score

BATCH = 64
"""Pairs of texts that go through the encoder at a time."""
POSITIONS = 512
"""What an encoder that names no limit is given."""


@dataclass(frozen=True)
class Bertscore(Metric):
    """BERTScore F1, from 0 to 1, without the rescaling by a baseline.

    `model` is a folder or Hub id of an encoder (KD4Gen: microsoft/deberta-base-mnli), `layer` the layer whose states
    are compared (theirs: 9). Of several references the best counts; no answer, or an empty one, counts 0. The interval
    is the percentile bootstrap over items, seeded.
    """

    package: ClassVar[str] = "bert_score"

    model: str = "microsoft/deberta-base-mnli"
    layer: int = 9
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def score(self, prediction: Prediction, task: Task) -> Score:
        return self.score_all([prediction], task)[0]

    def score_all(self, predictions: Sequence[Prediction], task: Task) -> list[Score]:
        pairs = [
            (place, (one.answer or "").strip(), wanted)
            for place, one in enumerate(predictions)
            for wanted in task.references(one.example)
            if (one.answer or "").strip() and wanted.strip()
        ]
        best = [0.0] * len(predictions)
        if pairs:
            places, answers, references = zip(*pairs, strict=True)
            _, _, f1 = _scorer(self.model, self.layer).score(list(answers), list(references), batch_size=BATCH)
            for place, value in zip(places, f1.tolist(), strict=True):
                best[place] = max(best[place], min(1.0, value))
        return [Score(one.example.id, {"bertscore": value}) for one, value in zip(predictions, best, strict=True)]

    def aggregate(self, scores: Sequence[Score]) -> dict[str, Estimate]:
        if not scores:
            raise ValueError("metric 'bertscore' needs at least one score")
        return mean(scores, "bertscore", level=self.level, resamples=self.resamples, seed=self.seed)


@functools.lru_cache(maxsize=1)
def _scorer(model: str, layer: int) -> Any:
    from bert_score import BERTScorer

    try:
        scorer = BERTScorer(model_type=model, num_layers=layer)
        positions = int(getattr(scorer._model.config, "max_position_embeddings", 0) or POSITIONS)
        tokenizer = scorer._tokenizer  # some say no limit, which its encoding cannot take; some keep 2 positions apart
        tokenizer.model_max_length = min(tokenizer.model_max_length, max(positions - 2, 2))
        return scorer
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise StoreError(f"metrics.bertscore.model {model!r} cannot be opened: {first}; give a folder") from error
