"""The nouns of the road, in the order in which a datum becomes them.

    training    Example -> Annotation -> View -> Batch -> Part -> checkpoint
    inference   Example -> ranking of Hits -> Prediction -> Score -> Report

All are frozen, hold plain Python values and go to JSON and back (`lmdistill.store`). Tensors live in `Batch`
(`lmdistill.students`) only, so that annotation, curation and evaluation need no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Example:
    """One input of a task. `label` is gold, or None where nobody labelled it; `fields` holds the other columns."""

    id: str
    input: str
    label: str | None = None
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a knowledge base.

    `stands_for` are ids of documents that are not in the base as such: what it was cut from, and near-duplicates that
    were dropped for it. A mark of one of them as relevant is a mark of this passage.
    """

    id: str
    text: str
    title: str = ""
    stands_for: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every id by which it may be marked."""
        return (self.id, *self.stands_for)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a retriever found; higher scores rank first."""

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a generator samples. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 mean no truncation at all
    (transformers' silent top_k = 50 is never used)."""

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = None
    beams: int = 1


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that were billed; `cached_tokens` are the part of `prompt_tokens` served from the endpoint's cache."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One generated token, its log-probability in nats, and the best alternatives the endpoint gave."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a generator wrote, untouched. `logprob` is the mean per token in nats; `reasoning` the separate field of
    reasoning models; `finish_reason` is 'stop', 'length', or what the endpoint said."""

    text: str
    logprob: float | None = None
    tokens: tuple[TokenLogprob, ...] = ()
    finish_reason: str = "stop"
    usage: Usage | None = None
    reasoning: str | None = None


class Parsed(NamedTuple):
    """A completion read by a task: `answer` is None where none could be read, and `reason` then says why."""

    rationale: str
    answer: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Rationale:
    """A chain of thought and the answer that it led to.

    `source` names who wrote it (a teacher, 'student@round-3', 'human'); `logprob` is the mean per token in nats;
    `reason` says why it was set aside (None while it is in use); `raw` is the untouched output it was read from.
    """

    text: str
    answer: str | None = None
    source: str = ""
    sample: int = 0
    logprob: float | None = None
    hits: tuple[Hit, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    raw: str = ""


class Vote(NamedTuple):
    """The outcome of self-consistency: `answer` is None where nothing parsed; `tied` lists all winners of a tie."""

    answer: str | None
    counts: Mapping[str, int]
    tied: tuple[str, ...] = ()


def vote(answers: Sequence[str | None]) -> Vote:
    """Majority of the answers that parsed; of a tie, the one seen first.

    >>> vote(["4", None, "5", "4"])
    Vote(answer='4', counts={'4': 2, '5': 1}, tied=())
    >>> vote(["a", "b"]).tied
    ('a', 'b')
    """
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Vote(None, {})
    best = max(counts.values())
    winners = tuple(answer for answer, count in counts.items() if count == best)
    return Vote(winners[0], dict(counts), winners if len(winners) > 1 else ())


@dataclass(frozen=True, slots=True)
class Annotation:
    """An example with what the teacher said of it.

    `rationales` are in use; `rejected` were set aside, each with its `reason` (unparsable, wrong, too long ...): they
    are kept because some methods learn from them; `negatives` are what an objective pushes away from; `hits` are the
    passages found for the example itself.
    """

    example: Example
    rationales: tuple[Rationale, ...] = ()
    rejected: tuple[Rationale, ...] = ()
    negatives: tuple[Rationale, ...] = ()
    hits: tuple[Hit, ...] = ()

    @property
    def id(self) -> str:
        return self.example.id

    @property
    def vote(self) -> Vote:
        """Majority over every sample of the teacher, used or set aside."""
        every = sorted((*self.rationales, *self.rejected), key=lambda rationale: rationale.sample)
        return vote([rationale.answer for rationale in every])

    @property
    def answer(self) -> str | None:
        """The teacher's answer: the pseudo-label."""
        return self.vote.answer

    def with_rejected(self, kept: Sequence[Rationale], dropped: Sequence[tuple[Rationale, str]]) -> Annotation:
        """Keep `kept`; move `dropped` to `rejected`, each with its reason."""
        aside = tuple(replace(rationale, reason=reason) for rationale, reason in dropped)
        return replace(self, rationales=tuple(kept), rejected=(*self.rejected, *aside))


@dataclass(frozen=True, slots=True)
class Candidates:
    """A question, passages, and the scores a reranker must imitate (same order and length)."""

    id: str
    query: str
    passages: tuple[Passage, ...]
    target_scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text for continued pretraining."""

    id: str
    text: str


Item: TypeAlias = Annotation | Candidates | Document


@dataclass(frozen=True, slots=True)
class View:
    """One source -> target row that an objective wants trained.

    Rows of one `role` share a loss part; `group` tells rows of an item apart that belong together (for example a
    rationale's index); `weight` multiplies the row's loss. `tail` is the end of the target (cue and answer) that stays
    where the target is over the student's limit; without it such a target loses its end.
    """

    source: str
    target: str
    role: str
    group: int = 0
    weight: float = 1.0
    tail: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A student's (or prompted model's) answer. `votes` counts the sampled answers where several were drawn;
    `confidence` is the winner's share or the answer's probability; `reason` says why `answer` is None."""

    example: Example
    answer: str | None
    rationale: str = ""
    hits: tuple[Hit, ...] = ()
    votes: Mapping[str, int] = field(default_factory=dict)
    confidence: float | None = None
    reason: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """What one metric says of one prediction (several named values for metrics like ROUGE)."""

    id: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric over a test set with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a run leaves: metrics with intervals, counts, cost and the full settings."""

    name: str
    metrics: Mapping[str, Estimate]
    counts: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
