"""Annotation -> Annotation with passages; annotations -> the candidates that a reranker learns from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from lmdistill import config, render
from lmdistill.codec import digest
from lmdistill.errors import StoreError
from lmdistill.progress import progress
from lmdistill.rerankers import Reranker
from lmdistill.retrievers import Retriever
from lmdistill.store import Rows, digest_file, stage, write_rows
from lmdistill.train import CARD
from lmdistill.types import Annotation, Candidates, Example, Hit, Rationale

T = TypeVar("T")
By = Literal["rationale", "question", "both"]
QUESTION = "{{ question if question is defined else input }}"
"""The query for an example: the question without its choices where the task keeps it apart, else the whole input."""
RATIONALE = "{{ rationale }}"
"""The query for a rationale; KARD's code appends its answer: '{{ rationale }}\\nAnswer: {{ answer }}'."""
AT_ONCE = 256


@dataclass(frozen=True)
class Queries:
    """Templates of the two queries; `question` may name the example's fields, `rationale` also its own answer."""

    question: str = QUESTION
    rationale: str = RATIONALE

    def of_question(self, example: Example) -> str:
        return render.render(self.question, render.values_of(example))

    def of_rationale(self, example: Example, rationale: Rationale) -> str:
        own = render.values_of(example, rationale=rationale.text, answer=rationale.answer or "")
        return render.render(self.rationale, own)


def ground(
    items: Sequence[Annotation],
    retriever: Retriever,
    *,
    k: int = 1,
    by: By = "rationale",
    queries: Queries = Queries(),
    reranker: Reranker | None = None,
    candidates: int = 100,
    folder: Path | None = None,
    described: Mapping[str, Any] | None = None,
) -> Sequence[Annotation]:
    """Attach passages.

    Args:
        by: 'rationale': each rationale gets the `k` passages that it finds (KARD's silver passages, where the gold
            answer is known), and an item without a rationale those that its question finds. 'question': the example
            gets those that it finds itself (what inference must do). 'both': one as the other.
        reranker: orders the best `candidates` of a question anew and keeps `k`.
        folder: where the rows are written; read from there next time. Its manifest counts items that had no rationale,
            and rationales and questions that found nothing. described: retriever and reranker settings, for it.

    Raises:
        StoreError: the folder belongs to another run.
    """
    tally: Counter[str] = Counter()

    def by_question(batch: Sequence[Annotation]) -> list[Annotation]:
        texts = [queries.of_question(item.example) for item in batch]
        found = retriever.search_all(texts, k if reranker is None else max(candidates, k))
        if reranker is not None:
            found = reranker.rerank_all(texts, found, k)
        tally["questions that find nothing"] += sum(not own for own in found)
        return [replace(item, hits=tuple(own)) for item, own in zip(batch, found, strict=True)]

    def by_rationale(batch: Sequence[Annotation]) -> list[Annotation]:
        asked = [queries.of_rationale(item.example, one) for item in batch for one in item.rationales]
        found = retriever.search_all(asked, k)
        tally["rationales that find nothing"] += sum(not own for own in found)
        hits = iter(found)
        return [
            replace(item, rationales=tuple(replace(one, hits=tuple(next(hits))) for one in item.rationales))
            for item in batch
        ]

    def grounded(batch: Sequence[Annotation]) -> Iterator[Annotation]:
        if by == "rationale":
            bare = [item for item in batch if not item.rationales]
            tally["items without a rationale, grounded by their question"] += len(bare)
            asked = iter(by_question(bare))
            batch = [item if item.rationales else next(asked) for item in batch]
        else:
            batch = by_question(batch)
        yield from batch if by == "question" else by_rationale(batch)

    settings = {"k": k, "by": by, "queries": config.settings_of(queries), "candidates": candidates if reranker else 0}
    return _staged(items, grounded, Annotation, folder, "ground", settings, retriever, described, tally)


