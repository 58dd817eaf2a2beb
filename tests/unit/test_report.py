"""The report's numbers on made-up runs whose answers are known; nothing of a hostile text becomes markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lmdistill import charts, report
from lmdistill.errors import ConfigError, StoreError
from lmdistill.outcomes import Arm, Outcomes, Run, load
from lmdistill.significance import holm, mcnemar
from lmdistill.types import Report
from lmdistill.verdicts import detectable, gaps_closed, pairs_of
from made_outcomes import HOSTILE, comparison_folder, predictions, run_folder, some


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = comparison_folder(tmp_path_factory.mktemp("comparison"))
    report.write(load([out]), out, limit=150)
    return out


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return told


class Page(HTMLParser):
    """What a browser would make of the page: its tags, its links, its visible text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.handlers: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        given = dict(attrs)
        self.addresses += [str(given[name]) for name in ("href", "src", "srcset", "action", "data") if name in given]
        self.handlers += [name for name in given if name.startswith("on")]
        if tag == "script":
            self.scripts.append(given)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("style", "script"):
            self.text += data


def test_the_page_asks_for_nothing_and_holds_no_markup_of_others(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(address.startswith(("#", "data:")) for address in page.addresses) and page.addresses
    assert page.handlers == [] and "img" not in page.tags and "iframe" not in page.tags
    assert [one.get("type") for one in page.scripts] == ["application/json", None], "the data and our script alone"
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text.replace(HOSTILE, ""))
    assert "default-src 'none'" in text and "'unsafe-inline'; script-src 'sha256-" in text
    assert "<script>document.title='broken in'</script>" in page.text, "shown as text"


