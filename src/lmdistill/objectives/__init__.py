"""An objective says what is trained: which rows are seen, how they are scored, what is sampled anew.

An objective is a frozen dataclass whose defaults are the paper's. The loop (`lmdistill.train`) calls its hooks in this
order: `refresh` and `learn` at the start of a round, `views` for each item when its turn comes, `prepare` on each
micro-batch, `counts` on all micro-batches of a step (summed over processes), and `loss` on each of them inside the
wrapped module. Inference uses `prompt` and `read`, so training and prediction share one rendering.

To add one: a file `objectives/NAME.py` with a frozen dataclass `Name(Objective)` that has `views` and `loss`; the
contract test finds it.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lmdistill import render
from lmdistill.students import Batch, Scored, Student
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Hit, Parsed, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Reduction = Literal["token", "example"]
"""`token`: mean over all real target tokens of a role in the step (DSS, SCoTD, KARD, MI). `example`: mean over tokens
within a row, then over rows (KD4Gen, QCRD). Silently mixing them changes results, so each objective names its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """A named share of the loss: the loop adds `weight * total / (count summed over the step and all processes)`."""

    total: Tensor
    count: float
    weight: float = 1.0


@dataclass
class Companion:
    """A module beside the student, trained and saved with it: in a folder of its own where it has `save`.

    `phase` 'joint': its parameters join the student's optimizer (own learning rate where given) and `loss` reaches
    them. 'own': the objective trains it itself in `learn`, with the optimizer that the loop made and checkpoints.
    'kept': it is not trained, and not saved either: a resumed run makes it again from the same student.
    """

    module: nn.Module
    learning_rate: float | None = None
    phase: Literal["joint", "own", "kept"] = "joint"
    optimizer: torch.optim.Optimizer | None = None


@dataclass
class Round:
    """What `refresh`, `learn` and `prepare` may use.

    `sampler(lag)` is the student with the weights it had `lag` rounds ago (0 = now), or None before there are any.
    """

    index: int
    seed: int
    step: int
    progress: float
    sampler: Callable[[int], Student | None]
    companions: Mapping[str, Companion]
    student: Any
    notes: dict[str, float] = field(default_factory=dict)
    """Numbers that `refresh` and `learn` leave about the round; counts of `refresh` are summed over processes."""


class Objective(ABC):
    """The contract; see the module's docstring."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Among 'label', 'rationale', 'negatives', 'hits', 'teacher': items that lack one are counted and left out;
    a missing teacher is refused before training."""
    trains: ClassVar[str] = "student"
    """What kind of module it trains: 'student', 'reranker' or 'judge'."""
    decomposes: ClassVar[bool] = True
    """False for a loss over the whole batch (in-batch negatives): accumulation is then refused."""
    refreshes: ClassVar[bool] = False
    """True where `refresh` makes new items each round."""
    lags: ClassVar[int] = 0
    """How many rounds of past weights `refresh` may ask for (an instance may override it by a property)."""

    @abstractmethod
    def views(self, item: Any, epoch: int, rng: random.Random) -> Sequence[View]:
        """The rows of an item that are trained in this epoch; none leaves the item out."""

    @abstractmethod
    def loss(self, student: Any, teacher: Any, batch: Batch, progress: float) -> dict[str, Part]:
        """The named parts of a batch; `progress` in [0, 1] drives annealing."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """The denominators of `loss`'s parts, by the same names, without running the student."""

    def prepare(self, batch: Batch, round: Round) -> Batch:
        """Replace targets (student samples) or attach what the teacher says; the batch as it is by default."""
        return batch

    def refresh(self, items: Sequence[Any], round: Round) -> Sequence[Any]:
        """New items of a round, for the shard of items given; unchanged by default."""
        return items

    def learn(self, items: Sequence[Any], round: Round) -> Sequence[Any]:
        """Train the companions of phase 'own' on the refreshed items of all processes, and score the items with them.

        Runs on every process with the same items and the same seed; unchanged items by default.
        """
        return items

    def companions(self, student: Any) -> dict[str, Companion]:
        """Modules trained beside the student; none by default. Called once, before the first step."""
        return {}

    def check(self, student: Any, teacher: Any, items: Sequence[Any]) -> None:  # noqa: B027 (nothing is a fair answer)
        """Refuse what cannot work (another vocabulary, a teacher of another kind). Called once, before the first step.

        Raises:
            TrainingError, ConfigError, DataError: what was expected, what was got, what to do.
        """

    def marked(self, items: Sequence[Any], task: Task) -> Sequence[Any]:
        """The items with what only the task can tell of them, before training; unchanged by default."""
        return items

    def vocabulary(self) -> Iterable[str]:
        """Texts beside the views that a vocabulary made for this training must know; none by default."""
        return ()

    # --- inference ---

    def prompt(self, annotation: Annotation) -> str:
        """The student's input for an example, its passages behind it where it has any (see `shown`)."""
        return shown(annotation)

    def rationale_prompt(self, annotation: Annotation) -> str | None:
        """The input that asks for a rationale alone, where that was learnt as a task of its own; None elsewhere."""
        return None

    def read(self, task: Task, annotation: Annotation, text: str) -> Parsed:
        """The student's output as rationale and answer: by default the whole text is the answer."""
        answer = text.strip()
        return Parsed("", answer or None, None if answer else "empty")

    def with_answer(self, text: str, answer: str) -> str:
        """The target that gives `answer` after what the student wrote so far: how choices are scored.

        By default the answer alone.
        """
        return answer

    def answer_end(self, task: Task, annotation: Annotation, text: str) -> int | None:
        """How much of a text may be kept because its answer is complete, where the student goes on; None: all of it."""
        return None

    @property
    def thinks(self) -> bool:
        """Whether the student writes a rationale before its answer."""
        return False


def reduced(scored: Scored, batch: Batch, role: str, reduction: Reduction, weight: float = 1.0) -> Part:
    """A role's negative log-likelihood as a part under a named reduction, row weights applied."""
    rows = batch.targets[role]
    assert scored.nll is not None
    per_row = scored.nll.sum(-1)  # [R]
    if reduction == "example":
        per_row = per_row / scored.mask.sum(-1).clamp(min=1)
    return Part((per_row * rows.weight).sum(), count_of(batch, role, reduction), weight)


def count_of(batch: Batch, role: str, reduction: Reduction) -> float:
    """The denominator of a role: its real target tokens, or its rows; each counted with its row's weight."""
    rows = batch.targets.get(role)
    if rows is None:
        return 0.0
    if reduction == "example":
        return float(rows.weight.sum())
    return float(((rows.labels != -100).sum(-1) * rows.weight).sum())


def silver(annotation: Annotation) -> tuple[Hit, ...]:
    """The passages an item is trained with: those of its first rationale, or else its own."""
    for rationale in annotation.rationales:
        if rationale.hits:
            return rationale.hits
    return annotation.hits


def shown(annotation: Annotation, hits: Sequence[Hit] | None = None, *, lead: str = "\nKnowledge: ") -> str:
    """An example's input as a student reads it: with its passages (or other hits) behind it, where there are any.

    Training and inference both call this, so they cannot differ.

    >>> from lmdistill.types import Example, Passage
    >>> shown(Annotation(Example("1", "What do mice eat?"), hits=(Hit(Passage("p", "Mice eat cheese."), 1.0),)))
    'What do mice eat?\\nKnowledge: Mice eat cheese.'
    """
    return annotation.example.input + render.passages_block(silver(annotation) if hits is None else hits, lead=lead)
