"""Index time, disk, memory and queries a second of the sparse retriever, beside bm25s used plainly and rank_bm25.

    python benchmarks/retrieval.py --out RESULTS [--sizes 30000 200000 2000000] [--engines ours bm25s rank_bm25]

Passages of about 100 words drawn from a Zipfian vocabulary, 100 queries of 60 terms, the best 100 passages, one thread.
Every cell runs in a process of its own, so that its peak memory is its own; it is a line of RESULTS/cells.jsonl, and is
not computed again. Ours and bm25s must give the same scores and, up to ties, the same passages, or the program ends
with what differs. bm25s keeps its tokens and passages in Python lists, as its README shows; ours writes to disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TERMS, K, QUERIES, VOCABULARY, WORDS = 60, 100, 100, 200_000, 100
COMPARED, CLOSE = 10, 1e-4
"""Queries whose rankings are compared between engines, and how close equal scores are."""


def word(number: int) -> str:
    """A pronounceable word for a number; different numbers, different words."""
    syllables = ""
    while True:
        number, rest = divmod(number, 105)
        syllables += "bcdfghklmnprstvwxyz"[rest % 19] + "aeiou"[rest // 21]
        if not number:
            return syllables + "q"
        number -= 1


def texts(size: int, seed: int) -> Iterator[str]:
    """Passages of Zipfian words, the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    share = np.cumsum(1.0 / np.arange(1, VOCABULARY + 1))
    share /= share[-1]
    words = np.array([word(number) for number in range(VOCABULARY)], dtype=object)
    for start in range(0, size, 1000):
        count = min(1000, size - start)
        drawn = np.searchsorted(share, rng.random((count, WORDS)))
        lengths = rng.integers(WORDS // 2, WORDS + WORDS // 2, count)
        for row, length in zip(drawn, lengths, strict=True):
            yield " ".join(words[np.resize(row, length)])


def queries(size: int) -> list[str]:
    """60 terms of a passage that is not in the base."""
    return [
        " ".join(text.split()[:TERMS]) for text, _ in zip(texts(QUERIES, 10**6 + size), range(QUERIES), strict=True)
    ]


def peak() -> float:
    """Peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(size: int, folder: Path) -> dict[str, Any]:
    from lmdistill.chunking import Chunking
    from lmdistill.indexing import build
    from lmdistill.knowledge import Stored
    from lmdistill.retrievers.bm25 import BM25
    from lmdistill.sources import Document

    spec = BM25("plain", k1=0.9, b=0.4)
    before = time.process_time()
    source = (Document(str(i), text) for i, text in enumerate(texts(size, 0)))
    build(source, folder, inputs={"size": str(size)}, chunking=Chunking(0), resemblance_limit=2.0)
    base_seconds = time.process_time() - before
    before = time.process_time()
    spec.open(Stored(folder))
    index_seconds = time.process_time() - before
    indexed = peak()
    started = time.perf_counter()
    retriever = spec.open(Stored(folder))
    open_seconds = time.perf_counter() - started
    asked = queries(size)
    retriever.search_all(asked[:3], K)
    before = time.process_time()
    found = retriever.rank(asked, K)
    seconds = time.process_time() - before
    before = time.process_time()
    retriever.search_all(asked, K)
    with_texts = time.process_time() - before
    disk = sum(path.stat().st_size for path in folder.rglob("*.npy")) / 1e6
    return {
        "base_cpu_s": base_seconds,
        "index_cpu_s": index_seconds,
        "open_s": open_seconds,
        "disk_mb": disk,
        "peak_mb_indexing": indexed,
        "queries_per_cpu_s": QUERIES / seconds,
        "with_texts_per_cpu_s": QUERIES / with_texts,
        "rankings": found[:COMPARED],
    }


def plain_bm25s(size: int, folder: Path) -> dict[str, Any]:
    import bm25s

    corpus = list(texts(size, 0))
    before = time.process_time()
    pattern = {"stopwords": [], "show_progress": False, "token_pattern": r"\w+"}
    index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    index.index(bm25s.tokenize(corpus, **pattern), show_progress=False)
    index_seconds = time.process_time() - before
    index.save(folder, show_progress=False)
    indexed = peak()
    started = time.perf_counter()
    opened = bm25s.BM25.load(folder, mmap=True, show_progress=False)
    open_seconds = time.perf_counter() - started
    asked = queries(size)
    opened.retrieve(bm25s.tokenize(asked[:3], return_ids=False, **pattern), k=K, show_progress=False)
    before = time.process_time()
    terms = bm25s.tokenize(asked, return_ids=False, **pattern)
    rows, scores = opened.retrieve(terms, k=K, show_progress=False)
    seconds = time.process_time() - before
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return {
        "index_cpu_s": index_seconds,
        "open_s": open_seconds,
        "disk_mb": disk,
        "peak_mb_indexing": indexed,
        "queries_per_cpu_s": QUERIES / seconds,
        "rankings": [
            [(int(row), float(score)) for row, score in zip(own, given, strict=True) if score > 0]
            for own, given in zip(rows[:COMPARED], scores[:COMPARED], strict=True)
        ],
    }


def plain_rank_bm25(size: int, folder: Path) -> dict[str, Any]:
    from rank_bm25 import BM25Okapi

    corpus = [text.split() for text in texts(size, 0)]
    before = time.process_time()
    index = BM25Okapi(corpus, k1=0.9, b=0.4)
    index_seconds = time.process_time() - before
    asked = queries(size)[:5]
    before = time.process_time()
    for query in asked:
        np.argsort(-index.get_scores(query.split()))[:K]
    seconds = time.process_time() - before
    return {"index_cpu_s": index_seconds, "peak_mb_indexing": peak(), "queries_per_cpu_s": len(asked) / seconds}


Ranking = Sequence[Sequence[float]]
"""(row, score) of the best passages, best first."""


def difference(one: Ranking, other: Ranking) -> str | None:
    """Where two rankings of a query differ, but for the order and the choice among equal scores; None: nowhere."""
    if len(one) != len(other):
        return f"{len(one)} passages against {len(other)}"
    for place, ((_, mine), (_, theirs)) in enumerate(zip(one, other, strict=True)):
        if abs(mine - theirs) > CLOSE:
            return f"score {mine:.5f} against {theirs:.5f} at place {place + 1}"
    last = one[-1][1] if one else 0.0
    for a, b in ((one, other), (other, one)):
        scores = {int(row): score for row, score in b}
        for row, score in a:
            if abs(scores.get(int(row), last) - score) > CLOSE:
                return f"passage {int(row)} with score {score:.5f} is missing on one side, or scored otherwise there"
    return None


def disagreements(cells: Sequence[dict[str, Any]]) -> tuple[list[int], list[str]]:
    """The sizes at which ours and bm25s were both measured, and what differs there, by size and query."""
    found = []
    by = {(one["engine"], one["passages"]): one["rankings"] for one in cells if "rankings" in one}
    sizes = sorted({size for engine, size in by if engine == "ours" and ("bm25s", size) in by})
    for size in sizes:
        for query, (mine, theirs) in enumerate(zip(by["ours", size], by["bm25s", size], strict=True)):
            wrong = difference(mine, theirs)
            if wrong:
                found.append(f"{size:,} passages, query {query}: {wrong}")
    return sizes, found


ENGINES = {"ours": ours, "bm25s": plain_bm25s, "rank_bm25": plain_rank_bm25}


def whole(cell: dict[str, Any]) -> bool:
    """Whether a row says all that it should: those of an earlier version told no rankings."""
    return cell["engine"] == "rank_bm25" or "rankings" in cell


def run_cell(engine: str, size: int, out: Path) -> dict[str, Any]:
    """A cell in a process of its own."""
    command = [sys.executable, __file__, "--out", str(out), "--cell", engine, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{engine} at {size}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[30_000, 200_000, 2_000_000])
    parser.add_argument("--engines", nargs="+", choices=sorted(ENGINES), default=list(ENGINES))
    parser.add_argument("--cell", nargs=2, metavar=("ENGINE", "SIZE"), help="run one cell in this process")
    arguments = parser.parse_args()
    if arguments.cell:
        engine, size = arguments.cell[0], int(arguments.cell[1])
        folder = arguments.out / f"{engine}-{size}-{random.randrange(10**9)}"
        folder.mkdir(parents=True)
        try:
            found = ENGINES[engine](size, folder / "base")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}
        print(json.dumps({"engine": engine, "passages": size, **rounded}))
        return
    path = arguments.out / "cells.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    cells = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for size in arguments.sizes:
        for engine in arguments.engines:
            if engine == "rank_bm25" and size > 30_000:
                continue
            if not any(one["engine"] == engine and one["passages"] == size and whole(one) for one in cells):
                cells.append(run_cell(engine, size, arguments.out))
                with path.open("a") as file:
                    file.write(json.dumps(cells[-1]) + "\n")
                print(json.dumps({key: value for key, value in cells[-1].items() if key != "rankings"}), flush=True)
    names = ["base_cpu_s", "index_cpu_s", "open_s", "disk_mb", "peak_mb_indexing", "queries_per_cpu_s"]
    print(f"| passages | engine | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for one in cells:
        if not whole(one):
            continue
        print(f"| {one['passages']:,} | {one['engine']} | {' | '.join(str(one.get(name, '')) for name in names)} |")
    sizes, wrong = disagreements(cells)
    if wrong:
        raise SystemExit("\n".join(["ours and bm25s differ:", *wrong]))
    for size in sizes:
        print(f"{size:,} passages: the best {K} of {COMPARED} queries are bm25s's, scores to {CLOSE:g}")


if __name__ == "__main__":
    main()
