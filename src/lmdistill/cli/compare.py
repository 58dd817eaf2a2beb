"""`lmdistill compare FILE --out DIR`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from lmdistill import __version__
from lmdistill.cli._settings import Sets
from lmdistill.cli._table import number, show_table


def command(
    source: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="A comparison (YAML), or the name of a study.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder that the cells fill.")] = None,
    recipes: Annotated[str, typer.Option("--recipes", help="As in 'finetune,dss'; the first is the baseline.")] = "",
    task: Annotated[str, typer.Option("--task", "-t", help="A name of `lmdistill list tasks`.")] = "",
    teacher: Annotated[str, typer.Option("--teacher", help="A name of `lmdistill list teachers`.")] = "",
    students: Annotated[str, typer.Option("--students", help="As in '{preset: tiny},{preset: mini}'.")] = "",
    fractions: Annotated[str, typer.Option("--fractions", help="Shares of the training data, as in 0.25,1.")] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="As in 0,1,2.")] = "",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Cells that run at a time.")] = 2,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of each.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and stop.")] = False,
    list_studies: Annotated[bool, typer.Option("--list", help="List the studies and stop.")] = False,
    sets: Sets = None,
) -> None:
    """Run recipes x students x data fractions x seeds and say which wins, by how much, at what cost."""
    from lmdistill import report
    from lmdistill.compare import compare, read, studies
    from lmdistill.errors import ConfigError, PartlyDone
    from lmdistill.grid import cells_of, check_rows, first_steps
    from lmdistill.outcomes import load
    from lmdistill.recipes._grounding import search_of
    from lmdistill.runs import Ended
    from lmdistill.spending import measure
    from lmdistill.standing import value

    if list_studies:
        for name in studies():
            print(f"{name:<22}{read(name, ['settings.task=sums', 'settings.teacher=scripted']).question}")
        return
    listed = {"recipes": recipes, "students": students, "fractions": fractions, "seeds": seeds}
    named = [f"{key}=[{value}]" for key, value in listed.items() if value]
    named += [f"settings.{key}={value}" for key, value in (("task", task), ("teacher", teacher)) if value]
    comparison = read(source, [*named, *(sets or ())])
    if dry_run:
        place = out or Path("runs/compare")
        cells = cells_of(comparison, place)
        check_rows(cells)
        for name in [f"first: {step.name}" for step in first_steps(comparison, place)] + [cell.name for cell in cells]:
            print(name)
        return
    if out is None:
        raise ConfigError("--out: name the folder that the cells fill")

    def tell(ended: Ended, done: int, total: int) -> None:
        if ended.report is None:
            told = f"failed: {(ended.error.splitlines() or ['?'])[-1]}"
        else:
            name, one = value(ended.report, comparison.metric) or ("done", math.nan)
            by = f" by lmdistill {ended.version}" if ended.version not in ("", __version__) else ""
            told = f"{name} {one:.3f}" + ("" if ended.repeated else f" (done before{by})")
        print(f"{done}/{total} {ended.call.name}: {told}", flush=True)

    ends = compare(comparison, out, workers=workers, threads=threads, tell=tell)
    if all(ended.report is None for ended in ends):
        raise ConfigError(f"every cell failed; the first said:\n{ends[0].error}")
    outcomes = load([out])
    measure(outcomes, search_of)
    found = report.write(outcomes, out)
    axes = list(dict.fromkeys(key for arm in found["arms"] for key in arm["about"]))
    rows = []
    for arm in found["arms"]:
        one = arm["estimate"]
        shown = [number(one["value"]), f"{number(one['low'])} to {number(one['high'])}"] if one else ["", ""]
        rows.append([arm["method"], *(arm["about"].get(axis, "") for axis in axes), *shown, str(len(arm["seeds"]))])
    show_table(["method", *axes, found["metric"], "95 % interval", "seeds"], rows, found["name"])
    for sentence in found["summary"]:
        print(f"- {sentence}")
    print(f"report: {out / 'report.html'}")
    failed = [ended for ended in ends if ended.report is None]
    if failed:
        raise PartlyDone(
            f"{len(failed)} of {len(ends)} cells failed (first: {failed[0].call.name}); the report is of the others, "
            "and the same command tries again"
        )
