"""`lmdistill profile RUN ...`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from lmdistill import store
from lmdistill.cli._settings import AsJson
from lmdistill.cli._table import show_table
from lmdistill.errors import StoreError
from lmdistill.types import Estimate, Report


class Profiled(NamedTuple):
    """A run's student: what it costs, and how good it is."""

    run: str
    metric: str
    quality: Estimate
    profile: Any


def command(
    runs: Annotated[list[Path], typer.Argument(help="Folders that `lmdistill run` left: their first seed's student.")],
    prompts: Annotated[int, typer.Option(help="How many test inputs are used.")] = 25,
    new_tokens: Annotated[int, typer.Option(help="The most tokens of an answer.")] = 32,
    calls: Annotated[int, typer.Option(help="Calls that the latency is the median of.")] = 25,
    memory: Annotated[float, typer.Option(help="MiB that the batch of the throughput may take.")] = 16_384,
    chart: Annotated[Path | None, typer.Option(help="An HTML file: quality against latency.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what students cost to run (arithmetic, latency, throughput, memory) beside how good they are."""
    from lmdistill.profiling import ProfileSettings

    settings = ProfileSettings(new_tokens=new_tokens, calls=calls, memory_mib=memory)
    found = [_profiled(run, prompts, settings) for run in runs]
    if chart is not None:
        store.write_text(chart, _drawn(found))
    if as_json:
        rows = [
            {"run": one.run, one.metric: store.encode(one.quality), **dataclasses.asdict(one.profile)} for one in found
        ]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    columns = ["run", "quality", "parameters", "GFLOPs", "ms", "p95 ms", "a minute", "batch", "MiB"]
    show_table(columns, [_row(one) for one in found])
    if chart is not None:
        print(f"chart: {chart}")


def _profiled(run: Path, prompts: int, settings: Any) -> Profiled:
    """Measure the first seed's student of a run on its own test inputs.

    Raises:
        StoreError: the folder is no finished run, or its student is gone.
    """
    from lmdistill import config
    from lmdistill.predict import open_student
    from lmdistill.profiling import profile
    from lmdistill.types import Annotation

    path = run / "report.json"
    if not path.exists():
        raise StoreError(f"{run} has no report.json: a folder that `lmdistill run` finished was expected")
    report = store.decode(Report, json.loads(path.read_text(encoding="utf-8")))
    told = Path(next(iter(report.facts["students"].values())))
    places = (told, run.joinpath(*told.parts[-3:]))
    opened = open_student(next((place for place in places if place.exists()), told))
    task = config.rebuild("tasks", opened.card["task"])
    examples = task.examples(report.settings.get("test_split", "test"))
    asked = [opened.objective.prompt(Annotation(examples[i])) for i in range(min(prompts, len(examples)))]
    metric, quality = next(iter(report.metrics.items()))
    return Profiled(str(run), metric, quality, profile(opened.student, asked, settings))


def _row(one: Profiled) -> list[str]:
    cost = one.profile
    numbers = (cost.flops / 1e9, cost.latency_ms, cost.latency_p95_ms, cost.throughput_per_minute)
    quality = f"{one.metric} {one.quality.value:.3f} [{one.quality.low:.3f}, {one.quality.high:.3f}]"
    size = [f"{number:,.3g}" if number < 100 else f"{number:,.0f}" for number in numbers]
    return [one.run, quality, f"{cost.parameters:,}", *size, str(cost.batch), f"{cost.peak_mib:,.0f}"]


def _drawn(found: Sequence[Profiled]) -> str:
    """A page: quality against latency, those that nothing else beats joined."""
    from importlib.resources import files

    from lmdistill import charts

    points = [
        (one.run, charts.Point(one.profile.latency_ms, one.quality.value, one.quality.low, one.quality.high), number)
        for number, one in enumerate(found)
    ]
    order = sorted(range(len(points)), key=lambda i: (points[i][1].x, -points[i][1].y))
    best: list[int] = []
    for i in order:
        if not best or points[i][1].y > points[best[-1]][1].y:
            best.append(i)
    style = files("lmdistill").joinpath("report_page.css").read_text(encoding="utf-8")
    drawn = charts.scatter(points, x="ms an answer", y=found[0].metric, best=best)
    key = charts.legend([(one.run, number) for number, one in enumerate(found)])
    head = f'<!doctype html><meta charset="utf-8"><title>{found[0].metric} against latency</title>'
    return f"{head}<style>{style}</style><main>{drawn}{key}</main>\n"
