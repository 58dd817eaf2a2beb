"""The recipes of knowledge distillation for generation, end to end with a local teacher that `finetune` made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixed_endpoint import fixed_endpoint
from lmdistill import config, registry
from lmdistill.errors import ConfigError, TrainingError
from lmdistill.store import Rows, read_manifest
from lmdistill.types import Annotation, Report

SMALL: dict[str, Any] = {
    "task": {
        "name": "retell",
        "train": 24,
        "valid": 6,
        "test": 8,
        "unlabelled": 10,
        "events": 1,
        "verbs": 4,
        "things": 4,
    },
    "decoding": {"max_tokens": 12},
}
TRAIN: dict[str, Any] = {"steps": 4, "batch_size": 12, "eval_every": 4, "learning_rate": 3e-3, "device": "cpu"}
PSEUDO: dict[str, Any] = {"number": 2, "max_tokens": 10}


def run(recipe: str, out: Path, **changes: Any) -> Report:
    report: Report = config.build(registry.load("recipes", recipe), {**SMALL, "train": TRAIN, **changes}).run(out)
    return report


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A larger student of the same task, fine-tuned."""
    out = tmp_path_factory.mktemp("teacher")
    run("finetune", out, student={"name": "seq2seq", "preset": "tiny"}, train=TRAIN | {"steps": 30})
    return {"name": "transformers", "model": str(out / "seed-0" / "train" / "student")}


def small(teacher: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"teacher": teacher, "student": {"name": "seq2seq", "preset": "nano"}, "pseudo": PSEUDO, **more}


def test_kd4gen_learns_from_labelled_and_unlabelled_inputs(teacher: dict[str, Any], tmp_path: Path) -> None:
    report = run("kd4gen", tmp_path, **small(teacher, tail_epochs=1))
    rows = list(Rows(tmp_path / "pseudo-targets" / "rows.jsonl", Annotation))
    assert len(rows) == 34 and sum(one.example.label is None for one in rows) == 10
    assert any(len(one.rationales) == 2 for one in rows)
    assert report.settings["recipe"] == "kd4gen" and next(iter(report.metrics.values())).n == 8
    tail = read_manifest(tmp_path / "seed-0" / "tail")
    assert tail is not None and tail.status == "complete"
    first, again = report, run("kd4gen", tmp_path, **small(teacher, tail_epochs=1))
    assert first.metrics == again.metrics


def test_what_a_fraction_leaves_out_are_unlabelled_inputs(teacher: dict[str, Any], tmp_path: Path) -> None:
    seen = {}
    for name, unlabelled, fraction in (
        ("rest", "rest", 0.25),
        ("task", True, 0.25),
        ("none", False, 0.25),
        ("all", "rest", 1),
    ):
        settings = small(teacher, fraction=fraction) | {"pseudo": PSEUDO | {"unlabelled": unlabelled}}
        recipe = config.build(registry.load("recipes", "kd4gen"), {**SMALL, "train": TRAIN, **settings})
        seen[name] = recipe.items(tmp_path / name)
    labels = {name: [one.example.label is not None for one in items] for name, items in seen.items()}
    assert labels["none"] == [True] * 6 and labels["task"] == [True] * 6 + [False] * 10
    assert labels["rest"] == [True] * 6 + [False] * 28 and labels["all"] == [True] * 24 + [False] * 10
    assert {one.example.id for one in seen["rest"]} == {one.example.id for one in seen["all"]}
    assert all(one.rationales for one in seen["rest"] if one.example.label is None)
    with pytest.raises(ConfigError, match=r"pseudo\.unlabelled"):
        config.build(
            registry.load("recipes", "kd4gen"), {**SMALL, **small(teacher), "pseudo": {"unlabelled": "others"}}
        )


def test_pseudo_targets_do_not_change_with_the_batch(teacher: dict[str, Any], tmp_path: Path) -> None:
    texts = []
    for size in (64, 5):
        settings = small(teacher) | {"pseudo": PSEUDO | {"batch_size": size}}
        recipe = config.build(registry.load("recipes", "kd4gen"), {**SMALL, "train": TRAIN, **settings})
        texts.append([[one.answer for one in item.rationales] for item in recipe.items(tmp_path / str(size))])
    assert texts[0] == texts[1]


def test_runs_that_ask_the_same_share_the_teacher_s_texts(teacher: dict[str, Any], tmp_path: Path) -> None:
    for name, learns in (("a", "logit_kd"), ("b", "pseudo_target")):
        settings = small(teacher, learns=learns, shared=tmp_path / "shared")
        recipe = config.build(registry.load("recipes", "kd4gen"), {**SMALL, "train": TRAIN, **settings})
        recipe.items(tmp_path / name)
    places = {(tmp_path / name / "pseudo-targets").resolve() for name in "ab"}
    assert len(places) == 1 and len(list((tmp_path / "shared").glob("pseudo-targets-*"))) == 1


def test_stored_distributions_stand_in_for_the_teacher(teacher: dict[str, Any], tmp_path: Path) -> None:
    run("kd4gen", tmp_path, **small(teacher, stored_top=8, tail_epochs=0))
    manifest = read_manifest(tmp_path / "logits")
    assert manifest is not None and manifest.counts["texts"] > 34 and 0 < manifest.facts["mean_tail_mass"] < 1
    assert manifest.facts["bytes_per_token"] == 54
    log = [json.loads(line) for line in (tmp_path / "seed-0" / "train" / "log.jsonl").read_text().splitlines()]
    assert log


