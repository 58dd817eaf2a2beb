"""MinHash: sets of shingles as short signatures whose agreement estimates their Jaccard similarity."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5
PERMUTATIONS = 120
"""Hash functions of a signature: the estimate's standard error is at most 0.046, at a similarity of 0.9 it is 0.027."""


def character_shingles(text: str) -> NDArray[np.uint64]:
    """Distinct hashes of the runs of five characters; case and white space do not matter."""
    plain = " ".join(text.casefold().split())
    runs = {plain[at : at + SHINGLE] for at in range(max(1, len(plain) - SHINGLE + 1))}
    return np.array(sorted(zlib.crc32(run.encode(errors="surrogatepass")) for run in runs), dtype=np.uint64)


def jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """Shared shingles over all shingles."""
    both = len(np.intersect1d(left, right, assume_unique=True))
    return both / (len(left) + len(right) - both)


class MinHash:
    """`permutations` hash functions, the same in every process."""

    def __init__(self, permutations: int = PERMUTATIONS) -> None:
        random = np.random.default_rng(20230614)
        self.keys = random.integers(0, 1 << 64, size=(permutations, 1), dtype=np.uint64)

    def signature(self, shingles: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The least hash under each function, cut to 32 bits."""
        least: NDArray[np.uint64] = _mixed(shingles[None, :] ^ self.keys).min(axis=1)
        return (least >> np.uint64(32)).astype(np.uint32)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finisher of splitmix64: every bit of the value reaches every bit of the hash (products wrap)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def rows_per_band(permutations: int, threshold: float) -> int:
    """The widest bands in which pairs at the threshold still meet with probability 0.99."""
    for rows in range(permutations, 1, -1):
        if permutations % rows == 0 and 1 - (1 - threshold**rows) ** (permutations // rows) >= 0.99:
            return rows
    return 1


def near_duplicates(signatures: NDArray[np.uint32], threshold: float) -> NDArray[np.bool_]:
    """Rows that agree with an earlier row in at least the share `threshold` of their signature: True for each.

    Rows are compared where they share a band. Memory is the signatures' own and a few numbers a row.
    """
    count, permutations = signatures.shape
    width = rows_per_band(permutations, threshold)
    doomed = np.zeros(count, dtype=bool)
    for start in range(0, permutations, width):
        alive = np.flatnonzero(~doomed)
        band = np.ascontiguousarray(signatures[alive, start : start + width])
        keys = band.view(np.dtype((np.void, band.dtype.itemsize * width))).ravel()
        order = np.argsort(keys, kind="stable")
        ends = np.flatnonzero(keys[order[1:]] != keys[order[:-1]]) + 1
        for group in np.split(alive[order], ends):
            if len(group) > 1:
                doomed[_followers(signatures, group, threshold)] = True
    return doomed


def _followers(signatures: NDArray[np.uint32], group: NDArray[np.int64], threshold: float) -> list[int]:
    """Rows of a group (rising) that agree with an earlier row of it which is no follower itself."""
    leaders: list[int] = []
    followers: list[int] = []
    for row in group:
        agreement = (signatures[leaders] == signatures[row]).mean(axis=1) if leaders else np.zeros(1)
        (followers if agreement.max() >= threshold else leaders).append(int(row))
    return followers
