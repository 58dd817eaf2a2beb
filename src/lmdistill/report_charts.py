"""The pictures of a report: curves along each axis of the grid, accuracy against cost, reliability."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from lmdistill import charts
from lmdistill.costing import frontier
from lmdistill.grid import brief
from lmdistill.outcomes import Outcomes


def drawings(outcomes: Outcomes, found: Mapping[str, Any]) -> dict[str, Any]:
    """Inline SVG: curves along each axis, the Pareto plot, reliability diagrams."""
    colours = {method: place for place, method in enumerate(dict.fromkeys(arm.method for arm in outcomes.arms))}
    return {
        "curves": _curves(outcomes, found, colours),
        "pareto": _pareto(outcomes, found, colours),
        "reliability": [(one["title"], charts.reliability(one["bins"])) for one in found["calibration"]],
    }


def _curves(outcomes: Outcomes, found: Mapping[str, Any], colours: Mapping[str, int]) -> list[tuple[str, str]]:
    """One chart for each axis of the grid and each choice of the others."""
    metric = outcomes.metric
    rules = [("teacher", found["teacher"]["value"])] if found["teacher"] else []
    drawn: list[tuple[str, str]] = []
    for axis in dict.fromkeys(key for arm in outcomes.arms for key in arm.about):
        values = list(dict.fromkeys(brief(arm.about[axis]) for arm in outcomes.arms if axis in arm.about))
        if len(values) < 2:
            continue
        numbers = {brief(arm.about[axis]): arm.about[axis] for arm in outcomes.arms if axis in arm.about}
        numeric = all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers.values())
        log = numeric and min(numbers.values()) > 0 and max(numbers.values()) / min(numbers.values()) >= 8
        charted: dict[str, dict[str, list[charts.Point]]] = {}
        for arm in outcomes.arms:
            estimate = arm.estimate(metric)
            if axis not in arm.about or estimate is None:
                continue
            rest = ", ".join(f"{key} {brief(value)}" for key, value in arm.about.items() if key != axis)
            x = float(arm.about[axis]) if numeric else float(values.index(brief(arm.about[axis])))
            point = charts.Point(x, estimate.value, estimate.low, estimate.high)
            charted.setdefault(rest, {}).setdefault(arm.method, []).append(point)
        for rest, lines in charted.items():
            series = [charts.Series(method, points, colours[method]) for method, points in lines.items()]
            names = () if numeric else values
            svg = charts.lines(series, x=axis, y=metric, names=names, log=bool(log), rules=rules)
            drawn.append((f"{metric} by {axis}" + (f" ({rest})" if rest else ""), svg))
    return drawn


def _pareto(outcomes: Outcomes, found: Mapping[str, Any], colours: Mapping[str, int]) -> str:
    """The metric against what a method cost to make; '' where there is nothing to compare. What is not known is named
    and not drawn: it must not look as cheap as nothing."""
    every = [arm for arm in found["arms"] if arm["estimate"] is not None and arm["bill"]["train_seconds"] > 0]
    rows = [arm for arm in every if arm["bill"]["made"] is not None]
    unknown = ", ".join(arm["title"] for arm in every if arm["bill"]["made"] is None)
    told = f"Not drawn, as what the teacher's answers cost is not known: {unknown}." if unknown else ""
    note = f'<p class="note">{escape(told)}</p>' if unknown else ""
    if len(rows) < 2:
        return ""
    costs = [row["bill"]["made"] for row in rows]
    free = max(costs) <= 0
    xs = [row["bill"]["train_seconds"] for row in rows] if free else costs
    points = []
    for row, x in zip(rows, xs, strict=True):
        one = row["estimate"]
        point = charts.Point(x, one["value"], one["low"], one["high"])
        points.append((row["title"], point, colours[row["method"]]))
    competing = [place for place, row in enumerate(rows) if not row["aside"]]
    sign = -1 if outcomes.lower else 1
    known = [(points[at][1].x, sign * points[at][1].y) for at in competing]
    best = [competing[place] for place in frontier(known)]
    name = "training seconds" if free else "dollars to make (teacher and training)"
    log = min(xs) > 0 and max(xs) / min(xs) >= 10  # what is free stands at 0, where a logarithm has no place
    drawn = charts.scatter(points, x=name, y=outcomes.metric, best=best, log=log)
    return drawn + charts.legend([(row["method"], colours[row["method"]]) for row in rows]) + note
