"""Passages for any recipe, found for training items and for questions by the run's own retriever and reranker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lmdistill.blending import blended
from lmdistill.config import build, component, settings_of
from lmdistill.errors import ConfigError
from lmdistill.ground import Queries, by_gold, candidates, ground, open_reranker
from lmdistill.knowledge import KnowledgeBase, open_base
from lmdistill.objectives import Objective
from lmdistill.progress import first_process, note
from lmdistill.recipes._processes import first_process_first
from lmdistill.rerankers import RerankerSettings
from lmdistill.retrievers import Retriever, RetrieverSettings
from lmdistill.retrievers.dense import Dense
from lmdistill.store import read_manifest
from lmdistill.tasks import Task
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Candidates, Prediction

RANKED = 10
"""Passages of a question's ranking that are kept, whatever number of them is read: hits@k is told up to here."""


@dataclass(frozen=True)
class Reranking:
    """How a reranker is trained; the defaults are those of KARD's code."""

    from_rationale: int = 32
    from_question: int = 32
    objective: Objective = component("objectives", "rationale_reranking")
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=3, batch_size=16, learning_rate=1e-4, warmup=0.05)
    )
    seed: int = 0


@dataclass(frozen=True)
class Grounding:
    """Passages in the student's input; with `passages` 0 there are none.

    `knowledge` is a folder that `lmdistill index` made; without it the task's own passages are used. Training items are
    grounded by their `silver` side: 'rationale' (KARD: what the teacher's rationale finds; an item that has none is
    grounded by its question) or 'question'. Questions, of training items too, are grounded by themselves: the
    retriever's best `candidates`, put in order by the reranker where there is one, which is trained first; or, as an
    'oracle', by the teacher's rationales for them or by their marked passages. `retriever_weight` is the share of the
    retriever's score in the reranker's order (KARD: 0; see `lmdistill.blending`).
    """

    passages: int = 0
    silver: Literal["rationale", "question"] = "rationale"
    oracle: Literal["none", "rationale", "gold"] = "none"
    knowledge: Path | None = None
    retriever: RetrieverSettings = component("retrievers", "bm25")
    queries: Queries = field(default_factory=Queries)
    candidates: int = 100
    reranker: RerankerSettings | None = component("rerankers", None)
    reranking: Reranking = field(default_factory=Reranking)
    retriever_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.passages < 0 or self.candidates < 1:
            raise ConfigError("grounding: 0 or more passages and 1 or more candidates were expected")
        if not 0 <= self.retriever_weight < 1:
            raise ConfigError(f"retriever_weight: {self.retriever_weight} is not in [0, 1): 0 is the reranker alone")
        if self.retriever_weight and self.reranker is None:
            raise ConfigError("retriever_weight: there is no reranker beside which it could count; set `reranker` too")

    def base(self, task: Task) -> KnowledgeBase:
        """What is searched."""
        return open_base(self.knowledge, () if self.knowledge else task.passages())

    def opened(self, task: Task, out: Path) -> Retriever:
        """The retriever; the index of a task's own passages is kept in the run's folder."""
        base = self.base(task)
        return self.retriever.open(base, None if base.folder else out / "knowledge")

    def check(self, task: Task, out: Path) -> None:
        """Open the base, the retriever and the reranker's model, so that what is wrong is said before anybody is paid.

        Raises:
            DataError, StoreError, ConfigError, MissingExtra: one of them cannot be opened.
        """
        if not self.passages:
            return
        self.opened(task, out)
        if self.reranker is not None:
            self.reranker.check()

    def of_items(
        self, items: Sequence[Annotation], task: Task, out: Path, reranker: Any = None
    ) -> Sequence[Annotation]:
        """Training items with their passages."""
        if not self.passages:
            return items
        return ground(
            items,
            self.opened(task, out),
            k=self.passages,
            by=self.silver,
            queries=self.queries,
            reranker=blended(reranker, self.retriever_weight),
            candidates=self.candidates,
            folder=out / "grounded",
            described=self._described(),
        )

    def of_questions(
        self, questions: Sequence[Annotation], task: Task, reranker: Any, out: Path, folder: Path
    ) -> Sequence[Annotation]:
        """Questions with what they find themselves, best first, `RANKED` passages of it; `read` keeps k of them."""
        if not self.passages:
            return questions
        retriever = self.opened(task, out)
        missing = missing_marks(questions, task, retriever.base)
        if missing and first_process():
            note(
                f"{len(missing)} passages that the data marks as relevant are not in the knowledge base (first: "
                f"{missing[0]!r}), so nothing can find them. Are its ids those of the data?"
            )
        deep = RANKED if self.reranker is None else min(RANKED, self.candidates)  # no more are put in order
        if self.oracle == "gold":
            found: Sequence[Annotation] = by_gold(questions, retriever, task.relevant)
            return found
        grounded = ground(
            questions,
            retriever,
            k=max(self.passages, deep),
            by="both" if self.oracle == "rationale" else "question",
            queries=self.queries,
            reranker=None if self.oracle == "rationale" else blended(reranker, self.retriever_weight),
            candidates=self.candidates,
            folder=folder,
            described=self._described(),
        )
        return [as_found(item) for item in grounded] if self.oracle == "rationale" else grounded

    def read(self, questions: Sequence[Annotation]) -> Sequence[Annotation]:
        """Questions with the first k of their passages: what is shown to a student or a teacher."""
        if not self.passages:
            return questions
        return [replace(item, hits=item.hits[: self.passages]) for item in questions]

    def _described(self) -> dict[str, Any]:
        return {
            "retriever": settings_of(self.retriever),
            "reranker": settings_of(self.reranker),
            "retriever_weight": self.retriever_weight,
        }

    def trained(self, items: Sequence[Annotation], task: Task, out: Path) -> Any:
        """The reranker, trained on what the training rationales find; None where none is set."""
        if self.reranker is None or not self.passages:
            return None
        return trained_on(items, self, task, self.reranker, self.reranking, out, out / "reranker")