@pytest.mark.parametrize(
    ("recipe", "learns"),
    [
        ("joint_teaching", {"name": "joint_teaching", "max_tokens": 8}),
        ("joint_teaching", {"name": "joint_teaching", "max_tokens": 8, "form": "paper"}),
        ("kd4gen", {"name": "noisy_kd"}),
        ("kd4gen", {"name": "gkd", "max_tokens": 8}),
        ("kd4gen", {"name": "pseudo_target"}),
    ],
)
def test_the_other_objectives_run(recipe: str, learns: dict[str, Any], teacher: dict[str, Any], tmp_path: Path) -> None:
    report = run(recipe, tmp_path, **small(teacher, learns=learns, tail_epochs=0, train=TRAIN | {"steps": 2}))
    assert next(iter(report.metrics.values())).n == 8


def test_beams_are_pseudo_targets_too(teacher: dict[str, Any], tmp_path: Path) -> None:
    settings = small(teacher) | {"pseudo": PSEUDO | {"decoding": "beam", "unlabelled": False}}
    recipe = config.build(registry.load("recipes", "kd4gen"), {**SMALL, "train": TRAIN, **settings})
    rows = recipe.items(tmp_path)
    assert len(rows) == 24 and all(len({one.answer for one in item.rationales}) > 1 for item in rows if item.rationales)


@pytest.mark.network
def test_an_endpoint_s_few_logprobs_teach(tmp_path: Path) -> None:
    content = []
    for token, value, other in (("an", -0.2, "be"), ("na", -0.1, "ma"), (" tirop", -0.7, " anna")):
        best = [{"token": token, "logprob": value}, {"token": other, "logprob": -1.5}]
        content.append({**best[0], "top_logprobs": best})
    with fixed_endpoint("so the answer is anna tirop", logprobs={"content": content}) as teacher:
        settings = small({**teacher, "logprobs": 2}, learns="logit_kd", tail_epochs=0, train=TRAIN | {"steps": 2})
        report = run("kd4gen", tmp_path, **settings)
    assert next(iter(report.metrics.values())).n == 8
    manifest = read_manifest(tmp_path / "logits")
    assert manifest is not None and manifest.facts["top"] == 2 and manifest.counts["texts"] > 24
    from lmdistill.logit_store import LogitStore

    store = LogitStore.open(tmp_path / "logits")
    unsure = (store.arrays["logprobs"][:, 1] > -20).sum()
    assert 0 < unsure < len(store.arrays["tail"]), "some positions have an alternative, labels and others are sure"


def test_the_eight_stages_are_comparisons_without_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmdistill.compare import read
    from lmdistill.grid import cells_of

    monkeypatch.setenv("LMDISTILL_DATA", "/data")
    fairytale = Path(__file__).parents[2] / "examples/kd4gen/fairytaleqa.yaml"
    for source, count in (("kd_stages", 3 * 15), (fairytale, 15)):
        comparison = read(source)
        cells = cells_of(comparison, tmp_path)
        assert len(cells) == count and {cell.method[0] for cell in cells} == set("12345678")
        assert comparison.ceiling == "teacher" and comparison.baseline == "3 fine-tune"
        students = {cell.method: cell.settings["student"] for cell in cells}
        for name in ("preset", "vocabulary", "max_source"):
            assert students["1 decoder-only"].get(name) == students["3 fine-tune"].get(name), "matched but for its kind"


def test_the_two_architectures_of_stage_one_have_as_many_parameters() -> None:
    words = " ".join(f"w{i}" for i in range(300))
    sizes = []
    for name in ("seq2seq", "causal"):
        student = registry.load("students", name)(preset="mini").open([words])
        sizes.append(sum(p.numel() for p in student.parameters()))
    assert abs(sizes[0] - sizes[1]) < 0.002 * sizes[0]


def test_a_student_teaches_the_next_one(tmp_path: Path) -> None:
    student = {"name": "seq2seq", "preset": "nano"}
    run("self_distillation", tmp_path, student=student, rounds=2, train=TRAIN | {"steps": 2})
    for name in ("round-0", "round-1", "train"):
        manifest = read_manifest(tmp_path / "seed-0" / name)
        assert manifest is not None and manifest.status == "complete"


def test_what_cannot_work_is_refused_with_the_way_out(teacher: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a local model's logits.*pseudo_target"):
        config.build(registry.load("recipes", "kd4gen"), {**SMALL, "teacher": "scripted"})
    config.build(registry.load("recipes", "kd4gen"), {**SMALL, "teacher": "scripted", "learns": "pseudo_target"})
    run("finetune", tmp_path / "other", student={"name": "seq2seq", "preset": "nano", "vocabulary": "subword"})
    other = str(tmp_path / "other" / "seed-0" / "train" / "student")
    with pytest.raises(TrainingError, match=r"vocabulary.*universal_logit"):
        run("kd4gen", tmp_path / "a", **small(teacher) | {"student": {"name": "seq2seq", "model": other}})
    with pytest.raises(ConfigError, match="no transformers model"):
        run("kd4gen", tmp_path / "b", **small({"name": "transformers", "model": str(tmp_path)}))
