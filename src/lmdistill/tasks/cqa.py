"""CommonsenseQA (the CoS-E v1.11 edition of the papers): five choices, everyday knowledge."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.tasks import Exemplar
from lmdistill.tasks._released import Released, Style, chosen, listed, others, with_choices
from lmdistill.tasks._rows import Row
from lmdistill.types import Example


@dataclass(frozen=True)
class CQA(Released):
    """Talmor et al. 2019; the choices on lines of their own, the label is the right choice's text."""

    hub: str = "Salesforce/cos_e"
    hub_config: str = "v1.11"
    style: Style = "lines"

    run_on = ("Q:", "Question:")

    def example(self, row: Row, name: str) -> Example:
        choices = listed(row, "choices")
        label = chosen(row, choices, "label", "answer", "answerKey")
        text = with_choices(row.text("question"), choices, self.style)
        return Example(name, text, label, choices, others(row, "input", "choices", "label", "answer"))

    @property
    def instruction(self) -> str:
        return f"Choose the best answer. Think step by step, then end with '{self.answer_cue} (x) ...'."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        made = (
            (
                "Where would you keep milk so that it stays fresh?",
                ("oven", "fridge", "bookshelf", "bathtub", "roof"),
                "Milk stays fresh where it is cold. Of these places only a fridge is meant to be cold.",
                "(b) fridge",
            ),
            (
                "What does a tired person most want to do?",
                ("run", "argue", "shop", "rest", "sing"),
                "Tiredness goes away by resting. The other choices take strength that a tired person lacks.",
                "(d) rest",
            ),
            (
                "What do you need to write a letter by hand?",
                ("pen", "spoon", "ladder", "tent", "whistle"),
                "A letter by hand is written with ink on paper. Only a pen gives ink.",
                "(a) pen",
            ),
        )
        return tuple(Exemplar(with_choices(q, choices, self.style), r, y) for q, choices, r, y in made)