class Searcher(NamedTuple):
    """A run's grounding with its parts trained; the reranker is None where there is none."""

    grounding: Grounding
    reranker: Any


def trained_on(
    items: Sequence[Annotation],
    grounding: Grounding,
    task: Task,
    reranker: RerankerSettings,
    reranking: Reranking,
    out: Path,
    folder: Path,
) -> Any:
    """A reranker that learnt what the rationales of `items` find, trained in `folder`, or read from there."""
    with first_process_first(reranking.train.device):
        retriever = grounding.opened(task, out)
        pairs = candidates(
            items,
            retriever,
            from_rationale=reranking.from_rationale,
            from_question=reranking.from_question,
            queries=grounding.queries,
            folder=out / "candidates",
            described={"retriever": settings_of(grounding.retriever)},
        )
    return train(
        reranker.open(vocabulary_of(pairs, retriever.base), reranking.seed),
        reranking.objective,
        pairs,
        settings=reranking.train,
        folder=folder,
        seed=reranking.seed,
        card={"reranker": settings_of(reranker)},
    ).student


def as_found(item: Annotation) -> Annotation:
    """A question with the passages of its first grounded rationale (its own where there is none), and no rationale."""
    own = next((one.hits for one in item.rationales if one.hits), item.hits)
    return Annotation(item.example, hits=own)


def stage_counts(out: Path) -> dict[str, int]:
    """What a run's own stages kept, dropped and did not find, for its report; nothing where it has no such stage."""
    found: dict[str, int] = {}
    for stage in ("explained", "grounded", "candidates"):
        manifest = read_manifest(out / stage)
        counts = {} if manifest is None else manifest.counts
        found |= {f"{stage}: {what}": count for what, count in counts.items() if what != "rows"}
    return found


def missing_marks(questions: Sequence[Annotation | Prediction], task: Task, base: KnowledgeBase) -> list[str]:
    """The passages that are marked as relevant to the questions, and that the base lacks."""
    marked = dict.fromkeys(name for item in questions for name in task.relevant(item.example))
    return [name for name in marked if not base.named(name)]


def vocabulary_of(pairs: Sequence[Candidates], base: KnowledgeBase) -> Any:
    """What a from-scratch reranker's vocabulary is made from: all questions and up to 100,000 passages."""
    for pair in pairs:
        yield pair.query
    for row in range(min(len(base), 100_000)):
        passage = base.passage(row)
        yield f"{passage.title} {passage.text}"


def as_trained(
    card: Mapping[str, Any], student: Path, task: Task, questions: Sequence[Annotation]
) -> Sequence[Annotation]:
    """Questions with the passages that a student's run would give them; unchanged where it reads none.

    Raises:
        StoreError: the run had a reranker and it is not there.
    """
    if not (card.get("grounding") or {}).get("passages"):
        return questions
    return search_of(card, student, task)(questions)


def search_of(
    card: Mapping[str, Any], student: Path, task: Task
) -> Callable[[Sequence[Annotation]], Sequence[Annotation]]:
    """What finds the passages that a student's run would give to questions, opened once for many of them.

    The reranker and the index are found in the run's folder, above the student's. An oracle's student is given what
    the question finds.

    Raises:
        StoreError: the run had a reranker and it is not there.
    """
    grounding = replace(build(Grounding, card["grounding"]), oracle="none")
    run = next((one for one in student.resolve().parents if (one / "report.json").exists()), None)
    if run is not None and (run / "encoder" / "student").exists():
        grounding = replace(grounding, retriever=Dense(model=str(run / "encoder" / "student")))
    reranker = None
    if grounding.reranker is not None:
        reranker = open_reranker((run or student.parent) / "reranker" / "student")
    base = grounding.base(task)
    found = grounding.retriever.open(base, run / "knowledge" if run and not base.folder else None)

    def search(questions: Sequence[Annotation]) -> Sequence[Annotation]:
        return ground(
            questions,
            found,
            k=grounding.passages,
            by="question",
            queries=grounding.queries,
            reranker=blended(reranker, grounding.retriever_weight),
            candidates=grounding.candidates,
        )

    return search
