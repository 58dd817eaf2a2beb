"""BM25: scores worked by hand, against a naive one and against a peer; searching, scoring, opening, bad input."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lmdistill.errors import ConfigError, StoreError
from lmdistill.indexing import build
from lmdistill.knowledge import Held, Stored
from lmdistill.retrievers import _postings
from lmdistill.retrievers._porter import stem
from lmdistill.retrievers._words import Words
from lmdistill.retrievers.bm25 import BM25
from lmdistill.sources import Document
from lmdistill.types import Passage

PLAIN = BM25("plain", k1=1.2, b=0.75)


def naive(texts: Sequence[str], query: str, k1: float, b: float) -> list[float]:
    """Ten lines of BM25 in plain Python."""
    documents = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    mean = sum(sum(d.values()) for d in documents) / len(documents)
    scores = []
    for d in documents:
        score, length = 0.0, sum(d.values())
        for term in re.findall(r"\w+", query.lower()):
            n = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            score += idf * d[term] / (d[term] + k1 * (1 - b + b * length / mean)) if d[term] else 0.0
        scores.append(score)
    return scores


def zipfian(count: int, seed: int, words: int = 40) -> list[str]:
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(300)]
    weights = [1 / (i + 1) for i in range(300)]
    return [" ".join(rng.choices(vocabulary, weights, k=rng.randint(1, words))) for _ in range(count)]


def held(texts: Sequence[str]) -> Held:
    return Held(Passage(f"p{i}", text) for i, text in enumerate(texts))


def test_a_score_worked_by_hand() -> None:
    # N = 2, both texts have 2 words, so the length norm is 1. 'cat' is in one: idf = ln(1 + 1.5 / 1.5) = ln 2;
    # tf = 1: 1 / (1 + 1.2). Score = ln 2 / 2.2.
    retriever = PLAIN.open(held(["cat sat", "dog ran"]))
    (hit,) = retriever.search("the cat", 5)
    assert hit.passage.id == "p0"
    assert hit.score == pytest.approx(math.log(2) / 2.2, rel=1e-6)


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (0.0, 0.0), (2.0, 1.0)])
def test_scores_equal_a_naive_bm25(k1: float, b: float) -> None:
    texts = zipfian(150, seed=1)
    retriever = BM25("plain", k1=k1, b=b).open(held(texts))
    for query in [*zipfian(5, seed=2), "w0 w0 w0 w7", "w299 unknown"]:
        expected = naive(texts, query, k1, b)
        assert retriever.score_rows(query, range(len(texts))) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_scores_equal_those_of_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s")
    texts = zipfian(200, seed=3)
    peer = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    peer.index([text.split() for text in texts], show_progress=False)
    retriever = BM25("plain", k1=0.9, b=0.4).open(held(texts))
    for query in zipfian(5, seed=4):
        rows = retriever.score_rows(query, range(len(texts)))
        assert rows == pytest.approx(peer.get_scores(query.split()).tolist(), rel=1e-5, abs=1e-6)


def test_search_ranks_as_its_scores_do_with_ties_in_order_of_the_base() -> None:
    texts = zipfian(3000, seed=5, words=12)
    retriever = PLAIN.open(held(texts))
    for query in zipfian(8, seed=6):
        scores = retriever.score_rows(query, range(len(texts)))
        expected = sorted((i for i in range(len(texts)) if scores[i] > 0), key=lambda i: (-scores[i], i))[:10]
        assert [row for row, _ in retriever.rank([query], 10)[0]] == expected
        assert [score for _, score in retriever.rank([query], 10)[0]] == [scores[i] for i in expected]


def test_best_equals_sorting() -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 63, 64, 300, 30_000):
        scores = rng.integers(0, 50, size).astype(np.float32)
        for k in (0, 1, 7, 100):
            rows = sorted(np.flatnonzero(scores > 0).tolist(), key=lambda i: (-scores[i], i))[:k]
            assert [row for row, _ in _postings.best(scores, k)] == rows


def test_blocks_make_no_difference(tmp_path: Path) -> None:
    texts = zipfian(101, seed=7)
    arguments = (texts, len(texts), str.split, str)
    whole = _postings.build(*arguments, None, k1=0.9, b=0.4)
    (tmp_path / "cut").mkdir()
    cut = _postings.build(*arguments, tmp_path / "cut", k1=0.9, b=0.4, block=10)
    for name in _postings.ARRAYS:
        assert np.array_equal(getattr(whole, name), getattr(cut, name)), name


def test_a_killed_build_goes_on_at_its_block(tmp_path: Path) -> None:
    texts = zipfian(40, seed=8)
    (tmp_path / "a").mkdir()

    def failing() -> object:
        for i, text in enumerate(texts):
            if i == 25:
                raise KeyboardInterrupt
            yield text

    with pytest.raises(KeyboardInterrupt):
        _postings.build(failing(), 40, str.split, str, tmp_path / "a", k1=1, b=1, block=10)  # type: ignore[arg-type]
    assert len(list((tmp_path / "a").glob("block-*"))) == 2
    split: list[str] = []

    def counting(text: str) -> list[str]:
        split.append(text)
        return text.split()

    again = _postings.build(texts, 40, counting, str, tmp_path / "a", k1=1, b=1, block=10)
    assert split == texts[20:], "finished blocks are not read again"
    whole = _postings.build(texts, 40, str.split, str, None, k1=1, b=1)
    assert np.array_equal(again.weights, whole.weights)
    assert not list((tmp_path / "a").glob("block-*"))


def test_stems_equal_those_of_a_peer() -> None:
    peer = pytest.importorskip("nltk.stem.porter").PorterStemmer(mode="ORIGINAL_ALGORITHM")
    roots = "rela hop condi troubl matt di fill sky agre happ cre oscilla gener control ro adjust depend homo"
    ends = "tional tion ing ed s es ies y e ational izer fulness iveness ement ment ll eed able ence icate ion al"
    for word in (root + end for root in roots.split() for end in ends.split()):
        assert stem(word) == peer.stem(word), word


def test_presets_and_what_is_set_by_hand() -> None:
    assert BM25().constants == (0.9, 0.4, "porter", "lucene")
    assert BM25("lucene", b=0.0).constants == (1.2, 0.0, "porter", "lucene")
    base = held(["The cats were running.", "dogs sleep"])
    assert BM25().open(base).search("a cat runs", 2)[0].passage.id == "p0"
    assert BM25("plain").open(base).search("a cat runs", 2) == []
    with pytest.raises(ConfigError, match="k1 of 0 or more"):
        BM25(k1=-1.0)


def test_titles_are_searched() -> None:
    base = Held([Passage("a", "it pumps blood", "Heart"), Passage("b", "it filters blood", "Kidney")])
    assert [hit.passage.id for hit in BM25().open(base).search("heart blood", 2)] == ["a", "b"]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "   ", "the of and", "?!... --", "日本語の質問", "💥", "\ud83d"])
def test_queries_that_share_no_word_find_nothing(query: str) -> None:
    retriever = BM25().open(held(["the cat sat", "a dog ran"]))
    assert retriever.search(query, 3) == []
    assert retriever.score(query, ["p1", "p0"]) == [0.0, 0.0]


def test_another_script_finds_its_own() -> None:
    retriever = BM25().open(held(["кошка спит", "собака бежит"]))
    assert [hit.passage.id for hit in retriever.search("где СОБАКА?", 3)] == ["p1"]


def test_k_beyond_the_base_and_below_one() -> None:
    retriever = BM25().open(held(["cat one", "cat two"]))
    assert len(retriever.search("cat", 1000)) == 2
    assert retriever.search("cat", 0) == []
    assert retriever.search("cat", -1) == []


def test_passages_of_stop_words_only() -> None:
    retriever = BM25().open(held(["the of and", "to be"]))
    assert retriever.search("the", 5) == []


def test_a_passage_of_10_mb() -> None:
    retriever = BM25().open(held(["needle " + "hay " * 2_600_000, "hay needle"]))
    hits = retriever.search("needle", 2)
    assert [hit.passage.id for hit in hits] == ["p1", "p0"]
    assert 0 < hits[1].score < hits[0].score


def stored(folder: Path) -> Stored:
    documents = [Document(f"d{i}", text) for i, text in enumerate(zipfian(30, seed=9))]
    return build(documents, folder, inputs={"source": "x"}, resemblance_limit=2.0)


def test_the_index_of_a_folder_is_opened_not_made_again(tmp_path: Path) -> None:
    base = stored(tmp_path)
    first = PLAIN.open(base).search("w0 w3", 5)
    (index,) = tmp_path.glob("bm25-*")
    before = (index / "weights.npy").stat().st_mtime_ns
    assert PLAIN.open(Stored(tmp_path)).search("w0 w3", 5) == first
    assert (index / "weights.npy").stat().st_mtime_ns == before
    assert isinstance(PLAIN.open(Stored(tmp_path)).postings.weights, np.memmap)


def test_other_settings_have_an_index_of_their_own(tmp_path: Path) -> None:
    base = stored(tmp_path)
    one, other = PLAIN.open(base), BM25("plain", k1=0.1, b=0.75).open(base)
    assert len(list(tmp_path.glob("bm25-*"))) == 2
    assert one.search("w1", 1)[0].score != other.search("w1", 1)[0].score


@pytest.mark.parametrize("name", ["weights.npy", "rows.npy", "terms.npy", "starts.npy"])
def test_an_index_file_that_is_cut_short_is_named(tmp_path: Path, name: str) -> None:
    base = stored(tmp_path)
    PLAIN.open(base)
    (index,) = tmp_path.glob("bm25-*")
    path = index / name
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StoreError, match=f"{name} is cut short"):
        PLAIN.open(base)
    path.unlink()
    with pytest.raises(StoreError, match=f"{name} is gone"):
        PLAIN.open(base)


@pytest.mark.parametrize("wrong", [{"k1": float("nan")}, {"k1": float("inf")}, {"k1": -1.0}, {"b": float("nan")}])
def test_constants_that_are_no_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="k1 of 0 or more and b in"):
        BM25(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3.5 mg, 98.6 degrees; 1,000 U.S. vitamins B-12", "3.5 mg 98.6 degrees 1,000 u.s vitamins b 12"),
        ("don't l’État rock-n'roll end. Next", "don't l’état rock n'roll end next"),
        ("心脏泵血 ひらカタカナgo", "心 脏 泵 血 ひ ら カタカナ go"),
        ("हिन्दी में लिखा है", "हिन्दी में लिखा है"),
        ("한국어 문장", "한국어 문장"),
        ("snake_case __ _x_ 1.x x.1 12:30 a:b v1.2.3", "snake_case _x_ 1 x x 1 12 30 a:b v1.2.3"),
        ("", ""),
    ],
)
def test_words_end_where_unicode_ends_them(text: str, words: str) -> None:
    assert Words().split(text) == words.split()
    assert Words().split(f"{text} é") == [*words.split(), "é"], "plain text and others are cut alike"


def test_an_ideograph_finds_a_sentence() -> None:
    retriever = BM25().open(held(["心脏泵血。", "肺呼吸空气。"]))
    assert [hit.passage.id for hit in retriever.search("心脏", 5)] == ["p0"]
    assert retriever.search("98.6", 5) == []
