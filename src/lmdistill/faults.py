"""Where a wrong answer comes from: nothing relevant was found, or it was found and misread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from lmdistill.tasks import Task
from lmdistill.types import Prediction

Fault = Literal["right", "retrieval", "reasoning", "unmarked"]


def fault_of(prediction: Prediction, task: Task) -> Fault:
    """'right'; or wrong for want of a relevant passage ('retrieval'), in spite of one ('reasoning'), or of unknown
    cause, because the data marks no passage for the example ('unmarked')."""
    if task.is_correct(prediction.example, prediction.answer):
        return "right"
    relevant = set(task.relevant(prediction.example))
    if not relevant:
        return "unmarked"
    read = {name for hit in prediction.hits for name in hit.passage.names}
    return "reasoning" if relevant & read else "retrieval"


def faults_of(predictions: Sequence[Prediction], task: Task) -> dict[str, int]:
    """How many predictions have each fault; the counts sum to their number."""
    counts = {"right": 0, "retrieval": 0, "reasoning": 0, "unmarked": 0}
    for prediction in predictions:
        counts[fault_of(prediction, task)] += 1
    return counts


class Pair(NamedTuple):
    """One example answered with passages and without."""

    id: str
    input: str
    label: str | None
    passages: tuple[str, ...]
    fault: Fault
    with_passages: str | None
    without: str | None
    gained: int  # 1: only right with passages, -1: only right without, 0: no difference


def side_by_side(with_passages: Sequence[Prediction], without: Sequence[Prediction], task: Task) -> list[Pair]:
    """The examples that both answered, in the order of the first; `passages` are the ids that were read."""
    other = {prediction.example.id: prediction for prediction in without}
    pairs = []
    for one in with_passages:
        example = one.example
        if example.id not in other:
            continue
        bare = other[example.id]
        gained = int(task.is_correct(example, one.answer)) - int(task.is_correct(example, bare.answer))
        ids = tuple(hit.passage.id for hit in one.hits)
        fault = fault_of(one, task)
        pairs.append(Pair(example.id, example.input, example.label, ids, fault, one.answer, bare.answer, gained))
    return pairs
