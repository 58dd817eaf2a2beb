"""What each curation step drops from rationales that language models really wrote; prints one table per data set.

LMDISTILL_DATA=... python benchmarks/curation.py
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmdistill import registry, store
from lmdistill.cli._table import show_table
from lmdistill.curate import Funnel, curate
from lmdistill.curation import Curation
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example, Rationale

STEPS: tuple[tuple[str, dict[str, object]], ...] = (
    ("correct", {}),
    ("agree", {}),
    ("leak", {}),
    ("consistent", {}),
    ("dedup", {}),
    ("dedup", {"scope": "corpus"}),
    ("length", {"low": 3, "high": 80}),
)


def main() -> None:
    """Measure every step alone, on each set."""
    data = Path(os.environ["LMDISTILL_DATA"])
    for name, task, rows in sets(data):
        table = []
        for step, settings in STEPS:
            funnel, started = Funnel(), time.perf_counter()
            made: Curation = registry.load("curation", step)(**settings)
            curate(rows, task, made, funnel=funnel)
            seconds = time.perf_counter() - started
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(funnel.steps[0].items()))
            written = " ".join([step, *(f"{key}={value}" for key, value in settings.items())])
            share = f"{100 * funnel.steps[0].total() / funnel.rationales:.1f} %"
            table.append([written, f"{funnel.rationales:,}", share, f"{funnel.empty:,}", f"{seconds:.1f} s", reasons])
        show_table(["step alone", "rationales", "dropped", "inputs left empty", "time", "reasons"], table, f"\n{name}")


def sets(data: Path) -> Iterator[tuple[str, Task, Sequence[Annotation]]]:
    """A name, a task that reads the answers, and the rationales of each set."""
    yield "QuaRel, text-davinci-003, 5 a question", registry.load("tasks", "quarel")(), list(quarel(data))
    yield "SVAMP, gpt-3.5-turbo, 10 a question", registry.load("tasks", "sums")(), list(svamp(data))
    for teacher in ("flan-t5", "llama-2"):
        task = registry.load("tasks", "obqa")()
        yield f"OpenBookQA, {teacher}, 1 a question, answer shown", task, list(openbookqa(data, teacher))


def quarel(data: Path) -> Iterator[Annotation]:
    for line, row in store.read_jsonl(data / "mario_quarel/train.jsonl.gz"):
        match = re.fullmatch(r"(?s).*\(A\)\s*(.+?)\s*\(B\)\s*(.+?)", row["question"])
        assert match is not None
        texts = {"(a)": match[1].strip(), "(b)": match[2].strip()}
        told = (Rationale(one["text"], texts.get(one["label"]), sample=i) for i, one in enumerate(row["rationales"]))
        yield Annotation(Example(str(line), row["question"], texts[row["label"]], tuple(texts.values())), tuple(told))


def svamp(data: Path) -> Iterator[Annotation]:
    for _, row in store.read_jsonl(data / "mcckd_svamp/train.jsonl.gz"):
        told = (Rationale(one["text"], one["label"], sample=i) for i, one in enumerate(row["rationales"]))
        yield Annotation(Example(row["id"], row["input"], row["label"]), tuple(told))


def openbookqa(data: Path, teacher: str) -> Iterator[Annotation]:
    for _, row in store.read_jsonl(data / "tinyllm_obqa/train.jsonl.gz"):
        example = Example(row["id"], row["question"], row["label"], tuple(row["choices"]))
        told = (Rationale(one["text"], row["label"]) for one in row["rationales"] if one["teacher"] == teacher)
        yield Annotation(example, tuple(told))


if __name__ == "__main__":
    main()
