"""What must be remembered, and what can be looked up: accuracy against the number of facts in the world.

    python benchmarks/kard_memory.py --out RESULTS [--facts 300 1000] [--seeds 0] [--plot docs/papers/kard_memory.svg]

The generated task `facts` asks about pairs of entity and relation that training never showed; the same student, teacher
answers, steps and seeds are used with passages (recipe `kard`, BM25) and without (recipe `rd`). Each cell is a line of
RESULTS/cells.jsonl; a cell that is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmdistill import config, registry
from lmdistill.codec import digest

FACTS = (300, 1000, 3000, 10_000, 30_000)
ARMS = {"from memory (rd)": "rd", "with passages (kard)": "kard"}


def settings(facts: int, seed: int, arm: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The run file of a cell."""
    task = {
        "name": "facts",
        "facts": facts,
        "train": arguments.train,
        "valid": 64,
        "test": arguments.test,
        "seed": seed,
    }
    training = {"steps": arguments.steps, "batch_size": 64, "learning_rate": 3e-3, "warmup": 0.05}
    found: dict[str, Any] = {
        "task": task,
        "teacher": "scripted",
        "sampling": {"n": 1},
        "student": {"name": "seq2seq", "preset": "tiny"},
        "train": training | {"schedule": "linear", "eval_every": arguments.steps, "device": "cpu"},
        "decoding": {"max_tokens": 32},
        "cue": "so the answer is",
        "seeds": [seed],
    }
    if arm == "kard":
        found["grounding"] = {"passages": arguments.passages, "reranker": None, "silver": arguments.silver}
    return found


def wanted_of(facts: int, seed: int, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that a cell's figure follows from: a row that says all of it is not computed again."""
    found = {"facts": facts, "arm": name, "seed": seed, "steps": arguments.steps}
    found |= {"train": arguments.train, "test": arguments.test}
    reads = ARMS[name] == "kard"
    return found | {"silver": arguments.silver if reads else "", "passages": arguments.passages if reads else 0}


def same(one: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a row is of this cell."""
    return all(one.get(key) == value for key, value in wanted.items())


def cell(facts: int, seed: int, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one student."""
    recipe = ARMS[name]
    started = time.process_time()
    wanted = wanted_of(facts, seed, name, arguments)
    folder = arguments.out / "runs" / f"{recipe}-{facts}-{seed}-{digest(wanted)}"
    report = config.build(registry.load("recipes", recipe), settings(facts, seed, recipe, arguments)).run(folder)
    accuracy = report.metrics["accuracy"]
    hits = report.metrics.get(f"hits@{arguments.passages}")
    return {
        **wanted,
        "accuracy": round(accuracy.value, 4),
        "n": accuracy.n,
        "hits": None if hits is None else round(hits.value, 4),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Accuracy by number of facts, mean over seeds."""
    counts = sorted({one["facts"] for one in cells})
    yield f"| facts | {' | '.join(ARMS)} | seeds |"
    yield "|---|" + "---|" * (len(ARMS) + 1)
    for count in counts:
        shown, seeds = [], 0
        for arm in ARMS:
            values = [one["accuracy"] for one in cells if one["facts"] == count and one["arm"] == arm]
            seeds = max(seeds, len(values))
            low_high = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            shown.append(f"{statistics.mean(values):.3f}{low_high}" if values else "")
        yield f"| {count:,} | {' | '.join(shown)} | {seeds} |"


def plot(cells: Sequence[dict[str, Any]], path: Path) -> None:
    """Both curves, every seed a dot, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "lmdistill"
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    for arm, colour in zip(ARMS, ("#b04a3a", "#2f6690"), strict=True):
        own = [one for one in cells if one["arm"] == arm]
        counts = sorted({one["facts"] for one in own})
        means = [statistics.mean(one["accuracy"] for one in own if one["facts"] == count) for count in counts]
        axes.plot(counts, means, marker="o", color=colour, label=arm)
        axes.scatter([one["facts"] for one in own], [one["accuracy"] for one in own], s=12, color=colour, alpha=0.5)
    axes.set(xscale="log", xlabel="facts in the world", ylabel="accuracy on unseen questions", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--facts", type=int, nargs="+", default=list(FACTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS.values()), default=list(ARMS.values()))
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument(
        "--silver",
        choices=("question", "rationale"),
        default="question",
        help="what finds the training passages; at test time it is the question (here a question cannot find the "
        "second fact, so passages found by rationales are another distribution)",
    )
    parser.add_argument("--passages", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="write the figure here")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    path = arguments.out / "cells.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    cells = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    chosen = [arm for arm, recipe in ARMS.items() if recipe in arguments.arms]
    wanted = [(facts, seed, arm) for seed in arguments.seeds for facts in arguments.facts for arm in chosen]
    for facts, seed, arm in [] if arguments.table else wanted:
        known = wanted_of(facts, seed, arm, arguments)
        if any(same(one, known) for one in cells):
            continue
        cells.append(cell(facts, seed, arm, arguments))
        with path.open("a") as file:
            file.write(json.dumps(cells[-1]) + "\n")
        print(json.dumps(cells[-1]), flush=True)
    own = [one for one in cells if same(one, wanted_of(one["facts"], one["seed"], one["arm"], arguments))]
    print("\n".join(table(own)))  # rows of other settings stay in the file
    if arguments.plot and own:
        plot(own, arguments.plot)


if __name__ == "__main__":
    main()
