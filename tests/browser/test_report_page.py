"""The report in a real browser: no request, no complaint, no foreign markup; items can be searched; light and dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lmdistill import report
from lmdistill.outcomes import load
from lmdistill.store import write_rows
from lmdistill.types import Annotation, Rationale
from made_outcomes import cell_of, cells_folder, comparison_folder, examples, predictions, run_folder, some

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
    "--virtual-time-budget=3000",
]  # fmt: skip
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

# Runs after the page's own script; what it finds stands in an attribute of <html> that --dump-dom shows.
PROBE = """
addEventListener("load", () => {
  const list = document.getElementById("list");
  const say = (name, value) => document.documentElement.setAttribute("data-" + name, value);
  say("first", list.children.length);
  const search = document.getElementById("search");
  search.value = "question 17?";
  search.dispatchEvent(new Event("input"));
  say("searched", list.children.length + " " + list.textContent.includes("Question 17?"));
  search.value = "";
  const filter = document.getElementById("filter");
  const wrong = [...filter.options].find((one) => one.textContent === "all wrong");
  filter.value = wrong.value;
  filter.dispatchEvent(new Event("change"));
  say("wrong", [...list.querySelectorAll(".said > div:not(:first-child)")].every((one) => one.className === "no"));
  const head = document.querySelectorAll("#results thead th")[2];
  const column = () => [...document.querySelectorAll("#results tbody tr")].map((row) => row.cells[2].textContent);
  say("grouped", column().join(" "));
  head.querySelector("button").click();
  say("sorted", column().join(" "));
  say("order", head.getAttribute("aria-sort"));
  const shown = (name) => [...document.querySelectorAll(`#pairs thead th`)].filter((one) =>
    one.textContent === name && one.getBoundingClientRect().right <= innerWidth).length;
  say("pairs", shown("difference") && shown("p, Holm"));
  filter.value = "0";
  filter.dispatchEvent(new Event("change"));
  const boxes = document.querySelectorAll("#methods input");
  say("voices", list.querySelector(".said").children.length);
  if (boxes.length) { boxes[0].click(); }
  say("fewer", list.querySelector(".said").children.length);
  say("requests", performance.getEntriesByType("resource").length);
  say("title", document.title);
  say("wide", document.documentElement.scrollWidth <= innerWidth);
  say("foreign", document.querySelectorAll("main img, main script, main b").length);
});
"""


# How many items each choice of the filter and each word of a search leaves.
COUNTS = """
addEventListener("load", () => {
  const told = {};
  const found = () => parseInt(document.getElementById("found").textContent, 10);
  const filter = document.getElementById("filter");
  [...filter.options].map((one) => [one.value, one.textContent]).forEach(([value, name]) => {
    filter.value = value;
    filter.dispatchEvent(new Event("change"));
    told[name] = found();
  });
  filter.value = "0";
  filter.dispatchEvent(new Event("change"));
  const search = document.getElementById("search");
  search.value = "perhaps";
  search.dispatchEvent(new Event("input"));
  told.perhaps = found();
  document.documentElement.setAttribute("data-told", JSON.stringify(told));
});
"""

# Texts of each picture that lie on one another or outside it, by the browser's own type.
CROWDED = """
addEventListener("load", () => {
  const told = {pictures: 0, texts: 0, overlap: [], outside: []};
  document.querySelectorAll("svg.chart").forEach((svg) => {
    told.pictures += 1;
    const whole = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map((one) => [one.textContent, one.getBoundingClientRect()]);
    told.texts += texts.length;
    texts.forEach(([text, box], place) => {
      const beside = box.left < whole.left - 1 || box.right > whole.right + 1;
      if (beside || box.top < whole.top - 1 || box.bottom > whole.bottom + 1) told.outside.push(text);
      texts.slice(0, place).forEach(([other, its]) => {
        if (box.left < its.right && its.left < box.right && box.top + 2 < its.bottom && its.top + 2 < box.bottom)
          told.overlap.push([other, text]);
      });
    });
  });
  document.documentElement.setAttribute("data-told", JSON.stringify(told));
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = comparison_folder(tmp_path_factory.mktemp("comparison"), items=120)
    report.write(load([out]), out)
    return out / "report.html"


def browse(page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def complaints(told: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page wrote to the console (the browser's own messages name its source files instead)."""
    return [line for line in told.stderr.splitlines() if ":CONSOLE" in line or "Refused to" in line]


def test_the_page_loads_without_a_complaint(page: Path, tmp_path: Path) -> None:
    told = browse(page, tmp_path, "--dump-dom")
    assert told.returncode == 0, told.stderr
    assert complaints(told) == []
    assert told.stdout.count('<article class="item">') == 25, "the script ran: a first page of items"
    assert "broken in</title>" not in told.stdout


def test_the_console_is_heard(page: Path, tmp_path: Path) -> None:
    """A page that does go wrong is told, so silence means something; and the policy keeps a foreign script out."""
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8")
    broken.write_text(text.replace("</main>", "<script>document.title = 'in'</script></main>"), encoding="utf-8")
    told = browse(broken, tmp_path / "profile", "--dump-dom")
    assert complaints(told), "the policy's refusal stands in the console"
    assert "<title>in</title>" not in told.stdout


@pytest.mark.parametrize("width", [390, 1180])
def test_items_can_be_searched_and_the_page_fits(page: Path, tmp_path: Path, width: int) -> None:
    probed = tmp_path / "probed.html"
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # the probe is a foreign script
    probed.write_text(text.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
    told = browse(probed, tmp_path / "profile", "--dump-dom", f"--window-size={width},900")
    seen = dict(re.findall(r'data-(\w+)="([^"]*)"', told.stdout.partition("<head>")[0]))
    assert complaints(told) == []
    assert seen["first"] == "25" and seen["searched"] == "1 true" and seen["wrong"] == "true"
    assert seen["requests"] == "0" and seen["foreign"] == "0" and seen["wide"] == "true"
    assert seen["title"].startswith("Three ways")
    *values, teacher = map(float, seen["sorted"].split())
    assert values == sorted(values, reverse=True) and seen["order"] == "descending"
    assert teacher == 0.9 and values != [float(one) for one in seen["grouped"].split()][:-1], "the teacher stays last"
    assert int(seen["pairs"]) >= 1, "difference and p can be read without scrolling"
    assert seen["fewer"] == seen["voices"], "four methods: nothing to choose from"


def told_by(probe: str, page: Path, tmp_path: Path, *flags: str) -> dict[str, Any]:
    """What a probe found on a page."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("</body>", f"<script>{probe}</script></body>"), encoding="utf-8")
    told = browse(probed, tmp_path / f"profile{''.join(flags)}", "--dump-dom", *flags)
    assert complaints(told) == []
    seen = re.search(r'data-told="([^"]*)"', told.stdout)
    assert seen is not None
    found: dict[str, Any] = json.loads(html.unescape(seen[1]))
    return found


def test_what_was_not_asked_is_not_wrong(tmp_path: Path) -> None:
    asked = {"dss": predictions([i % 5 > 0 for i in range(60)]), "finetune": predictions([i > 3 for i in range(20)])}
    for seed, (name, rows) in enumerate(asked.items()):  # the first seed alone has a teacher's value
        run_folder(tmp_path / name, seed, rows, recipe=name)
    teacher = [Annotation(one, (Rationale("so it is", "perhaps"),)) for one in examples(60)[:7]]
    write_rows(tmp_path / "dss" / "teacher-test" / "rows.jsonl", teacher)
    report.write(load([tmp_path / name for name in asked]), tmp_path / "out")
    told = told_by(COUNTS, tmp_path / "out" / "report.html", tmp_path)
    # dss is wrong on 0, 5, ..., 55; finetune, asked 0 to 19, on 0 to 3
    assert told["all items"] == 60 and told["teacher wrong"] == 7
    assert told["dss wrong"] == 12 and told["finetune wrong"] == 4
    assert told["dss right, finetune wrong"] == 3, "1, 2, 3"
    assert told["finetune right, dss wrong"] == 3, "5, 10, 15"
    assert told["methods disagree"] == 6
    assert told["all wrong"] == 1 + 8, "0, and 20, 25, ..., 55, which dss alone was asked"
    assert told["perhaps"] == 7, "the teacher's answer is searched"


@pytest.mark.parametrize("names", [("scripted error_rate", 5), ("gpt-4o-mini-2024-07-18 with thoughts", 4)])
def test_the_words_of_a_picture_have_room(tmp_path: Path, names: tuple[str, int]) -> None:
    dear = {"annotation": {"cost_of_all_answers": 0.02, "cost_per_example": 0.05, "complete": True}}
    rows = [
        cell_of(tmp_path, method, 0, some(level + 0.02 * n, 100, n), teacher=f"{names[0]} 0.{n}", facts=dear)
        for n in range(names[1])
        for method, level in (("finetune", 0.6), ("dss", 0.7))
    ]
    settings = {"hourly": 0.36, "measure": False}
    report.write(load([cells_folder(tmp_path, rows, cost=settings)]), tmp_path)
    for width in (420, 1200):
        told = told_by(CROWDED, tmp_path / "report.html", tmp_path, f"--window-size={width},900")
        assert told["overlap"] == [] and told["outside"] == [], width
        assert told["pictures"] >= 2 and told["texts"] > 20


def test_other_methods_can_be_shown(tmp_path: Path) -> None:
    names = ["finetune", *(f"m{n}" for n in range(8))]
    rows = [cell_of(tmp_path, name, 0, some(0.3 + 0.05 * n, 60, n)) for n, name in enumerate(names)]
    report.write(load([cells_folder(tmp_path, rows, baseline="finetune")]), tmp_path)
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", (tmp_path / "report.html").read_text())
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
    told = browse(probed, tmp_path / "profile", "--dump-dom")
    seen = dict(re.findall(r'data-(\w+)="([^"]*)"', told.stdout.partition("<head>")[0]))
    assert complaints(told) == []
    assert (seen["voices"], seen["fewer"]) == ("6", "5"), "the baseline and the best five; one fewer when unticked"


def test_it_is_drawn_light_and_dark(page: Path, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    image = pytest.importorskip("PIL.Image")
    shades = {}
    for name, scheme in (("dark", 0), ("light", 1)):
        shot = tmp_path / f"{name}.png"
        flags = (f"--screenshot={shot}", "--window-size=390,1200", f"--blink-settings=preferredColorScheme={scheme}")
        told = browse(page, tmp_path / name, *flags)
        assert shot.exists(), told.stderr
        shades[name] = float(numpy.asarray(image.open(shot).convert("L")).mean())
    assert shades["dark"] < 80 and shades["light"] > 200, shades
