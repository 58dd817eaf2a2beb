"""Blind rating by people: pairs of rationales out as a CSV table and as a page, and the filled-in tables back in.

Neither file says whose rationale is whose: that stands in `key.json`, which stays with whoever made the sheet.
"""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lmdistill.codec import digest
from lmdistill.errors import DataError, StoreError
from lmdistill.files import read_lines, write_json, write_text
from lmdistill.judging import Compared, Pair, Verdict, share_of, summed

COLUMNS = ("pair", "question", "left", "right", "better", "comment")
BETTER = {"left": "a", "right": "b", "tie": "tie", "a": "a", "b": "b", "l": "a", "r": "b"}
"""What a rater may write into the column `better`."""


def write_sheet(pairs: Sequence[Pair], folder: Path, title: str = "Which explanation is better?") -> None:
    """Write `sheet.csv`, `sheet.html` (the same as a page that saves a CSV) and `key.json`.

    Raises:
        StoreError: the folder cannot be written, or its key is damaged or belongs to other pairs.
    """
    key = {"pairs": {str(i): asdict(pair) for i, pair in enumerate(pairs, 1)}}
    path = folder / "key.json"
    if path.exists() and digest([asdict(pair) for pair in _key(folder).values()]) != digest([*key["pairs"].values()]):
        raise StoreError(f"{path} is the key of other pairs, whose ratings would be lost; choose another folder")
    write_json(path, key)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    for i, pair in enumerate(pairs, 1):
        writer.writerow([i, _safe(pair.question), _safe(pair.left), _safe(pair.right), "", ""])
    write_text(folder / "sheet.csv", table.getvalue())
    write_text(folder / "sheet.html", _page(pairs, title))


def _safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def read_sheets(folder: Path, sheets: Sequence[Path]) -> Compared:
    """The outcome of one table for each rater: a pair's verdict is the majority of those who gave one.

    Raises:
        DataError: a table without the columns 'pair' and 'better', an unknown pair or one that is rated twice, an
            unreadable verdict.
        StoreError: `folder/key.json` is missing or damaged.
    """
    pairs = _key(folder)
    rated: dict[str, list[Verdict]] = {number: [] for number in pairs}
    sides: Counter[str] = Counter()
    for path in sheets:
        for number, side in _ratings(path, pairs).items():
            verdict = pairs[number].verdict(side)
            assert verdict is not None
            rated[number].append(verdict)
            sides[side] += 1
    verdicts = {pairs[number].id: _majority(given) for number, given in rated.items()}
    same = [a == b for given in rated.values() for a, b in itertools.combinations(given, 2)]
    compared = summed(verdicts)
    decided = sides["a"] + sides["b"]
    left = share_of(sides["a"], decided) if decided else None
    return Compared(compared.share, compared.counts, left, sum(same) / len(same) if same else None, verdicts)


def _majority(given: Sequence[Verdict]) -> Verdict | None:
    if not given:
        return None
    ranked = Counter(given).most_common(2)
    return "tie" if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def _key(folder: Path) -> dict[str, Pair]:
    path = folder / "key.json"
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return {number: Pair(**pair) for number, pair in read["pairs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path} cannot be read ({error}); an undamaged key.json, as the sheet was written with, was expected"
        raise StoreError(message) from error


def _ratings(path: Path, pairs: Mapping[str, Pair]) -> dict[str, str]:
    """A rater's sides by pair; what was left empty is not among them."""
    text = "\n".join(line for _, line in read_lines(path))
    head = text.partition("\n")[0]
    try:
        delimiter = csv.Sniffer().sniff(head, delimiters=",;\t").delimiter
    except csv.Error:
        delimiter = ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)  # what else is sniffed from a header is guessed
    lacking = {"pair", "better"} - set(reader.fieldnames or ())
    if lacking:
        raise DataError(f"has no column {' and '.join(map(repr, sorted(lacking)))}", path=path)
    found = {}
    for row in reader:
        number, said = (row["pair"] or "").strip(), (row["better"] or "").strip().casefold()
        if number not in pairs:
            raise DataError(f"pair {number!r} is not in the key", path=path, line=reader.line_num)
        if said and said not in BETTER:
            raise DataError(f"better: {said!r} is none of left, right, tie", path=path, line=reader.line_num)
        if said and number in found:
            raise DataError(f"pair {number} is rated twice; leave one of its rows", path=path, line=reader.line_num)
        if said:
            found[number] = BETTER[said]
    return found


def _page(pairs: Sequence[Pair], title: str) -> str:
    blocks = [_block(i, pair) for i, pair in enumerate(pairs, 1)]
    page = PAGE.replace("{{title}}", html.escape(title)).replace("{{n}}", str(len(pairs)))
    return page.replace("{{key}}", digest([asdict(pair) for pair in pairs])).replace("{{pairs}}", "\n".join(blocks))


def _block(number: int, pair: Pair) -> str:
    question, left, right = (html.escape(text) for text in (pair.question, pair.left, pair.right))
    choices = "".join(
        f'<label><input type="radio" name="p{number}" value="{value}"> {value}</label>'
        for value in ("left", "tie", "right")
    )
    return (
        f'<section data-pair="{number}"><h2>{number}</h2><pre class="question">{question}</pre><div class="two">'
        f"<pre>{left}</pre><pre>{right}</pre></div><fieldset><legend>better</legend>{choices}</fieldset>"
        '<input class="comment" placeholder="comment" aria-label="comment"></section>'
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{title}}</title>
<style>
body { font: 16px/1.4 sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem }
pre { font: inherit; white-space: pre-wrap; border: 1px solid #bbb; border-radius: 4px; padding: .6rem; margin: 0 }
.question { background: #f2f2f2; margin-bottom: .5rem }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem }
fieldset { border: 0; display: flex; gap: 1.5rem; padding: .5rem 0 }
.comment { width: 100%; box-sizing: border-box }
footer { position: sticky; bottom: 0; background: #fff; padding: .5rem 0; border-top: 1px solid #bbb }
</style></head><body>
<h1>{{title}}</h1>
<p>Choose the explanation that is better reasoned and better supported, or tie. Your choices stay in this page until
you save them; send the saved file back.</p>
{{pairs}}
<footer><button id="save" type="button">Save ratings</button> <span id="done">0</span> of {{n}} rated</footer>
<script>
const sections = [...document.querySelectorAll("section")];
const rated = s => s.querySelector("input[type=radio]:checked");
const key = "ratings:{{key}}";
const cell = text => '"' + text.replaceAll('"', '""') + '"';
function count() { document.getElementById("done").textContent = sections.filter(rated).length }
function rows() {
  return sections.map(s => [s.dataset.pair, rated(s) ? rated(s).value : "", s.querySelector(".comment").value]);
}
function keep() { count(); try { localStorage.setItem(key, JSON.stringify(rows())) } catch (e) {} }
try {
  for (const [pair, better, comment] of JSON.parse(localStorage.getItem(key) || "[]")) {
    const s = document.querySelector('section[data-pair="' + pair + '"]');
    if (!s) continue;
    if (better) s.querySelector('input[value="' + better + '"]').checked = true;
    s.querySelector(".comment").value = comment;
  }
} catch (e) {}
count();
document.addEventListener("input", keep);
document.getElementById("save").onclick = () => {
  const text = ["pair,better,comment", ...rows().map(row => row.map(cell).join(","))].join("\\r\\n") + "\\r\\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "ratings.csv";
  link.click();
};
</script></body></html>
"""
