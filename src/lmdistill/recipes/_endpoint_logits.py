"""A black-box teacher's few log-probabilities per token, put over the student's tokens and recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmdistill.alignment import SURE, from_logprobs, hard
from lmdistill.annotate import open_cache, prepare
from lmdistill.config import settings_of
from lmdistill.distributions import vocabulary_hash
from lmdistill.errors import TrainingError
from lmdistill.logit_store import LogitStore, Recorded, record
from lmdistill.objectives import Objective
from lmdistill.objectives._targets import every_view
from lmdistill.pricing import Ledger
from lmdistill.progress import note
from lmdistill.types import Annotation, TokenLogprob

FEW = 0.2
"""Below this share of an endpoint's tokens that have an alternative, it is said aloud."""


def endpoint_logits(
    road: Any, objective: Objective, student: Any, items: Sequence[Annotation], out: Path, top: int
) -> LogitStore:
    """What the endpoint said of its own texts, from the cache of its answers; labels are hard targets.

    Paper:    KD4Gen, arXiv 2305.02031, the extreme setup (GPT-4 to T5-small)

    Raises:
        TrainingError: none of its texts has a log-probability with an alternative that the student knows.
    """
    laid = []
    for index, item in enumerate(items):
        for view in every_view(objective, item):
            laid.append((index, item.rationales[view.group - 1].sample if view.group else -1, item.id, view))
    wanted = [(name, view.source, student.tokens("target", view.target, view.tail)) for _, _, name, view in laid]

    def texts() -> Iterator[Recorded]:
        path = road.cache or out / "answers.sqlite"
        with open_cache([road.teacher], path) as cache:
            examples = [item.example for item in items]
            ledger = Ledger(road.budget)
            (asking,) = prepare(road.task, [road.teacher], examples, road.prompting, road.sampling, 0, cache, ledger)
            for (name, source, labels), (index, sample, _, _) in zip(wanted, laid, strict=True):
                tokens: tuple[TokenLogprob, ...] = ()
                if sample >= 0:
                    said = asking.state(index, sample).said
                    tokens = said[-1].tokens if said else ()
                if tokens:
                    told = from_logprobs(tokens, labels, student.tokenizer, top=top)
                else:
                    told = hard(labels, student.tokenizer, top=top)
                yield Recorded(name, source, told)

    store = record(
        out / "logits",
        texts(),
        tokenizer_hash=vocabulary_hash(student.tokenizer),
        top=top,
        teacher=str(road.teacher.identity()),
        wanted=wanted,
        reading={"prompting": settings_of(road.prompting), "sampling": settings_of(road.sampling)},
    )
    _tell(store, [text for text, (_, sample, _, _) in zip(wanted, laid, strict=True) if sample >= 0])
    return store


def _tell(store: LogitStore, own: Sequence[tuple[str, str, Sequence[int]]]) -> None:
    """Refuse an endpoint that gave no alternative to any token of its texts; say so where it gave few."""
    counts = [int((store.look_up([text]).logprobs[:, 1:] > SURE + 1).any(1).sum()) for text in own]
    tokens, unsure, texts = sum(len(text[2]) for text in own), sum(counts), sum(count > 0 for count in counts)
    if own and not unsure:
        raise TrainingError(
            f"none of the {tokens:,} tokens of the teacher's {len(own):,} texts has a log-probability with an "
            "alternative that the student knows: the endpoint gave none, or its tokens do not fit the student's. Use "
            "learns 'pseudo_target', or an endpoint that answers `logprobs`"
        )
    if unsure < FEW * tokens:
        note(
            f"only {unsure:,} of {tokens:,} tokens ({texts:,} of {len(own):,} texts) of the teacher's have an "
            "alternative; the others teach as plain text"
        )
