"""Exposure bias as KD4Gen measures it: the teacher completes the first X % of what a student wrote.

    python benchmarks/exposure_bias.py --task 'retell' --teacher RUN/seed-0/train/student \\
        --students KD/seed-0/tail/student JOINT/seed-0/tail/student [--shares 0 25 50 75 100] [--limit 200]

For every student and share X, quality of the whole text (the student's first X % of tokens, the teacher's rest). At 0
the teacher writes alone, at 100 the student. A flat curve is a student whose own beginnings do not lead it astray.
Teacher and students have one vocabulary and are of one kind (all encoder-decoders, or all decoder-only), as `lmdistill
run` leaves them; the teacher reads the student's prompt.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml

from lmdistill import config
from lmdistill.evaluate import evaluate
from lmdistill.objectives._teacher import same_vocabulary
from lmdistill.predict import open_student
from lmdistill.types import Annotation, Prediction, Sampling


@torch.no_grad()
def completed(teacher: Any, prompts: Sequence[str], begun: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """The texts that start with given token ids and that the teacher goes on with, greedily."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, ids in enumerate(begun):
        by_length[len(ids)].append(row)
    out = [""] * len(prompts)
    for length, rows in by_length.items():
        sampling = Sampling(max_tokens=max(1, tokens - length))
        for at in range(0, len(rows), 64):
            chunk = rows[at : at + 64]
            starts = [list(begun[row]) for row in chunk]
            more = teacher._continued([prompts[row] for row in chunk], starts, sampling)
            for row, start, new in zip(chunk, starts, more, strict=True):
                out[row] = teacher.tokenizer.decode([*start, *new], skip_special_tokens=True).strip()
    return out


def curve(opened: Any, teacher: Any, task: Any, items: Sequence[Annotation], told: Any) -> dict[str, Any]:
    """Quality at each share."""
    student = opened.student.eval()
    prompts = [opened.objective.prompt(item) for item in items]
    own = student.generate_tokens(prompts, Sampling(max_tokens=told.tokens))
    found = {}
    for share in told.shares:
        begun, whole = [], {}
        for row, ids in enumerate(own):
            kept = ids[: round(len(ids) * share / 100)]
            begun.append(kept)
            if share == 100 or (kept and kept[-1] in student.ends):
                whole[row] = student.tokenizer.decode(ids, skip_special_tokens=True).strip()
        rest = [row for row in range(len(items)) if row not in whole]
        texts = completed(teacher, [prompts[row] for row in rest], [begun[row] for row in rest], told.tokens)
        whole |= dict(zip(rest, texts, strict=True))
        predictions = [Prediction(item.example, whole[row] or None) for row, item in enumerate(items)]
        metrics = evaluate(task, predictions, told.metrics or None).metrics
        found[str(share)] = {
            name: [round(v, 4) for v in (one.value, one.low, one.high)] for name, one in metrics.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, help="as in a run file: a name, or '{name: retell, train: 500}'")
    parser.add_argument("--teacher", required=True, type=Path)
    parser.add_argument("--students", required=True, type=Path, nargs="+")
    parser.add_argument("--shares", type=int, nargs="+", default=[0, 25, 50, 75, 100])
    parser.add_argument("--metrics", nargs="+", default=["bleu"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--cpu", action="store_true", help="also where there is an accelerator")
    told = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    given = yaml.safe_load(told.task)
    task = config.rebuild("tasks", {"name": given} if isinstance(given, str) else given)
    items = [Annotation(example) for example in task.examples(told.split)[: told.limit]]
    teacher = open_student(told.teacher).student.eval()
    device = torch.device("cuda" if torch.cuda.is_available() and not told.cpu else "cpu")
    teacher.to(device)
    for folder in told.students:
        opened = open_student(folder)
        same_vocabulary(opened.student, teacher)
        if opened.student.pads_left != teacher.pads_left:
            raise SystemExit(f"{folder}: the student and the teacher are an encoder-decoder and a decoder-only model")
        opened.student.to(device)
        found = curve(opened, teacher, task, items, told)
        print(json.dumps({"student": str(folder), "n": len(items), "by share": found}))


if __name__ == "__main__":
    main()
