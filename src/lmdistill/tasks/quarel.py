"""QuaRel: qualitative physics stories with two choices inside the question."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lmdistill.tasks import Exemplar
from lmdistill.tasks._released import Released, chosen, others
from lmdistill.tasks._rows import Row, Unusable
from lmdistill.types import Example


@dataclass(frozen=True)
class Quarel(Released):
    """Tafjord et al. 2019; the input is the data's own '... (A) first (B) second', as in SCoTD."""

    hub: str = "community-datasets/quarel"

    run_on = ("Q:", "Question:")

    def example(self, row: Row, name: str) -> Example:
        question = row.text("question")
        match = re.fullmatch(r"(?s).*\(A\)\s*(.+?)\s*\(B\)\s*(.+?)", question)
        if match is None:
            raise Unusable("no choices (A) and (B) in the question")
        choices = (match[1].strip(), match[2].strip())
        label = chosen(row, choices, "label", "answer_index")
        return Example(name, question, label, choices, others(row, "label", "answer_index"))

    @property
    def instruction(self) -> str:
        return f"Choose A or B. Think step by step, then end with '{self.answer_cue} (x) ...'."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        return (
            Exemplar(
                "Lena's sledge went slowly over the gravel and quickly over the ice. Where was there more friction? "
                "(A) the gravel (B) the ice",
                "More friction makes a sledge slower. It was slow on the gravel, so there was more friction there.",
                "(a) the gravel",
            ),
            Exemplar(
                "Otto throws a ball as hard as he can, and so does his little sister. Whose ball goes less far? "
                "(A) Otto's (B) his sister's",
                "A weaker throw goes less far, and the little sister is the weaker one.",
                "(b) his sister's",
            ),
            Exemplar(
                "The bell sounded louder at the gate than at the lake. Which of them is farther from the bell? "
                "(A) the gate (B) the lake",
                "Sound grows softer with distance. It was softer at the lake, so the lake is farther away.",
                "(b) the lake",
            ),
        )
