"""An inverted index of BM25 weights: for each term the rows that have it, as arrays that open by memory map.

Terms are 64-bit hashes in sorted order. Building works through blocks of passages, each sorted and written before the
next, so memory stays flat and a killed build goes on at the block where it stopped.
"""

from __future__ import annotations

import array
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmdistill.progress import progress

BLOCK = 50_000
"""Passages sorted at a time: about 200 MB of memory for passages of 100 words."""
ARRAYS = ("terms", "starts", "rows", "weights")


@dataclass(frozen=True)
class Postings:
    """`rows[starts[t]:starts[t + 1]]` have the term `terms[t]`, each with its weight; rows ascend within a term."""

    terms: Any  # [T] uint64, ascending
    starts: Any  # [T + 1] int64
    rows: Any  # [P] int32
    weights: Any  # [P] float32
    size: int  # rows of the base

    @classmethod
    def opened(cls, folder: Path, size: int) -> Postings:
        """The index of a folder, by memory map."""
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS]
        return cls(np.asarray(arrays[0]), np.asarray(arrays[1]), arrays[2], arrays[3], size)

    def of(self, words: Sequence[str]) -> tuple[Any, Any]:
        """The places of the known terms among words, and how often each stands there."""
        hashes, times = np.unique(np.array([hash_word(word) for word in words], dtype=np.uint64), return_counts=True)
        places = np.searchsorted(self.terms, hashes)
        known = places < len(self.terms)
        known[known] = self.terms[places[known]] == hashes[known]
        return places[known], times[known]

    def scores(self, words: Sequence[str]) -> Any:
        """[size] float32: the score of every row."""
        scores = np.zeros(self.size, dtype=np.float32)
        for place, times in zip(*self.of(words), strict=True):
            part = slice(int(self.starts[place]), int(self.starts[place + 1]))
            weights = self.weights[part] if times == 1 else self.weights[part] * np.float32(times)
            np.add.at(scores, self.rows[part], weights)
        return scores

    def scores_of(self, words: Sequence[str], rows: Sequence[int]) -> Any:
        """[len(rows)] float32: the scores of some rows, bit for bit those of `scores`."""
        wanted = np.asarray(rows, dtype=np.int32)
        scores = np.zeros(len(wanted), dtype=np.float32)
        for place, times in zip(*self.of(words), strict=True):
            part = slice(int(self.starts[place]), int(self.starts[place + 1]))
            own = self.rows[part]
            at = np.searchsorted(own, wanted)
            at[at == len(own)] = 0
            weights = self.weights[part][at] * np.float32(times)
            scores += np.where(own[at] == wanted, weights, np.float32(0))
        return scores


def best(scores: Any, k: int) -> list[tuple[int, float]]:
    """The `k` best of scores above 0 with their rows, ties in row order.

    The k-th best maximum of short blocks bounds the k-th best score from below, so that few rows are sorted.
    """
    width = 64
    if k < 1 or not len(scores):
        return []
    bound = np.float32(0)
    if len(scores) >= 4 * width * k:
        whole = len(scores) - len(scores) % width
        maxima = scores[:whole].reshape(-1, width).max(axis=1)
        bound = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    rows = np.flatnonzero(scores >= bound if bound > 0 else scores > 0)
    own = scores[rows]
    order = np.argsort(-own, kind="stable")[:k]
    return list(zip(rows[order].tolist(), own[order].tolist(), strict=True))


def hash_word(word: str) -> int:
    """A term as a number: of a million terms two share one with a chance of 3 in 100 million."""
    return int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


# --- building --------------------------------------------------------------------------------------------------------


class _Hashes(dict[str, int]):
    """Words of passages -> the hashes of their terms, 0 for a stop word; each word is stemmed once."""

    def __init__(self, term: Callable[[str], str]) -> None:
        super().__init__()
        self.term = term

    def __missing__(self, word: str) -> int:
        if len(self) > 2_000_000:
            self.clear()
        term = self.term(word)
        found = self[word] = hash_word(term) if term else 0
        return found


