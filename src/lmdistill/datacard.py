"""The card of an exported data set: who wrote it, how they were asked, what was left out and why."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from lmdistill import config, registry
from lmdistill.prompting import Prompter, Prompting
from lmdistill.tasks import Task
from lmdistill.types import Example

CUE = "So the answer is:"
FILE = re.compile(r"\.(?:jsonl?|csv|tsv|txt|parquet|ya?ml)(?:\.gz)?$", re.IGNORECASE)
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
USED = ("prompt_tokens", "completion_tokens")
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
    rounds: Sequence[Mapping[str, Any]] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    cue: str = CUE


def card(
    task: Task, origin: Origin, counts: Mapping[str, int], cue: str, licence: str, example: Example | None = None
) -> str:
    """The data card, in Markdown with the metadata that hubs read; `example` is shown as the teacher was asked it."""
    name = str(origin.task.get("name", type(task).__name__.lower()))
    teachers = [str(public(one.get("model") or one.get("name"))) for one in origin.teachers] or ["unknown"]
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
    asked = not _recorded(origin)  # of recorded answers it is not known here how they were asked
    sampling = {key: value for key, value in origin.sampling.items() if value not in ((), [], None)}
    parts: list[tuple[str, Any]] = [
        ("teacher", origin.teachers[0] if len(origin.teachers) == 1 else list(origin.teachers)),
        ("prompting", {key: value for key, value in origin.prompting.items() if value is not None and asked}),
        ("sampling", sampling if asked else {}),
        ("task", origin.task),
    ]
    block = [f"- {name}: `{json.dumps(public(value), ensure_ascii=False)}`" for name, value in parts if value]
    for number, one in enumerate(origin.rounds if len(origin.rounds) > 1 else (), 1):
        stopped = "" if one["status"] == "complete" else f" (it ended early: {one['status']})"
        block.append(f"- round {number}: {one['inputs']:,} inputs, {one['samples']:,} samples each{stopped}")
    if origin.asked.get("requests"):
        tokens = [f"{origin.asked.get(name, 0):,} {name.replace('_', ' ')}" for name in USED]
        block.append(f"- used in all: {origin.asked['requests']:,} requests, {', '.join(tokens)}")
    return ["## How it was asked", "", *block, ""]


def _recorded(origin: Origin) -> bool:
    """Whether nobody was asked: somebody else's answers were read, and how they were asked is not known here."""
    names = [str(one.get("name", "")) for one in origin.teachers]
    known = registry.names("teachers")
    return bool(names) and all(name in known and registry.load("teachers", name).recorded for name in names)


def public(value: Any) -> Any:
    """Settings as others may read them: of a file its name alone, not where it lay.

    >>> public({"path": "/home/me/data/a.csv", "model": "Qwen/Qwen3-0.6B", "files": ["data/b.jsonl.gz"]})
    {'path': 'a.csv', 'model': 'Qwen/Qwen3-0.6B', 'files': ['b.jsonl.gz']}
    """
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    if not isinstance(value, str) or "\n" in value or "://" in value:
        return value
    local = value.startswith(("~/", "./", "../")) or PurePath(value).is_absolute() or FILE.search(value)
    return PurePath(value).name or value if local else value


def _prompt(task: Task, origin: Origin, example: Example | None) -> list[str]:
    if example is None or not origin.prompting or _recorded(origin):
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
        settings = {key: public(value) for key, value in step.items() if key != "name"}
        dropped = ", ".join(f"{reason}: {n:,}" for reason, n in row["dropped"].items()) or "none"
        name = f"`{row['step']}` {json.dumps(settings, ensure_ascii=False) if settings else ''}".strip()
        lines.append(f"| {name} | {row['reached']:,} | {dropped} | {row['left']:,} |")
    lines += ["", *[f"- set aside before: {reason}: {n:,}" for reason, n in origin.set_aside.items()]]
    lines += [f"- {name}: {n:,}" for name, n in counts.items()]
    return [*lines, ""]
