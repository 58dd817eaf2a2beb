"""KARD: the student reads passages, reasons over them and answers; a reranker learns to find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmdistill.errors import ConfigError
from lmdistill.faults import faults_of
from lmdistill.metrics.hits_at_k import HitsAtK
from lmdistill.recipes._grounding import Grounding, missing_marks
from lmdistill.recipes.rd import Rd
from lmdistill.rerankers.late_interaction import LateInteraction
from lmdistill.store import Rows, write_json
from lmdistill.types import Prediction, Report

LINKBERT, BIOLINKBERT = "michiyasunaga/LinkBERT-base", "michiyasunaga/BioLinkBERT-base"
"""The paper's encoders for the reranker: the first for StrategyQA and OpenBookQA, the second for MedQA."""


@dataclass(frozen=True)
class Kard(Rd):
    """Train a student on rationales behind the passages that they find, and a reranker to find these from questions.

    `grounding.passages` is k, `grounding.candidates` is kappa*, `sampling.n` is l. Without a reranker
    (`grounding.reranker` nothing) it is the paper's "KARD (BM25)".

    Paper:    Knowledge-Augmented Reasoning Distillation, arXiv 2305.18395
    Differs:  from the authors' code: see `Rd`, `RationaleReranking`, `LateInteraction` and `BM25`; several passages
              stand on lines of their own in training and inference alike
    """

    grounding: Grounding = field(
        default_factory=lambda: Grounding(passages=1, reranker=LateInteraction(model=LINKBERT, lora_rank=16))
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.grounding.passages:
            raise ConfigError("grounding.passages: KARD reads at least 1; without passages it is the recipe 'rd'")

    def report(self, out: Path, items: Sequence[Any], reports: Mapping[int, Report], facts: dict[str, Any]) -> Report:
        """The report, with hits@k and with wrong answers told apart: nothing relevant was found, or it was misread.

        hits@k is of the whole ranking, also below the k that the student reads; faults are of what it read.
        """
        report = super().report(out, items, reports, facts)
        metric = HitsAtK()
        ranked = [Prediction(one.example, None, hits=one.hits) for one in self.ranked(self.test_split, None, out)]
        scores = [metric.score(one, self.task) for one in ranked]
        if any(score.values for score in scores):
            faults = {
                str(seed): faults_of(list(Rows(out / f"seed-{seed}" / "test" / "rows.jsonl", Prediction)), self.task)
                for seed in self.seeds
            }
            metrics = {**report.metrics, **metric.aggregate(scores)}
            missing = missing_marks(ranked, self.task, self.grounding.base(self.task))
            counts = {**report.counts, **({"marked passages that the base lacks": len(missing)} if missing else {})}
            report = replace(report, metrics=metrics, counts=counts, facts={**report.facts, "faults": faults})
            write_json(out / "report.json", report)
        return report
