"""What every curation step must hold to; a new file in `curation/` is tested by existing."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmdistill import config, registry
from lmdistill.curation import Curation
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example, Rationale

NAMES = registry.names("curation")


@dataclass(frozen=True)
class Plain(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return []


TASK = Plain()

choices = st.sampled_from([(), ("red", "blue"), ("yes", "no"), ("it is red", "red", "")])
answers = st.none() | st.sampled_from(["red", "blue", "Red.", "yes", "12", "3 + 4", ""])
wording = st.text(max_size=40) | st.sampled_from(
    ["It is red.", "So the answer is (a).", "3 + 4 = 7", "no\n\nSo the answer is", "red red red red red", "空は青い。"]
)


@st.composite
def annotations(draw: st.DrawFn) -> Annotation:
    example = Example(
        draw(st.sampled_from(["a", "b", "c"])),
        draw(wording),
        draw(answers),
        draw(choices),
    )
    made = [
        Rationale(draw(wording), draw(answers), "teacher", sample, draw(st.none() | st.floats(-9, 0)))
        for sample in range(draw(st.integers(0, 7)))
    ]
    cut = draw(st.integers(0, len(made)))
    aside = tuple(dataclasses.replace(one, reason="no answer cue") for one in made[cut:])
    return Annotation(example, tuple(made[:cut]), aside)


def surveyed(name: str, corpus: Sequence[Annotation]) -> Curation:
    step: Curation = registry.load("curation", name)()
    if not any(one.logprob is not None for row in corpus for one in row.rationales):
        scored = Rationale("scored", "red", logprob=-1.0)
        corpus = [*corpus, Annotation(Example("scored", "q"), (scored,))]
    return step.survey(iter(corpus), TASK)


def untold(rationale: Rationale) -> Rationale:
    return dataclasses.replace(rationale, reason=None, scores={})


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(corpus=st.lists(annotations(), min_size=1, max_size=4, unique_by=lambda row: row.id), seed=st.integers(0, 3))
def test_a_step_loses_nothing_invents_nothing_and_gives_reasons(name: str, corpus: list[Annotation], seed: int) -> None:
    step = surveyed(name, corpus)
    for before in corpus:
        kept_as_it_was = copy.deepcopy(before)
        after = step.apply(before, TASK, random.Random(seed))
        assert before == kept_as_it_was
        assert after.example == before.example
        assert after.hits == before.hits
        assert after.negatives == before.negatives
        # what was aside stays, first and in order; what is dropped is added with a reason
        assert after.rejected[: len(before.rejected)] == before.rejected
        dropped = after.rejected[len(before.rejected) :]
        assert all(one.reason for one in dropped)
        assert all(one.reason is None for one in after.rationales)
        # in use and dropped together are what was in use, and those in use keep their order
        together = sorted([*after.rationales, *dropped], key=lambda one: one.sample)
        assert [untold(one) for one in together] == [untold(one) for one in before.rationales]
        assert [one.sample for one in after.rationales] == sorted(one.sample for one in after.rationales)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(corpus=st.lists(annotations(), min_size=1, max_size=3, unique_by=lambda row: row.id))
def test_a_step_is_deterministic_and_works_on_its_own_result(name: str, corpus: list[Annotation]) -> None:
    step, again = surveyed(name, corpus), surveyed(name, corpus)
    assert step == again
    for before in corpus:
        after = step.apply(before, TASK, random.Random(7))
        assert again.apply(before, TASK, random.Random(7)) == after
        twice = surveyed(name, [after]).apply(after, TASK, random.Random(7))
        assert {one.sample for one in twice.rationales} <= {one.sample for one in after.rationales}


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_a_documented_frozen_dataclass_that_a_run_file_can_name(name: str) -> None:
    cls = registry.load("curation", name)
    assert issubclass(cls, Curation)
    step = cls()
    assert config.rebuild("curation", config.settings_of(step)) == step
    assert hash(step) == hash(cls())
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.anything = 1
    doc = cls.__doc__ or ""
    assert "Data:" in doc
    assert "Differs:" in doc
