"""What N rationales of one input cost: shared against plain, time and peak memory of the loop's own step.

    python benchmarks/shared_encoding.py [--students seq2seq causal] [--sources 64 256 512] [--rationales 1 8 30/10/5/2]

A step is loss and backward through `rationale_then_label` inside `lmdistill.loop.Step`, 64-token targets, on one
thread; one input, or several with their own numbers of rationales (30/10/5/2, as filters leave them). Shared and plain
steps alternate in one process, and the medians of their processor time are compared. Memory is the growth of the
resident set during one step, in a forked process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from lmdistill.loop import Step
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.students import Batch
from lmdistill.students.causal import Causal
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.types import Annotation, Example, Rationale

TARGET = 64
WORDS = [f"w{i}" for i in range(2000)]
STUDENTS = {"seq2seq": Seq2seq, "causal": Causal}


@dataclass
class Case:
    """One source length and number of rationales, ready to run in both ways."""

    step: Step
    batch: Batch
    counts: dict[str, float]

    def run(self, sharing: str) -> float:
        """Processor seconds of one step: what else runs on the machine does not count."""
        student: Any = self.step.student
        student.sharing = sharing
        self.step.zero_grad(set_to_none=True)
        started = time.process_time()
        loss, _ = self.step(self.batch, 0.0, self.counts)
        loss.backward()
        return time.process_time() - started


def case(student: Any, source: int, rationales: str) -> Case:
    """Inputs of `source` tokens with so many rationales of 64 tokens each, answer and end of sequence included."""
    rng = random.Random(source)
    objective = RationaleThenLabel(cue="w0 w1 w2", rationales="all")

    def words(n: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(n))

    numbers = [int(number) for number in rationales.split("/")]
    items = []
    for i, number in enumerate(numbers):
        own = tuple(Rationale(words(TARGET - 5), "w3") for _ in range(number))
        items.append(Annotation(Example(str(i), words(source - 1), "w3"), own))
    batch: Batch = student.collate(items, [objective.views(item, 0, rng) for item in items])
    assert batch.source_ids.shape == (len(numbers), source)
    assert batch.targets["answer"].labels.shape == (sum(numbers), TARGET)
    return Case(Step(student, {}, objective, None), batch, objective.counts(batch))


def grown(one: Case, sharing: str) -> float:
    """Megabytes by which one step raises the peak of resident memory, measured in a fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        one.run(sharing)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writing, str((after - before) / 1024).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return float(stream.read())


def measured(kind: str, sources: list[int], rationales: list[str], repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each source length and number of rationales."""
    student = STUDENTS[kind](preset="medium", dropout=0.0, max_source=1024).open([" ".join(WORDS)], seed=0)
    assert student.sharing == "full"
    cases = {(s, n): case(student, s, n) for s in sources for n in rationales}
    memory = {(key, way): grown(one, way) for key, one in cases.items() for way in ("none", "full")}
    for key, one in cases.items():
        losses = []
        for way in ("none", "full"):
            student.sharing = way
            losses.append(float(one.step(one.batch, 0.0, one.counts)[0].detach()))
        times: dict[str, list[float]] = {"none": [], "full": []}
        for _ in range(repeats):
            for way, seconds in times.items():
                seconds.append(one.run(way))
        gc.collect()
        plain, shared = (statistics.median(times[way]) for way in ("none", "full"))
        yield {
            "student": kind,
            "source": key[0],
            "rationales": key[1],
            "plain_ms": round(1000 * plain),
            "shared_ms": round(1000 * shared),
            "faster": round(plain / shared, 2),
            "plain_mb": round(memory[key, "none"]),
            "shared_mb": round(memory[key, "full"]),
            "memory": round(memory[key, "full"] / max(memory[key, "none"], 1e-9), 2),
            "loss_gap": abs(losses[0] - losses[1]),
        }


def main() -> None:
    """Print one line for each cell, and write them as JSON lines where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--sources", nargs="+", type=int, default=[64, 256, 512])
    parser.add_argument("--rationales", nargs="+", default=["1", "8", "30", "30/10/5/2"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("| student | source | N | plain ms | shared ms | faster | plain MB | shared MB | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in chosen.students:
        for row in measured(kind, chosen.sources, chosen.rationales, chosen.repeats):
            shown = [row[name] for name in ("student", "source", "rationales", "plain_ms", "shared_ms")]
            shown += [f"{row['faster']}x", row["plain_mb"], row["shared_mb"], row["memory"]]
            print("| " + " | ".join(map(str, shown)) + " |", flush=True)
            if chosen.out:
                with chosen.out.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
