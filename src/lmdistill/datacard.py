"""The card of an exported data set: who wrote it, how they were asked, what was left out and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmdistill import config
from lmdistill.prompting import Prompter, Prompting
from lmdistill.tasks import Task
from lmdistill.types import Example

COLUMNS = {
    "id": "the input's id in its data set",
    "input": "the input as the student reads it",
    "choices": "the answers to choose from, where there are any",
    "label": "the data set's own (gold) label, or nothing",
    "rationale": "what the teacher wrote before its answer",
    "answer": "the teacher's answer, as it was read from its text",
    "correct": "whether the answer is the gold label; nothing where there is none",
    "kept": "whether the rationale passed every filter",
    "reason": "why it was set aside, or nothing",
    "teacher": "who wrote it",
    "sample": "which of the teacher's samples it was",
    "logprob": "the teacher's mean log-probability per token in nats, where it gave one",
    "prompt": "what a student is asked",
    "completion": "what it should write: rationale, cue, answer",
    "messages": "the same as a conversation of two turns",
}
SIZES = [(1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (float("inf"), "n>1M")]
FILES = {
    "default": "corpus.parquet",
    "prompt_completion": "prompt_completion.jsonl",
    "messages": "messages.jsonl",
}


@dataclass(frozen=True)
class Origin:
    """What the manifests of a run say of its rationales."""

    teachers: Sequence[Mapping[str, Any]] = ()
    prompting: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    funnel: Sequence[Mapping[str, Any]] = ()
    set_aside: Mapping[str, int] = field(default_factory=dict)


def card(
    task: Task, origin: Origin, counts: Mapping[str, int], cue: str, licence: str, example: Example | None = None
) -> str:
    """The data card, in Markdown with the metadata that hubs read; `example` is shown as the teacher was asked it."""
    name = str(origin.task.get("name", type(task).__name__.lower()))
    teachers = [str(one.get("model") or one.get("name")) for one in origin.teachers] or ["unknown"]
    kept = counts["kept"]
    size = next(label for limit, label in SIZES if kept < limit)
    lines = [
        "---",
        f"license: {licence or 'unknown'}",
        f"size_categories: [{size}]",
        "task_categories: [text-generation]",
        "tags: [chain-of-thought, distillation, synthetic, lmdistill]",
        "configs:",
        *[f"- config_name: {one}\n  data_files: {path}" for one, path in FILES.items()],
        "---",
        "",
        f"# Rationales for {name}",
        "",
        f"{kept:,} rationales for {counts['inputs with a rationale']:,} of {counts['inputs']:,} inputs, written by "
        f"{', '.join(teachers)}. The texts are machine-made and may be wrong; "
        + ("see below for how they were filtered." if origin.steps else "they were not filtered."),
        "",
        f"**Licence**: {licence or 'not stated; set one before you publish this'}. The terms of the teacher and of the "
        "inputs' own data set bind this data set too.",
        "",
        f"**Target**: rationale, then `{cue}`, then the answer.",
        "",
        *_asked(origin),
        *_prompt(task, origin, example),
        *_filtered(origin, counts),
        "## Columns of `corpus.parquet`",
        "",
        *[f"- `{column}`: {what}" for column, what in COLUMNS.items()],
        "",
    ]
    return "\n".join(lines)


def _asked(origin: Origin) -> list[str]:
    if not origin.teachers:
        return []
    sampling = {key: value for key, value in origin.sampling.items() if value not in ((), [], None)}
    parts = [
        ("teacher", origin.teachers[0] if len(origin.teachers) == 1 else list(origin.teachers)),
        ("prompting", {key: value for key, value in origin.prompting.items() if value is not None}),
        ("sampling", sampling),
        ("task", origin.task),
    ]
    block = [f"- {name}: `{json.dumps(value, ensure_ascii=False)}`" for name, value in parts]
    return ["## How it was asked", "", *block, ""]


def _prompt(task: Task, origin: Origin, example: Example | None) -> list[str]:
    if example is None or not origin.prompting:
        return []
    prompting = config.build(Prompting, origin.prompting)
    if prompting.exemplar_file is not None and not prompting.exemplar_file.exists():
        return []
    asked = Prompter(prompting, task).ask(example)
    turns = [f"[{message.role}]\n{message.content}" for message in asked.messages]
    return ["A prompt as it was sent:", "", *["    " + line for line in "\n".join(turns).splitlines()], ""]


def _filtered(origin: Origin, counts: Mapping[str, int]) -> list[str]:
    lines = ["## What was left out", ""]
    if origin.funnel:
        lines += ["| step | reached it | dropped | left |", "| --- | --- | --- | --- |"]
    for row, step in zip(origin.funnel, origin.steps, strict=True):
        settings = {key: value for key, value in step.items() if key != "name"}
        dropped = ", ".join(f"{reason}: {n:,}" for reason, n in row["dropped"].items()) or "none"
        name = f"`{row['step']}` {json.dumps(settings, ensure_ascii=False) if settings else ''}".strip()
        lines.append(f"| {name} | {row['reached']:,} | {dropped} | {row['left']:,} |")
    lines += ["", *[f"- set aside before: {reason}: {n:,}" for reason, n in origin.set_aside.items()]]
    lines += [f"- {name}: {n:,}" for name, n in counts.items()]
    return [*lines, ""]
