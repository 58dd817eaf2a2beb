"""Recorded answers of large teachers, replayed: PaLM-540B, Llama-3, FLAN-T5 and Llama-2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lmdistill import registry
from lmdistill.annotate import annotate
from lmdistill.estimate import preview
from lmdistill.prompting import Prompter, Prompting
from lmdistill.store import read_jsonl, read_manifest
from lmdistill.teachers.replay import Replay
from lmdistill.types import Annotation, Sampling

pytestmark = pytest.mark.real


def task_of(name: str, folder: Path) -> Any:
    return registry.load("tasks", name)(path=folder)


def file_of(folder: Path, *names: str) -> Path:
    return next(path for name in names for path in sorted(folder.glob(f"{name}.jsonl*")))


def replayed(task: Any, split: str, teacher: Any, folder: Path, **options: Any) -> Sequence[Annotation]:
    return annotate(task, teacher, task.examples(split), folder=folder, progress=False, **options)


@pytest.mark.parametrize(
    ("name", "set_", "file", "accuracy"),
    [
        ("cqa", "dss_cqa", "dev", 0.800),
        ("svamp", "dss_svamp", "train", 0.733),
        ("anli", "dss_anli1", "valid", 0.668),
        ("esnli", "dss_esnli", "valid", 0.732),
    ],
)
def test_palm_is_replayed_whole(
    name: str, set_: str, file: str, accuracy: float, real_data: Path, tmp_path: Path
) -> None:
    """Every output becomes a rationale, in use or set aside, and the accuracy is the one that others measured."""
    task = task_of(name, real_data / set_)
    source = file_of(real_data / set_, file)
    raws = {row["id"]: row["llm_raw"] for _, row in read_jsonl(source)}
    examples = [one for split in ("train", "valid", "test") for one in task.examples(split) if one.id in raws]
    assert len(examples) == len(raws)
    teacher = Replay(path=source, source="PaLM-540B")
    rows = annotate(task, teacher, examples, folder=tmp_path / "a", progress=False)
    right = 0
    for row in rows:
        (one,) = (*row.rationales, *row.rejected)
        assert one.raw == raws[row.id] and one.source == "PaLM-540B"
        assert (one.reason is None) == (one.answer is not None)
        right += task.is_correct(row.example, one.answer)
    assert right / len(rows) == pytest.approx(accuracy, abs=0.012)
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None and manifest.counts["correct"] == right and manifest.counts["answers"] == len(rows)


def test_several_recorded_samples_are_voted_on(real_data: Path, tmp_path: Path) -> None:
    task = task_of("svamp", real_data / "dss_svamp")
    teacher = Replay(
        path=real_data / "llama3_teacher" / "svamp_train.jsonl.gz",
        text="llm_raw_samples",
        match="input",
        source="Llama-3",
    )
    rows = replayed(task, "train", teacher, tmp_path / "a", sampling=Sampling(n=3))
    samples = [one for row in rows for one in (*row.rationales, *row.rejected)]
    assert len(samples) == 3 * len(rows) and {one.source for one in samples} == {"Llama-3"}
    assert sum(one.raw != "" for one in samples) > 0.99 * len(samples)
    voted = sum(task.is_correct(row.example, row.answer) for row in rows)
    single = sum(task.is_correct(row.example, row.rationales[0].answer) for row in rows if row.rationales)
    assert voted >= single - 5 and voted > 0.4 * len(rows)


def test_two_teachers_of_one_file(real_data: Path, tmp_path: Path) -> None:
    """Rationales without labels of their own (the teachers were shown the answer)."""
    task = registry.load("tasks", "obqa")(path=real_data / "openbookqa")
    path = real_data / "tinyllm_obqa" / "train.jsonl.gz"
    known = {row["id"] for _, row in read_jsonl(path)}
    examples = [example for example in task.examples("train") if example.id in known][:500]
    assert len(examples) == 500
    teachers = tuple(
        Replay(path=path, text="rationales[].text", only={"teacher": name}, source=name)
        for name in ("flan-t5", "llama-2")
    )
    rows = annotate(
        task, teachers, examples, folder=tmp_path / "a", prompting=Prompting(show_answer=True), progress=False
    )
    used = [one for row in rows for one in row.rationales]
    assert {one.source for one in used} == {"flan-t5", "llama-2"} and len(used) > 900
    told = [one.answer == row.example.label for row in rows for one in row.rationales]
    assert sum(told) / len(told) > 0.9  # the label it was shown, where it names no other


def test_a_preview_of_real_rows(real_data: Path) -> None:
    task = task_of("cqa", real_data / "dss_cqa")
    teacher = Replay(path=file_of(real_data / "dss_cqa", "dev"))
    for shown in preview(task, teacher, task.examples("test")[:3]):
        assert not shown.made_up and shown.answer and "Answer Choices:" in shown.prompt.question


@pytest.mark.parametrize(("name", "set_", "split"), [("cqa", "dss_cqa", "test"), ("esnli", "dss_esnli", "valid")])
@pytest.mark.parametrize("style", ["standard", "dss", "scotd", "kard", "qcrd", "zero_shot_cot"])
def test_real_questions_go_into_every_style_whole(
    name: str, set_: str, split: str, style: Any, real_data: Path
) -> None:
    task = task_of(name, real_data / set_)
    prompter = Prompter(Prompting(style=style), task)
    for example in task.examples(split)[:200]:
        prompt = prompter.ask(example)
        asked = prompt.messages[-1].content
        parts = [example.fields["premise"], example.fields["hypothesis"]] if name == "esnli" else [example.input]
        assert all(part.strip() in asked for part in parts)
        assert "</s>" not in asked and "{" not in asked.replace(example.input, "")
        if style in ("kard",):
            assert task.shown(example, example.label) in asked
