"""FairytaleQA: write the question about a passage of a story that a given answer answers."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.tasks import Exemplar
from lmdistill.tasks._passage import QuestionWriting
from lmdistill.tasks._released import others
from lmdistill.tasks._rows import Row
from lmdistill.types import Example


@dataclass(frozen=True)
class FairytaleQA(QuestionWriting):
    """Xu et al. 2022, as question generation: input 'passage; answer: answer', label the question.

    A story is never in two splits. The released ids are not unique, so rows are named by their file and line.
    """

    hub: str = "WorkInTheDark/FairytaleQA"

    ids = ()
    together = ("story", "story_name")

    def example(self, row: Row, name: str) -> Example:
        text = self.asked(row.text("context", "story_section"), row.text("answer", "answer1"))
        return Example(name, text, row.text("question"), (), others(row, "context", "story_section", "question"))

    @property
    def instruction(self) -> str:
        return "Write the question about the text that has the given answer. Write the question and nothing else."

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        return (
            Exemplar(
                "The miller hid the golden key under the third stone of the wall and told nobody but his donkey.; "
                "answer: under the third stone of the wall",
                "",
                "Where did the miller hide the golden key?",
            ),
            Exemplar(
                "As the princess would not laugh, the king sent for every jester in the land.; "
                "answer: because the princess would not laugh",
                "",
                "Why did the king send for every jester in the land?",
            ),
            Exemplar(
                "At midnight the old witch flew over the roofs on a wooden spoon.; answer: the old witch",
                "",
                "Who flew over the roofs at midnight?",
            ),
        )
