"""SVAMP: short word problems whose label is an equation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lmdistill.tasks import Exemplar
from lmdistill.tasks._released import Released, others
from lmdistill.tasks._rows import Row
from lmdistill.types import Example


@dataclass(frozen=True)
class Svamp(Released):
    """Patel et al. 2021; input 'body newline question', label an equation like '( 84.0 / 2.0 )', equal by value."""

    hub: str = "ChilleD/SVAMP"

    ids = ("id", "ID")
    hub_splits: ClassVar[Mapping[str, str]] = {"train": "train", "test": "test"}
    metric = "equation"
    answer_cue = "The answer is"
    reads = "value"
    run_on = ("Q:", "Question:")

    def example(self, row: Row, name: str) -> Example:
        text = f"{row.text('Body')}\n{row.text('Question')}" if row.get("Body") else row.text("input", "Body")
        return Example(name, text, row.text("label", "Equation"), (), others(row, "input", "label", "Equation"))

    @property
    def instruction(self) -> str:
        return f"Solve the problem step by step, then end with '{self.answer_cue}' and the equation in parentheses."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        return (
            Exemplar(
                "Nora picked 18 plums and gave 5 of them to her brother.\nHow many plums does she have left?",
                "Nora had 18 plums. She gave away 5. So she has 18 - 5 = 13 plums left.",
                "(18 - 5)",
            ),
            Exemplar(
                "A baker fills 6 trays. Each tray holds 12 rolls.\nHow many rolls does he bake?",
                "There are 6 trays with 12 rolls each. So he bakes 6 * 12 = 72 rolls.",
                "(6 * 12)",
            ),
            Exemplar(
                "Tim had 9 cards. He bought 15 more and made 4 equal piles of them.\nHow many cards are in a pile?",
                "Tim had 9 cards and bought 15, so he has 9 + 15 = 24. In 4 equal piles there are 24 / 4 = 6 in each.",
                "((9 + 15) / 4)",
            ),
        )
