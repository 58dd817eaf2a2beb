"""BM25 over an inverted index: passages that share rare words with the query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lmdistill.codec import digest
from lmdistill.errors import ConfigError
from lmdistill.knowledge import KnowledgeBase, check_sizes, sizes_of
from lmdistill.retrievers import Retriever, RetrieverSettings
from lmdistill.retrievers._words import Stemming, StopWords, Words
from lmdistill.shared import until_made
from lmdistill.store import stage

INDEX_FORMAT = 2


class Preset(NamedTuple):
    """BM25's constants and how words become terms."""

    k1: float
    b: float
    stemming: Stemming
    stop_words: StopWords


PRESETS = {
    "anserini": Preset(0.9, 0.4, "porter", "lucene"),
    "lucene": Preset(1.2, 0.75, "porter", "lucene"),
    "plain": Preset(1.5, 0.75, "none", "none"),
}


@dataclass(frozen=True)
class BM25(RetrieverSettings):
    """Sparse retrieval by term frequency and rarity.

    Paper:     KARD, arXiv 2305.18395, section 3 (rho); Robertson and Zaragoza 2009
    Equation:  sum over terms of the query of ln(1 + (N - df + 1/2) / (df + 1/2)) tf / (tf + k1 (1 - b + b l / mean l))
    Differs:   from Anserini's Lucene: lengths are exact, where Lucene keeps one byte; words of Thai and its kin, which
               Lucene keeps together too, end at white space alone, and emoji are no words. The constant factor (k1 + 1)
               is left out, as Lucene does since version 8
    Relations: `preset` gives what is not set by itself: 'anserini' is KARD's (k1 0.9, b 0.4, Porter, 33 stop words)

    The title of a passage counts as part of its text.
    """

    preset: Literal["anserini", "lucene", "plain"] = "anserini"
    k1: float | None = None
    b: float | None = None
    stemming: Stemming | None = None
    stop_words: StopWords | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.constants.k1 < math.inf and 0 <= self.constants.b <= 1):
            raise ConfigError(f"bm25: k1 of 0 or more and b in [0, 1] were expected, got {self.k1} and {self.b}")

    @property
    def constants(self) -> Preset:
        """The preset with what was set by hand in its place."""
        own = {name: getattr(self, name) for name in Preset._fields if getattr(self, name) is not None}
        return PRESETS[self.preset]._replace(**own)

    def open(self, base: KnowledgeBase, folder: Path | None = None) -> OpenBM25:
        """See `RetrieverSettings.open`; a base in a folder keeps its indexes there."""
        from lmdistill.retrievers._postings import ARRAYS, Postings, build

        constants = self.constants
        words = Words(constants.stemming, constants.stop_words)
        texts = (f"{passage.title} {passage.text}" if passage.title else passage.text for passage in base)
        place = base.folder if folder is None else folder

        def made(into: Path | None) -> Postings:
            return build(texts, len(base), words.split, words.term, into, k1=constants.k1, b=constants.b)

        if place is None:
            return OpenBM25(base, made(None), words)
        settings = {"format": INDEX_FORMAT, **constants._asdict()}
        own = place / f"bm25-{digest([settings, base.digest])}"
        held = stage(own, "bm25", settings=settings, inputs={"base": base.digest})
        with until_made(own), held as opened:
            files = [f"{name}.npy" for name in ARRAYS]
            if opened.done:
                check_sizes(own, opened.manifest.facts["sizes"])
            else:
                made(own)
                opened.manifest.facts["sizes"] = sizes_of(own, files)
                opened.manifest.counts["passages"] = len(base)
        return OpenBM25(base, Postings.opened(own, len(base)), words)


class OpenBM25(Retriever):
    """BM25 over a base."""

    def __init__(self, base: KnowledgeBase, postings: Any, words: Words) -> None:
        self._base, self.postings, self.words = base, postings, words

    @property
    def base(self) -> KnowledgeBase:
        return self._base

    def rank(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        from lmdistill.retrievers._postings import best

        return [best(self.postings.scores(self.words(query)), k) for query in queries]

    def score_rows(self, query: str, rows: Sequence[int]) -> list[float]:
        found: list[float] = self.postings.scores_of(self.words(query), rows).tolist()
        return found