def build(
    texts: Iterable[str],
    size: int,
    split: Callable[[str], Sequence[str]],
    term: Callable[[str], str],
    folder: Path | None,
    *,
    k1: float,
    b: float,
    block: int = BLOCK,
) -> Postings:
    """Weights idf * tf / (tf + k1 (1 - b + b length / mean length)), idf = ln(1 + (N - df + 0.5) / (df + 0.5)).

    Args:
        texts: `size` texts by row; those of finished blocks are passed over. split: a text into words. term: a word
            as an index term, '' for a stop word. folder: holds finished blocks until the index stands in it.
    """
    hashes = _Hashes(term)
    blocks: list[dict[str, Any]] = []
    source = iter(texts)
    with progress("index bm25", size, "passages") as bar:
        for start in range(0, size, block):
            count = min(block, size - start)
            path = None if folder is None else folder / f"block-{start:010d}.npz"
            if path is not None and path.exists():
                for _ in range(count):
                    next(source)
            else:
                made = _block((next(source) for _ in range(count)), start, split, hashes)
                if path is None:
                    blocks.append(made)
                else:
                    _save(path, made)
            bar.advance(count)
    paths = [] if folder is None else [folder / f"block-{start:010d}.npz" for start in range(0, size, block)]
    found = _merged(blocks, paths, size, folder, k1, b)
    for path in paths:
        path.unlink()
    return found


def _block(texts: Iterable[str], start: int, split: Callable[[str], Sequence[str]], hashes: _Hashes) -> dict[str, Any]:
    """Terms of a block in order, how many rows each has, those rows and counts, and each row's length in terms."""
    flat, lengths = array.array("Q"), array.array("i")
    for text in texts:
        own = [number for word in split(text) if (number := hashes[word])]
        flat.extend(own)
        lengths.append(len(own))
    words, terms = np.frombuffer(flat, dtype=np.uint64), np.frombuffer(lengths, dtype=np.int32)
    unique, places = np.unique(words, return_inverse=True)
    row = np.repeat(np.arange(len(terms), dtype=np.int64), terms)
    pairs, times = np.unique(places.astype(np.int64) * max(len(terms), 1) + row, return_counts=True)
    owner = pairs // max(len(terms), 1)
    return {
        "terms": unique,
        "counts": np.bincount(owner, minlength=len(unique)).astype(np.int64),
        "rows": (pairs % max(len(terms), 1) + start).astype(np.int32),
        "times": times.astype(np.int32),
        "lengths": terms.copy(),
    }


def _save(path: Path, made: dict[str, Any]) -> None:
    from lmdistill.store import writing

    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **made)


def _merged(
    blocks: Sequence[dict[str, Any]], paths: Sequence[Path], size: int, folder: Path | None, k1: float, b: float
) -> Postings:
    """All blocks as one index: every block's postings are laid behind those of the blocks before it."""
    count = len(paths) or len(blocks)

    def opened(i: int) -> Any:
        return np.load(paths[i]) if paths else blocks[i]

    heads = [(one["terms"], one["counts"], one["lengths"]) for one in map(opened, range(count))]
    terms = np.unique(np.concatenate([head[0] for head in heads])) if heads else np.zeros(0, np.uint64)
    frequency = np.zeros(len(terms), dtype=np.int64)
    for own, counts, _ in heads:
        frequency[np.searchsorted(terms, own)] += counts
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(frequency)])
    lengths = np.concatenate([head[2] for head in heads]) if heads else np.zeros(0, np.int32)
    mean = max(float(lengths.mean()) if len(lengths) else 0.0, 1e-9)
    idf = np.log1p((size - frequency + 0.5) / (frequency + 0.5))
    rows, weights = (_empty(folder, name, int(starts[-1]), kind) for name, kind in zip(ARRAYS[2:], "if", strict=True))
    used = starts[:-1].copy()
    for i in range(count):
        one = opened(i)
        places, counts, own, times = np.searchsorted(terms, one["terms"]), one["counts"], one["rows"], one["times"]
        within = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(used[places], counts) + within
        norm = k1 * (1 - b + b * lengths[own] / mean)
        rows[at] = own
        weights[at] = np.repeat(idf[places], counts) * times / (times + norm)
        used[places] += counts
    if folder is not None:
        rows.flush()
        weights.flush()
        np.save(folder / "terms.npy", terms)
        np.save(folder / "starts.npy", starts)
    return Postings(terms, starts, rows, weights, size)


def _empty(folder: Path | None, name: str, length: int, kind: str) -> Any:
    dtype = {"i": np.int32, "f": np.float32}[kind]
    if folder is None or not length:  # an empty file cannot be mapped
        made = np.zeros(length, dtype=dtype)
        if folder is not None:
            np.save(folder / f"{name}.npy", made)
            return np.load(folder / f"{name}.npy").view(np.memmap)
        return made
    return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(length,))
