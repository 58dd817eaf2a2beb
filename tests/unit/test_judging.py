"""Pairwise comparison of rationales: sides, verdicts, intervals, and the rating sheet out and back in."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdistill.errors import ConfigError, DataError, StoreError
from lmdistill.judging import Pair, judge, pairs_of, read_verdict, summed
from lmdistill.rating_sheet import read_sheets, write_sheet
from lmdistill.tasks.sums import Sums
from lmdistill.types import Completion, Example, Prediction, Sampling


def predictions(word: str, n: int = 40, right: int = 40) -> list[Prediction]:
    return [
        Prediction(Example(f"e{i}", f"question {i}", "4"), "4" if i < right else "5", f"{word} because {i}")
        for i in range(n)
    ]


class Judge:
    """Prefers what its rule says of (left, right)."""

    def __init__(self, rule: Any) -> None:
        self.rule = rule
        self.prompts: list[str] = []

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[list[Completion]]:
        self.prompts += prompts
        out = []
        for prompt in prompts:
            left, right = re.findall(r"Explanation [AB]:\n(.*)\n", prompt)
            out.append([Completion(f"I thought. {self.rule(left, right)}")])
        return out


def good_wins(left: str, right: str) -> str:
    return "Better: A" if left.startswith("good") else "Better: **B**"


def test_a_judge_that_sees_quality_finds_it_whatever_the_side() -> None:
    pairs = pairs_of(predictions("good"), predictions("bad"), seed=1)
    assert 8 <= sum(pair.swapped for pair in pairs) <= 32, "sides are drawn"
    found = judge(pairs, Judge(good_wins))
    assert found.share.value == 1.0 and found.share.low == pytest.approx(0.9124, abs=1e-3)  # Wilson, 40 of 40
    assert found.counts == {"first": 40, "second": 0, "tie": 0, "unread": 0}
    assert found.agreement == 1.0
    assert found.left is not None and found.left.value == 0.5
    assert judge(pairs, Judge(good_wins), both_orders=False).share.value == 1.0
    turned = judge(pairs_of(predictions("bad"), predictions("good")), Judge(good_wins))
    assert turned.share.value == 0.0


def test_a_judge_that_minds_the_order_decides_nothing() -> None:
    pairs = pairs_of(predictions("good"), predictions("bad"))
    found = judge(pairs, Judge(lambda left, right: "Better: A"))
    assert found.counts["tie"] == 40 and found.share.value == 0.5
    assert found.left is not None and found.left.value == 1.0
    assert found.agreement == 0.0
    once = judge(pairs, Judge(lambda left, right: "Better: A"), both_orders=False)
    assert once.share.low < 0.5 < once.share.high, "drawn sides keep it fair all the same"


def test_the_prompt_does_not_tell_whose_it_is() -> None:
    asked = Judge(good_wins)
    judge(pairs_of(predictions("good", 3), predictions("bad", 3)), asked)
    assert len(asked.prompts) == 6
    assert not any("first" in prompt or "student" in prompt for prompt in asked.prompts)


def test_unread_verdicts_are_counted() -> None:
    pairs = pairs_of(predictions("good", 10), predictions("bad", 10))
    found = judge(pairs, Judge(lambda left, right: "Better: A" if "because 1" in left else "hm"), both_orders=False)
    assert found.counts["unread"] == 9 and found.share.n == 1
    with pytest.raises(DataError, match="none of 10 pairs"):
        judge(pairs, Judge(lambda left, right: "hm"))


def test_only_pairs_that_both_have_right() -> None:
    task = Sums()
    pairs = pairs_of(predictions("a", right=10), predictions("b", right=5), only="both_right", task=task)
    assert {pair.id for pair in pairs} == {f"e{i}" for i in range(5)}
    assert len(pairs_of(predictions("a"), predictions("b"), most=7)) == 7
    with pytest.raises(ConfigError, match="needs the task"):
        pairs_of(predictions("a"), predictions("b"), only="both_right")
    with pytest.raises(ConfigError, match="no pair to compare"):
        pairs_of(predictions("a", right=0), predictions("b"), only="both_right", task=task)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Better: A or B?", None),
        ("Better: **A** or **B**", None),
        ("Better: Explanation A or Explanation B? I say\nBetter: B", "b"),
        ("Better: A/B", None),
        ("Better: A and B", None),
        ("Better: A tie", "tie"),
        ("Better: a draw", "tie"),
        ("Better: A, and B is worse", "a"),
        ("Better: A. Or so.", "a"),
        ("Better: (B)", "b"),
    ],
)
def test_a_verdict_names_one_side(text: str, verdict: str | None) -> None:
    assert read_verdict(text) == verdict


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert read_verdict(text) in (None, "a", "b", "tie")
    assert read_verdict(f"{text}\nBetter: B") == "b"


def test_the_interval_of_a_mixed_outcome() -> None:
    # 6 wins, 2 ties, 2 losses: (6 + 1) / 10
    verdicts: dict[str, Any] = {f"{i}": v for i, v in enumerate(["first"] * 6 + ["tie"] * 2 + ["second"] * 2)}
    found = summed(verdicts)
    assert found.share.value == pytest.approx(0.7)
    assert 0.4 < found.share.low < 0.7 < found.share.high < 1.0


# --- the sheet -------------------------------------------------------------------------------------------------------


def rate(folder: Path, name: str, rule: Any, delimiter: str = ",") -> Path:
    """Fill in the sheet like a rater."""
    with (folder / "sheet.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["pair", "better", "comment"])
        writer.writerows([row["pair"], rule(row), "said, with a comma"] for row in rows)
    return path


def good_side(row: dict[str, str]) -> str:
    return "left" if row["left"].startswith("good") else "Right"


def test_a_sheet_with_quotes_and_line_breaks_comes_back(tmp_path: Path) -> None:
    first, second = (predictions(f'{word} "as they say",\n"so"', 8) for word in ("good", "bad"))
    write_sheet(pairs_of(first, second), tmp_path)
    with (tmp_path / "sheet.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    filled = tmp_path / "filled.csv"
    with filled.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "better": good_side(row)} for row in rows)
    found = read_sheets(tmp_path, [filled])
    assert found.counts["first"] == 8


def test_a_sheet_goes_out_and_comes_back(tmp_path: Path) -> None:
    pairs = pairs_of(predictions("good", 12), predictions("bad", 12))
    write_sheet(pairs, tmp_path)
    seen = (tmp_path / "sheet.csv").read_text() + (tmp_path / "sheet.html").read_text()
    assert "swapped" not in seen and "first" not in seen and "second" not in seen
    one = rate(tmp_path, "one.csv", good_side)
    two = rate(tmp_path, "two.csv", lambda row: good_side(row) if int(row["pair"]) % 2 else "", delimiter=";")
    three = rate(tmp_path, "three.csv", lambda row: "tie")
    found = read_sheets(tmp_path, [one, two, three])
    # Odd pairs: two of three for 'good'; even ones: one for it and one tie, which is a tie.
    assert found.counts == {"first": 6, "second": 0, "tie": 6, "unread": 0}
    assert found.share.value == 0.75
    # Pairs of ratings: odd 3 each, of which 1 agrees; even 1 each, none agrees: 6 / 24
    assert found.agreement == pytest.approx(0.25)
    assert read_sheets(tmp_path, [two]).counts["unread"] == 6


def test_the_page_is_whole_and_escapes_what_it_shows(tmp_path: Path) -> None:
    nasty = Pair("1", "is <b>1</b> & 2?", "<script>alert(1)</script>", '=cmd("x")', False)
    write_sheet([nasty], tmp_path)
    page = (tmp_path / "sheet.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert page.count('type="radio"') == 3 and "{{" not in page and "http" not in page
    with (tmp_path / "sheet.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["right"].startswith("'=")


def test_bad_sheets_are_named(tmp_path: Path) -> None:
    write_sheet(pairs_of(predictions("good", 3), predictions("bad", 3)), tmp_path)
    bad = tmp_path / "bad.csv"
    for text, message in (
        ("pair,choice\n1,left\n", "no column 'better'"),
        ("pair,better\n9,left\n", "pair '9' is not in the key"),
        ("pair,better\n1,good\n", "'good' is none of left, right, tie"),
        ("pair,better\n1,left\n2,\n1,right\n", "pair 1 is rated twice"),
    ):
        bad.write_text(text)
        with pytest.raises(DataError, match=message):
            read_sheets(tmp_path, [bad])
    with pytest.raises(StoreError, match="key of other pairs"):
        write_sheet(pairs_of(predictions("other", 3), predictions("bad", 3)), tmp_path)
    (tmp_path / "key.json").write_text(json.dumps({"pairs": {"1": {}}}))
    with pytest.raises(StoreError, match=r"key\.json cannot be read"):
        read_sheets(tmp_path, [bad])
    (tmp_path / "key.json").write_text("{broken")
    with pytest.raises(StoreError, match=r"key\.json cannot be read"):
        write_sheet(pairs_of(predictions("good", 3), predictions("bad", 3)), tmp_path)


def test_a_sheet_is_written_again_for_the_same_pairs(tmp_path: Path) -> None:
    for _ in range(2):
        write_sheet(pairs_of(predictions("good", 3), predictions("bad", 3)), tmp_path)


def test_the_sheet_from_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lmdistill.cli.main import app
    from lmdistill.store import write_rows

    for word in ("good", "bad"):
        write_rows(tmp_path / word / "rows.jsonl", predictions(word, 10))
    runner = CliRunner()
    given_out = [str(tmp_path / "good"), str(tmp_path / "bad"), "--out", str(tmp_path / "sheet")]
    result = runner.invoke(app, ["judge", "sheet", *given_out, "--only", "both_right", "--task", "sums"])
    assert result.exit_code == 0, result.output
    filled = rate(tmp_path / "sheet", "filled.csv", good_side)
    result = runner.invoke(app, ["judge", "read", str(tmp_path / "sheet"), str(filled), "--out", str(tmp_path / "o")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "o").read_text())["counts"]["first"] == 10
    result = runner.invoke(app, ["judge", "sheet", *given_out, "--only", "some"])
    assert result.exit_code == 2
