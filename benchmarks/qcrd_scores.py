"""What the judge of a QCRD run thought of good, of teacher's bad and of the student's bad rationales, round by round.

    python benchmarks/qcrd_scores.py runs/qcrd/seed-0/train --svg scores.svg

    python benchmarks/qcrd_scores.py runs/qcrd/seed-0/train --items runs/annotated-test/rows.jsonl

Prints the quartiles of the scores by round and source, and the chance that the judge puts a good rationale above a bad
one (AUC); `--svg` draws the last round's distributions. With `--items` the judge that lies beside the chosen student
scores other annotated rows: rationales whose answer is the label against the rest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import NoReturn

from lmdistill.errors import LmdistillError
from lmdistill.objectives._judge import above, open_judge
from lmdistill.store import Rows
from lmdistill.types import Annotation

GROUPS = ("teacher, majority", "teacher, minority", "student")


def refuse(message: str) -> NoReturn:
    """End with a message and the exit code of a user's error."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def scores(path: Path) -> dict[str, list[float]]:
    """The scores of a round's rationales, by who wrote them."""
    found: dict[str, list[float]] = {group: [] for group in GROUPS}
    for row in Rows(path, Annotation):
        if any("quality" not in one.scores for one in (*row.rationales, *row.negatives)):
            refuse(f"{path} has rationales without a judge's score; the run had contrast.judge: null")
        for one in row.rationales:
            found["teacher, majority"].append(one.scores["quality"])
        for one in row.negatives:
            student = one.source.startswith("student@")
            found["student" if student else "teacher, minority"].append(one.scores["quality"])
    return found


def tested(folder: Path, rows: Path) -> str:
    """What the saved judge makes of other rows, in a line."""
    if not rows.is_file():
        refuse(f"{rows}: no such file; name annotated rows (rows.jsonl of `lmdistill annotate`)")
    judge = open_judge(folder)
    marked = [
        (judge.text(row.example.input, one.text), one.answer == row.example.label)
        for row in Rows(rows, Annotation)
        for one in (*row.rationales, *row.rejected)
        if one.text.strip() and row.example.label is not None
    ]
    told = judge.scores([text for text, _ in marked])
    good, bad = ([told[text] for text, right in marked if right is side] for side in (True, False))
    if not good or not bad:
        refuse(f"{rows} has {len(good)} right and {len(bad)} wrong rationales; some of both are needed")
    return f"on {rows}: {len(good)} right and {len(bad)} wrong rationales, AUC {above(good, bad):.3f}"


def draw(found: dict[str, list[float]], path: Path) -> None:
    """Histograms of the groups over one another."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3.2))
    for group, values in found.items():
        if values:
            axis.hist(values, bins=40, range=(0, 1), density=True, alpha=0.5, label=f"{group} ({len(values)})")
    axis.set(xlabel="the judge's score", ylabel="density")
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run's train folder (it has rounds/)")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--items", type=Path, help="annotated rows that the judge did not learn from, to test it on")
    options = parser.parse_args()
    files = sorted((options.folder / "rounds").glob("round-????.jsonl"))
    if not files:
        refuse(
            f"{options.folder} has no rounds/round-NNNN.jsonl; name the train folder of a QCRD run (RUN/seed-0/train)"
        )
    rounds = {path.stem.removeprefix("round-"): scores(path) for path in files}
    print("| round | written by | rationales | quartiles of the score | AUC against the majority's |\n|" + "---|" * 5)
    found: dict[str, list[float]] = {}
    for number, found in rounds.items():
        for group, values in found.items():
            if len(values) > 1:
                quartiles = " ".join(f"{value:.2f}" for value in statistics.quantiles(values, n=4))
                told = "" if group == GROUPS[0] or not found[GROUPS[0]] else f"{above(found[GROUPS[0]], values):.3f}"
                print(f"| {number} | {group} | {len(values)} | {quartiles} | {told} |")
    if options.items is not None:
        print(tested(options.folder / "student" / "companion-judge", options.items))
    if options.svg is not None and found:
        draw(found, options.svg)


if __name__ == "__main__":
    try:
        main()
    except LmdistillError as error:
        refuse(str(error))
