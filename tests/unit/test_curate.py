from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmdistill import store
from lmdistill.curate import Funnel, curate, short_of
from lmdistill.curation.agree import Agree
from lmdistill.curation.correct import Correct
from lmdistill.curation.length import Length
from lmdistill.curation.likely import Likely
from lmdistill.curation.open_ended import OpenEnded
from lmdistill.curation.random_k import RandomK
from lmdistill.errors import ConfigError, DataError, StoreError
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example, Rationale


@dataclass(frozen=True)
class Plain(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return []


TASK = Plain()
UNPARSABLE = Rationale("?", None, sample=9, reason="no answer cue")


def corpus() -> list[Annotation]:
    """Gold labels are 'a'. Input 0 has three right of four, 1 one of two, 2 none."""

    def made(*pairs: tuple[str, str]) -> tuple[Rationale, ...]:
        return tuple(Rationale(text, answer, sample=i) for i, (text, answer) in enumerate(pairs))

    return [
        Annotation(Example("0", "q", "a"), made(("x y", "a"), ("x", "a"), ("z", "b"), ("u v w", "a")), (UNPARSABLE,)),
        Annotation(Example("1", "q", "a"), made(("x", "b"), ("y y", "a"))),
        Annotation(Example("2", "q", "a"), made(("x", "b")), (UNPARSABLE,)),
    ]


def samples(rows: Sequence[Annotation]) -> dict[str, list[int]]:
    return {row.id: [one.sample for one in row.rationales] for row in rows}


def test_steps_run_in_order_and_the_funnel_adds_up(tmp_path: Path) -> None:
    rows = curate(corpus(), TASK, Correct(), Length(low=2), folder=tmp_path / "c", minimum=2)
    assert samples(rows) == {"0": [0, 3], "1": [1], "2": []}
    manifest = store.read_manifest(tmp_path / "c")
    assert manifest is not None
    assert manifest.counts == {
        "inputs": 3,
        "rationales": 7,
        "set aside before: no answer cue": 2,
        "1 correct: wrong answer": 3,
        "2 length: too short": 1,
        "rationales left": 3,
        "inputs without a rationale": 1,
        "inputs with fewer than 2 rationales": 2,
    }
    assert manifest.facts["funnel"] == [
        {"step": "correct", "reached": 7, "dropped": {"wrong answer": 3}, "left": 4},
        {"step": "length", "reached": 4, "dropped": {"too short": 1}, "left": 3},
    ]
    assert [one.reason for one in rows[0].rejected] == ["no answer cue", "wrong answer", "too short"]
    assert [one.id for one in short_of(rows, 2)] == ["1", "2"]


def test_any_order_is_allowed_and_matters() -> None:
    assert samples(curate(corpus(), TASK, Agree(), Correct())) == {"0": [0, 1, 3], "1": [], "2": []}
    assert samples(curate(corpus(), TASK, Correct(), Agree())) == {"0": [0, 1, 3], "1": [1], "2": []}


def test_no_step_keeps_everything_and_a_step_may_come_twice() -> None:
    assert list(curate(corpus(), TASK)) == corpus()
    funnel = Funnel()
    curate(corpus(), TASK, RandomK(2), RandomK(1), funnel=funnel)
    assert [(row["step"], row["left"]) for row in funnel.table()] == [("random_k", 5), ("random_k", 3)]


def test_empty_inputs_are_kept_or_dropped_by_setting() -> None:
    funnel = Funnel()
    assert samples(curate(corpus(), TASK, Correct(), keep_empty=False, funnel=funnel)) == {"0": [0, 1, 3], "1": [1]}
    assert (funnel.inputs, funnel.empty, funnel.left) == (3, 1, 4)


def test_draws_depend_on_seed_and_id_and_not_on_order_or_company() -> None:
    many = [
        Annotation(Example(str(i), "q"), tuple(Rationale(str(j), "a", sample=j) for j in range(9))) for i in range(40)
    ]
    drawn = samples(curate(many, TASK, RandomK(3)))
    assert samples(curate(list(reversed(many)), TASK, RandomK(3))) == drawn
    assert samples(curate(many[7:9], TASK, RandomK(3))) == {id: drawn[id] for id in ("7", "8")}
    other = samples(curate(many, TASK, RandomK(3), seed=1))
    assert sum(other[id] != drawn[id] for id in drawn) > 30
    assert len({tuple(one) for one in drawn.values()}) > 20


def test_a_step_surveys_what_the_steps_before_it_left() -> None:
    scored = Annotation(Example("0", "q", "a"), (Rationale("x", "b", logprob=-1.0), Rationale("y", "a")))
    assert samples(curate([scored], TASK, Likely(1))) == {"0": [0]}
    with pytest.raises(DataError, match="none of 1 rationales"):
        curate([scored], TASK, Correct(), Likely(1))


def test_the_whole_corpus_may_be_surveyed_from_a_file(tmp_path: Path) -> None:
    rows = [
        Annotation(Example(str(i), "q"), tuple(Rationale(f"w{j % (i + 1)} v", "a", sample=j) for j in range(10)))
        for i in range(10)
    ]
    store.write_rows(tmp_path / "rows.jsonl", rows)
    lazy = store.Rows(tmp_path / "rows.jsonl", Annotation)
    kept = curate(lazy, TASK, OpenEnded(), folder=tmp_path / "c")
    # openness of input i is (i + 1) / 10, so each quintile has two inputs
    assert [len(row.rationales) for row in kept] == [1, 1, 3, 3, 5, 5, 7, 7, 9, 9]


def test_a_finished_stage_is_read_and_a_changed_one_refused(tmp_path: Path) -> None:
    first = curate(corpus(), TASK, Correct(), folder=tmp_path / "c")
    before = (tmp_path / "c" / "rows.jsonl").stat().st_mtime_ns
    store.write_rows(tmp_path / "in.jsonl", corpus())
    from_file = store.Rows(tmp_path / "in.jsonl", Annotation)  # the same rows: the same work
    again = curate(from_file, TASK, Correct(), folder=tmp_path / "c")
    assert list(again) == list(first)
    assert (tmp_path / "c" / "rows.jsonl").stat().st_mtime_ns == before
    with pytest.raises(StoreError, match="belongs to another run: steps was"):
        curate(corpus(), TASK, Agree(), folder=tmp_path / "c")
    with pytest.raises(StoreError, match="input annotations was"):
        curate(corpus()[:2], TASK, Correct(), folder=tmp_path / "c")


def test_memory_stays_flat_rows_come_from_the_file(tmp_path: Path) -> None:
    kept = curate(corpus(), TASK, Correct(), folder=tmp_path / "c")
    assert isinstance(kept, store.Rows)
    lines = (tmp_path / "c" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["example"]["id"] for line in lines] == ["0", "1", "2"]


def test_a_senseless_minimum_is_refused() -> None:
    with pytest.raises(ConfigError, match="minimum"):
        curate([], TASK, minimum=0)
