"""Reasoning distillation: rationale, then answer; no passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmdistill.config import component
from lmdistill.curate import curate
from lmdistill.curation.correct import Correct
from lmdistill.objectives._labels import Selection
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.predict import Decoding
from lmdistill.prompting import Prompting
from lmdistill.recipes._explained import Kept, explained, verified
from lmdistill.recipes._road import Road
from lmdistill.teachers import TeacherSettings
from lmdistill.train import TrainSettings
from lmdistill.types import Annotation, Sampling

RELEASED = (
    "The following are multiple-choice questions. Generate a step-by-step explanations for each question with given "
    "knowledge.\nQuestion: {{ input }}{% if knowledge %}\nKnowledge: {{ knowledge }}{% endif %}\nExplanation:"
)
"""KARD's input in one form for training and inference (the released code has two); set it as `template`."""


@dataclass(frozen=True)
class Rd(Road):
    """Train a student to write the teacher's rationale and then the answer.

    The teacher is shown the gold answer and explains it `sampling.n` times (l in the paper). Rationales that lead to
    another answer are dropped, and of those that lead to none, `kept` 'mentioned' keeps the ones that mention the gold
    answer (and, counted as unjudged, explanations of a yes, a no or a class, which need not mention it); with a
    `verifier` (any kind of teacher) only rationales from which it reaches the gold answer stay, whatever they mention.
    Its requests have the caps of `budget` again, for themselves.
    `template` is how the question stands in the student's input ('': as it is); `decoding.samples` 5 is the voting of
    the authors' code.

    Paper:    "reasoning distillation", KARD, arXiv 2305.18395, equation 1 and table 1
    Differs:  from the authors' code: greedy decoding, not the vote of 5 samples; the answer in words, not its letter;
              the checkpoint is chosen on validation
    """

    prompting: Prompting = field(default_factory=lambda: Prompting(style="kard"))
    sampling: Sampling = field(default_factory=lambda: Sampling(n=10, temperature=1.0, max_tokens=256))
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=3, batch_size=32, learning_rate=1e-4, schedule="constant")
    )
    decoding: Decoding = field(default_factory=lambda: Decoding(max_tokens=256))
    rationales: Selection = "all"
    kept: Kept = "mentioned"
    verifier: TeacherSettings | None = component("teachers", None)
    cue: str = "Answer:"
    template: str = ""

    def objective(self) -> RationaleThenLabel:
        return RationaleThenLabel(self.cue, rationales=self.rationales, template=self.template)

    def curated(self, annotations: Sequence[Annotation], out: Path) -> Sequence[Annotation]:
        sorts = any(isinstance(step, Correct) for step in self.curation)
        steps = self.curation if sorts else (Correct(), *self.curation)
        kept = self.kept if self.verifier is None else "all"
        found = explained(annotations, self.task, kept, self.prompting, out / "explained")
        if self.verifier is not None:
            found = verified(found, self.task, self.verifier, out, budget=self.budget, cache=self.cache)
        return curate(found, self.task, *steps, folder=out / "curated")
