"""StrategyQA: yes or no, by steps that the question does not spell out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lmdistill.tasks import Exemplar
from lmdistill.tasks._released import Released, Style, chosen, knowledge_base, others, with_choices
from lmdistill.tasks._rows import Row
from lmdistill.types import Example, Passage

CHOICES = ("yes", "no")


@dataclass(frozen=True)
class StrategyQA(Released):
    """Geva et al. 2021. `style` 'letters' is KARD's input ('... A. yes B. no'); 'none' is the bare question.

    Where the data has one file, three tenths of it are the test set, as in KARD. The paragraphs that bear on a question
    are `gold_pids_in_kb` in the fields; `passages()` are those of the folder's `kb_*` file.
    """

    hub: str = "ChilleD/StrategyQA"
    style: Style = "letters"
    test_fraction: float = 0.3

    hub_splits: ClassVar[Mapping[str, str]] = {"train": "train", "test": "test"}
    run_on = ("Q:", "Question:")

    @property
    def lettered(self) -> bool:  # type: ignore[override]
        return self.style != "none"

    def example(self, row: Row, name: str) -> Example:
        value = row.get("label", "answer")
        label = ("yes" if value else "no") if isinstance(value, bool) else chosen(row, CHOICES, "label", "answer")
        text = with_choices(row.text("question"), CHOICES, self.style)
        return Example(name, text, label, CHOICES, others(row, "label", "answer"))

    def passages(self) -> Sequence[Passage]:
        return knowledge_base(self.path, ("pid", "id"))

    def relevant(self, example: Example) -> tuple[str, ...]:
        return tuple(map(str, example.fields.get("gold_pids_in_kb") or ()))

    @property
    def instruction(self) -> str:
        return f"Answer yes or no. Think step by step, then end with '{self.answer_cue} yes' or '{self.answer_cue} no'."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        made = (
            (
                "Could a giraffe drink from the top of a two-metre wall without bending down?",
                "A giraffe's head is more than four metres above the ground. To reach two metres it must bend down.",
                "no",
            ),
            (
                "Would a ship need a canal to sail from the Atlantic to the Pacific within a month?",
                "Without a canal a ship can sail around Cape Horn, about 15,000 kilometres. At 700 kilometres a day "
                "that takes about three weeks, which is less than a month.",
                "no",
            ),
            (
                "Can a person born on the 29th of February have a tenth birthday on that date?",
                "The 29th of February comes in leap years, about every four years. After some forty years it has come "
                "ten times.",
                "yes",
            ),
        )
        shown = {"yes": "(a) yes", "no": "(b) no"} if self.lettered else {"yes": "yes", "no": "no"}
        return tuple(Exemplar(with_choices(q, CHOICES, self.style), r, shown[y]) for q, r, y in made)
