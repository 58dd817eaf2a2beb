"""ART: say what may have happened between two observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lmdistill.tasks import Exemplar
from lmdistill.tasks._released import chosen, others
from lmdistill.tasks._rows import Row, Unusable
from lmdistill.tasks._writing import Writing
from lmdistill.types import Example


@dataclass(frozen=True)
class Art(Writing):
    """Bhagavatula et al. 2020 as in KD4Gen: input 'first; outcome: second', label the likelier hypothesis."""

    hub: str = "allenai/art"

    hub_splits: ClassVar[Mapping[str, str]] = {"train": "train", "valid": "validation"}
    answer_cue = "Hypothesis:"

    def example(self, row: Row, name: str) -> Example:
        first, second = row.text("observation_1"), row.text("observation_2")
        hypotheses = (row.text("hypothesis_1"), row.text("hypothesis_2"))
        told = chosen(row, ("0", "1", "2"), "label")
        if told == "0":  # how the Hub's files say that nobody labelled it
            raise Unusable("no label")
        label = hypotheses[int(told) - 1]
        return Example(name, f"{self.prefix}{first}; outcome: {second}", label, (), others(row, "label"))

    @property
    def instruction(self) -> str:
        return "Say in one sentence what may have happened in between. Write that sentence and nothing else."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        return (
            Exemplar(
                "Iris left her bread on the kitchen table.; outcome: The dog slept with a full belly.",
                "",
                "The dog jumped on the table and ate the bread.",
            ),
            Exemplar(
                "Paul had an important call at nine.; outcome: He had to say sorry to his boss.",
                "",
                "Paul overslept and missed the call.",
            ),
        )
