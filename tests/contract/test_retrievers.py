"""Every retriever: search agrees with score, ids with rows, folders with memory, and bad queries find nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmdistill import config, registry
from lmdistill.errors import ConfigError, DataError, StoreError
from lmdistill.indexing import build
from lmdistill.knowledge import Held, KnowledgeBase
from lmdistill.retrievers import Retriever, RetrieverSettings
from lmdistill.retrievers._vectors import cluster, nearest
from lmdistill.retrievers.hybrid import Hybrid
from lmdistill.sources import Document
from lmdistill.types import Passage

NAMES = registry.names("retrievers")
EATERS = [("otter", "fish"), ("horse", "grass"), ("mouse", "cheese"), ("eagle", "mice"), ("snail", "leaves")]
EATERS.append(("otter", "crabs"))
TEXTS = [f"the {animal} number {i} eats {food} at dawn" for i, (animal, food) in enumerate(EATERS)]


class Letters:
    """An encoder without a model: counts of letters, as unit vectors."""

    def encode(self, texts: list[str], **options: Any) -> Any:
        counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        lengths = np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
        return (counts / lengths).astype(np.float32)

    def get_embedding_dimension(self) -> int:
        return 26


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmdistill.retrievers.dense import Dense

    monkeypatch.setattr(Dense, "_encoder", lambda self: Letters())


def spec(name: str) -> RetrieverSettings:
    found: RetrieverSettings = config.rebuild("retrievers", {"name": name})
    return found


def base() -> KnowledgeBase:
    return Held(Passage(f"p{i}", text) for i, text in enumerate(TEXTS))


@pytest.mark.parametrize("name", NAMES)
def test_search_gives_what_score_gives_best_first(name: str) -> None:
    retriever = spec(name).open(base())
    hits = retriever.search("which otter eats crabs?", 6)
    assert hits[0].passage.id == "p5"
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    if name != "hybrid":  # whose scores are ranks among what is scored
        assert retriever.score("which otter eats crabs?", [hit.passage.id for hit in hits]) == pytest.approx(scores)
    assert retriever.score("which otter eats crabs?", ["p1", "p5"])[1] > retriever.score("otter crabs", ["p1", "p5"])[0]


@pytest.mark.parametrize("name", NAMES)
def test_bad_queries_find_nothing_and_k_may_be_anything(name: str) -> None:
    retriever = spec(name).open(base())
    assert retriever.search_all(["", "?!...", " \n"], 3) == [[], [], []]
    assert retriever.search("otter", 0) == [] == retriever.search("otter", -3)
    assert 1 <= len(retriever.search("otter", 10_000)) <= len(TEXTS)
    assert retriever.search_all([], 3) == []
    with pytest.raises(DataError, match="no passage 'nobody'"):
        retriever.score("otter", ["nobody"])


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_gives_what_memory_gives_and_is_opened_again(name: str, tmp_path: Path) -> None:
    documents = [Document(f"p{i}", text) for i, text in enumerate(TEXTS)]
    stored = build(documents, tmp_path, inputs={}, resemblance_limit=2.0)
    expected = spec(name).open(base()).search_all(["otter fish", "snail"], 4)
    assert spec(name).open(stored).search_all(["otter fish", "snail"], 4) == expected
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert spec(name).open(stored).search_all(["otter fish", "snail"], 4) == expected
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_base(name: str) -> None:
    assert spec(name).open(Held([])).search("otter", 3) == []


def test_vectors_that_are_cut_short_are_named(tmp_path: Path) -> None:
    stored = build([Document("p", TEXTS[0])], tmp_path, inputs={})
    spec("dense").open(stored)
    (vectors,) = tmp_path.rglob("vectors.npy")
    vectors.write_bytes(vectors.read_bytes()[:-2])
    with pytest.raises(StoreError, match=r"vectors\.npy is cut short"):
        spec("dense").open(stored)


def test_killed_encoding_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmdistill.retrievers.dense import Dense

    monkeypatch.setattr("lmdistill.retrievers.dense.PART", 10)
    monkeypatch.setattr("lmdistill.retrievers.dense.SAVE_EVERY", 100)
    documents = [Document(str(i), f"text number {i} of {'abcdefg'[i % 7] * (i % 5)}") for i in range(250)]
    stored = build(documents, tmp_path, inputs={}, resemblance_limit=2.0)
    whole = Dense(passage_prefix="").open(Held(stored)).vectors
    encode = Dense.encode
    calls: list[int] = []

    def failing(self: Dense, encoder: Any, texts: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == 14:
            raise KeyboardInterrupt
        return encode(self, encoder, texts)

    monkeypatch.setattr(Dense, "encode", failing)
    with pytest.raises(KeyboardInterrupt):
        Dense().open(stored)
    calls[:] = [0] * 20
    again = Dense().open(stored).vectors
    assert len(calls) == 20 + 15, "the first hundred are not encoded again"
    assert np.array_equal(np.asarray(again), whole)


def test_exact_search_in_blocks_equals_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmdistill.retrievers._vectors.BLOCK", 64)
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(500, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    for k in (1, 7, 500, 900):
        for query, found in zip(queries, nearest(vectors, queries, k), strict=True):
            expected = np.argsort(-(vectors @ query), kind="stable")[:k]
            assert [row for row, _ in found] == expected.tolist()


def test_all_cells_are_the_exact_search_and_few_find_most() -> None:
    rng = np.random.default_rng(1)
    middles = rng.normal(size=(20, 16))
    vectors = np.repeat(middles, 50, axis=0) + 0.2 * rng.normal(size=(1000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = vectors[::97]
    cells = cluster(vectors, 20, seed=0)
    assert sorted(cells.rows.tolist()) == list(range(1000))
    exact = nearest(vectors, queries, 10)
    every = cells.nearest(vectors, queries, 10, probes=20)
    assert [[row for row, _ in own] for own in every] == [[row for row, _ in own] for own in exact]
    few = cells.nearest(vectors, queries, 10, probes=3)
    common = [len({r for r, _ in a} & {r for r, _ in b}) for a, b in zip(few, exact, strict=True)]
    assert sum(common) >= 0.8 * 10 * len(queries)


class Fixed(Retriever):
    """Always the same ranking."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    @property
    def base(self) -> KnowledgeBase:
        return base()

    def rank(self, queries: Any, k: int) -> Any:
        return [[(row, 9.0 - i) for i, row in enumerate(self.rows)][:k] for _ in queries]

    def score_rows(self, query: str, rows: Any) -> list[float]:
        return [9.0 - self.rows.index(row) if row in self.rows else 0.0 for row in rows]


