"""Trains both kinds of student on several rationales an input, shared or plain, as a program for one or two processes.

python sharing_program.py FOLDER SHARING
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch

from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.students.causal import Causal
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Rationale

SETTINGS = TrainSettings(
    steps=6,
    batch_size=6,
    tokens_per_batch=400,
    bucket=1,
    learning_rate=1e-2,
    optimizer="sgd",
    log_every=1,
    device="cpu",
)


def items() -> list[Annotation]:
    """Sums with one to five rationales each, of ragged length."""
    rng = random.Random(0)
    out = []
    for i in range(20):
        a, b = rng.randrange(9), rng.randrange(9)
        texts = [f"{a} and {b} make {a + b}" + " so it is" * k for k in range(rng.randint(1, 5))]
        rationales = tuple(Rationale(text, str(a + b)) for text in texts)
        out.append(Annotation(Example(f"e{i}", "count " * rng.randint(1, 4) + f"{a} plus {b}", str(a + b)), rationales))
    return out


def main(folder: Path, sharing: str) -> None:
    """Six steps of each kind of student."""
    torch.set_num_threads(1)
    own = items()
    texts = ["count plus and make so it is the answer is: So " + " ".join(map(str, range(20)))]
    for kind in (Causal, Seq2seq):
        student = kind(dropout=0.0, sharing=sharing).open(texts, seed=3)  # type: ignore[arg-type]
        assert student.sharing == sharing
        objective = RationaleThenLabel(rationales="all")
        train(student, objective, own, settings=SETTINGS, folder=folder / kind.__name__, seed=5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
