"""Outcomes -> report.html, report.md, report.json: which method wins, what it cost, and what each got wrong.

The page is one file that asks for nothing else: style and script stand in it, charts are inline SVG. Every text from a
teacher, a student or a data set is escaped, and a content security policy keeps anything else from running.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmdistill import intervals, report_parts
from lmdistill.codec import encode, to_line
from lmdistill.contests import SHARE, pairs_of
from lmdistill.findings import summary
from lmdistill.grid import brief
from lmdistill.outcomes import Arm, Outcomes
from lmdistill.quantities import money, number, seconds
from lmdistill.report_charts import drawings
from lmdistill.spending import costed
from lmdistill.store import versions, write_json, write_text
from lmdistill.verdicts import Pair, detectable, gaps_closed

FAMILIES = {
    "methods": "Methods on the same test items",
    "settings": "Each method's settings against its first one (shares of the data: against the largest)",
    "shares": "Less data against the baseline on the most",
}
ITEMS = 500
"""Test items that the page's browser holds."""


def write(outcomes: Outcomes, out: Path, *, limit: int = ITEMS) -> dict[str, Any]:
    """Write the three files below `out`; returns what `report.json` holds.

    Args:
        limit: test items in the page's error browser.
    """
    found = gathered(outcomes)
    write_json(out / "report.json", found)
    write_text(out / "report.md", markdown(found))
    write_text(out / "report.html", page(found, report_parts.items(outcomes, limit), drawings(outcomes, found)))
    return found


# --- the numbers -----------------------------------------------------------------------------------------------------


def gathered(outcomes: Outcomes) -> dict[str, Any]:
    """Everything the report says, as plain values."""
    pairs = pairs_of(outcomes)
    limit = detectable(outcomes, pairs)
    full, teacher = outcomes.full(), outcomes.teacher()
    by_title = {arm.title: arm for arm in outcomes.arms}
    arms = [_arm(arm, outcomes, arm in full) for arm in outcomes.arms]
    found = {
        "name": outcomes.title,
        "question": outcomes.question,
        "metric": outcomes.metric,
        "lower": outcomes.lower,
        "baseline": outcomes.baseline,
        "summary": summary(outcomes, pairs, limit, {arm["title"]: arm["bill"] for arm in arms}),
        "arms": arms,
        "teacher": None if teacher is None else asdict(teacher),
        "pairs": [
            {
                **asdict(pair),
                "significant": pair.significant,
                "worse": (pair.value < 0) != outcomes.lower,
                "methods": _names(pair, by_title),
            }
            for pair in pairs
        ],
        "ceiling": outcomes.ceiling,
        "gaps": [asdict(one) for one in gaps_closed(outcomes)],
        "detectable": None if limit is None else asdict(limit),
        "confusions": [one for arm in full if (one := report_parts.confusion(arm))],
        "calibration": [one for arm in full if (one := report_parts.calibration(arm))],
        "funnels": report_parts.funnels(full),
        "failed": [{key: row.get(key) for key in ("name", "error")} for row in outcomes.failed],
        "waiting": outcomes.waiting,
        "costs": asdict(outcomes.costs),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            **versions(),
        },
        "settings": dict(outcomes.settings),
    }
    plain: dict[str, Any] = json.loads(json.dumps(encode(found)))
    return plain


def _arm(arm: Arm, outcomes: Outcomes, timed: bool) -> dict[str, Any]:
    """A line of the table. Speed is measured for the arms with the most data alone."""
    metric = outcomes.metric
    told, speed = costed(arm, outcomes.costs, timed=timed)
    estimate = arm.estimate(metric)
    return {
        "title": arm.title,
        "method": arm.method,
        "recipe": arm.recipe,
        "about": {key: brief(value) for key, value in arm.about.items()},
        "estimate": None if estimate is None else asdict(estimate),
        "seeds": {str(seed): value for seed, value in arm.values(metric).items()},
        "aside": arm.method in outcomes.aside,
        "rests_on": arm.rests_on(metric),
        "exact": _exact(arm, metric),
        "metrics": {name: asdict(one) for name in arm.report.metrics if (one := arm.estimate(name)) is not None},
        "counts": dict(arm.report.counts),
        "counts_of": None if arm.seedless or len(arm.runs) == 1 else next(iter(arm.runs)),
        "bill": asdict(told) | {"made": told.made},
        "speed": None if speed is None else asdict(speed),
        "settings": dict(arm.report.settings),
    }


def _names(pair: Pair, arms: Mapping[str, Arm]) -> list[str]:
    """How a table calls the two: by what sets them apart."""
    first, second = arms[pair.first], arms[pair.second]
    if pair.family == "methods":
        return [first.method, second.method]
    axis = pair.axis or SHARE
    return [f"{arm.method}, {axis} {brief(arm.about[axis])}" for arm in (first, second)]


def _exact(arm: Arm, metric: str) -> dict[str, list[float]]:
    """Clopper and Pearson's interval of each seed, where the metric is a share of right answers."""
    found = {}
    for seed, scores in arm.scores(metric).items():
        if set(scores.values()) <= {0.0, 1.0}:
            found[str(seed)] = list(intervals.clopper_pearson(int(sum(scores.values())), len(scores)))
    return found


# --- the files -------------------------------------------------------------------------------------------------------


