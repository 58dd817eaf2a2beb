"""What QCRD costs beside DSS: per step, per run, and the share of sampling negatives.

    python benchmarks/qcrd_overhead.py                       # tiny student, nli, one negative per input
    python benchmarks/qcrd_overhead.py --preset small --positives majority --refresh-every 4

Both train the same student on the same inputs for the same number of epochs, with processor time (not wall time)
taken around training, so that a busy machine distorts little. One positive and one negative per input (`--positives
first`) is the case that the aim of 1.5 times is set for; `majority` selects among the distinct positives of five
samples. The last row is QCRD as it ships: five samples, the judge's pretraining (500 steps, once) and its 50 steps a
round, at most 64 tokens a negative; its pretraining weighs the less the longer a run is.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmdistill.objectives import Objective, Round
from lmdistill.objectives.contrastive_rationale import ContrastiveRationale
from lmdistill.objectives.quality_judging import QualityJudging
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.recipes._road import vocabulary_texts
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.tasks.nli import Nli
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Rationale

DEFAULTS = "qcrd, all defaults"
SPENT = {"sampling": 0.0, "judge": 0.0}


@dataclass(frozen=True)
class Timed(ContrastiveRationale):
    """QCRD that notes the processor time of its rounds."""

    def refresh(self, items: Sequence[Annotation], round: Round) -> Sequence[Annotation]:
        start = time.process_time()
        fresh = super().refresh(items, round)
        SPENT["sampling"] += time.process_time() - start
        return fresh

    def learn(self, items: Sequence[Annotation], round: Round) -> Sequence[Annotation]:
        start = time.process_time()
        fresh = super().learn(items, round)
        SPENT["judge"] += time.process_time() - start
        return fresh


def annotated(n: int, samples: int) -> list[Annotation]:
    """Questions of nli with samples of a teacher that is wrong one time in five."""
    import random

    task, rng = Nli(train=n), random.Random(0)
    out = []
    for example in task.examples("train"):
        said = [task.explain(example.input, rng, wrong=rng.random() < 0.2) for _ in range(samples)]
        rationales = tuple(Rationale(text, answer, "scripted", i) for i, (text, answer) in enumerate(said))
        out.append(Annotation(example, rationales))
    return out


def measured(objective: Objective, items: Sequence[Annotation], options: argparse.Namespace) -> tuple[float, int]:
    """Processor seconds of a training run, and its steps."""
    student = Seq2seq(preset=options.preset).open(vocabulary_texts(objective, items), seed=0)
    chosen = TrainSettings(
        epochs=options.epochs,
        batch_size=options.batch,
        learning_rate=3e-3,
        refresh_every=options.refresh_every,
        save_every=1_000_000,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        trained = train(student, objective, items, settings=chosen, folder=Path(folder) / "run")
        return time.process_time() - start, trained.step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--train", type=int, default=512)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--refresh-every", type=int, default=1)
    parser.add_argument("--positives", choices=("first", "majority"), default="first")
    parser.add_argument("--max-tokens", type=int, default=20)
    parser.add_argument("--judge-steps", type=int, default=8, help="steps of the judge in a round")
    parser.add_argument("--pretrain-steps", type=int, default=0, help="not part of a round; 0 leaves it out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    items = annotated(options.train, 1 if options.positives == "first" else 5)
    judge = QualityJudging(steps=options.judge_steps, pretrain_steps=options.pretrain_steps)
    own: dict[str, Any] = {"positives": options.positives, "max_tokens": options.max_tokens, "lag": 1}
    if options.positives == "first":
        own["negatives"] = "student"
    plans: dict[str, Objective] = {
        "dss": StepByStep(),
        "qcrd": Timed(judge=judge, **own),
        "qcrd without judge": Timed(judge=None, **own),
        DEFAULTS: Timed(),
    }
    measured(StepByStep(), items[: options.batch], options)  # what is imported and made once
    whole: dict[str, float] = {}
    print("| | run s | of it sampling | of it judge | per step ms | run / dss | step / dss |\n|" + "---|" * 7)
    for name, objective in plans.items():
        SPENT.update(sampling=0.0, judge=0.0)
        learnt = annotated(options.train, 5) if name == DEFAULTS else items
        seconds, steps = measured(objective, learnt, options)
        inside = 1000 * (seconds - sum(SPENT.values())) / steps
        whole |= {name: seconds, f"{name} step": inside}
        shares = [f"{SPENT[key]:.1f} ({SPENT[key] / seconds:.0%})" for key in ("sampling", "judge")]
        ratios = f"{seconds / whole['dss']:.2f} | {inside / whole['dss step']:.2f}"
        print(f"| {name} | {seconds:.1f} | {shares[0]} | {shares[1]} | {inside:.1f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
