"""What the inference tasks `esnli` and `anli` share: premise, hypothesis, three labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmdistill.tasks._released import Released, chosen, others
from lmdistill.tasks._rows import Row
from lmdistill.types import Example

LABELS = ("entailment", "neutral", "contradiction")
"""In the order in which the published sets number them."""


@dataclass(frozen=True)
class Inference(Released):
    """Settings of both: what stands between premise and hypothesis (T5's end-of-sequence string, as in the papers)."""

    separator: str = field(default="</s>", kw_only=True)

    lettered = False
    run_on = ("Premise:", "Q:", "Question:")

    def example(self, row: Row, name: str) -> Example:
        premise, hypothesis = row.text("premise"), row.text("hypothesis")
        label = chosen(row, LABELS, "label", "gold_label")
        text = f"{premise}{self.separator}{hypothesis}"
        return Example(name, text, label, LABELS, others(row, "label", "gold_label"))

    @property
    def instruction(self) -> str:
        return (
            "Does the premise entail the hypothesis, contradict it, or neither (neutral)? Explain in one or two "
            f"sentences, then end with '{self.answer_cue} entailment', 'neutral' or 'contradiction'."
        )