def page(found: Mapping[str, Any], browser: Mapping[str, Any], drawn: Mapping[str, Any]) -> str:
    """The page. What its script reads stands in a data block that holds no `<`."""
    import jinja2
    from markupsafe import Markup

    folder = Path(__file__).parent
    script = (folder / "report_page.js").read_text(encoding="utf-8")
    style = (folder / "report_page.css").read_text(encoding="utf-8")
    block = to_line(browser).replace("<", "\\u003c")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": number, "money": money, "seconds": seconds, "settings": as_yaml}
    template = environment.from_string((folder / "report_page.html").read_text(encoding="utf-8"))
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = template.render(
        found=found,
        style=Markup(style),
        families=FAMILIES,
        gap_note=_gap_note(found, found["baseline"], found["ceiling"]),
        script=Markup(script),
        hashed=hashed,
        browser=Markup(block),
        rows=ordered(found),
        count=len(browser["items"]),
        held=browser,
        of=browser["of"],
        curves=[(title, Markup(svg)) for title, svg in drawn["curves"]],
        pareto=Markup(drawn["pareto"]),
        reliability=[(title, Markup(svg)) for title, svg in drawn["reliability"]],
    )
    return _unicode(text)


def ordered(found: Mapping[str, Any]) -> list[Any]:
    """The arms by group, the best first in each; groups as the grid has them."""
    groups = list(dict.fromkeys(tuple(arm["about"].items()) for arm in found["arms"]))
    return sorted(
        found["arms"],
        key=lambda arm: (
            groups.index(tuple(arm["about"].items())),
            (1 if found["lower"] else -1) * arm["estimate"]["value"] if arm["estimate"] else math.inf,
        ),
    )


def markdown(found: Mapping[str, Any]) -> str:
    """The summary and the tables for a terminal, a pull request, a wiki."""
    lines = [f"# {_plain(found['name'])}", ""]
    lines += [_plain(found["question"]), ""] if found["question"] else []
    lines += [f"- {_plain(sentence)}" for sentence in found["summary"]] + [""]
    columns = ["method", *_axes(found), found["metric"], "95 % interval", "seeds", "train", "teacher", "1,000 answers"]
    lines += _table(columns)
    for arm in ordered(found):
        axes = [arm["about"].get(axis, "") for axis in _axes(found)]
        spent = arm["bill"]
        costs = [seconds(spent["train_seconds"]), money(spent["teacher"]), money(spent["student_per_1000"])]
        lines.append(_row([arm["method"], *axes, *_interval(arm["estimate"]), str(len(arm["seeds"])), *costs]))
    if found["teacher"]:
        empty = [""] * len(_axes(found))
        lines.append(_row(["the teacher", *empty, *_interval(found["teacher"]), "", "", "", ""]))
    for name, told in FAMILIES.items():
        lines += _pairs_table([pair for pair in found["pairs"] if pair["family"] == name], told)
    if found["gaps"]:
        note = _gap_note(found, _plain(found["baseline"]), _plain(found["ceiling"]))
        lines += ["", f"{note}:", "", *_table(["where", "method", "gap closed", "95 % interval"])]
        for gap in found["gaps"]:
            one = gap["share"]
            shown = [f"{one['value']:.2f}", f"{one['low']:.2f} to {one['high']:.2f}"] if one else ["no gap", ""]
            lines.append(_row([gap["where"], gap["method"], *shown]))
    for row in found["failed"]:
        lines += ["", f"Failed: {_plain(row['name'])}", "", *(f"    {line}" for line in str(row["error"]).splitlines())]
    return _unicode("\n".join(lines) + "\n")


def _interval(one: Mapping[str, Any] | None) -> list[str]:
    return [f"{one['value']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}"] if one else ["", ""]


def _pairs_table(pairs: Sequence[Mapping[str, Any]], told: str) -> list[str]:
    if not pairs:
        return []
    tests = max(pair["tests"] for pair in pairs)
    lines = ["", f"{told}; p is corrected for {tests} test{'' if tests == 1 else 's'}:", ""]
    columns = ["where", "first", "second", "difference", "95 % interval", "p", "Holm", "Benjamini-Hochberg"]
    lines += _table([*columns, "seeds alone"])
    for pair in pairs:
        ps = [f"{pair[key]:.2g}" for key in ("p", "holm", "benjamini_hochberg")]
        seeds = f"{pair['seeds']['low']:+.3f} to {pair['seeds']['high']:+.3f}" if pair["seeds"] else ""
        shown = [f"{pair['value']:+.3f}", f"{pair['low']:+.3f} to {pair['high']:+.3f}", *ps, seeds]
        lines.append(_row([pair["where"], *pair["methods"], *shown]))
    return lines


def _gap_note(found: Mapping[str, Any], baseline: str, ceiling: str) -> str:
    several = any(len(arm["seeds"]) > 1 for arm in found["arms"])
    return (
        f"The share of the distance from {baseline} to {ceiling} that each method "
        f"closes, with an interval over {'trainings and ' if several else ''}test items; given only where that "
        "distance is above 0 for sure (95 %)"
    )


def _axes(found: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(key for arm in found["arms"] for key in arm["about"]))


def _table(columns: Sequence[str]) -> list[str]:
    return [_row(columns), "|" + " --- |" * len(columns)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: Any) -> str:
    """One line, with nothing that Markdown would take for HTML."""
    return " ".join(str(text).split()).replace("<", "&lt;")


def _unicode(text: str) -> str:
    """The text as UTF-8 can hold it: half of a surrogate pair (a text cut inside an emoji) becomes U+FFFD."""
    return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


def as_yaml(value: Any) -> str:
    """Settings as they would stand in a file."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))
