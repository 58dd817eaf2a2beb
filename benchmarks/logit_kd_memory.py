"""Peak memory and time of one distillation step over the vocabulary: ours, live and stored, beside the dense way.

    python benchmarks/logit_kd_memory.py [--vocabularies 32128 151936] [--repeats 3] [--out FILE]

Four rows of 256 positions, of which the last 64 are completion; a student's hidden states (width 512) and a teacher's
(width 512) go through their heads, a symmetric Jensen-Shannon divergence is taken, and gradients reach the student's
hidden states and head. Every cell runs in a process of its own; memory is the growth of its resident set during a
step, time the least CPU time of the repeats on one thread (busy neighbours change it little). `dense` is how GKD
trainers do it (all positions, mask last), written out below; `gathered` the same on completion positions alone; `trl`
is that package's own loss on the same logits, where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from lmdistill.losses.divergence import Measure, between, bucket_logprobs, linear_divergence
from lmdistill.profiling import peak_mib

ROWS, POSITIONS, COMPLETION, WIDTH, TOP = 4, 256, 64, 512, 32
WAYS = ("dense", "gathered", "live", "stored", "trl")


class Inputs:
    """The same random states and heads for every way."""

    def __init__(self, vocabulary: int) -> None:
        made = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(ROWS, POSITIONS, WIDTH, generator=made).requires_grad_()
        self.weight = (torch.randn(vocabulary, WIDTH, generator=made) / WIDTH**0.5).requires_grad_()
        self.teacher_hidden = torch.randn(ROWS, POSITIONS, WIDTH, generator=made)
        self.teacher_weight = torch.randn(vocabulary, WIDTH, generator=made) / WIDTH**0.5
        self.mask = torch.zeros(ROWS, POSITIONS, dtype=torch.bool)
        self.mask[:, -COMPLETION:] = True
        with torch.no_grad():  # what would have been recorded
            logp = (self.teacher_hidden[self.mask] @ self.teacher_weight.T).log_softmax(-1)
            best = logp.topk(TOP, -1)
            rest = (1 - best.values.exp().sum(-1, keepdim=True)).log()
            self.ids, self.known = best.indices, torch.cat([best.values, rest], -1)


def jsd(student: Tensor, teacher: Tensor) -> Tensor:
    """The symmetric divergence of all positions at once, as it is written in papers."""
    logq, logp = student.log_softmax(-1), teacher.log_softmax(-1)
    logm = torch.logsumexp(torch.stack([logq, logp]) + torch.tensor(0.5).log(), dim=0)
    kl = torch.nn.functional.kl_div
    one = kl(logm, logp, reduction="none", log_target=True)
    other = kl(logm, logq, reduction="none", log_target=True)
    return (0.5 * one + 0.5 * other).sum(-1)


def dense(x: Inputs) -> Tensor:
    with torch.no_grad():
        teacher = x.teacher_hidden @ x.teacher_weight.T
    return (jsd(x.hidden @ x.weight.T, teacher) * x.mask).sum() / x.mask.sum()


def gathered(x: Inputs) -> Tensor:
    with torch.no_grad():
        teacher = x.teacher_hidden[x.mask] @ x.teacher_weight.T
    return jsd(x.hidden[x.mask] @ x.weight.T, teacher).mean()


def live(x: Inputs) -> Tensor:
    measure = Measure("jsd")
    return linear_divergence(x.hidden[x.mask], x.weight, x.teacher_hidden[x.mask], x.teacher_weight, measure).mean()


def stored(x: Inputs) -> Tensor:
    return between(bucket_logprobs(x.hidden[x.mask], x.weight, x.ids), x.known, Measure("jsd")).mean()


def trl(x: Inputs) -> Tensor:
    from trl.experimental.gkd import GKDTrainer

    with torch.no_grad():
        teacher = x.teacher_hidden @ x.teacher_weight.T
    labels = torch.where(x.mask, 0, -100)
    loss: Tensor = GKDTrainer.generalized_jsd_loss(x.hidden @ x.weight.T, teacher, labels=labels, beta=0.5)
    return loss


STEPS: dict[str, Callable[[Inputs], Tensor]] = {
    "dense": dense, "gathered": gathered, "live": live, "stored": stored, "trl": trl
}  # fmt: skip


def cell(way: str, vocabulary: int, repeats: int) -> dict[str, float]:
    """One way at one vocabulary, measured in this process."""
    inputs, values = Inputs(vocabulary), []

    def step() -> None:
        inputs.hidden.grad = inputs.weight.grad = None
        loss = STEPS[way](inputs)
        loss.backward()
        values.append(float(loss.detach()))

    peak = peak_mib(step)
    times = []
    for _ in range(repeats):
        started = time.process_time()
        step()
        times.append(time.process_time() - started)
    return {"milliseconds": round(1000 * min(times), 1), "mib": round(peak, 1), "loss": values[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_128, 151_936])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON; cells that it has already are not run again")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.cell:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        print(json.dumps(cell(told.cell[0], int(told.cell[1]), told.repeats)))
        return
    found = json.loads(told.out.read_text()) if told.out and told.out.exists() else {}
    print(f"{'vocabulary':>10} {'way':>9} {'ms':>9} {'MiB':>8} {'loss':>8}   time, memory against dense")
    for vocabulary in told.vocabularies:
        for way in told.ways:
            name = f"{way} {vocabulary}"
            if name not in found:
                command = [sys.executable, __file__, "--cell", way, str(vocabulary), "--repeats", str(told.repeats)]
                ran = subprocess.run(command, capture_output=True, text=True)
                if ran.returncode:
                    print(f"{vocabulary:>10} {way:>9}   not run: {ran.stderr.strip().splitlines()[-1]}")
                    continue
                found[name] = json.loads(ran.stdout)
                if told.out:
                    told.out.write_text(json.dumps(found, indent=2))
            one, base = found[name], found.get(f"dense {vocabulary}")
            against = ""
            if base:
                against = f"{one['milliseconds'] / base['milliseconds']:.3f} {one['mib'] / base['mib']:.3f}"
            print(f"{vocabulary:>10} {way:>9} {one['milliseconds']:>9} {one['mib']:>8} {one['loss']:>8.4f}   {against}")


if __name__ == "__main__":
    main()
