"""KARD and its baselines, end to end on a generated task with a knowledge base."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, registry
from lmdistill.errors import BudgetReached, ConfigError, LmdistillError, StoreError
from lmdistill.store import Rows
from lmdistill.types import Annotation, Candidates, Prediction, Report

TINY: dict[str, Any] = {"steps": 4, "batch_size": 8, "eval_every": 4, "learning_rate": 3e-3, "device": "cpu"}
RERANKER = {"name": "late_interaction", "preset": "tiny", "max_length": 32}
GROUNDING: dict[str, Any] = {
    "passages": 2,
    "candidates": 5,
    "reranker": RERANKER,
    "reranking": {"from_rationale": 3, "from_question": 3, "train": TINY},
}
SHARED: dict[str, Any] = {
    "task": {"name": "facts", "facts": 200, "train": 24, "valid": 4, "test": 8},
    "teacher": {"name": "scripted"},
}
TRAINED: dict[str, Any] = {
    **SHARED,
    "train": TINY,
    "decoding": {"max_tokens": 24},
    "student": {"name": "seq2seq", "preset": "tiny"},
}


def run(recipe: str, out: Path, **settings: Any) -> Report:
    report: Report = config.build(registry.load("recipes", recipe), settings).run(out)
    return report


def predictions(out: Path) -> list[Prediction]:
    return list(Rows(out / "seed-0" / "test" / "rows.jsonl", Prediction))


@pytest.fixture(scope="module")
def kard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kard")
    run("kard", out, **TRAINED, sampling={"n": 2}, grounding=GROUNDING)
    return out


def test_kard_trains_reads_and_reports(kard: Path) -> None:
    grounded = list(Rows(kard / "grounded" / "rows.jsonl", Annotation))
    assert all(len(one.hits) == 2 for item in grounded for one in item.rationales)
    pairs = list(Rows(kard / "candidates" / "rows.jsonl", Candidates))
    assert len(pairs) == sum(len(item.rationales) for item in grounded)
    assert all(len(pair.passages) <= 6 for pair in pairs)
    assert (kard / "reranker" / "student" / "model.safetensors").exists()
    report = json.loads((kard / "report.json").read_text())
    assert {"accuracy", "hits@1", "hits@5"} <= report["metrics"].keys(), "2 are read, 5 were put in order"
    assert "hits@10" not in report["metrics"]
    assert sum(report["facts"]["faults"]["0"].values()) == 8
    assert all(len(one.hits) == 2 for one in predictions(kard))


def test_questions_are_read_with_what_the_reranker_chose(kard: Path) -> None:
    from lmdistill.ground import ground, open_reranker

    recipe = config.build(registry.load("recipes", "kard"), {**TRAINED, "grounding": GROUNDING})
    retriever = recipe.grounding.opened(recipe.task, kard)
    questions = [Annotation(example) for example in recipe.task.examples("test")]
    reranker = open_reranker(kard / "reranker" / "student")
    expected = ground(questions, retriever, k=2, by="question", reranker=reranker, candidates=5)
    for one, own in zip(predictions(kard), expected, strict=True):
        assert [hit.passage.id for hit in one.hits] == [hit.passage.id for hit in own.hits]


def test_a_finished_run_is_read_back(kard: Path) -> None:
    before = (kard / "report.json").stat().st_mtime_ns, json.loads((kard / "report.json").read_text())["metrics"]
    report = run("kard", kard, **TRAINED, sampling={"n": 2}, grounding=GROUNDING)
    assert before[1]["accuracy"]["value"] == report.metrics["accuracy"].value


def test_a_new_prediction_reads_what_the_run_read(kard: Path, tmp_path: Path) -> None:
    from lmdistill.cli.main import main

    out = tmp_path / "predictions.jsonl"
    with pytest.raises(SystemExit) as leaving:
        main(["predict", "--student", str(kard / "seed-0" / "train" / "student"), "--out", str(out)])
    assert leaving.value.code in (0, None)
    assert list(Rows(out, Prediction)) == predictions(kard)


@pytest.mark.parametrize(
    ("change", "count"),
    [("grounding.passages=1", 1), ("grounding.reranker=null", 2), ("grounding.retriever_weight=0.9", 2)],
)
def test_what_is_read_can_be_changed_without_another_training(
    change: str, count: int, kard: Path, tmp_path: Path
) -> None:
    from lmdistill.cli.main import main

    out, student = tmp_path / "predictions.jsonl", str(kard / "seed-0" / "train" / "student")
    with pytest.raises(SystemExit) as leaving:
        main(["predict", "--student", student, "--out", str(out), "--set", change])
    assert leaving.value.code in (0, None)
    found = [[hit.passage.id for hit in one.hits] for one in Rows(out, Prediction)]
    trained = [[hit.passage.id for hit in one.hits] for one in predictions(kard)]
    assert {len(own) for own in found} == {count}
    assert found != trained and (count == 2 or found == [own[:1] for own in trained])


def test_the_retriever_is_heard_beside_the_reranker(kard: Path, tmp_path: Path) -> None:
    from lmdistill.cli.main import main
    from lmdistill.ground import ground

    settings = GROUNDING | {"retriever_weight": 0.999}
    run("kard", tmp_path / "run", **TRAINED, sampling={"n": 2}, grounding=settings)
    recipe = config.build(registry.load("recipes", "kard"), {**TRAINED, "grounding": settings})
    questions = [Annotation(example) for example in recipe.task.examples("test")]
    alone = ground(questions, recipe.grounding.opened(recipe.task, kard), k=2, by="question")
    heard, unheard = predictions(tmp_path / "run"), predictions(kard)
    ids = [[[hit.passage.id for hit in one.hits] for one in own] for own in (alone, heard, unheard)]
    assert ids[0] == ids[1] != ids[2]
    student = tmp_path / "run" / "seed-0" / "train" / "student"
    with pytest.raises(SystemExit) as leaving:
        main(["predict", "--student", str(student), "--out", str(tmp_path / "again.jsonl")])
    assert leaving.value.code in (0, None)
    assert list(Rows(tmp_path / "again.jsonl", Prediction)) == heard


def test_an_oracle_reads_what_the_test_rationales_find(tmp_path: Path) -> None:
    report = run("oracle", tmp_path, **TRAINED, grounding={"passages": 2, "oracle": "rationale"})
    assert report.metrics["hits@3"].value == 1.0, "the rationale names both facts"
    gold = run("oracle", tmp_path / "gold", **TRAINED, grounding={"passages": 2, "oracle": "gold"})
    assert gold.metrics["hits@1"].value == 1.0


def test_rag_trains_its_encoder_and_searches_with_it(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    encoder = {"name": "dual_encoder", "preset": "tiny", "max_length": 32}
    encoding = {"from_rationale": 3, "from_question": 3, "train": TINY}
    run("rag", tmp_path, **TRAINED, grounding={"passages": 1}, encoder=encoder, encoding=encoding)
    assert list((tmp_path / "knowledge").glob("dense-*/vectors.npy"))
    assert all(len(one.hits) == 1 for one in predictions(tmp_path))


def test_rd_reads_nothing_and_any_recipe_can_be_given_passages(tmp_path: Path) -> None:
    run("rd", tmp_path / "rd", **TRAINED, sampling={"n": 1})
    assert all(not one.hits for one in predictions(tmp_path / "rd"))
    grounding = {"passages": 1, "silver": "question"}
    run("finetune", tmp_path / "ka", **{**TRAINED, "teacher": None}, grounding=grounding)
    assert all(len(one.hits) == 1 for one in predictions(tmp_path / "ka"))
    run("dss", tmp_path / "dss", **TRAINED, sampling={"n": 1}, grounding={"passages": 1})
    assert all(len(one.hits) == 1 for one in predictions(tmp_path / "dss"))


def test_a_base_made_by_index_serves_a_recipe(tmp_path: Path) -> None:
    from lmdistill.indexing import build
    from lmdistill.sources import Document

    task = config.rebuild("tasks", SHARED["task"])
    documents = (Document(passage.id, passage.text) for passage in task.passages())
    build(documents, tmp_path / "base", inputs={}, resemblance_limit=2.0)
    grounding = {"passages": 1, "knowledge": str(tmp_path / "base"), "reranker": None}
    run("kard", tmp_path / "run", **TRAINED, sampling={"n": 1}, grounding=grounding)
    assert list((tmp_path / "base").glob("bm25-*"))
    assert all(len(one.hits) == 1 for one in predictions(tmp_path / "run"))


def test_other_tasks_are_searched_with_the_reranker_of_the_run(tmp_path: Path) -> None:
    other = {**SHARED["task"], "seed": 7, "test": 3}
    settings = {**TRAINED, "sampling": {"n": 1}, "grounding": {**GROUNDING, "passages": 1}}
    report = run("kard", tmp_path, **settings, also_test=[other])
    assert report.metrics["facts.accuracy"].n == 3
    assert {path.name for path in (tmp_path / "also-facts").iterdir() if path.is_dir()} == {
        "knowledge",
        "questions-test-3",
    }


def test_marks_that_the_base_lacks_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lmdistill.indexing import build
    from lmdistill.sources import Document

    task = config.rebuild("tasks", SHARED["task"])
    documents = (Document(f"other-{i}", passage.text) for i, passage in enumerate(task.passages()))
    build(documents, tmp_path / "base", inputs={}, resemblance_limit=2.0)
    grounding = {"passages": 1, "knowledge": str(tmp_path / "base"), "reranker": None}
    report = run("kard", tmp_path / "run", **TRAINED, sampling={"n": 1}, grounding=grounding)
    assert "passages that the data marks as relevant are not in the knowledge base" in capsys.readouterr().err
    assert report.counts["marked passages that the base lacks"] >= 8
    assert report.metrics["hits@10"].value == 0.0


@pytest.mark.parametrize("pretraining", ["span_corruption", "causal_lm"])
def test_dapt_reads_the_corpus_first(tmp_path: Path, pretraining: str) -> None:
    student = {"name": "causal" if pretraining == "causal_lm" else "seq2seq", "preset": "tiny"}
    settings = {**TRAINED, "student": student}
    run("dapt", tmp_path, **settings, sampling={"n": 1}, pretraining=pretraining, pretrain=TINY)
    manifest = json.loads((tmp_path / "seed-0" / "train" / "corpus" / "manifest.json").read_text())
    assert manifest["counts"]["items"] == 200
    assert len(predictions(tmp_path)) == 8


@pytest.mark.parametrize("recipe", ["few_shot", "few_shot_cot"])
def test_prompting_asks_with_and_without_passages(tmp_path: Path, recipe: str) -> None:
    plain = run(recipe, tmp_path / "plain", **SHARED)
    assert plain.metrics["accuracy"].n == 8
    shown = run(recipe, tmp_path / "ka", **SHARED, grounding={"passages": 2}, limit=5)
    assert shown.metrics["accuracy"].n == 5
    rows = list(Rows(tmp_path / "ka" / "test" / "rows.jsonl", Prediction))
    assert all(len(one.hits) == 2 and "Knowledge" not in one.example.input for one in rows)
    asked = list(Rows(tmp_path / "ka" / "annotations" / "rows.jsonl", Annotation))
    assert all("\nKnowledge: " in one.example.input for one in asked)


def test_fine_tuning_reads_the_passages_in_training_that_it_reads_when_asked(tmp_path: Path) -> None:
    report = run("finetune", tmp_path, **{**TRAINED, "teacher": None}, grounding={"passages": 1})
    assert report.counts["grounded: items without a rationale, grounded by their question"] == 24
    grounded = list(Rows(tmp_path / "grounded" / "rows.jsonl", Annotation))
    assert len(grounded) == 24 and all(len(one.hits) == 1 for one in grounded)
    assert all(len(one.hits) == 1 for one in predictions(tmp_path))


def test_training_items_read_what_the_reranker_chooses_for_their_questions(tmp_path: Path) -> None:
    from lmdistill.ground import ground, open_reranker

    grounding = {**GROUNDING, "passages": 1, "silver": "question"}
    run("kard", tmp_path, **TRAINED, sampling={"n": 1}, grounding=grounding)
    recipe = config.build(registry.load("recipes", "kard"), {**TRAINED, "grounding": grounding})
    items = [Annotation(example) for example in recipe.task.examples("train")]
    reranker = open_reranker(tmp_path / "reranker" / "student")
    retriever = recipe.grounding.opened(recipe.task, tmp_path)
    expected = ground(items, retriever, k=1, by="question", reranker=reranker, candidates=5)
    found = list(Rows(tmp_path / "grounded" / "rows.jsonl", Annotation))
    assert [one.hits[0].passage.id for one in found] == [one.hits[0].passage.id for one in expected]
    plain = ground(items, retriever, k=1, by="question")
    assert [one.hits[0].passage.id for one in found] != [one.hits[0].passage.id for one in plain]


def recorded(folder: Path, say: Any, task: dict[str, Any] = SHARED["task"]) -> dict[str, Any]:
    """A teacher whose explanations, without an answer of their own, were recorded; `say` makes one of an example."""
    made = config.rebuild("tasks", task)
    path = folder / "said.jsonl"
    rows = [{"id": one.id, "llm_raw": say(made, one)} for split in ("train", "valid") for one in made.examples(split)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "replay", "path": str(path)}


def explanation(task: Any, example: Any) -> str:
    import random

    said: str = task.explain(example.input, random.Random(0))[0]
    return said


def test_a_told_teacher_that_never_names_the_answer_leaves_nothing_to_learn(tmp_path: Path) -> None:
    nothing = recorded(tmp_path, lambda task, example: "Nothing relevant is said here at all.")
    settings = {**TRAINED, "teacher": nothing, "sampling": {"n": 1}}
    with pytest.raises(ConfigError, match="needs training texts; there are none"):
        run("rd", tmp_path / "rd", **settings)
    (reason,) = {
        one.reason for item in Rows(tmp_path / "rd" / "curated" / "rows.jsonl", Annotation) for one in item.rejected
    }
    assert reason == "does not mention the answer"
    run("rd", tmp_path / "all", **settings, kept="all")
    own = recorded(tmp_path, explanation)
    report = run("rd", tmp_path / "own", **{**settings, "teacher": own})
    told = {name: count for name, count in report.counts.items() if name.startswith("explained")}
    assert told == {"explained: kept": 24}, "they name the answer, and end in none of their own"


def test_explanations_of_a_yes_or_a_class_are_kept_unjudged_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lmdistill.prompting import Prompting
    from lmdistill.recipes._explained import explained
    from lmdistill.types import Example, Rationale

    task = config.rebuild("tasks", SHARED["task"])

    def counts(name: str, *labels: str, choices: tuple[str, ...] = ()) -> Any:
        said = Rationale("fish live in water .", labels[0], raw="fish live in water .")
        items = [Annotation(Example(str(i), f"q{i}", label, choices), (said,), ()) for i, label in enumerate(labels)]
        explained(items, task, "mentioned", Prompting(style="kard"), tmp_path / name)
        return json.loads((tmp_path / name / "manifest.json").read_text())["counts"]

    assert counts("open", "dalup", "water") == {"does not mention the answer": 1, "kept": 1}
    assert "verifier" not in capsys.readouterr().err
    assert counts("yes", "yes", "water") == {"kept unjudged": 1, "kept": 1}
    assert "A `verifier` judges them" in capsys.readouterr().err
    assert counts("class", "spam", "spam", choices=("spam", "ham")) == {"kept unjudged": 2}


def test_without_reasoning_nobody_is_asked_to_reason_and_shots_are_what_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lmdistill.prompting import Prompter

    recipe = config.build(registry.load("recipes", "few_shot"), SHARED)
    example = recipe.task.examples("test")[0]
    turns = Prompter(recipe.prompting, recipe.task).ask(example).messages
    assert [turn.role for turn in turns] == ["system", *["user", "assistant"] * 5, "user"]
    assert turns[0].content == "Answer at once, with the answer alone: no reasoning, no explanation."
    training = {one.input: one.label for one in recipe.task.examples("train")}
    drawn = [turn.content for turn in turns[7:11]]
    assert [training[question] for question in drawn[::2]] == drawn[1::2], "what the task has no demonstration of"
    assert "demonstrations" not in capsys.readouterr().err
    report = run("few_shot", tmp_path, **SHARED, prompting={"style": "kd4gen", "shots": 9})
    assert report.facts["demonstrations"] == 9


def test_demonstrations_that_reason_are_not_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run("few_shot_cot", tmp_path, **SHARED, prompting={"style": "standard", "shots": 7})
    assert report.facts["demonstrations"] == 3
    assert "7 demonstrations were asked for, task 'facts' has 3; 3 are shown" in capsys.readouterr().err


def test_explanations_that_mention_the_answer_are_kept_and_a_verifier_may_judge(tmp_path: Path) -> None:
    from lmdistill.prompting import Prompting
    from lmdistill.recipes._explained import explained, verified
    from lmdistill.types import Example, Rationale

    task = config.rebuild("tasks", SHARED["task"])
    (example, *_) = task.examples("train")
    bare = Example("x", "what ?", "dalup")
    aside = (
        Rationale("every bird eats dalup .", sample=1, reason="no answer"),
        Rationale("birds eat dalupes .", sample=2, reason="no answer"),
        Rationale("it eats gono .", "gono", sample=3, reason="wrong"),
        Rationale("", sample=4, reason="empty"),
    )
    item = Annotation(bare, (Rationale("known .", "dalup", sample=0),), aside)
    standard = Prompting()
    (some,) = explained([item], task, "mentioned", standard, tmp_path / "some")
    assert [(one.sample, one.answer, one.reason) for one in some.rationales] == [(0, "dalup", None), (1, "dalup", None)]
    assert [one.reason for one in some.rejected] == ["does not mention the answer", "wrong", "empty"]
    (every,) = explained([item], task, "all", standard, tmp_path / "every")
    assert [one.sample for one in every.rationales] == [0, 1, 2]
    unlabelled = Annotation(Example("y", "?"), (), aside)
    assert explained([unlabelled], task, "all", standard, tmp_path / "none")[0].rejected == aside
    good, bad = Rationale("so it is .", example.label), Rationale("or not .", example.label)
    recorded = tmp_path / "verifier.jsonl"
    rows = [{"id": f"{example.id}#0", "llm_raw": example.label}, {"id": f"{example.id}#1", "llm_raw": "nothing"}]
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verifier = config.rebuild("teachers", {"name": "replay", "path": str(recorded)})
    (judged,) = verified([Annotation(example, (good, bad))], task, verifier, tmp_path)
    assert judged.rationales == (good,)
    assert [one.reason for one in judged.rejected] == ["the verifier reached another answer"]


def test_an_encoder_that_was_trained_otherwise_is_never_served(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    encoder = {"name": "dual_encoder", "preset": "tiny", "max_length": 32}
    encoding = {"from_rationale": 3, "from_question": 3, "train": TINY}
    settings = {**TRAINED, "grounding": {"passages": 1}, "encoder": encoder}
    run("rag", tmp_path, **settings, encoding=encoding)
    with pytest.raises(StoreError, match=r"learning_rate was 0\.003, now 0\.1"):
        run("rag", tmp_path, **settings, encoding={**encoding, "train": {**TINY, "learning_rate": 0.1}})
    with pytest.raises(StoreError, match="from_question was 3, now 2"):
        run("rag", tmp_path, **settings, encoding={**encoding, "from_question": 2})


@pytest.mark.parametrize(
    ("task", "grounding", "error"),
    [
        ({"name": "sums", "train": 12, "valid": 4, "test": 4}, {"reranker": None}, "no knowledge base"),
        (SHARED["task"], {"retriever": {"name": "dense", "model": "nowhere/at-all"}}, "retriever.model"),
        (SHARED["task"], {"reranker": {**RERANKER, "model": "nowhere/at-all"}}, "nowhere/at-all"),
        (SHARED["task"], {"reranker": {**RERANKER, "preset": "huge"}}, "'huge' is not one of tiny"),
    ],
)
def test_what_cannot_be_searched_is_told_before_the_teacher_is_asked(
    tmp_path: Path, task: dict[str, Any], grounding: dict[str, Any], error: str
) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(LmdistillError, match=error):
        run("kard", tmp_path, **{**TRAINED, "task": task}, grounding={"passages": 1, **grounding})
    assert not (tmp_path / "annotations").exists()


def test_a_verifier_has_the_caps_and_the_cache_of_the_run(tmp_path: Path) -> None:
    given = {"verifier": {"name": "scripted"}, "budget": {"max_requests": 24}, "cache": str(tmp_path / "c.sqlite")}
    own = config.build(registry.load("recipes", "rd"), {**TRAINED, **given, "sampling": {"n": 2}})
    annotated = own.annotated(own.examples(), tmp_path / "annotations")
    with pytest.raises(BudgetReached, match="max_requests = 24 is reached"):
        own.curated(annotated, tmp_path)
    assert not (tmp_path / "verifier.sqlite").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["kard", "rag"])
def test_two_processes_train_what_finds_passages_and_then_the_student(recipe: str, tmp_path: Path) -> None:
    """Without an accelerator and without being told so, and with a pooler in the encoder that no loss reaches."""
    pytest.importorskip("sentence_transformers")
    training = {**TINY, "steps": 2, "batch_size": 4}
    settings = {**TRAINED, "recipe": recipe, "train": training, "decoding": {"max_tokens": 4}, "valid_limit": 2}
    if recipe == "kard":
        reranking = {**GROUNDING["reranking"], "train": training}
        settings["grounding"] = {**GROUNDING, "silver": "question", "reranking": reranking}
    else:
        settings["grounding"] = {"passages": 1}
        settings["encoder"] = {"name": "dual_encoder", "preset": "tiny", "max_length": 32}
        settings["encoding"] = {"from_rationale": 3, "from_question": 3, "train": training}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    program = (
        "import json, sys; from pathlib import Path; from lmdistill import config, registry; "
        "own = json.loads(Path(sys.argv[1]).read_text()); "
        "config.build(registry.load('recipes', own.pop('recipe')), own).run(Path(sys.argv[2]))"
    )
    (tmp_path / "program.py").write_text(program)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = [str(tmp_path / "program.py"), str(tmp_path / "run.json"), str(tmp_path / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment.pop("ACCELERATE_USE_CPU", None)
    done = subprocess.run([*launcher, *arguments], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert len(predictions(tmp_path / "out")) == 8
    folder = tmp_path / "out" / ("reranker" if recipe == "kard" else "encoder")
    log = json.loads((folder / "manifest.json").read_text())
    assert log["status"] == "complete"


def test_settings_without_sense_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="KARD reads at least 1"):
        run("kard", tmp_path, **TRAINED, grounding={"passages": 0})
    with pytest.raises(ConfigError, match="'rationale' or 'gold' was expected"):
        run("oracle", tmp_path, **TRAINED, grounding={"passages": 1, "oracle": "none"})
    for encoder in ("cross_encoder", "late_interaction"):
        with pytest.raises(ConfigError, match="only a 'dual_encoder' gives passages vectors of their own"):
            run("rag", tmp_path, **TRAINED, grounding={"passages": 1}, encoder=encoder)
    with pytest.raises(ConfigError, match="an objective for plain text was expected"):
        run("dapt", tmp_path, **TRAINED, pretraining="label_only")
    with pytest.raises(ConfigError, match="a decoder cannot fill in the spans"):
        run("dapt", tmp_path, **{**TRAINED, "student": {"name": "causal", "preset": "tiny"}})
    with pytest.raises(ConfigError, match="trains nothing, so it can have no reranker"):
        run("few_shot", tmp_path, **SHARED, grounding=GROUNDING)
