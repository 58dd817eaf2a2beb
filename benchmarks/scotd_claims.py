"""What Symbolic Chain-of-Thought Distillation claims, measured on generated tasks with students made from nothing.

    python benchmarks/scotd_claims.py run --out FOLDER [--seeds 0 1 2 3 4] [--cells N] [--worker 0/2]
    python benchmarks/scotd_claims.py table --out FOLDER

Every cell (an arm and a seed) is one JSON file; a finished cell is never run again, so the program may be stopped and
started at will, and several workers may share a folder. A worker leaves after `--cells` new cells.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from lmdistill import intervals
from lmdistill.annotate import annotate
from lmdistill.config import settings_of
from lmdistill.curate import curate
from lmdistill.curation import Curation
from lmdistill.curation.correct import Correct
from lmdistill.curation.diverse import Diverse
from lmdistill.curation.likely import Likely
from lmdistill.curation.open_ended import OpenEnded
from lmdistill.curation.random_k import RandomK
from lmdistill.objectives import Objective
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.predict import Decoding, predict
from lmdistill.students.causal import Causal
from lmdistill.tasks import Task
from lmdistill.tasks.paths import Paths
from lmdistill.tasks.sums import Sums
from lmdistill.teachers.scripted import Scripted
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Sampling

SUMS = Sums(train=1000, test=500, largest=10, largest_step=5, wordings=3, reordered=0.2)
PATHS = Paths(train=300, test=500, largest=15, largest_step=5)
TRAIN = TrainSettings(
    steps=1600,
    batch_size=32,
    learning_rate=3e-3,
    warmup=0.05,
    clip=1.0,
    log_every=400,
    save_every=100_000,
    device="cpu",
)
GREEDY = Decoding(max_tokens=60)
VOTE = Decoding(max_tokens=60, samples=10, temperature=0.7)
VOTED = 200
"""Voting costs ten times as much, so it is measured on the first questions, beside greedy decoding of the same."""


@dataclass(frozen=True)
class Arm:
    """One way to train; `sampled` False asks the teacher once, greedily."""

    name: str
    task: Task
    rationales: int = 10
    sampled: bool = True
    labels_alone: bool = False
    curation: tuple[Curation, ...] = (Correct(),)
    preset: str = "tiny"
    rate: float = 3e-3
    error_rate: float = 0.0
    vote: bool = False


ARMS = (
    Arm("sums: labels alone", SUMS, 1, sampled=False, labels_alone=True),
    Arm("sums: one greedy chain", SUMS, 1, sampled=False),
    Arm("sums: SCoTD, 10 chains", SUMS, vote=True),
    Arm("paths: N = 1", PATHS, 1),
    Arm("paths: N = 30", PATHS, 30, vote=True),
    Arm("paths: N = 5", PATHS, 5),
    Arm("paths: 20 % wrong, filtered", PATHS, 10, error_rate=0.2),
    Arm("paths: 20 % wrong, all kept", PATHS, 10, error_rate=0.2, curation=(), vote=True),
    Arm("paths: N = 10", PATHS, 10),
    Arm("paths: N = 2", PATHS, 2),
    Arm("paths: labels alone", PATHS, 1, labels_alone=True),
    Arm("paths: 5 of 30, at random", PATHS, 30, curation=(Correct(), RandomK(5))),
    Arm("paths: 5 of 30, diverse", PATHS, 30, curation=(Correct(), Diverse(5))),
    Arm("paths: 5 of 30, likely", PATHS, 30, curation=(Correct(), Likely(5))),
    Arm("paths: 1 to 9 of 30, open-ended", PATHS, 30, curation=(Correct(), OpenEnded())),
    Arm("paths: N = 10, nano student", PATHS, 10, preset="nano", rate=6e-3),
    Arm("paths: N = 10, mini student", PATHS, 10, preset="mini", rate=1.5e-3),
)


PAIRS = (
    ("sums: one greedy chain", "sums: labels alone"),
    ("sums: SCoTD, 10 chains", "sums: labels alone"),
    ("sums: SCoTD, 10 chains", "sums: one greedy chain"),
    ("paths: N = 1", "paths: labels alone"),
    ("paths: N = 2", "paths: N = 1"),
    ("paths: N = 5", "paths: N = 2"),
    ("paths: N = 10", "paths: N = 5"),
    ("paths: N = 30", "paths: N = 10"),
    ("paths: N = 30", "paths: N = 1"),
    ("paths: 20 % wrong, filtered", "paths: 20 % wrong, all kept"),
    ("paths: 20 % wrong, filtered", "paths: N = 10"),
    ("paths: 5 of 30, diverse", "paths: 5 of 30, at random"),
    ("paths: 5 of 30, likely", "paths: 5 of 30, at random"),
    ("paths: 1 to 9 of 30, open-ended", "paths: 5 of 30, at random"),
    ("paths: 5 of 30, at random", "paths: N = 30"),
    ("paths: N = 10", "paths: N = 10, nano student"),
    ("paths: N = 10, mini student", "paths: N = 10"),
)
"""Which arms a claim sets against each other."""
ARMED = {arm.name: arm for arm in ARMS}


def student_of(arm: Arm) -> Causal:
    """A small Llama; nano, tiny and mini ones are 32, 64 and 128 wide, and their learning rates go by 1 / width."""
    return Causal(preset=arm.preset, dropout=0.0, max_source=128, max_target=96)


def items_of(arm: Arm, folder: Path) -> list[Annotation]:
    """The teacher's answers after curation; inputs without a rationale are left out."""
    sampling = Sampling(n=arm.rationales, temperature=1.0 if arm.sampled else 0.0, max_tokens=100)
    teacher = Scripted(error_rate=arm.error_rate)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:  # another worker may need the same answers
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = annotate(arm.task, teacher, arm.task.examples("train"), folder=folder, sampling=sampling, progress=False)
    return list(curate(rows, arm.task, *arm.curation, keep_empty=False))


