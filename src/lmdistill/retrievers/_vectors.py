"""Nearest neighbours among unit vectors: exactly, block by block, or among the cells of a coarse quantiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 65_536
"""Rows multiplied at a time: 100 MB of float32 for vectors of 384 numbers."""


def nearest(vectors: Any, queries: Any, k: int) -> list[list[tuple[int, float]]]:
    """For each query the `k` rows of the highest dot product, exactly; ties in row order.

    Shapes: vectors [N, D], a memory map will do; queries [Q, D]
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
    for start in range(0, len(vectors), BLOCK):
        products = queries @ np.asarray(vectors[start : start + BLOCK], dtype=np.float32).T  # [Q, block]
        for i, (rows, scores) in enumerate(found):
            own = np.arange(start, start + products.shape[1])
            found[i] = _best(np.concatenate([rows, own]), np.concatenate([scores, products[i]]), k)
    return [list(zip(rows.tolist(), scores.tolist(), strict=True)) for rows, scores in found]


def _best(rows: Any, scores: Any, k: int) -> tuple[Any, Any]:
    if len(scores) > 4 * k > 0:
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= bound
        rows, scores = rows[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[:k]
    return rows[order], scores[order]


@dataclass(frozen=True)
class Cells:
    """Rows by their nearest of C centres: a query looks only into the cells of its nearest centres."""

    centres: Any  # [C, D] float32
    starts: Any  # [C + 1] int64
    rows: Any  # [N] int64, those of one cell together, ascending

    def nearest(self, vectors: Any, queries: Any, k: int, probes: int) -> list[list[tuple[int, float]]]:
        """As `nearest`, among the rows of each query's `probes` nearest cells."""
        found = []
        order = np.argsort(-(queries @ self.centres.T), axis=1, kind="stable")[:, :probes]
        for query, cells in zip(queries, order, strict=True):
            rows = np.sort(np.concatenate([self.rows[self.starts[c] : self.starts[c + 1]] for c in cells]))
            scores = np.asarray(vectors[rows], dtype=np.float32) @ query
            best, own = _best(rows, scores, k)
            found.append(list(zip(best.tolist(), own.tolist(), strict=True)))
        return found


def cluster(vectors: Any, cells: int, seed: int, rounds: int = 8) -> Cells:
    """Spherical k-means on a sample of at most 64 rows a cell; then every row goes to its nearest centre."""
    rng = np.random.default_rng(seed)
    cells = min(cells, len(vectors))
    chosen = np.sort(rng.choice(len(vectors), min(len(vectors), 64 * cells), replace=False))
    sample = np.asarray(vectors[chosen], dtype=np.float32)
    centres = sample[rng.choice(len(sample), cells, replace=False)]
    for _ in range(rounds):
        owner = (sample @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, sample)
        empty = np.bincount(owner, minlength=cells) == 0
        sums[empty] = sample[rng.choice(len(sample), int(empty.sum()))]
        centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    owner = np.concatenate(
        [
            (np.asarray(vectors[start : start + BLOCK], dtype=np.float32) @ centres.T).argmax(axis=1)
            for start in range(0, len(vectors), BLOCK)
        ]
    )
    counts = np.bincount(owner, minlength=cells)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Cells(centres, starts, np.argsort(owner, kind="stable"))
