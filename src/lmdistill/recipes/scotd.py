"""Symbolic chain-of-thought distillation: many sampled rationales for each input; the student thinks, then answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lmdistill.config import component
from lmdistill.curate import curate, short_of
from lmdistill.curation import Curation
from lmdistill.curation.correct import Correct
from lmdistill.errors import BudgetReached, ConfigError
from lmdistill.objectives import Objective
from lmdistill.objectives._labels import Selection
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.predict import Decoding
from lmdistill.pricing import Ledger
from lmdistill.progress import note
from lmdistill.prompting import Prompting
from lmdistill.recipes._road import Road
from lmdistill.rounds import rounds_of
from lmdistill.store import Rows, read_manifest
from lmdistill.students import StudentSettings
from lmdistill.train import TrainSettings, Validate
from lmdistill.types import Annotation, Example, Report, Sampling


@dataclass(frozen=True)
class Scotd(Road):
    """Train a student to write a rationale, a cue and the answer, on N sampled rationales per input.

    `setting` 'supervised' keeps rationales that led to the gold answer (before the other curation steps, unless
    `correct` is among them) and answers greedily; 'few_shot' keeps all and answers by the vote of 30 samples (scored
    choices too), or of as many as `decoding.samples` says; 1, which is its default, stands for 30 even where it was
    said: `lmdistill predict` asks the trained student for greedy answers. `rationales`, `at_once` and `bare` are the
    objective's. Inputs left with fewer than `least` rationales are asked again, `again` times at most, for as many more
    samples each time; a cap of `budget` holds for all rounds together, and one that is reached in a later round ends
    the asking, not the run.

    Paper:    Symbolic Chain-of-Thought Distillation, arXiv 2306.14050
    Differs:  from the authors' code: the checkpoint is chosen on validation data, greedily; top_k is 0, not 50, when
              sampling; a long input loses its middle, never its end with the cue
    """

    student: StudentSettings = component("students", "causal")
    prompting: Prompting = field(default_factory=lambda: Prompting(style="scotd"))
    sampling: Sampling = field(default_factory=lambda: Sampling(n=30, temperature=1.0, max_tokens=256))
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            steps=20_000, batch_size=32, learning_rate=2e-5, epsilon=1e-5, warmup=500, clip=0.5, eval_every=2000
        )
    )
    decoding: Decoding = field(default_factory=lambda: Decoding(max_tokens=256))
    setting: Literal["supervised", "few_shot"] = "supervised"
    rationales: Selection = "one"
    at_once: int = 1
    bare: Literal["drop", "label"] = "drop"
    cue: str = "So the answer is:"
    least: int = 1
    again: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least < 0 or self.again < 0:
            raise ConfigError(f"least, again: 0 or more were expected, got {self.least} and {self.again}")
        self.objective()  # so that what it refuses is said before anything is asked
        if self.setting == "few_shot" and self.decoding.samples == 1:
            object.__setattr__(self, "decoding", replace(self.decoding, samples=30))

    def objective(self) -> RationaleThenLabel:
        return RationaleThenLabel(self.cue, rationales=self.rationales, at_once=self.at_once, bare=self.bare)

    def steps(self) -> tuple[Curation, ...]:
        """The curation steps of the setting, then the user's own."""
        sorts = self.setting == "few_shot" or any(isinstance(step, Correct) for step in self.curation)
        return self.curation if sorts else (Correct(), *self.curation)

    def items(self, out: Path) -> Sequence[Any]:
        """All rounds of asking have one account, so that a cap holds for them together."""
        ledger = Ledger(self.budget)
        return self.curated(self.annotated(self.examples(), out / "annotations", ledger), out, ledger)

    def curated(
        self, annotations: Sequence[Annotation], out: Path, ledger: Ledger | None = None
    ) -> Sequence[Annotation]:
        kept = curate(annotations, self.task, *self.steps(), folder=out / "curated", minimum=max(self.least, 1))
        for round in range(1, self.again + 1):
            short = list(short_of(kept, self.least))
            if not short:
                break
            more = {one.id: one for one in self._again(short, out / f"annotations-again-{round}", round, ledger)}
            annotations = [_fuller(one, more.get(one.id, one)) for one in annotations]
            folder = out / f"curated-again-{round}"
            kept = curate(annotations, self.task, *self.steps(), folder=folder, minimum=max(self.least, 1))
            if _capped(out):
                break
        return kept

    def _again(
        self, examples: Sequence[Example], folder: Path, round: int, ledger: Ledger | None
    ) -> Sequence[Annotation]:
        """One more round for examples; where a cap stops it (or did so before), what was answered until then."""
        each = self.sampling.n
        asking = replace(self, sampling=replace(self.sampling, n=each * (round + 1)))
        before = read_manifest(folder)
        if before is None or before.status != "budget":
            try:
                return asking.annotated(examples, folder, ledger, known=each * round)
            except BudgetReached as error:
                note(f"{folder}: {error}; going on with what there is. To ask on, remove the folder")
        return Rows(folder / "partial.jsonl", Annotation)

    def validation(self, objective: Objective, out: Path) -> Validate | None:
        greedy = replace(self, setting="supervised", decoding=replace(self.decoding, samples=1))
        return Road.validation(greedy, objective, out)

    def report(self, out: Path, items: Sequence[Any], reports: Mapping[int, Report], facts: dict[str, Any]) -> Report:
        numbers = [len(one.rationales) for one in items]
        given = [_answers(one) for one in items]
        facts["rationales"] = {
            "asked_per_input": self.sampling.n,
            "inputs_given_fewer": sum(one < self.sampling.n for one in given),
            "kept": sum(numbers),
            "inputs_without": numbers.count(0),
            "inputs_below_least": sum(one < self.least for one in numbers),
            **({"asking_again": "stopped by the budget"} if _capped(out) else {}),
        }
        return super().report(out, items, reports, facts)


def _answers(one: Annotation) -> int:
    """How many samples of an input were answered."""
    return sum(bool(each.raw or each.text) for each in (*one.rationales, *one.rejected))


def _fuller(old: Annotation, new: Annotation) -> Annotation:
    """The annotation with more answers: a round that was stopped may have asked less than the one before."""
    return new if _answers(new) >= _answers(old) else old


def _capped(out: Path) -> bool:
    """Whether a cap stopped asking again."""
    return any(manifest.status == "budget" for _, manifest in rounds_of(out, "annotations")[1:])
