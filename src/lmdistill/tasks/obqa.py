"""OpenBookQA: elementary science with an open book of facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmdistill.tasks import Exemplar
from lmdistill.tasks._released import Released, Style, chosen, knowledge_base, listed, others, with_choices
from lmdistill.tasks._rows import Row
from lmdistill.types import Example, Passage


@dataclass(frozen=True)
class Obqa(Released):
    """Mihaylov et al. 2018; four choices. `style` 'letters' is KARD's input, 'inline' SCoTD's.

    The fact that a question was made from is `gold_fid` in the fields, where the data says so, and `passages()` are the
    facts of the folder's `kb_*` file.
    """

    hub: str = "allenai/openbookqa"
    hub_config: str = "additional"
    style: Style = "letters"

    run_on = ("Q:", "Question:")

    def example(self, row: Row, name: str) -> Example:
        choices = listed(row, "choices")
        label = chosen(row, choices, "label", "answerKey")
        text = with_choices(row.text("question", "question_stem"), choices, self.style)
        return Example(name, text, label, choices, others(row, "choices", "label", "answerKey"))

    def passages(self) -> Sequence[Passage]:
        return knowledge_base(self.path, ("fid", "id"))

    def relevant(self, example: Example) -> tuple[str, ...]:
        gold = example.fields.get("gold_fid")
        return (str(gold),) if gold else ()

    @property
    def instruction(self) -> str:
        return f"Choose the best answer. Think step by step, then end with '{self.answer_cue} (x) ...'."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        made = (
            (
                "A puddle on the pavement disappears on a hot day because the water",
                ("freezes", "evaporates", "turns to oil", "grows heavier"),
                "Heat turns liquid water into vapour, which is called evaporation.",
                "(b) evaporates",
            ),
            (
                "Which of these is a conductor of electricity?",
                ("a rubber glove", "a wooden spoon", "a copper wire", "a glass jar"),
                "Metals conduct electricity. Copper is a metal; rubber, wood and glass are not.",
                "(c) a copper wire",
            ),
            (
                "A plant kept in a dark cupboard will most likely",
                ("die", "flower twice", "turn to stone", "move away"),
                "Plants need light to make their food. Without light a plant starves.",
                "(a) die",
            ),
        )
        return tuple(Exemplar(with_choices(q, choices, self.style), r, y) for q, choices, r, y in made)