def cell(arm: Arm, seed: int, out: Path) -> dict[str, Any]:
    """Train and test one student."""
    asked = settings_of(arm.task) | {"n": arm.rationales, "sampled": arm.sampled, "errors": arm.error_rate}
    items = items_of(arm, out / "annotations" / _slug(json.dumps(asked, sort_keys=True)))
    cue = arm.task.answer_cue
    objective: Objective = LabelOnly() if arm.labels_alone else RationaleThenLabel(cue)
    texts = {text for one in items for text in (one.example.input, one.example.label or "", cue)}
    texts |= {text for one in items for each in one.rationales for text in (each.text, each.answer or "")}
    student = student_of(arm).open(sorted(texts), seed)
    started, spent = time.monotonic(), time.process_time()
    trained = train(
        student,
        objective,
        items,
        settings=replace(TRAIN, learning_rate=arm.rate),
        folder=out / "runs" / _slug(f"{arm.name} {arm.rate:g} {seed}"),
        seed=seed,
    )
    found: dict[str, Any] = {
        "arm": arm.name,
        "seed": seed,
        "items": len(items),
        "rationales": sum(len(one.rationales) for one in items) / len(items),
        "parameters": sum(p.numel() for p in student.parameters()),
        "steps": trained.step,
        "rate": arm.rate,
        "cpu_seconds": round(time.process_time() - spent, 1),
        "seconds": round(time.monotonic() - started, 1),
        "loss": [entry["loss"] for entry in trained.history if "loss" in entry][-1],
        "accuracy": 0.0,
    }
    greedy = right(arm.task, student, objective, GREEDY, arm.task.test)
    found["accuracy"] = sum(greedy) / len(greedy)
    if arm.vote:
        voted = right(arm.task, student, objective, replace(VOTE, seed=seed), VOTED)
        found |= {"accuracy_vote": sum(voted) / VOTED, "accuracy_same_greedy": sum(greedy[:VOTED]) / VOTED}
    return found


def right(task: Task, student: Any, objective: Objective, decoding: Decoding, most: int) -> list[bool]:
    """Whether each of the first test questions is answered rightly."""
    asked = [Annotation(example) for example in task.examples("test")[:most]]
    told = predict(student, objective, task, asked, decoding=decoding)
    return [task.is_correct(one.example, one.answer) for one in told]


