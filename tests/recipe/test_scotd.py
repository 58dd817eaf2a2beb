"""SCoTD end to end on generated questions, and what becomes of inputs that are left with few rationales or none."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, registry
from lmdistill.annotate import annotate
from lmdistill.curation.correct import Correct
from lmdistill.curation.length import Length
from lmdistill.curation.random_k import RandomK
from lmdistill.errors import BudgetReached, ConfigError
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.predict import Decoding, open_student, predict
from lmdistill.recipes.scotd import Scotd
from lmdistill.store import Rows, read_manifest
from lmdistill.students.causal import Causal
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.tasks.sums import Sums
from lmdistill.teachers.scripted import Scripted
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Prediction, Rationale, Sampling

SHARED: dict[str, Any] = {
    "task": {"name": "sums", "train": 24, "valid": 6, "test": 10, "largest": 9, "largest_step": 4},
    "teacher": {"name": "scripted", "error_rate": 0.3},
    "student": {"name": "causal", "dropout": 0.0},
    "sampling": {"n": 4, "temperature": 1.0, "max_tokens": 100},
    "train": {"steps": 6, "batch_size": 8, "eval_every": 3, "learning_rate": 3e-3, "device": "cpu", "log_every": 1},
    "decoding": {"max_tokens": 30},
}


def recipe(**changes: Any) -> Scotd:
    return config.build(Scotd, {**SHARED, **changes})


def test_supervised_keeps_right_rationales_and_reports_the_rest(tmp_path: Path) -> None:
    report = recipe(least=4, sampling=SHARED["sampling"] | {"n": 6}).run(tmp_path)
    kept = list(Rows(tmp_path / "curated" / "rows.jsonl", Annotation))
    task = Sums()
    assert all(task.is_correct(one.example, each.answer) for one in kept for each in one.rationales)
    assert any(one.rejected for one in kept)
    told = report.facts["rationales"]
    numbers = [len(one.rationales) for one in kept]
    assert told == {
        "asked_per_input": 6,
        "inputs_given_fewer": 0,
        "kept": sum(numbers),
        "inputs_without": numbers.count(0),
        "inputs_below_least": sum(n < 4 for n in numbers),
    }
    assert report.facts["shortened"] == {
        "0": {"train_sources_shortened": 0, "train_targets_shortened": 0, "test_sources_shortened": 0}
    }
    losses = [json.loads(line)["loss"] for line in (tmp_path / "seed-0/train/log.jsonl").open() if '"loss"' in line]
    assert losses[-1] < losses[0]


def test_what_was_over_the_limits_stands_in_the_report(tmp_path: Path) -> None:
    small = {"name": "causal", "dropout": 0.0, "max_source": 8, "max_target": 12}
    report = recipe(student=small, train=SHARED["train"] | {"steps": 2, "eval_every": 2}).run(tmp_path)
    told = report.facts["shortened"]["0"]
    assert told["test_sources_shortened"] == 10 and told["train_targets_shortened"] >= 20
    assert json.loads((tmp_path / "report.json").read_text())["facts"]["shortened"]["0"] == told


def test_few_shot_keeps_all_and_votes(tmp_path: Path) -> None:
    assert recipe(setting="few_shot").decoding.samples == 30, "as in the paper"
    assert recipe(setting="few_shot", decoding={"constrained": True}).decoding.samples == 30, "scored choices vote too"
    report = recipe(setting="few_shot", decoding={"max_tokens": 30, "samples": 3}).run(tmp_path)
    (item, *_) = Rows(tmp_path / "curated" / "rows.jsonl", Annotation)
    assert len(item.rationales) == 4 and not item.rejected
    predictions = list(Rows(tmp_path / "seed-0" / "test" / "rows.jsonl", Prediction))
    assert all(sum(one.votes.values()) <= 3 for one in predictions)
    assert report.facts["rationales"]["kept"] == 24 * 4


def test_steps_of_the_setting_and_of_the_user() -> None:
    names = lambda one: [registry.name_of(step) for step in one.steps()]  # noqa: E731
    assert names(recipe()) == ["correct"]
    assert names(recipe(curation=[{"name": "length"}])) == ["correct", "length"]
    assert names(recipe(curation=["length", "correct"])) == ["length", "correct"], "the user's order counts"
    assert names(recipe(setting="few_shot", curation=["dedup"])) == ["dedup"]
    assert isinstance(recipe().steps()[0], Correct)


def test_inputs_with_too_few_rationales_are_asked_again(tmp_path: Path) -> None:
    one = recipe(least=4, again=2)
    items = one.items(tmp_path)
    first = list(Rows(tmp_path / "curated" / "rows.jsonl", Annotation))
    short = {item.id for item in first if len(item.rationales) < 4}
    assert short
    again = read_manifest(tmp_path / "annotations-again-1")
    assert again is not None and again.settings["sampling"]["n"] == 8
    asked = list(Rows(tmp_path / "annotations-again-1" / "rows.jsonl", Annotation))
    assert {item.id for item in asked} == short, "only those that are short"
    before = {item.id: item for item in first}
    assert all(len(item.rationales) >= len(before[item.id].rationales) for item in items)
    assert sum(len(item.rationales) < 4 for item in items) < len(short)
    assert [item.id for item in items] == [item.id for item in first]


def test_what_a_round_brought_stays_in_the_next_one(tmp_path: Path) -> None:
    """Inputs that had enough after the first round are not short again after the second one."""
    items = {item.id: item for item in recipe(least=4, again=2).items(tmp_path)}
    first, second = (
        {item.id: item for item in Rows(tmp_path / f"annotations-again-{round}" / "rows.jsonl", Annotation)}
        for round in (1, 2)
    )
    assert second.keys() < first.keys(), "some had enough after the first round, some had not"
    for item in (first | second).values():
        right = sum(Sums().is_correct(item.example, each.answer) for each in item.rationales)
        assert len(items[item.id].rationales) == right


def test_a_cap_holds_for_all_rounds_and_does_not_end_the_run(tmp_path: Path) -> None:
    recipe(least=4, again=2).items(tmp_path / "free")
    free = [read_manifest(tmp_path / "free" / name) for name in ("annotations", "annotations-again-1")]
    needed = [manifest.facts["requests"] for manifest in free if manifest is not None]
    assert needed[1] > 5
    one = recipe(least=4, again=2, budget={"max_requests": needed[0] + 5})
    report = one.run(tmp_path / "capped")
    assert report.facts["rationales"]["asking_again"] == "stopped by the budget"
    asked = report.facts["annotation"]
    assert (asked["requests"], asked["rounds"], asked["complete"]) == (needed[0] + 5, 2, False)
    first, second = (read_manifest(tmp_path / "capped" / name) for name in ("annotations", "annotations-again-1"))
    assert first is not None and second is not None
    assert [one.facts["requests"] for one in (first, second)] == [needed[0], 5]
    items = one.items(tmp_path / "capped")
    assert sum(len(each.rationales) for each in items) > sum(
        len(each.rationales) for each in Rows(tmp_path / "capped" / "curated" / "rows.jsonl", Annotation)
    ), "what was paid for is used"
    assert one.run(tmp_path / "capped").metrics == report.metrics, "the same call finds everything done"
    with pytest.raises(BudgetReached):
        recipe(budget={"max_requests": 50}).run(tmp_path / "poor")


def test_what_all_rounds_cost_is_summed(tmp_path: Path) -> None:
    report = recipe(least=4, again=2).run(tmp_path)
    rounds = [read_manifest(tmp_path / name) for name in ("annotations", "annotations-again-1", "annotations-again-2")]
    facts = [one.facts for one in rounds if one is not None]
    assert len(facts) == 3
    for name in ("requests", "prompt_tokens", "completion_tokens"):
        assert report.facts["annotation"][name] == sum(one[name] for one in facts)


def test_a_teacher_that_gave_fewer_is_reported_not_padded(tmp_path: Path) -> None:
    task = Sums(train=24, valid=6, test=10, largest=9, largest_step=4)
    path = tmp_path / "answers.jsonl"
    with path.open("w") as stream:
        for index, example in enumerate(task.examples("train")):
            texts = [f"it is so . so the answer is {example.label}"] * (1 + index % 2)
            stream.write(json.dumps({"id": example.id, "texts": texts}) + "\n")
    teacher = {"name": "replay", "path": str(path), "text": "texts"}
    report = recipe(teacher=teacher).run(tmp_path / "run")
    told = report.facts["rationales"]
    assert told["asked_per_input"] == 4 and told["inputs_given_fewer"] == 24
    assert told["kept"] == 12 + 24


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="again"):
        recipe(again=-1)
    with pytest.raises(ConfigError, match="at_once"):
        RationaleThenLabel(at_once=0)
    with pytest.raises(ConfigError, match="at_once: 2 of 'all' rationales"):
        recipe(at_once=2, rationales="all")
    with pytest.raises(ConfigError, match=r"decoding\.max_tokens: at least 1"):
        recipe(decoding={"max_tokens": 0})
    with pytest.raises(ConfigError, match=r"student\.max_target: at least 1"):
        recipe(student={"name": "causal", "max_target": 0})


# --- the objective ---------------------------------------------------------------------------------------------------

ITEM = Annotation(Example("e", "3 plus 4", "7"), tuple(Rationale(f"way {i} gives 7", "7", sample=i) for i in range(5)))


def test_inputs_weigh_the_same_or_pairs_do() -> None:
    one, two, every = (
        RationaleThenLabel(at_once=1),
        RationaleThenLabel(at_once=2),
        RationaleThenLabel(rationales="all"),
    )
    assert [view.weight for view in one.views(ITEM, 0, random.Random(1))] == [1.0]
    assert [view.weight for view in two.views(ITEM, 0, random.Random(1))] == [0.5, 0.5]
    assert [view.weight for view in every.views(ITEM, 0, random.Random(1))] == [1.0] * 5
    fewer = dataclasses.replace(ITEM, rationales=ITEM.rationales[:1])
    assert [view.weight for view in two.views(fewer, 0, random.Random(1))] == [1.0], "no copies where there is one"
    seen = {view.target for epoch in range(60) for view in one.views(ITEM, epoch, random.Random(epoch))}
    assert len(seen) == 5, "every rationale has its turn"
    pair = two.views(ITEM, 0, random.Random(1))
    assert len({view.target for view in pair}) == 2, "different ones"


def test_an_input_without_rationales_is_left_out_or_trained_on_its_label() -> None:
    bare = dataclasses.replace(ITEM, rationales=())
    assert RationaleThenLabel().views(bare, 0, random.Random(0)) == []
    (view,) = RationaleThenLabel(bare="label").views(bare, 0, random.Random(0))
    assert view.target == "So the answer is: 7"
    unlabelled = Annotation(Example("e", "3 plus 4"))
    assert RationaleThenLabel(bare="label").views(unlabelled, 0, random.Random(0)) == []


def test_an_answer_is_read_as_the_task_reads_it() -> None:
    objective, task = RationaleThenLabel(), Sums()
    asked = Annotation(Example("e", "how many ?", "12"))
    read = objective.read(task, asked, "6 and 6 . So the answer is: 12 apples .")
    assert (read.rationale, read.answer) == ("6 and 6 .", "12")
    assert objective.read(task, asked, "6 and 6").reason == "no answer after the rationale"
    assert objective.read(task, asked, "So the answer is: many").reason == "not an arithmetic expression"


@pytest.mark.parametrize("kind", [Causal, Seq2seq])
def test_eight_questions_are_learnt_by_heart_and_the_saved_student_answers_the_same(kind: Any, tmp_path: Path) -> None:
    task = Sums(train=8, largest=9, largest_step=4, distractors=0)
    sampling = Sampling(n=3, temperature=1.0, max_tokens=100)
    rows = annotate(task, Scripted(), task.examples("train"), folder=tmp_path / "asked", sampling=sampling)
    objective = RationaleThenLabel(task.answer_cue, at_once=3)
    texts = [view.source + " " + view.target for row in rows for view in objective.views(row, 0, random.Random(0))]
    student = kind(dropout=0.0).open(texts, seed=0)
    settings = TrainSettings(
        steps=120, batch_size=8, learning_rate=5e-3, warmup=0.1, log_every=119, device="cpu", save_every=1000
    )
    trained = train(student, objective, list(rows), settings=settings, folder=tmp_path / "train")
    asked = [Annotation(row.example) for row in rows]
    told = predict(student, objective, task, asked, decoding=Decoding(max_tokens=40))
    assert sum(task.is_correct(one.example, one.answer) for one in told) >= 7
    again = kind(model=str(trained.folder), dropout=0.0).open()
    assert [one.text for one in predict(again, objective, task, asked, decoding=Decoding(max_tokens=40))] == [
        one.text for one in told
    ]


def test_curation_steps_can_be_combined_in_any_order(tmp_path: Path) -> None:
    steps = (RandomK(3), Correct(), Length(high=60))
    one = dataclasses.replace(recipe(setting="few_shot"), curation=steps)
    one.items(tmp_path)
    manifest = read_manifest(tmp_path / "curated")
    assert manifest is not None
    funnel = manifest.facts["funnel"]
    assert [row["step"] for row in funnel] == ["random_k", "correct", "length"]
    assert funnel[0]["dropped"] == {"not drawn": 24} and funnel[1]["reached"] == 72


def test_a_student_is_asked_other_tasks_too(tmp_path: Path) -> None:
    harder = {"name": "sums", "test": 7, "steps": 3, "largest": 9, "largest_step": 4}
    one = recipe(also_test=["nli", harder, harder], train=SHARED["train"] | {"steps": 2, "eval_every": 2})
    one = dataclasses.replace(one, also_test=(dataclasses.replace(one.also_test[0], test=5), *one.also_test[1:]))
    report = one.run(tmp_path)
    numbers = {name: metric.n for name, metric in report.metrics.items()}
    assert numbers == {"accuracy": 10, "nli.accuracy": 5, "sums.accuracy": 7, "sums-2.accuracy": 7}
    told = list(Rows(tmp_path / "seed-0" / "also-sums" / "rows.jsonl", Prediction))
    assert {each.example.id.split("-")[0] for each in told} == {"sums"} and len(told) == 7


def test_a_student_with_adapters_is_trained_saved_and_opened_alone(tmp_path: Path) -> None:
    adapted = {"name": "causal", "dropout": 0.0, "lora": {"rank": 2}}
    recipe(student=adapted, train=SHARED["train"] | {"steps": 3, "eval_every": 3}).run(tmp_path)
    told = list(Rows(tmp_path / "seed-0" / "test" / "rows.jsonl", Prediction))
    opened = open_student(tmp_path / "seed-0" / "train" / "student")
    asked = [Annotation(one.example) for one in told]
    again = predict(opened.student, opened.objective, Sums(), asked, decoding=Decoding(max_tokens=30))
    assert [one.text for one in again] == [one.text for one in told]
