"""Does learning from bad rationales help? QCRD, its parts, MI and DSS on `nli` with a teacher that errs.

    python benchmarks/qcrd_claims.py --out runs/qcrd_claims                       # every cell that is not done yet
    python benchmarks/qcrd_claims.py --out runs/qcrd_claims --only dss qcrd --seeds 0 1 --errors 0.2
    python benchmarks/qcrd_claims.py --out runs/qcrd_claims --table               # what is done so far

The defaults are a regime where rationales matter (2,000 questions about 160 nouns, 1,200 steps): about 40 processor
seconds a cell for finetune, 80 for dss, 115 for mi, several times that for qcrd; two processes with different --seeds
share the work. A finished cell is kept only where it was made with the settings that are asked for now; with others,
name another --out.

A cell is one recipe with one seed (of the questions, the teacher's mistakes and the student alike) at one error rate
of the teacher. All cells train equally many steps on equally many inputs; the last checkpoint is tested (no
selection, so that none of the methods is chosen on noise). The table has means over seeds with Student intervals, and
the same for the difference to DSS, paired within a seed: that interval says what another training would give. The p
beside it is of a permutation test over the test questions, which are other ones for each seed: it speaks of these
trained students only, and is too sure of the methods.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmdistill import config, intervals, registry, significance
from lmdistill.store import Rows
from lmdistill.types import Prediction

STUDENT_ONLY = {"negatives": "student"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("finetune", {}),
    "single-supervision": ("task_distillation", {}),
    "single-task": ("single_task", {}),
    "dss": ("dss", {}),
    "mi": ("mi", {}),
    "mi-clean": ("mi", {"mode": "clean"}),
    "qcrd": ("qcrd", {}),
    # Without a component: judge, negatives, self-consistency (whose minority is then no negative either).
    "qcrd-judge": ("qcrd", {"contrast": {"judge": None}}),
    "qcrd-negatives": ("qcrd", {"contrast": {"negative_weight": 0.0}}),
    "qcrd-consistency": ("qcrd", {"contrast": {"positives": "first", **STUDENT_ONLY}}),
    "qcrd-judge-negatives": ("qcrd", {"contrast": {"judge": None, "negative_weight": 0.0}}),
    # Where negatives come from.
    "lag-3": ("qcrd", {"contrast": {"lag": 3}}),
    "lag-10": ("qcrd", {"contrast": {"lag": 10}}),
    "fixed": ("qcrd", {"contrast": {"negatives": "fixed"}}),
    "teacher-only": ("qcrd", {"contrast": {"negatives": "teacher"}}),
    "student-only": ("qcrd", {"contrast": STUDENT_ONLY}),
    # How several rationales become one.
    "maxmin": ("qcrd", {"contrast": {"scheme": "maxmin"}}),
    "mean": ("qcrd", {"contrast": {"scheme": "mean"}}),
    "weighted-mean": ("qcrd", {"contrast": {"scheme": "weighted_mean"}}),
    "sampling": ("qcrd", {"contrast": {"scheme": "sampling"}}),
    # The teacher's labels, with the vote of five samples and without.
    "dss-teacher-labels": ("dss", {"labels": "teacher"}),
    "dss-voted-labels": ("dss", {"labels": "teacher", "sampling": {"n": 5, "temperature": 0.7, "max_tokens": 256}}),
    "qcrd-voted-labels": ("qcrd", {"contrast": {"labels": "teacher"}}),
}
MAIN = ("finetune", "dss", "mi", "qcrd", "qcrd-judge", "qcrd-negatives", "qcrd-consistency")


def settings(name: str, seed: int, error: float, options: argparse.Namespace) -> dict[str, Any]:
    """The run file of a cell."""
    recipe, own = METHODS[name]
    common: dict[str, Any] = {
        "task": {
            "name": "nli",
            "seed": seed,
            "train": options.train,
            "valid": 0,
            "test": 500,
            "nouns": options.nouns,
            "classes": options.classes,
        },
        "student": {"preset": options.preset},
        "train": {
            "steps": options.steps,
            "batch_size": options.batch,
            "learning_rate": 3e-3,
            "refresh_every": options.refresh_every,
            "save_every": 1_000_000,
            "device": "cpu",
        },
        "decoding": {"max_tokens": 40 if recipe == "single_task" else 4},
        "fraction": options.fraction,
        "seeds": [seed],
    }
    if recipe != "finetune":
        # At temperature 0 all samples are one; here every method is given samples drawn in the same way.
        common["teacher"] = {"name": "scripted", "error_rate": error, "seed": seed}
        common["sampling"] = {"n": 1, "temperature": 0.7, "max_tokens": 256}
    if recipe == "qcrd":
        contrast = dict(own.get("contrast", {}))
        contrast.setdefault("max_tokens", 20)
        contrast.setdefault("judge", {"learning_rate": 1e-3, "steps": 30, "pretrain_steps": 300})
        common |= {"contrast": contrast, "sampling": {"n": 5, "temperature": 0.7, "max_tokens": 256}}
        return common
    return common | own


def differing(asked: Any, made: Any, path: str = "") -> list[str]:
    """The asked settings that a report was made without, each as 'key: asked, not made'."""
    if isinstance(asked, Mapping) and isinstance(made, Mapping):
        return [one for key in asked for one in differing(asked[key], made.get(key), f"{path}.{key}" if path else key)]
    asked, made = (list(one) if isinstance(one, (list, tuple)) else one for one in (asked, made))
    return [] if asked == made else [f"{path}: {asked}, not {made}"]


def report_of(folder: Path, name: str, seed: int, error: float, options: argparse.Namespace) -> dict[str, Any] | None:
    """The report of a finished cell, or None where there is none yet.

    Raises:
        SystemExit: the cell was made with other settings than those that are asked for now.
    """
    path = folder / "report.json"
    if not path.exists():
        return None
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if wrong := differing(settings(name, seed, error, options), report.get("settings", {})):
        told = "\n  ".join(wrong)
        print(f"{folder} was made with other settings; name them, or another --out:\n  {told}", file=sys.stderr)
        raise SystemExit(2)
    return report


def cell(folder: Path, name: str, seed: int, error: float, options: argparse.Namespace) -> None:
    """Run a cell, unless its report is there."""
    if report_of(folder, name, seed, error, options) is not None:
        return
    recipe = registry.load("recipes", METHODS[name][0])
    report = config.build(recipe, settings(name, seed, error, options)).run(folder)
    accuracy, seconds = report.metrics["accuracy"].value, report.facts["train_seconds"][str(seed)]
    print(f"{folder}: accuracy {accuracy:.3f}, trained {seconds:.0f} s", flush=True)


def place(options: argparse.Namespace, name: str, seed: int, error: float) -> Path:
    share = "" if options.fraction == 1 else f"-share{options.fraction:g}"
    return options.out / f"error{error:g}{share}" / name / f"seed{seed}"


def right(folder: Path, seed: int) -> list[int]:
    """1 for each test item that was answered rightly, in order."""
    rows = Rows(folder / f"seed-{seed}" / "test" / "rows.jsonl", Prediction)
    return [int(one.answer == one.example.label) for one in rows]


def regime(options: argparse.Namespace) -> str:
    """What all cells of a table have in common, in words."""
    questions = f"{options.train:,} questions about {options.nouns} nouns in {options.classes} classes"
    steps = f"{options.steps:,} steps of {options.batch}, a round every {options.refresh_every} epochs"
    return f"{questions}, {steps}, student {options.preset}"


def table(options: argparse.Namespace) -> None:
    """Print what is done, one line a method."""
    for error in options.errors:
        print(f"\nteacher wrong {error:.0%}, share of the data {options.fraction:g}; {regime(options)}\n")
        heads = ("method", "seeds", "accuracy", "95 % over seeds", "minus dss", "95 % over seeds")
        print("| " + " | ".join((*heads, "p (questions)", "train s")) + " |\n|" + "---|" * 8)
        scores: dict[str, dict[int, list[int]]] = {}
        seconds: dict[str, list[float]] = {}
        for name in options.only:
            for seed in options.seeds:
                folder = place(options, name, seed, error)
                report = report_of(folder, name, seed, error, options)
                if report is not None:
                    scores.setdefault(name, {})[seed] = right(folder, seed)
                    seconds.setdefault(name, []).append(report["facts"]["train_seconds"][str(seed)])
        for name, own in scores.items():
            means = [statistics.mean(items) for items in own.values()]
            whole = intervals.over_seeds(means, 500)
            shared = sorted(own.keys() & scores.get("dss", {}).keys())
            told = against(own, scores["dss"], shared) if shared and name != "dss" else " |  | "
            width = f"{whole.low:.3f} to {whole.high:.3f}" if len(means) > 1 else ""
            took = statistics.mean(seconds[name])
            print(f"| {name} | {len(means)} | {whole.value:.3f} | {width} | {told} | {took:.0f} |")


def against(own: Mapping[int, list[int]], other: Mapping[int, list[int]], seeds: Sequence[int]) -> str:
    """The mean difference, its Student interval over seeds, and p over all questions of these students."""
    gaps = [statistics.mean(own[seed]) - statistics.mean(other[seed]) for seed in seeds]
    whole = intervals.over_seeds(gaps)
    width = f"{whole.low:+.3f} to {whole.high:+.3f}" if len(gaps) > 1 else ""
    first, second = ([one for seed in seeds for one in some[seed]] for some in (own, other))
    p = significance.approximate_randomisation(first, second)
    return f"{whole.value:+.3f} | {width} | {f'{p:.3f}' if p >= 0.001 else '< 0.001'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/qcrd_claims"))
    parser.add_argument("--only", nargs="+", default=list(MAIN), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--errors", nargs="+", type=float, default=[0.2])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--nouns", type=int, default=160)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--refresh-every", type=int, default=4)
    parser.add_argument("--table", action="store_true", help="only print what is done")
    options = parser.parse_args()
    if not options.table:
        import torch

        torch.set_num_threads(1)
        for seed in options.seeds:
            for error in options.errors:
                for name in options.only:
                    cell(place(options, name, seed, error), name, seed, error, options)
    table(options)


if __name__ == "__main__":
    main()
