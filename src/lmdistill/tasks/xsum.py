"""XSum: a news article in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.tasks import Exemplar
from lmdistill.tasks._released import others
from lmdistill.tasks._rows import Row
from lmdistill.tasks._writing import Writing
from lmdistill.types import Example


@dataclass(frozen=True)
class Xsum(Writing):
    """Narayan et al. 2018; input the article, label its one-sentence summary."""

    hub: str = "EdinburghNLP/xsum"

    answer_cue = "Summary:"

    def example(self, row: Row, name: str) -> Example:
        text = f"{self.prefix}{row.text('document')}"
        return Example(name, text, row.text("summary"), (), others(row, "document", "summary"))

    @property
    def instruction(self) -> str:
        return "Say in one sentence what the article is about. Write that sentence and nothing else."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        return (
            Exemplar(
                "The bridge over the Sorn was closed on Monday after divers found cracks in two of its pillars. "
                "Drivers have to go through Elmfield, which takes half an hour longer. The council says that repairs "
                "will take until spring.",
                "",
                "A bridge over the river Sorn will stay closed until spring because its pillars are cracked.",
            ),
            Exemplar(
                "Mara Lind, 17, swam from the mainland to the island of Keld in four hours and ten minutes. She had "
                "trained for two years. Nobody younger has swum the strait before.",
                "",
                "A 17-year-old has become the youngest person to swim to the island of Keld.",
            ),
        )