def _slug(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def run(out: Path, seeds: Sequence[int], arms: Sequence[Arm], most: int, worker: str) -> None:
    """Run what is not done yet, the first seed of every arm before the second."""
    index, workers = (int(part) for part in worker.split("/"))
    torch.set_num_threads(1)
    todo = [(arm, seed) for seed in seeds for arm in arms]
    done = 0
    for place, (arm, seed) in enumerate(todo):
        path = out / "cells" / f"{_slug(f'{arm.name} {arm.rate:g} {seed}')}.json"
        if place % workers != index or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        found = cell(arm, seed, out)
        path.write_text(json.dumps(found) + "\n", encoding="utf-8")
        print(json.dumps(found), flush=True)
        done += 1
        if done >= most:
            return


def cells(out: Path) -> Iterator[dict[str, Any]]:
    """Every finished cell."""
    rates = {arm.name: arm.rate for arm in ARMS}
    for path in sorted((out / "cells").glob("*.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        if rates.get(one["arm"]) == one["rate"]:
            yield one


def table(out: Path) -> None:
    """Print a row for each arm: mean and interval over seeds."""
    found = list(cells(out))
    print(
        "| arm | seeds | accuracy | 95 % interval | first 200: greedy, vote of 10 | rationales an input | parameters |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for arm in ARMS:
        own = [one for one in found if one["arm"] == arm.name]
        if not own:
            continue
        greedy = intervals.over_seeds([one["accuracy"] for one in own])
        both = [(one["accuracy_same_greedy"], one["accuracy_vote"]) for one in own if "accuracy_vote" in one]
        vote = ", ".join(f"{sum(column) / len(column):.3f}" for column in zip(*both, strict=True))
        mean = {key: sum(one[key] for one in own) / len(own) for key in ("rationales", "parameters")}
        bounds = f"{max(greedy.low, 0):.3f} to {min(greedy.high, 1):.3f}" if len(own) > 1 else "one seed"
        print(
            f"| {arm.name} | {len(own)} | {greedy.value:.3f} | {bounds} | {vote} | {mean['rationales']:.1f} | "
            f"{mean['parameters']:,.0f} |"
        )


def differences(out: Path) -> None:
    """Print what the claims are about: arms against each other, and the vote against greedy decoding, seed by seed."""
    print("\n| first | second | seeds | first - second | 95 % interval over seeds | by seed |")
    print("| --- | --- | --- | --- | --- | --- |")
    by_arm: dict[str, dict[int, dict[str, Any]]] = {}
    for one in cells(out):
        by_arm.setdefault(one["arm"], {})[one["seed"]] = one
    for first, second in PAIRS:
        mine, theirs = by_arm.get(first, {}), by_arm.get(second, {})
        gaps = [mine[seed]["accuracy"] - theirs[seed]["accuracy"] for seed in sorted(mine.keys() & theirs.keys())]
        _difference(first, second, gaps)
    for arm, own in by_arm.items():
        gaps = [
            own[seed]["accuracy_vote"] - own[seed]["accuracy_same_greedy"] for seed in sorted(own) if ARMED[arm].vote
        ]
        _difference(f"{arm}: vote of 10", "greedy, the same 200", gaps)


def _difference(first: str, second: str, gaps: Sequence[float]) -> None:
    if len(gaps) < 2:
        return
    told = intervals.over_seeds(gaps)
    seeds = ", ".join(f"{gap:+.3f}" for gap in gaps)
    print(f"| {first} | {second} | {len(gaps)} | {told.value:+.3f} | {told.low:+.3f} to {told.high:+.3f} | {seeds} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", type=int, default=len(ARMS), help="only the first so many arms")
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--worker", default="0/1", help="i/n: do every n-th cell, beginning with the i-th")
    chosen = parser.parse_args()
    if chosen.action == "table":
        table(chosen.out)
        differences(chosen.out)
    else:
        run(chosen.out, chosen.seeds, ARMS[: chosen.arms], chosen.cells, chosen.worker)


if __name__ == "__main__":
    main()
