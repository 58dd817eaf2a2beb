"""SQuAD turned round: write the question about a paragraph that a given answer answers."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.tasks import Exemplar
from lmdistill.tasks._passage import QuestionWriting
from lmdistill.tasks._released import listed, others
from lmdistill.tasks._rows import Row, Unusable
from lmdistill.types import Example


@dataclass(frozen=True)
class SquadQG(QuestionWriting):
    """Rajpurkar et al. 2016 as in KD4Gen: input 'paragraph; answer: answer', label the question.

    Questions without an answer (SQuAD 2.0) cannot be used and are counted; a paragraph is never in two splits.
    """

    hub: str = "rajpurkar/squad"

    together = ("context",)

    def example(self, row: Row, name: str) -> Example:
        if row.get("is_impossible") is True:
            raise Unusable("the question has no answer")
        text = self.asked(row.text("context"), listed(row, "answers")[0])
        return Example(name, text, row.text("question"), (), others(row, "context", "question"))

    @property
    def instruction(self) -> str:
        return "Write the question about the paragraph that has the given answer. Write the question and nothing else."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        harbour = (
            "The harbour of Tarnmouth was built between 1821 and 1830 by the engineer Agnes Holloway. Its longer pier, "
            "made of granite, reaches 640 metres into the sea."
        )
        return (
            Exemplar(f"{harbour}; answer: Agnes Holloway", "", "Who built the harbour of Tarnmouth?"),
            Exemplar(f"{harbour}; answer: granite", "", "What is the longer pier of Tarnmouth made of?"),
            Exemplar(f"{harbour}; answer: 640 metres", "", "How far does the longer pier reach into the sea?"),
        )
