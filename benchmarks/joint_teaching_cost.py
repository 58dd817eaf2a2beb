"""What Joint-Teaching's sampling costs: the step time of `joint_teaching` against that of `logit_kd`.

    python benchmarks/joint_teaching_cost.py [--student small] [--teacher medium] [--steps 12] [--batch 16] \\
        [--vocabulary spiece.model]

T5-shaped models of random weights on the generated task `retell`; both objectives alternate step by step in one
process and see the same batches; time is CPU time of one thread. A step is `prepare` (the student samples in
evaluation mode, with its key-value cache, in every second step of the released form), the loss with the teacher's
forward pass (encoder states kept by source), backward and the optimizer. A student of random weights never ends its
text, so every sample has the full `--tokens`: the most that sampling can cost. `--tokens 0` (the default) takes the
longest label of the batch. `--vocabulary` is a sentencepiece model that is taken whole (T5's has 32,000 pieces); by
default it is the task's few words.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from lmdistill.objectives import Round
from lmdistill.objectives._teacher import Frozen
from lmdistill.objectives.joint_teaching import JointTeaching
from lmdistill.objectives.logit_kd import LogitKD
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.tasks.retell import Retell
from lmdistill.types import Annotation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="small")
    parser.add_argument("--teacher", default="medium")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--vocabulary", default="word")
    told = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    task = Retell(train=4 * told.batch, valid=0, test=0)
    items = [Annotation(example) for example in task.examples("train")]
    texts = [text for item in items for text in (item.example.input, item.example.label or "")]
    words: dict[str, Any] = {"vocabulary": told.vocabulary, "trim": False}
    student: Any = Seq2seq(preset=told.student, **words).open(texts)
    teacher = Frozen(Seq2seq(preset=told.teacher, **words).open(texts, seed=1))
    longest = told.tokens or max(len(student.tokens("target", item.example.label)) for item in items)
    ways = {
        "logit_kd": LogitKD(),
        "joint_teaching (released)": JointTeaching(max_tokens=longest),
        "joint_teaching (paper)": JointTeaching(form="paper", max_tokens=longest),
    }
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    times: dict[str, list[float]] = {name: [] for name in ways}
    student.train()
    for step in range(told.steps + 2):
        chosen = [items[(step * told.batch + i) % len(items)] for i in range(told.batch)]
        for name, objective in ways.items():
            torch.manual_seed(step)
            batch = student.collate(chosen, [objective.views(one, 0, random.Random(0)) for one in chosen])
            now = Round(0, 0, step, 0.0, lambda lag: student, {}, student)
            started = time.process_time()
            batch = objective.prepare(replace(batch), now)
            counts = objective.counts(batch)
            parts = objective.loss(student, teacher, batch, 0.0)
            sum(part.weight * part.total / counts[key] for key, part in parts.items()).backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()
            if step >= 2:
                times[name].append(time.process_time() - started)
    base = statistics.mean(times["logit_kd"])
    print(
        f"student {told.student}, teacher {told.teacher}, batch {told.batch}, {longest} tokens, {told.steps} steps, "
        f"{len(student.tokenizer):,} pieces"
    )
    for name, own in times.items():
        print(f"{name:>27} {1000 * statistics.mean(own):8.1f} ms/step  {statistics.mean(own) / base:5.2f} x logit_kd")


if __name__ == "__main__":
    main()