def test_the_items_of_the_page_are_the_test_items(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    data = json.loads(block[1])
    assert len(data["items"]) == 150 and data["of"] == 200
    assert data["methods"] == ["finetune fraction=1", "dss fraction=1", "single task fraction=1", "few_shot_cot"]
    first = data["items"][0]
    assert first["id"] == "t0" and first["gold"] == "yes" and first["choices"] == ["yes", "no"]
    assert first["said"][1]["rationale"] == HOSTILE and first["teacher"]["rationale"].startswith("teacher says")
    assert first["said"][0]["hits"] == [{"id": "p1", "title": "Source", "text": "A passage for 0"}]
    for row in data["items"]:
        for said in row["said"]:
            assert said["right"] == (said["answer"] == row["gold"])


def test_values_are_means_over_seeds_and_the_runs_own(found: dict[str, Any], folder: Path) -> None:
    assert [arm["title"] for arm in found["arms"]][:2] == ["finetune fraction=0.25", "finetune fraction=1"]
    for arm in found["arms"]:
        values = list(arm["seeds"].values())
        assert arm["estimate"]["value"] == pytest.approx(sum(values) / len(values))
        assert arm["estimate"]["low"] <= arm["estimate"]["value"] <= arm["estimate"]["high"]
        for seed, (low, high) in arm["exact"].items():
            assert low < arm["seeds"][seed] < high
    one = json.loads((folder / "cells" / "dss-1.0" / "seed-2" / "report.json").read_text())
    dss = next(arm for arm in found["arms"] if arm["title"] == "dss fraction=1")
    assert dss["seeds"]["2"] == one["metrics"]["accuracy"]["value"]
    assert found["teacher"] == {"value": 0.9, "low": 0.85, "high": 0.94, "n": 200}, "no mean over seeds: it has none"


def test_pairs_are_tested_on_the_same_items_and_corrected(found: dict[str, Any]) -> None:
    pairs = found["pairs"]
    assert len(pairs) == 12, "six at each share: the method without shares meets both"
    assert [pair["holm"] for pair in pairs] == pytest.approx(holm([pair["p"] for pair in pairs]))
    assert {pair["second"] for pair in pairs[:3]} == {"finetune fraction=0.25"}, "the baseline comes second"
    for pair in pairs:
        assert pair["p"] <= pair["benjamini_hochberg"] <= pair["holm"] <= 1
        assert pair["low"] <= pair["value"] <= pair["high"] and pair["n"] == 200
        by_arm = {arm["title"]: arm["estimate"]["value"] for arm in found["arms"]}
        assert pair["value"] == pytest.approx(by_arm[pair["first"]] - by_arm[pair["second"]])
    sure = next(p for p in pairs if (p["first"], p["second"]) == ("single task fraction=1", "finetune fraction=1"))
    assert sure["significant"] and len(sure["mcnemar"]) == 3 and sure["seeds"]["low"] > 0


def two_arms(tmp_path: Path, first: list[bool], second: list[bool]) -> Outcomes:
    """Two methods with one seed each."""
    run_folder(tmp_path / "a", 0, predictions(first), recipe="dss")
    run_folder(tmp_path / "b", 0, predictions(second), recipe="finetune")
    return load([tmp_path / "b", tmp_path / "a"])


def test_a_pair_by_hand(tmp_path: Path) -> None:
    # 12 items only the first gets right, 3 only the second, 15 both, none neither
    first, second = [True] * 27 + [False] * 3, [False] * 12 + [True] * 18
    outcomes = two_arms(tmp_path, first, second)
    (pair,) = pairs_of(outcomes)
    assert (pair.first, pair.second, pair.n) == ("dss", "finetune", 30)
    assert (pair.only_first, pair.only_second) == (12, 3) and pair.value == pytest.approx(9 / 30)
    assert pair.mcnemar == {"0": pytest.approx(mcnemar(12, 3))} and pair.seeds is None
    assert pair.p == pytest.approx(mcnemar(12, 3), abs=0.006) and pair.holm == pair.p
    limit = detectable(outcomes, [pair])
    assert limit is not None and limit.seen and limit.discordant == pytest.approx(0.5)


def test_the_gap_that_a_method_closes_stands_in_all_three_files(tmp_path: Path) -> None:
    levels = {"low": [True] * 40 + [False] * 60, "kd": [True] * 70 + [False] * 30, "high": [True] * 80 + [False] * 20}
    for name, right in levels.items():
        run_folder(tmp_path / name, 0, predictions(right), recipe=name)
    outcomes = replace(load([tmp_path / name for name in levels]), ceiling="high")
    (gap,) = gaps_closed(outcomes)
    assert gap.method == "kd" and gap.share is not None and gap.share.value == pytest.approx(0.75)
    told = report.write(outcomes, tmp_path / "out")
    assert told["gaps"][0]["share"]["value"] == pytest.approx(0.75)
    row = f"| kd | 0.75 | {gap.share.low:.2f} to {gap.share.high:.2f} |"
    assert row in report.markdown(told)
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert "Gap closed" in text and f"{gap.share.low:.2f} to {gap.share.high:.2f}" in text
    upside_down = replace(outcomes, baseline="high", ceiling="low")
    assert [one.share for one in gaps_closed(upside_down)] == [None]
    assert "no gap" in report.markdown(report.gathered(upside_down))


def test_what_a_test_set_can_show_is_said_of_a_single_run_too(tmp_path: Path) -> None:
    run_folder(tmp_path, 0, predictions([True] * 80 + [False] * 20), recipe="dss")
    outcomes = load([tmp_path])
    limit = detectable(outcomes, [])
    assert limit is not None and not limit.seen and limit.discordant == pytest.approx(0.32)
    said = report.gathered(outcomes)["summary"]
    assert said[0].startswith("dss: accuracy 0.800") and said[1].startswith("The teacher: accuracy 0.900 (0.850")
    assert "100 test items" in said[2]


def test_the_summary_answers_the_question(found: dict[str, Any]) -> None:
    told = "\n".join(found["summary"])
    assert "At fraction 1: single task has the highest accuracy" in told and "it beats" in told
    assert re.search(r"finetune on all the data, 0\.\d+, is reached by dss with (0\.25|1) of it and single task", told)
    assert "The teacher, 0.900, is not reached by finetune, dss and single task." in told
    assert "Failed and not counted: 1" in told


def test_funnel_confusion_calibration(found: dict[str, Any]) -> None:
    (way,) = found["funnels"]
    assert way["titles"] == ["dss fraction=1", "single task fraction=1"]
    dropped = {"no answer": 3, "<b>odd</b>": 2}
    assert way["steps"][0] == {"step": "read the answers", "reached": 100, "dropped": dropped, "left": 95}
    assert way["steps"][1]["left"] == 80
    matrix = next(one for one in found["confusions"] if one["title"] == "dss fraction=1")
    assert matrix["gold"] == ["no", "yes"] and sum(map(sum, matrix["rows"])) == 600, "three seeds of 200"
    right = sum(matrix["rows"][place][place] for place in range(2))
    dss = next(arm for arm in found["arms"] if arm["title"] == "dss fraction=1")
    assert right / 600 == pytest.approx(dss["estimate"]["value"])
    told = next(one for one in found["calibration"] if one["title"] == "dss fraction=1")
    assert sorted(round(row[0], 3) for row in told["bins"]) == [0.6, 0.9]
    share = {round(row[0], 1): row[2] / told["n"] for row in told["bins"]}
    assert told["calibration_error"] == pytest.approx(share[0.9] * 0.1 + share[0.6] * 0.6)
    assert all(one["title"] != "few_shot_cot" for one in found["calibration"]), "it has no confidences"


def test_costs_are_stated_and_measured(found: dict[str, Any]) -> None:
    dss = next(arm for arm in found["arms"] if arm["title"] == "dss fraction=1")["bill"]
    assert dss["teacher"] == 1.5 and dss["train_seconds"] == 30
    assert dss["training"] == pytest.approx(30 / 3600 * 0.36)
    assert dss["kilowatt_hours"] == pytest.approx(30 / 3600 * 0.1)
    assert dss["teacher_per_1000"] == pytest.approx(3.0) and dss["student_per_1000"] is None
    assert next(arm for arm in found["arms"] if arm["method"] == "finetune")["bill"]["teacher"] == 0


def test_markdown_has_every_arm_and_no_html(folder: Path, found: dict[str, Any]) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    table = text.partition("\nFailed:")[0]  # below it stands code, as it is
    assert "<" not in table and text.startswith("# Three ways")
    rows = [line for line in text.splitlines() if line.startswith("| single task |")]
    assert len(rows) == 2 and f"{found['arms'][5]['estimate']['value']:.3f}" in rows[1]


def test_a_run_s_own_report_is_not_overwritten(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", 0, predictions(some(0.5, 40, 1)), recipe="dss")
    before = (tmp_path / "run" / "report.json").read_bytes()
    from typer.testing import CliRunner

    from lmdistill.cli.main import app

    told = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert told.exit_code == 0, told.output
    assert (tmp_path / "run" / "report.json").read_bytes() == before
    assert (tmp_path / "run" / "report" / "report.html").exists()


def test_what_cannot_be_reported_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        load([tmp_path])
    (tmp_path / "report.json").write_text('{"name": "x", "metrics": {}, "settings": {}}')
    with pytest.raises(StoreError, match="is no report of a run"):
        load([tmp_path])
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        load([folder], metric="acuracy")


def test_methods_without_an_axis_stand_in_every_group() -> None:
    def arm(method: str, **about: Any) -> Arm:
        return Arm(method, method, about, {0: Run(Report("", {}), Path(), Path())})

    from lmdistill.costing import Costs

    arms = (arm("a", student="x", fraction=1.0), arm("a", student="y", fraction=1.0), arm("b"), arm("c", student="y"))
    groups = Outcomes("", "", arms, "accuracy", "a", Costs()).groups()
    told = {dict(key)["student"]: [one.method for one in group] for key, group in groups.items()}
    assert told == {"x": ["a", "b"], "y": ["a", "b", "c"]}


# --- charts ---


def test_an_axis_maps_ends_to_ends_and_ticks_are_round() -> None:
    axis = charts.Axis(0.0, 1.0, 100, 200)
    assert (axis.at(0), axis.at(0.5), axis.at(1)) == (100, 150, 200)
    assert [round(tick, 3) for tick in axis.ticks()] == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    log = charts.Axis(0.01, 100, 0, 4, log=True)
    assert log.at(1) == pytest.approx(2) and log.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert charts.Axis(5, 5, 0, 1).at(5) == pytest.approx(0.5), "one value lies in the middle"


def test_charts_escape_names_and_are_whole() -> None:
    from xml.etree import ElementTree

    points = [charts.Point(1, 0.5, 0.4, 0.6), charts.Point(2, 0.7, 0.6, 0.8)]
    line = charts.lines([charts.Series(HOSTILE, points)], x="<x>", y="&", rules=[(HOSTILE, 0.9)])
    dots = charts.scatter([(HOSTILE, charts.Point(3, 0.5, 0.4, 0.6), 1)], x="cost", y="accuracy", best=[0])
    for drawn in (line, dots, charts.reliability([(0.5, 0.4, 10), (0.9, 1.0, 1)])):
        root = ElementTree.fromstring(f"<all>{drawn}</all>")
        known = {"svg", "line", "text", "polyline", "polygon", "circle", "title", "p", "span"}
        assert {one.tag for one in root.iter()} <= {"all", *known}
