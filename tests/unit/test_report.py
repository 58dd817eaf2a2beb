"""The report's numbers on made-up runs whose answers are known; nothing of a hostile text becomes markup."""

from __future__ import annotations

import itertools
import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from lmdistill import charts, report, report_parts
from lmdistill.contests import pairs_of
from lmdistill.costing import frontier
from lmdistill.errors import ConfigError, StoreError
from lmdistill.intervals import Noise
from lmdistill.outcomes import Arm, Outcomes, Run, load
from lmdistill.report_charts import drawings
from lmdistill.significance import holm, mcnemar
from lmdistill.types import Report
from lmdistill.verdicts import detectable, gaps_closed
from made_outcomes import (
    HOSTILE,
    cell_of,
    cells_folder,
    comparison_folder,
    hash_of,
    predictions,
    run_folder,
    some,
)


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


def test_half_a_surrogate_pair_is_reported(tmp_path: Path) -> None:
    """An answer cut inside an emoji: such a text is kept, and UTF-8 has no word for it."""
    cut = "</script> \ud83d"
    told = [replace(one, rationale=cut) for one in predictions([True] * 9 + [False])]
    told[9] = replace(told[9], reason="no answer \ud83d")
    run_folder(tmp_path, 0, told, recipe="dss")
    outcomes = replace(load([tmp_path]), title="Cut \ud83d", question="\U0001f600?")
    report.write(outcomes, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert block is not None and "<" not in block[1]
    assert [item["said"][0]["rationale"] for item in json.loads(block[1])["items"]] == [cut] * 10
    assert "<title>Cut \ufffd</title>" in text and "\U0001f600?" in text
    assert (tmp_path / "out" / "report.md").read_text(encoding="utf-8").startswith("# Cut \ufffd\n\n\U0001f600?")


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
    pairs = [pair for pair in found["pairs"] if pair["family"] == "methods"]
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
    reached = (
        r"is reached by single task with 0\.25 of it \(surely better\); is reached by dss with 0\.25 of it "
        r"\(cannot be told apart\)"
    )
    assert re.search(rf"finetune on all the data, 0\.\d+, {reached}", told)
    assert "The teacher, 0.900, is not reached by finetune, dss and single task (by value; no test)." in told
    assert "Failed and not counted: 1" in told


def grid(out: Path, levels: dict[str, float], seeds: int = 3, items: int = 200) -> list[dict[str, Any]]:
    """Methods by how often they are right."""
    return [
        cell_of(out, method, seed, some(level, items, hash_of(method, seed)))
        for method, level in levels.items()
        for seed in range(seeds)
    ]


def test_what_was_made_beforehand_wins_nothing_and_the_best_meets_everyone(tmp_path: Path) -> None:
    levels = {"finetune": 0.5, **{name: 0.55 + 0.02 * n for n, name in enumerate("abcdefg")}, "best": 0.9}
    rows = [cell_of(tmp_path, "expert", 0, some(0.99, 200, 1)), *grid(tmp_path, levels)]
    cells_folder(tmp_path, rows, first={"expert": {"recipe": "finetune"}}, baseline="finetune", ceiling="expert")
    outcomes = load([tmp_path])
    told = report.gathered(outcomes)
    assert told["summary"][0].startswith("best has the highest accuracy") and "expert" not in told["summary"][0]
    assert told["summary"][1].startswith("Outside the competition: expert, the ceiling, 0.9")
    pairs = pairs_of(outcomes)
    assert not any("expert" in (pair.first, pair.second) for pair in pairs)
    assert {pair.second for pair in pairs if pair.first == "best"} == {*levels} - {"best"}
    assert all(name in told["summary"][0] for name in levels), "each is beaten or not told apart"
    assert {pair.tests for pair in pairs} == {36}, "the best one is found by looking at all of nine"
    assert len(told["gaps"]) == 8, "the ceiling still measures the gap"
    named = re.findall(r'<text class="label"[^>]*>([^<]*)</text>', drawings(outcomes, told)["pareto"])
    assert "best" in named and "expert" not in named, "no part of the line that nothing else beats"


def test_a_student_that_says_the_same_to_everything_is_named(tmp_path: Path) -> None:
    always_yes = [i % 2 == 0 for i in range(400)]  # the labels take turns
    rows = [cell_of(tmp_path, "fair", 0, some(0.6, 400, 1)), cell_of(tmp_path, "stuck", 0, always_yes)]
    told = "\n".join(report.gathered(load([cells_folder(tmp_path, rows)]))["summary"])
    assert "nearly the same to everything: stuck ('yes' to 392 of 400)." in told
    few = tmp_path / "few"
    rows = [cell_of(few, "stuck", 0, always_yes[:8])]
    assert "nearly the same" not in "\n".join(report.gathered(load([cells_folder(few, rows)]))["summary"])


def test_saying_the_commonest_label_alone_is_named_too(tmp_path: Path) -> None:
    mostly = [i % 2 == 0 or i % 10 == 1 for i in range(400)]
    told = [
        replace(one, example=replace(one.example, label="yes" if good else "no"), answer="yes")
        for one, good in zip(predictions([True] * 400), mostly, strict=True)
    ]
    run_folder(tmp_path / "stuck", 0, told, recipe="dss")
    assert mostly.count(True) == 240
    said = "\n".join(report.gathered(load([tmp_path / "stuck"]))["summary"])
    assert "nearly the same to everything: dss ('yes' to 400 of 400)." in said


def test_the_loser_of_what_both_were_asked_beats_nobody(tmp_path: Path) -> None:
    """A has the higher mean, over seeds that B has not; on the one that both have it is far worse."""
    levels = {0: 0.45, 1: 0.99, 2: 0.99, 3: 0.99}
    rows = [cell_of(tmp_path, "a", seed, some(level, 300, seed)) for seed, level in levels.items()]
    rows.append(cell_of(tmp_path, "b", 0, some(0.8, 300, 9)))
    outcomes = load([cells_folder(tmp_path, rows)])
    (pair,) = pairs_of(outcomes)
    assert pair.significant and (pair.value > 0) == (pair.first == "b")
    said = report.gathered(outcomes)["summary"][0]
    assert "a has the highest accuracy" in said and "beats" not in said
    assert "on the seeds and items that both have, b is surely better than it" in said


def test_teachers_that_differ_have_no_line_in_common(tmp_path: Path) -> None:
    rows = [cell_of(tmp_path, "dss", 0, some(0.6, 100, n), n=n) for n in (1, 2)]
    path = tmp_path / rows[1]["folder"] / "report.json"
    other = json.loads(path.read_text())
    other["metrics"]["teacher_accuracy"] |= {"value": 0.4, "low": 0.3, "high": 0.5}
    path.write_text(json.dumps(other))
    outcomes = load([cells_folder(tmp_path, rows)])
    found = report.gathered(outcomes)
    assert outcomes.teacher() is None and found["teacher"] is None
    (said,) = [one for one in found["summary"] if "teacher" in one]
    assert "0.900 (0.850 to 0.940) for dss sampling.n=1; 0.400 (0.300 to 0.500) for dss sampling.n=2" in said


def test_the_same_method_twice_is_not_told_as_beaten(tmp_path: Path) -> None:
    """Items alone would be sure of it; the seeds show that such differences come and go."""
    rows = []
    for method, levels in {"a": (0.60, 0.70, 0.80), "b": (0.55, 0.60, 0.65)}.items():
        rows += [cell_of(tmp_path, method, n, some(one, 800, hash_of(method, n))) for n, one in enumerate(levels)]
    outcomes = load([cells_folder(tmp_path, rows)])
    (pair,) = pairs_of(outcomes)
    assert pair.trainings == 3 and not pair.significant and pair.low < 0 < pair.high
    assert Noise(0.0, pair.item_error**2, 0).p(pair.value) < 1e-4, "what the items alone would say"
    assert "a has the highest accuracy" in report.gathered(outcomes)["summary"][0]
    assert "it cannot be told apart from b" in report.gathered(outcomes)["summary"][0]


def test_one_training_each_is_told_of_two_students(tmp_path: Path) -> None:
    outcomes = two_arms(tmp_path, [True] * 80 + [False] * 20, [True] * 40 + [False] * 60)
    said = report.gathered(outcomes)["summary"][0]
    assert "its student beats that of finetune" in said and "these two students, not about the methods" in said


def test_settings_of_one_method_are_tested_against_the_first_and_shares_against_the_largest(tmp_path: Path) -> None:
    rows = [
        cell_of(tmp_path, "scotd", seed, some({1: 0.5, 5: 0.52, 30: 0.9}[n], 200, hash_of(n, seed)), n=n)
        for n in (1, 5, 30)
        for seed in range(3)
    ]
    outcomes = load([cells_folder(tmp_path, rows)])
    pairs = pairs_of(outcomes)
    assert [(pair.first, pair.second) for pair in pairs] == [
        ("scotd sampling.n=5", "scotd sampling.n=1"),
        ("scotd sampling.n=30", "scotd sampling.n=1"),
    ]
    assert {pair.family for pair in pairs} == {"settings"} and pairs[1].significant and not pairs[0].significant
    said = "\n".join(report.gathered(outcomes)["summary"])
    assert "By sampling.n, against 1: scotd with 5 cannot be told apart (" in said and "30 is better (+0." in said
    shares = tmp_path / "shares"
    rows = [
        cell_of(shares, "dss", seed, some(0.5 + 0.3 * part, 200, hash_of(part, seed)), fraction=part)
        for part in (0.25, 1.0)
        for seed in range(3)
    ]
    outcomes = load([cells_folder(shares, rows)])
    (pair,) = pairs_of(outcomes)
    assert (pair.first, pair.second) == ("dss fraction=0.25", "dss fraction=1") and pair.value < 0 and pair.significant
    said = "\n".join(report.gathered(outcomes)["summary"])
    assert "By fraction, against 1: dss with 0.25 is worse (-0." in said
    assert ", ." not in said and "on all the data" not in said, "no half sentence where one method has shares"


def test_reaching_the_baseline_with_less_data_is_tested(found: dict[str, Any]) -> None:
    own = [pair for pair in found["pairs"] if pair["family"] == "shares"]
    assert [pair["first"] for pair in own] == ["dss fraction=0.25", "single task fraction=0.25"]
    assert {pair["second"] for pair in own} == {"finetune fraction=1"}
    assert [pair["holm"] for pair in own] == pytest.approx(holm([pair["p"] for pair in own]))


def test_seeds_that_failed_are_not_taken_for_a_method_without_seeds(tmp_path: Path) -> None:
    rows = grid(tmp_path, {"finetune": 0.6})
    rows += [cell_of(tmp_path, "dss", 1, some(0.8, 200, 5))]
    rows += [cell_of(tmp_path, "dss", seed, [], status="failed") for seed in (0, 2)]
    (pair,) = pairs_of(load([cells_folder(tmp_path, rows)]))
    assert list(pair.mcnemar) == ["1"] and pair.trainings == 1, "the seed that both have"
    rows[3]["seed"] = None
    run_folder(tmp_path / rows[3]["folder"], None, predictions(some(0.8, 200, 5)), recipe="dss")
    (pair,) = pairs_of(load([cells_folder(tmp_path, rows)]))
    assert list(pair.mcnemar) == ["0", "1", "2"] and pair.freedom == 2, "it trains nothing: it meets every seed"


def test_the_baseline_stays_what_was_stated_where_it_has_no_run(tmp_path: Path) -> None:
    rows = [cell_of(tmp_path, "finetune", seed, [], status="failed") for seed in (0, 1)]
    rows += grid(tmp_path, dict.fromkeys("abcdefg", 0.6), seeds=1)
    outcomes = load([cells_folder(tmp_path, rows, recipes=["finetune", *"abcdefg"])])
    assert outcomes.baseline == "finetune" and len(pairs_of(outcomes)) == 21, "every pair"
    said = report.gathered(outcomes)["summary"]
    assert "The baseline, finetune, has no finished run, so every pair is tested." in said


def test_items_are_the_same_only_where_they_ask_and_expect_the_same(tmp_path: Path) -> None:
    mine = predictions(some(0.8, 60, 1))
    other = [replace(one, example=replace(one.example, input=f"Another {one.example.id}")) for one in mine[:20]]
    run_folder(tmp_path / "a", 0, mine, recipe="dss")
    run_folder(tmp_path / "b", 0, [*other, *predictions(some(0.5, 60, 2))[20:]], recipe="finetune")
    run_folder(tmp_path / "c", 0, other, recipe="mi")
    (pair,) = pairs_of(load([tmp_path / "b", tmp_path / "a"]))
    assert (pair.n, pair.left_out) == (40, 40)
    said = report.gathered(load([tmp_path / "b", tmp_path / "a"]))["summary"]
    assert any("share 40 items, and 40 were asked of one alone" in one for one in said)
    outcomes = load([tmp_path / "a", tmp_path / "c"])
    assert pairs_of(outcomes) == []
    shown = report_parts.items(outcomes, 200)
    assert shown["of"] == 80 and {row["id"] for row in shown["items"]} == {f"t{i}" for i in range(60)}
    assert all((row["input"].startswith("Another")) == (row["said"][0] is None) for row in shown["items"])
    assert "it is not compared with" in report.gathered(outcomes)["summary"][0]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for month, level in (("jan", 0.5), ("feb", 0.9)):
        run_folder(tmp_path / month / "dss", 0, predictions(some(level, 100, hash_of(month))), recipe="dss")
    outcomes = load([tmp_path / "jan" / "dss", tmp_path / "feb" / "dss"])
    assert [arm.title for arm in outcomes.arms] == ["jan/dss", "feb/dss"]
    assert [(pair.first, pair.second) for pair in pairs_of(outcomes)] == [("feb/dss", "jan/dss")]
    old, new = (cells_folder(tmp_path / one, grid(tmp_path / one, {"dss": 0.5, "mi": 0.6}, 1)) for one in ("o", "n"))
    assert [arm.method for arm in load([old, new]).arms] == ["dss", "mi", "dss (n)", "mi (n)"]


def test_an_interval_says_what_it_rests_on(found: dict[str, Any], tmp_path: Path) -> None:
    dss = next(arm for arm in found["arms"] if arm["title"] == "dss fraction=1")
    assert dss["rests_on"] == "seeds and items" and dss["counts_of"] == 0
    assert next(arm for arm in found["arms"] if arm["method"] == "few_shot_cot")["rests_on"] == "items"
    for arm in found["arms"]:
        if "teacher_accuracy" in arm["metrics"]:
            assert arm["metrics"]["teacher_accuracy"]["low"] == 0.85, "every seed has the same teacher"
    high = {"a": (0.93, 0.99), "b": (0.97, 1.0)}
    rows = [cell_of(tmp_path, name, n, some(one, 200, n)) for name, own in high.items() for n, one in enumerate(own)]
    for arm in load([cells_folder(tmp_path, rows)]).arms:
        one = arm.estimate("accuracy")
        assert one is not None and 0 <= one.low < one.value < one.high <= 1


def test_what_can_be_shown_agrees_with_what_is_tested(tmp_path: Path) -> None:
    outcomes = load([cells_folder(tmp_path, grid(tmp_path, {"a": 0.5, "b": 0.55, "c": 0.6, "d": 0.9}))])
    pairs = pairs_of(outcomes)
    limit = detectable(outcomes, pairs)
    assert limit is not None and limit.tests == 6 and limit.trainings == 3 and limit.difference is not None
    for pair in pairs:
        assert not pair.significant or abs(pair.value) > 0.5 * limit.difference, "half would be luck"
        assert pair.significant or abs(pair.value) < 1.6 * limit.difference
    alone = detectable(outcomes, [replace(pair, tests=1) for pair in pairs])
    assert alone is not None and alone.difference is not None and alone.difference < limit.difference
    same = two_arms(tmp_path / "same", [True] * 20, [True] * 20)
    limit = detectable(same, pairs_of(same))
    assert limit is not None and limit.difference is None
    assert any("can show: nothing" in one for one in report.gathered(same)["summary"])
    few = two_arms(tmp_path / "few", [True] * 10, [True] * 9 + [False])
    assert (limit := detectable(few, pairs_of(few))) is not None and limit.difference is None


def test_the_summary_names_the_cheapest_that_is_as_good(tmp_path: Path) -> None:
    dear = {"annotation": {"cost_of_all_answers": 50.0, "cost_per_example": 0.05, "complete": True}}
    rows = [cell_of(tmp_path, "dss", n, some(0.80, 200, n), facts=dear) for n in range(2)]
    rows += [cell_of(tmp_path, "finetune", n, some(0.78, 200, 10 + n)) for n in range(2)]
    said = report.gathered(load([cells_folder(tmp_path, rows, baseline="finetune")]))["summary"]
    (cost,) = [one for one in said if one.startswith("Cheapest")]
    assert "finetune, where dss is the best: $0.0" in cost and "to make" in cost


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


def test_tables_begin_with_the_best_of_each_group_and_the_text_has_the_teacher(
    folder: Path, found: dict[str, Any]
) -> None:
    text = Page((folder / "report.html").read_text(encoding="utf-8")).text
    order = [(arm["about"].get("fraction"), arm["method"]) for arm in report.ordered(found)]
    assert order[:6] == [(f, m) for f in ("0.25", "1") for m in ("single task", "dss", "finetune")]
    told = (folder / "report.md").read_text(encoding="utf-8")
    assert "| the teacher |  | 0.900 | 0.850 to 0.940 |" in told
    pair = found["pairs"][0]
    seeds = f"{pair['seeds']['low']:+.3f} to {pair['seeds']['high']:+.3f}"
    assert "| seeds alone |" in told and f" {seeds} |" in told and seeds in text
    assert "corrected for 12 tests" in told and "Counts of seed 0:" in text


def test_the_error_browser_holds_the_baseline_and_the_best_and_says_so(tmp_path: Path) -> None:
    levels = {f"m{n:02}": 0.3 + 0.04 * n for n in range(14)} | {"finetune": 0.2}
    rows = grid(tmp_path, levels, seeds=1, items=100)
    outcomes = load([cells_folder(tmp_path, rows, baseline="finetune")])
    held = report_parts.items(outcomes, 5)
    value = {arm.method: one.value for arm in outcomes.arms if (one := arm.estimate("accuracy"))}
    best = sorted((name for name in levels if name != "finetune"), key=lambda name: -value[name])
    assert set(held["methods"]) == {"finetune", *best[:11]} and held["not_held"] == best[11:]
    assert {held["methods"][place] for place in held["shown"]} == {"finetune", *best[:5]}
    told = report.write(outcomes, tmp_path / "out", limit=5)
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert f"not held: {', '.join(best[11:])}" in text and "Methods shown: the baseline and the best" in text
    assert len(told["arms"]) == 15


# --- charts ---


class Words(NamedTuple):
    """A text of a picture, and the box that it fills on a phone (an em is 19 units there, see the page's style)."""

    text: str
    left: float
    right: float
    top: float
    bottom: float


def words_of(drawn: str) -> list[Words]:
    found = []
    for one in ElementTree.fromstring(f"<all>{drawn}</all>").iter("text"):
        text = one.text or ""
        wide = 0.6 * 19 * len(text)
        x, y = float(one.attrib["x"]), float(one.attrib["y"])
        left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[one.get("text-anchor", "start")]
        found.append(Words(text, left, left + wide, y - 14, y + 4))
    return found


def overlapping(words: list[Words]) -> list[tuple[str, str]]:
    return [
        (one.text, two.text)
        for one, two in itertools.combinations(words, 2)
        if one.left < two.right and two.left < one.right and one.top < two.bottom and two.top < one.bottom
    ]


def outside(drawn: str) -> list[str]:
    sizes = re.search(r'viewBox="0 0 (\d+) (\d+)"', drawn)
    assert sizes is not None
    wide, high = map(int, sizes.groups())
    return [one.text for one in words_of(drawn) if one.left < 0 or one.right > wide or one.top < 0 or one.bottom > high]


NAMES = ["scripted", *(f"scripted error_rate {share}" for share in ("0.1", "0.2", "0.3", "0.4"))]
LONG = [f"openai/gpt-4o-mini-2024-07-18 temperature {share}" for share in ("0", "0.2", "0.5", "0.7", "1")]


@pytest.mark.parametrize("names", [["a", "b"], NAMES, LONG, [f"model number {n}" for n in range(40)], ["ab " * 40] * 2])
def test_names_on_an_axis_have_room(names: list[str]) -> None:
    points = [charts.Point(place, 0.5, 0.4, 0.6) for place in range(len(names))]
    drawn = charts.lines([charts.Series("dss", points)], x="teacher", y="accuracy", names=names)
    assert overlapping(words_of(drawn)) == [] and outside(drawn) == []
    told = " ".join(ElementTree.fromstring(f"<all>{drawn}</all>").itertext())
    assert all(" ".join(name.split()) in " ".join(told.split()) for name in names), "in full, where one looks for it"
    shown = " ".join(one.text for one in words_of(drawn))
    if names == NAMES:
        assert shown.count("error_rate") == 4, "in lines, as each word has room"
    if names == LONG:
        assert "openai" not in shown and "<span>2: openai/gpt-4o-mini-2024-07-18 temperature 0.2</span>" in drawn


def test_numbers_on_an_axis_have_room() -> None:
    for xs in ([0.01, 0.011, 0.012, 1], [10_000, 12_000, 15_000, 200_000], [1e-9, 1e4], [1e5, 2e5]):
        for log in (False, True):
            points = [charts.Point(x, 0.5, 0.4, 0.6) for x in xs]
            drawn = charts.lines([charts.Series("dss", points)], x="steps", y="accuracy", log=log)
            dots = charts.scatter([("dss", point, 0) for point in points], x="dollars", y="accuracy", log=log)
            for picture in (drawn, dots):
                assert overlapping(words_of(picture)) == [] and outside(picture) == [], (xs, log)
                assert len(words_of(picture)) > 4


def test_the_labels_of_a_frontier_have_room() -> None:
    """Grids of two methods at two shares of the data and others: names where they have room, else numbers."""
    rng, named = random.Random(0), 0
    for _ in range(60):
        titles = [f"{method} fraction={share}" for method in ("finetune", "dss", "scotd") for share in ("0.25", "1")]
        spread = rng.choice([0.01, 0.1, 0.5])
        found = [(0.5 + spread * rng.random(), 1 + rng.random() * rng.choice([0.05, 1, 9])) for _ in titles]
        points = [
            (title, charts.Point(x, y, y - 0.05, y + 0.05), n)
            for n, (title, (y, x)) in enumerate(zip(titles, found, strict=True))
        ]
        best = frontier([(point.x, point.y) for _, point, _ in points])
        drawn = charts.scatter(points, x="dollars", y="accuracy", best=best)
        words = words_of(drawn)
        assert overlapping(words) == [] and outside(drawn) == []
        labels = re.findall(r'<text class="label"[^>]*>([^<]*)<', drawn)
        whole = [points[place][0] for place in best]
        numbered = re.findall(r"</svg>(\d+): ([^<]*)</span>", drawn)
        assert labels == whole or (labels == [n for n, _ in numbered] and whole == [name for _, name in numbered])
        named += labels == whole
    assert named > 10, "most small frontiers have room for names"


def test_a_free_method_stands_at_nothing(tmp_path: Path) -> None:
    dear = {"annotation": {"cost_of_all_answers": 5.0, "cost_per_example": 0.05, "complete": True}}
    rows = [cell_of(tmp_path, "dss", 0, some(0.8, 100, 1), facts=dear), cell_of(tmp_path, "mi", 0, some(0.6, 100, 2))]
    outcomes = load([cells_folder(tmp_path, rows, cost={"hourly": 0.0, "measure": False})])
    drawn = drawings(outcomes, report.gathered(outcomes))["pareto"]
    assert "1e-" not in drawn and re.search(r"<title>mi: 0\.\d+ at 0</title>", drawn)
    shown = [one.text for one in words_of(drawn)]
    assert {"0", "2", "4"} <= set(shown), "a linear axis"


def test_many_series_stay_within_the_axes() -> None:
    points = [charts.Point(1, 0.5, 0.4, 0.6), charts.Point(2, 0.7, 0.6, 0.8)]
    drawn = charts.lines([charts.Series(str(number), points, number) for number in range(20)], x="x", y="y")
    spots = [float(spot) for spot in re.findall(r'class="whisker c\d" x1="([\d.]+)"', drawn)]
    assert len(spots) == 40 and min(spots) >= charts.LEFT and max(spots) <= charts.WIDTH - charts.RIGHT


def test_thirty_two_series_have_a_colour_and_a_marker_of_their_own() -> None:
    drawn = charts.legend([(str(number), number) for number in range(32)])
    looks = re.findall(r'<(circle|polygon) class="mark (c\d)"(?: points="([^"]*)")?', drawn)
    assert len(looks) == 32 and len(set(looks)) == 32


def test_an_axis_maps_ends_to_ends_and_ticks_are_round() -> None:
    axis = charts.Axis(0.0, 1.0, 100, 200)
    assert (axis.at(0), axis.at(0.5), axis.at(1)) == (100, 150, 200)
    assert [round(tick, 3) for tick in axis.ticks()] == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    log = charts.Axis(0.01, 100, 0, 4, log=True)
    assert log.at(1) == pytest.approx(2) and log.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert charts.Axis(5, 5, 0, 1).at(5) == pytest.approx(0.5), "one value lies in the middle"


def test_charts_escape_names_and_are_whole() -> None:
    points = [charts.Point(1, 0.5, 0.4, 0.6), charts.Point(2, 0.7, 0.6, 0.8)]
    line = charts.lines([charts.Series(HOSTILE, points)], x="<x>", y="&", rules=[(HOSTILE, 0.9)])
    dots = charts.scatter([(HOSTILE, charts.Point(3, 0.5, 0.4, 0.6), 1)], x="cost", y="accuracy", best=[0])
    for drawn in (line, dots, charts.reliability([(0.5, 0.4, 10), (0.9, 1.0, 1)])):
        root = ElementTree.fromstring(f"<all>{drawn}</all>")
        known = {"svg", "line", "text", "polyline", "polygon", "circle", "title", "p", "span"}
        assert {one.tag for one in root.iter()} <= {"all", *known}
