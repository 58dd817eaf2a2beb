"""Texts as vectors of length one: a sentence encoder, or character n-grams that need no model."""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmdistill.errors import ConfigError, MissingExtra

DIMENSIONS = 4096
SIZES = (3, 4, 5)


def embed(texts: Sequence[str], encoder: str | None, who: str) -> NDArray[np.float64]:
    """Rows of length one, [texts, dimensions]; without an encoder, `character_vectors`.

    Raises:
        MissingExtra: an encoder is named and sentence-transformers is not installed.
        ConfigError: no encoder of that name or path.
    """
    if encoder is None:
        return character_vectors(texts)
    encoded = _opened(encoder, who).encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(encoded, dtype=np.float64)


@functools.lru_cache(maxsize=2)
def _opened(encoder: str, who: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise MissingExtra("sentence-transformers", "search", who) from error
    try:
        return SentenceTransformer(encoder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{who}: no sentence encoder at {encoder!r} ({str(error).partition(chr(10))[0]})") from error


def character_vectors(texts: Sequence[str]) -> NDArray[np.float64]:
    """TF-IDF over character n-grams inside words, hashed; what stands in every text weighs least.

    >>> same, other = character_vectors(["the cat sat", "The  cat sat", "seven apples"])[1:] @ character_vectors(
    ...     ["the cat sat", "The  cat sat", "seven apples"])[0]
    >>> round(float(same), 6), round(float(other), 6)
    (1.0, 0.0)
    """
    rows = [_grams(text) for text in texts]
    present = Counter(gram for row in rows for gram in row)
    table = np.zeros((len(texts), DIMENSIONS))
    for index, row in enumerate(rows):
        for gram, count in row.items():
            inverse = np.log((1 + len(texts)) / (1 + present[gram])) + 1
            table[index, gram] += (1 + np.log(count)) * inverse
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return table / np.where(lengths == 0, 1.0, lengths)


def _grams(text: str) -> Counter[int]:
    counts: Counter[int] = Counter()
    for word in text.casefold().split():
        padded = f" {word} "
        for size in SIZES:
            for at in range(len(padded) - size + 1):
                counts[zlib.crc32(padded[at : at + size].encode(errors="surrogatepass")) % DIMENSIONS] += 1
    return counts


def clusters(vectors: NDArray[np.float64], count: int) -> list[int]:
    """Average-linkage clustering by cosine distance: the cluster of each row, numbered by first appearance.

    Equal distances merge the earlier rows first, so the outcome does not depend on chance.
    """
    members: list[list[int]] = [[index] for index in range(len(vectors))]
    distance = 1.0 - vectors @ vectors.T  # between clusters: the mean over their pairs
    np.fill_diagonal(distance, np.inf)
    distance = np.round(distance, 9)
    alive = list(range(len(vectors)))
    while len(alive) > max(1, count):
        block = distance[np.ix_(alive, alive)]
        first, second = divmod(int(np.argmin(block)), len(alive))
        left, right = alive[first], alive[second]
        sizes = len(members[left]), len(members[right])
        merged = (sizes[0] * distance[left] + sizes[1] * distance[right]) / sum(sizes)
        distance[left], distance[:, left] = merged, merged
        distance[left, left] = np.inf
        members[left] += members[right]
        alive.remove(right)
    labels = [0] * len(vectors)
    for number, cluster in enumerate(sorted(alive, key=lambda one: min(members[one]))):
        for row in members[cluster]:
            labels[row] = number
    return labels
