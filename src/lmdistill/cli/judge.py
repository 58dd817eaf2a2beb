"""Compare two students' rationales pair by pair: by an LLM judge, or by people on a blind sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmdistill import config, registry, store
from lmdistill.annotate import open_cache
from lmdistill.cli._table import number, show_table
from lmdistill.errors import ConfigError, DataError
from lmdistill.judging import Compared, Only, Pair, judge, pairs_of
from lmdistill.rating_sheet import read_sheets, write_sheet
from lmdistill.types import Estimate, Prediction, Sampling

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

First = Annotated[Path, typer.Argument(help="The first student's predictions (a folder that `predict` filled).")]
Second = Annotated[Path, typer.Argument(help="The second student's predictions on the same questions.")]
Which = Annotated[str, typer.Option("--only", help="all, both_answered, or both_right (needs --task).")]
TaskOption = Annotated[str | None, typer.Option("--task", help="The task, for --only both_right.")]
TaskSets = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="task.* or teacher.*")]
Most = Annotated[int | None, typer.Option("--most", help="At most so many pairs, drawn at random.")]
Seed = Annotated[int, typer.Option("--seed", help="Draws the sides and the order.")]


@app.command("ask")
def ask(
    first: First,
    second: Second,
    teacher: Annotated[str, typer.Option("--teacher", help="The judge: a name of `lmdistill list teachers`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the outcome is written as JSON.")] = None,
    only: Which = "all",
    task: TaskOption = None,
    sets: TaskSets = None,
    most: Most = None,
    seed: Seed = 0,
    once: Annotated[bool, typer.Option("--once", help="Ask in one order only, at half the cost.")] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Room for the judge's answer.")] = 400,
) -> None:
    """Ask an LLM which of two rationales is better, in both orders, without telling it whose they are."""
    settings = config.load(None, sets or ())
    chosen = _component("tasks", task, settings.get("task"))
    pairs = _pairs(first, second, only, chosen, most, seed)
    asked = _component("teachers", teacher, settings.get("teacher"))
    with open_cache((asked,), None) as cache:  # what was answered is never paid twice
        opened = asked.open(chosen, cache=cache)
        compared = judge(pairs, opened, sampling=Sampling(max_tokens=max_tokens), both_orders=not once)
    _show(compared, out)


@app.command("sheet")
def sheet(
    first: First,
    second: Second,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the sheet, its page and its key.")],
    only: Which = "all",
    task: TaskOption = None,
    sets: TaskSets = None,
    most: Most = None,
    seed: Seed = 0,
) -> None:
    """Write a blind rating sheet: a CSV table and a page for raters, and the key, which stays with you."""
    settings = config.load(None, sets or ())
    pairs = _pairs(first, second, only, _component("tasks", task, settings.get("task")), most, seed)
    write_sheet(pairs, out)
    print(f"{len(pairs):,} pairs: give raters {out / 'sheet.html'} or {out / 'sheet.csv'}; keep {out / 'key.json'}")


@app.command("read")
def read(
    folder: Annotated[Path, typer.Argument(help="The folder that `lmdistill judge sheet` wrote.")],
    sheets: Annotated[list[Path], typer.Argument(help="The filled-in tables, one for each rater.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the outcome is written as JSON.")] = None,
) -> None:
    """Read filled-in rating sheets: the first student's share with its interval, and how far raters agree."""
    _show(read_sheets(folder, sheets), out)


def _component(kind: str, name: str | None, settings: Any) -> Any:
    if name is None:
        return None
    return config.build(registry.load(kind, name), settings or {}, kind.removesuffix("s"))


def _pairs(first: Path, second: Path, only: str, task: Any, most: int | None, seed: int) -> list[Pair]:
    known: tuple[Only, ...] = ("all", "both_right", "both_answered")
    which = next((one for one in known if one == only), None)
    if which is None:
        raise ConfigError(f"--only: {only!r} is not one of {', '.join(known)}")
    return pairs_of(_predictions(first), _predictions(second), seed=seed, only=which, task=task, most=most)


def _predictions(path: Path) -> store.Rows[Prediction]:
    rows = path / "rows.jsonl" if path.is_dir() else path
    if not rows.exists():
        raise DataError("no predictions: a folder that `predict` filled (RUN/seed-0/test) was expected", path=path)
    return store.Rows(rows, Prediction)


def _show(compared: Compared, out: Path | None) -> None:
    rows = [["first student's share", *_estimate(compared.share)]]
    if compared.left is not None:
        rows.append(["won by the left side", *_estimate(compared.left)])
    show_table(["", "value", "95 % interval", "n"], rows)
    for name, count in compared.counts.items():
        print(f"{name}: {count:,}")
    if compared.agreement is not None:
        print(f"agreement of two ratings of a pair: {number(compared.agreement)}")
    if out is not None:
        store.write_json(out, compared)


def _estimate(one: Estimate) -> list[str]:
    return [number(one.value), f"{number(one.low)} to {number(one.high)}", f"{one.n:,}"]