def test_fused_ranks_by_hand() -> None:
    from lmdistill.retrievers.hybrid import OpenHybrid

    fused = OpenHybrid(base(), Hybrid(parts=(spec("bm25"),)), [Fixed([0, 1, 2]), Fixed([1, 3])])
    # row 1: 1/62 + 1/61; row 0: 1/61; row 3: 1/62; row 2: 1/63
    assert fused.rank(["x"], 3) == [[(1, pytest.approx(1 / 62 + 1 / 61)), (0, 1 / 61), (3, 1 / 62)]]
    assert fused.score_rows("x", [3, 1]) == pytest.approx([1 / 61 + 1 / 62 - 1 / 61, 1 / 61 + 1 / 61])
    with pytest.raises(ConfigError, match="at least one of `parts`"):
        Hybrid(parts=())


def test_two_who_need_an_index_at_once_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    from lmdistill.retrievers import _postings

    stored = build(
        [Document(f"p{i}", text) for i, text in enumerate(TEXTS)], tmp_path, inputs={}, resemblance_limit=2.0
    )
    inside, begun, made = threading.Event(), threading.Event(), []
    plain = _postings.build

    def slow(*arguments: Any, **options: Any) -> Any:
        made.append(threading.current_thread().name)
        inside.set()
        begun.wait(20)
        time.sleep(0.3)  # the second must wait for this one
        return plain(*arguments, **options)

    monkeypatch.setattr(_postings, "build", slow)
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(spec("bm25").open(stored).search("otter", 3)))
    second = threading.Thread(target=lambda: found.append(spec("bm25").open(stored).search("otter", 3)))
    first.start()
    assert inside.wait(20)
    second.start()
    begun.set()
    first.join(20)
    second.join(20)
    assert len(made) == 1 and len(found) == 2 and found[0] == found[1] != []
