"""Every metric of the folder keeps the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill import registry
from lmdistill.config import rebuild, settings_of
from lmdistill.errors import LmdistillError
from lmdistill.metrics import Metric
from lmdistill.tasks import Task
from lmdistill.types import Example, Hit, Passage, Prediction

NAMES = registry.names("metrics")


@dataclass(frozen=True)
class Plain(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return ()

    def relevant(self, example: Example) -> tuple[str, ...]:
        return tuple(example.fields.get("gold", ()))


def ready(name: str) -> Metric:
    """The metric, or a skip where its package or its model is not at hand."""
    try:
        metric = registry.load("metrics", name)()
    except (LmdistillError, TypeError) as error:
        pytest.skip(f"metric {name!r} needs settings or a package of its own: {error}")
    assert isinstance(metric, Metric)
    if any(field.name == "model" for field in fields(metric)):  # type: ignore[arg-type]
        pytest.skip(f"metric {name!r} needs a model")
    return metric


PREDICTIONS = [
    Prediction(
        Example("1", "?", "yes", (), {"gold": ["p"]}), "yes", confidence=0.9, hits=(Hit(Passage("p", "."), 1.0),)
    ),
    Prediction(Example("2", "?", "12", (), {"gold": ["q"]}), "no", confidence=0.4, hits=(Hit(Passage("p", "."), 1.0),)),
    Prediction(Example("3", "?", "a red bus"), "the red car", confidence=0.7),
    Prediction(Example("4", "?", "yes"), None, reason="no answer cue"),
    Prediction(Example("5", "?", "yes"), "", confidence=0.1),
]


@pytest.mark.parametrize("name", NAMES)
def test_settings_go_to_a_run_file_and_back(name: str) -> None:
    metric = ready(name)
    assert rebuild("metrics", settings_of(metric)) == metric


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_estimates_are_in_order(name: str) -> None:
    metric = ready(name)
    scores = [metric.score(prediction, Plain()) for prediction in PREDICTIONS]
    assert [score.id for score in scores] == ["1", "2", "3", "4", "5"]
    found = metric.aggregate(scores)
    assert found
    for estimate in found.values():
        assert estimate.low <= estimate.value + 1e-9 and estimate.value <= estimate.high + 1e-9
        assert 1 <= estimate.n <= 5
    assert metric.aggregate(scores) == found


@pytest.mark.parametrize("name", NAMES)
def test_no_scores_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ready(name).aggregate([])


@pytest.mark.parametrize("name", NAMES)
@given(answer=st.one_of(st.none(), st.text(max_size=30)), label=st.one_of(st.none(), st.text(max_size=30)))
@settings(max_examples=40)
def test_any_answer_is_scored(name: str, answer: str | None, label: str | None) -> None:
    metric = ready(name)
    score = metric.score(Prediction(Example("e", "?", label), answer, confidence=0.5), Plain())
    assert score.id == "e"
    assert all(isinstance(value, float) for value in score.values.values())
