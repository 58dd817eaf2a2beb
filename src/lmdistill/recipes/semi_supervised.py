"""Gold labels for a part of the inputs, the teacher's for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmdistill.errors import ConfigError
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.recipes._road import Road, without_label
from lmdistill.store import seed_for
from lmdistill.types import Annotation


@dataclass(frozen=True)
class SemiSupervised(Road):
    """Train on gold labels where they are and on the teacher's elsewhere.

    `labelled` is the share of the training examples whose gold label may be used; the teacher is asked about the
    others and about the task's unlabelled split only. With `rationale_weight` above 0 their rationales are learnt too.

    Paper:    the unlabelled-data experiments of Distilling Step-by-Step, arXiv 2305.02301, section 5.2
    """

    labelled: float = 0.25
    rationale_weight: float = 0.0
    prefix: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.labelled <= 1:
            raise ConfigError(f"labelled: {self.labelled} is not in [0, 1]")

    def objective(self) -> LabelOnly | StepByStep:
        if self.rationale_weight:
            return StepByStep("gold_or_teacher", self.rationale_weight)
        return LabelOnly("gold_or_teacher", self.prefix)

    def items(self, out: Path) -> Sequence[Annotation]:
        examples = sorted(self.examples(), key=lambda example: seed_for("labelled", example.id))
        cut = round(self.labelled * len(examples))
        rest = [without_label(example) for example in examples[cut:]] + list(self.task.examples("unlabelled"))
        gold = [Annotation(example) for example in examples[:cut] if example.label is not None]
        return [*gold, *(self.curated(self.annotated(rest, out / "annotations"), out) if rest else ())]