def candidates(
    items: Sequence[Annotation],
    retriever: Retriever,
    *,
    from_rationale: int = 32,
    from_question: int = 32,
    queries: Queries = Queries(),
    folder: Path | None = None,
    described: Mapping[str, Any] | None = None,
) -> Sequence[Candidates]:
    """What a reranker learns from: for each rationale the passages that it or the question finds, scored by it.

    D~ = topk(rationale) U topk(question), each passage once, in that order; every score is the retriever's for the
    rationale, also of passages that only the question found. Rationales that find nothing give no row, and are counted
    in the manifest.
    """
    tally: Counter[str] = Counter()

    def paired(batch: Sequence[Annotation]) -> Iterator[Candidates]:
        texts = [queries.of_question(item.example) for item in batch]
        asked = [[queries.of_rationale(item.example, one) for one in item.rationales] for item in batch]
        by_question = retriever.rank(texts, from_question)
        by_rationale = iter(retriever.rank([query for own in asked for query in own], from_rationale))
        for item, text, own, also in zip(batch, texts, asked, by_question, strict=True):
            for number, query in enumerate(own):
                first = next(by_rationale)
                if not first:
                    tally["rationales that find nothing"] += 1
                    continue
                rows = list(dict.fromkeys([row for row, _ in first] + [row for row, _ in also]))
                scores = retriever.score_rows(query, rows)
                passages = tuple(retriever.base.passage(row) for row in rows)
                yield Candidates(f"{item.id}#{number}", text, passages, tuple(scores))

    sizes = {"from_rationale": from_rationale, "from_question": from_question}
    settings = {**sizes, "queries": config.settings_of(queries)}
    return _staged(items, paired, Candidates, folder, "candidates", settings, retriever, described, tally)


def by_gold(items: Sequence[Annotation], retriever: Retriever, relevant: Callable[[Example], Sequence[str]]) -> Any:
    """Examples with the passages that are marked as relevant, as far as the base has them: an oracle."""
    out = []
    for item in items:
        rows = dict.fromkeys(row for name in relevant(item.example) for row in retriever.base.named(name))
        out.append(replace(item, hits=tuple(Hit(retriever.base.passage(row), 1.0) for row in rows)))
    return out


def open_reranker(folder: Path) -> Any:
    """A reranker that `train` left in a folder.

    Raises:
        StoreError: the folder lacks a file (the message names it).
    """
    card = folder / CARD
    try:
        settings = dict(json.loads(card.read_text(encoding="utf-8"))["reranker"])
    except FileNotFoundError as error:
        raise StoreError(f"{folder} has no {CARD}: it is not a reranker that lmdistill trained") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{card} is damaged ({error!r}), or of a student; train again, or copy it again") from error
    return config.rebuild("rerankers", settings | {"model": str(folder), "lora_rank": 0}).open()


# --- stages ----------------------------------------------------------------------------------------------------------


def _staged(
    items: Sequence[Annotation],
    work: Callable[[Sequence[Annotation]], Iterator[T]],
    kind: type[T],
    folder: Path | None,
    name: str,
    settings: Mapping[str, Any],
    retriever: Retriever,
    described: Mapping[str, Any] | None,
    tally: Mapping[str, int],
) -> Sequence[T]:
    if folder is None:
        return list(_all(items, work, name))
    inputs = {
        "items": digest_file(items.path) if isinstance(items, Rows) else digest(list(items)),
        "base": retriever.base.digest,
    }
    with stage(folder, name, settings={**settings, **(described or {})}, inputs=inputs) as opened:
        if not opened.done:
            opened.count("rows", write_rows(opened.path(), _all(items, work, name)))
            for reason, count in tally.items():
                if count:
                    opened.count(reason, count)
        return opened.rows(kind)


def _all(items: Iterable[Annotation], work: Callable[[Sequence[Annotation]], Iterator[T]], name: str) -> Iterator[T]:
    total = len(items) if isinstance(items, Sequence) else None
    source = iter(items)
    with progress(name, total, "items") as bar:
        while batch := list(islice(source, AT_ONCE)):
            yield from work(batch)
            bar.advance(len(batch))
