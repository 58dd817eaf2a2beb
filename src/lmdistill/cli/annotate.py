"""`lmdistill annotate`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lmdistill import config, store
from lmdistill.annotate import annotate
from lmdistill.cli._settings import without_recipe
from lmdistill.cli._table import show_table
from lmdistill.cli.run import AsJson, Config, Sets
from lmdistill.errors import ConfigError
from lmdistill.estimate import Bill, Preview, estimate, preview
from lmdistill.inventing import invent
from lmdistill.pricing import Budget
from lmdistill.prompting import Prompting
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings
from lmdistill.types import Annotation, Example, Sampling


@dataclasses.dataclass(frozen=True)
class Annotate:
    """A run file of `lmdistill annotate`."""

    task: Task = config.component("tasks")
    teacher: TeacherSettings | tuple[TeacherSettings, ...] = config.component("teachers")
    split: str = "train"
    limit: int | None = None
    prompting: Prompting = dataclasses.field(default_factory=Prompting)
    sampling: Sampling = dataclasses.field(default_factory=lambda: Sampling(max_tokens=256))
    budget: Budget = dataclasses.field(default_factory=Budget)
    seed: int = 0
    cache: Path | None = None
    allow_failed: float = 0.0


def command(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder for rows and manifest.")] = None,
    config_file: Config = None,
    sets: Sets = None,
    task: Annotated[str | None, typer.Option(help="A name of `lmdistill list tasks`.")] = None,
    teacher: Annotated[str | None, typer.Option(help="A name of `lmdistill list teachers`.")] = None,
    split: Annotated[str | None, typer.Option(help="train (default), valid, test or unlabelled.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first examples.")] = None,
    samples: Annotated[int | None, typer.Option("-n", "--samples", help="Answers to each example.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop before this many dollars are passed.")] = None,
    max_requests: Annotated[int | None, typer.Option(help="Stop before this many requests are passed.")] = None,
    cache: Annotated[Path | None, typer.Option(help="The file that keeps raw answers.")] = None,
    allow_failed: Annotated[float | None, typer.Option(help="Share of answers that may be missing.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count requests, tokens and dollars; ask nothing.")
    ] = False,
    show: Annotated[int, typer.Option("--preview", metavar="N", help="Print N prompts and parses; ask nothing.")] = 0,
    invented: Annotated[int, typer.Option("--invent", metavar="N", help="First have the teacher write N inputs.")] = 0,
    reparse: Annotated[bool, typer.Option("--reparse", help="Read a finished folder's answers again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a teacher for rationales and answers, and keep every one of them."""
    flags = {
        "task": task, "teacher": teacher, "split": split, "limit": limit, "sampling.n": samples,
        "sampling.temperature": temperature, "budget.max_cost": max_cost, "budget.max_requests": max_requests,
        "cache": None if cache is None else str(cache), "allow_failed": allow_failed,
    }  # fmt: skip
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    run = config.build(Annotate, without_recipe(Annotate, config.load(config_file, [*given, *(sets or ())])))
    if out is None and not (dry_run or show):
        raise ConfigError("--out: name the folder for rows and manifest (or ask for --dry-run or --preview)")
    examples = _examples(run, out, invented, dry=dry_run or bool(show))
    asked: dict[str, Any] = {
        "prompting": run.prompting, "sampling": run.sampling, "seed": run.seed, "cache": run.cache,
    }  # fmt: skip
    if show:
        _show_previews(preview(run.task, run.teacher, examples[:show], **asked))
        return
    if dry_run:
        _show_bills(estimate(run.task, run.teacher, examples, **asked), len(examples), as_json=as_json)
        return
    assert out is not None
    rows = annotate(
        run.task,
        run.teacher,
        examples,
        folder=out,
        budget=run.budget,
        allow_failed=run.allow_failed,
        reparse=reparse,
        **asked,
    )
    _show_result(rows, out, as_json=as_json)


def _examples(run: Annotate, out: Path | None, count: int, *, dry: bool) -> Sequence[Example]:
    if not count:
        examples = run.task.examples(run.split)
        return examples if run.limit is None else examples[: run.limit]
    if dry or out is None:
        raise ConfigError("--invent asks the teacher for inputs, so it goes with neither --dry-run nor --preview")
    teacher = run.teacher if isinstance(run.teacher, TeacherSettings) else run.teacher[0]
    folder = out.with_name(f"{out.name}-inputs")
    choices = tuple(getattr(run.task, "choices", ()))
    asked: dict[str, Any] = {"seed": run.seed, "cache": run.cache, "budget": run.budget}
    return invent(run.task, teacher, count, folder=folder, choices=choices, **asked)


def _show_previews(previews: Sequence[Preview]) -> None:
    for one in previews:
        print(f"--- {one.source} is shown ---")
        for message in one.prompt.messages:
            print(message.content if one.prompt.plain else f"[{message.role}] {message.content}")
        print(f"--- {'an answer in this form' if one.made_up else 'its answer'} ---\n{one.answer}")
        print("--- is read as ---")
        print(f"rationale: {one.read.text}\nanswer: {one.read.answer}")
        print(f"cannot be used: {one.read.reason}\n" if one.read.reason else "")


def _show_bills(bills: Sequence[Bill], examples: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(bill) for bill in bills], indent=2))
        return
    rows = [
        [
            f"{bill.source}", f"{bill.answers:,}", f"{bill.found:,}", f"{bill.requests:,}", f"{bill.prompt_tokens:,}",
            f"{bill.completion_tokens:,}", _dollars(bill.cost), _dollars(bill.most),
        ]
        for bill in bills
    ]  # fmt: skip
    columns = ["teacher", "answers", "in cache", "requests", "input tokens", "output tokens", "cost", "at most"]
    show_table(columns, rows, f"{examples:,} examples; nothing was asked")
    for bill in bills:
        if bill.learned:
            print(f"{bill.source}: tokens estimated from its last {bill.learned} responses")
        else:
            print(f"{bill.source}: tokens guessed; ask for a few first (--limit 20), then the guess is an estimate")


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:.4f}" if cost < 1 else f"${cost:,.2f}"


def _show_result(rows: Sequence[Annotation], out: Path, *, as_json: bool) -> None:
    manifest = store.read_manifest(out)
    assert manifest is not None
    if as_json:
        print(json.dumps({"status": manifest.status, "counts": manifest.counts, "facts": manifest.facts}, indent=2))
        return
    for name, count in manifest.counts.items():
        print(f"{name}: {count:,}")
    facts = manifest.facts
    if facts.get("accuracy") is not None:
        print(f"accuracy of what parsed: {facts['accuracy']:.3f}")
    each = f"{_dollars(facts.get('cost_per_example'))} an example over all its answers"
    print(f"cost: {_dollars(facts.get('cost'))} in {facts.get('requests', 0):,} requests; {each}")
    print(f"{len(rows):,} rows: {out / 'rows.jsonl'}")
