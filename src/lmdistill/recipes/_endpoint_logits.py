"""A black-box teacher's few log-probabilities per token, put over the student's tokens and recorded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmdistill.alignment import from_logprobs, hard
from lmdistill.annotate import open_cache, prepare
from lmdistill.distributions import vocabulary_hash
from lmdistill.logit_store import LogitStore, Recorded, record
from lmdistill.objectives import Objective
from lmdistill.pricing import Ledger
from lmdistill.types import Annotation, TokenLogprob


def endpoint_logits(
    road: Any, objective: Objective, student: Any, items: Sequence[Annotation], out: Path, top: int
) -> LogitStore:
    """What the endpoint said of its own texts, from the cache of its answers; labels are hard targets.

    Paper:    KD4Gen, arXiv 2305.02031, the extreme setup (GPT-4 to T5-small)
    """
    laid: dict[tuple[str, str, str], tuple[int, int]] = {}
    for index, item in enumerate(items):
        for epoch in range(max(1, len(item.rationales))):
            for view in objective.views(item, epoch, random.Random(0)):
                sample = item.rationales[view.group - 1].sample if view.group else -1
                laid[item.id, view.source, view.target] = (index, sample)
    wanted = [(name, source, student.tokens("target", target)) for name, source, target in laid]

    def texts() -> Iterator[Recorded]:
        path = road.cache or out / "answers.sqlite"
        with open_cache([road.teacher], path) as cache:
            examples = [item.example for item in items]
            ledger = Ledger(road.budget)
            (asking,) = prepare(road.task, [road.teacher], examples, road.prompting, road.sampling, 0, cache, ledger)
            for (name, source, labels), (index, sample) in zip(wanted, laid.values(), strict=True):
                tokens: tuple[TokenLogprob, ...] = ()
                if sample >= 0:
                    said = asking.state(index, sample).said
                    tokens = said[-1].tokens if said else ()
                if tokens:
                    told = from_logprobs(tokens, labels, student.tokenizer, top=top)
                else:
                    told = hard(labels, student.tokenizer, top=top)
                yield Recorded(name, source, told)

    return record(
        out / "logits",
        texts(),
        tokenizer_hash=vocabulary_hash(student.tokenizer),
        top=top,
        teacher=str(road.teacher.identity()),
        wanted=wanted,
    )
