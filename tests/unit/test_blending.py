"""What the retriever and the reranker say together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lmdistill import config
from lmdistill.blending import Blended, blended, standardised
from lmdistill.errors import ConfigError, TrainingError
from lmdistill.recipes._grounding import Grounding
from lmdistill.types import Hit, Passage


def hits(*scores: tuple[str, float]) -> list[Hit]:
    return [Hit(Passage(name, f"text of {name}"), score) for name, score in scores]


class Fixed:
    """A reranker that knows a score for each passage."""

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def rerank_all(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        new = [[Hit(hit.passage, self.scores[hit.passage.id]) for hit in own] for own in hits]
        return [sorted(own, key=lambda hit: -hit.score)[:k] for own in new]


FOUND = hits(("a", 3.0), ("b", 2.0), ("c", 1.0))


def names(found: Sequence[Hit]) -> str:
    return "".join(hit.passage.id for hit in found)


def test_scores_are_standardised_by_hand() -> None:
    assert standardised(FOUND) == pytest.approx([1.5**0.5, 0, -(1.5**0.5)])
    assert standardised(hits(("a", 2.0), ("b", 2.0))) == [0, 0] and standardised([]) == []


def test_rounding_is_no_opinion_and_a_diverged_reranker_is_named() -> None:
    assert standardised(hits(("a", 100.0), ("b", 100.0001))) == [0, 0]
    level = Fixed(a=7.0, b=7.00001, c=7.00002)
    assert names(Blended(level, 0.25).rerank("q", FOUND, 3)) == "abc", "the retriever alone is heard"
    with pytest.raises(TrainingError, match=r"diverged.*learning_rate"):
        Blended(Fixed(a=float("nan"), b=1.0, c=2.0), 0.25).rerank("q", FOUND, 3)


def test_the_weight_decides_who_is_heard() -> None:
    turned = Fixed(a=0.0, b=10.0, c=20.0)
    assert names(Blended(turned, 0.25).rerank("q", FOUND, 3)) == "cba"
    assert names(Blended(turned, 0.75).rerank("q", FOUND, 3)) == "abc"
    told = Blended(turned, 0.5).rerank("q", FOUND, 3)
    assert names(told) == "abc" and [hit.score for hit in told] == pytest.approx([0, 0, 0]), "equal: the given order"


def test_a_passage_that_the_reranker_alone_would_drop_can_come_back() -> None:
    far = Fixed(a=1.0, b=1.01, c=1.02)
    assert names(far.rerank_all(["q"], [FOUND], 1)[0]) == "c"
    strong = hits(("a", 30.0), ("b", 1.0), ("c", 0.0))
    assert names(Blended(far, 0.75).rerank("q", strong, 1)) == "a"


def test_questions_that_found_nothing_stay_empty() -> None:
    assert Blended(Fixed(a=1.0), 0.25).rerank_all(["q", "r"], [[], FOUND[:1]], 5)[0] == []
    assert Blended(Fixed(), 0.25).rerank_all([], [], 5) == []


def test_without_a_weight_the_reranker_is_itself() -> None:
    one = Fixed()
    assert blended(one, 0.0) is one and blended(None, 0.25) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"retriever_weight": 1.0, "reranker": {"name": "late_interaction", "preset": "mini"}},
            r"1\.0 is not in \[0, 1\)",
        ),
        ({"retriever_weight": 0.25}, "no reranker"),
    ],
)
def test_weights_that_cannot_be(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config.build(Grounding, settings)
