"""Dense retrieval: passages whose vectors point where the query's does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdistill.codec import digest
from lmdistill.errors import MissingExtra, StoreError
from lmdistill.knowledge import KnowledgeBase, check_sizes, sizes_of
from lmdistill.progress import progress
from lmdistill.render import passage_text
from lmdistill.retrievers import Retriever, RetrieverSettings
from lmdistill.shared import until_made
from lmdistill.store import digest_file, stage, write_json

INDEX_FORMAT = 1
PART, SAVE_EVERY = 1000, 10_000
"""Passages encoded together, and between two states from which a killed encoding goes on."""
MOST_CHARACTERS = 20_000
"""Of a longer text only the beginning is read: no encoder sees more, and tokenizers are slow on megabytes."""


@dataclass(frozen=True)
class Dense(RetrieverSettings):
    """Cosine of sentence vectors, by any model that sentence-transformers opens (a folder or a Hub id).

    Paper:     DPR-style retrieval as in KARD's RAG baseline, arXiv 2305.18395, section 4
    Differs:   exact by default; with `probes` above 0 only the rows of so many of the `cells` nearest cells are looked
               at (`cells` 0: four times the root of the number of passages)
    Relations: probes = cells is the exact search

    A trained `dual_encoder` is opened by its folder. Vectors are kept in half precision beside the base.
    """

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    revision: str | None = None
    probes: int = 0
    cells: int = 0
    query_prefix: str = ""
    passage_prefix: str = ""
    batch_size: int = 64
    seed: int = 0

    def open(self, base: KnowledgeBase, folder: Path | None = None) -> OpenDense:
        """See `RetrieverSettings.open`; a base in a folder keeps its vectors there."""
        import numpy as np

        encoder = self._encoder()
        place = base.folder if folder is None else folder
        if place is None:
            vectors = np.zeros((len(base), _width(encoder)), dtype=np.float16)
            for start, part in self._parts(encoder, base, 0):
                vectors[start : start + len(part)] = part
        else:
            vectors = self._kept(encoder, base, place)
        cells = None
        if self.probes and len(base):
            from lmdistill.retrievers._vectors import cluster

            cells = cluster(vectors, self.cells or max(1, int(4 * len(base) ** 0.5)), self.seed)
        return OpenDense(base, self, encoder, vectors, cells)

    def _encoder(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra("sentence-transformers", "search", "retriever 'dense'") from error
        try:
            return SentenceTransformer(self.model, revision=self.revision)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            message = f"retriever.model {self.model!r} cannot be opened: {first} A folder, or a Hub id that can be "
            raise StoreError(message + "reached, was expected") from error

    def _kept(self, encoder: Any, base: KnowledgeBase, place: Path) -> Any:
        """The vectors in a folder: made, gone on with, or only opened."""
        import numpy as np

        weights = Path(self.model) / "model.safetensors"
        model = digest_file(weights) if weights.exists() else f"{self.model}@{self.revision}"
        settings = {"format": INDEX_FORMAT, "model": model, "prefix": self.passage_prefix}
        own = place / f"dense-{digest([settings, base.digest])}"
        held = stage(own, "dense", settings=settings, inputs={"base": base.digest})
        with until_made(own), held as opened:
            path = own / "vectors.npy"
            if opened.done:
                check_sizes(own, opened.manifest.facts["sizes"])
                return np.load(path, mmap_mode="r")
            done = own / "done.json"
            if done.exists():
                first, vectors = int(json.loads(done.read_text())), np.lib.format.open_memmap(path, mode="r+")
            else:
                shape = (len(base), _width(encoder))
                first, vectors = 0, np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
            for start, part in self._parts(encoder, base, first):
                vectors[start : start + len(part)] = part
                if start // SAVE_EVERY != (start + len(part)) // SAVE_EVERY:
                    vectors.flush()
                    write_json(done, start + len(part))
            vectors.flush()
            done.unlink(missing_ok=True)
            opened.manifest.facts["sizes"] = sizes_of(own, ["vectors.npy"])
            return vectors

    def _parts(self, encoder: Any, base: KnowledgeBase, first: int) -> Any:
        """Vectors of the base from a row on, in parts."""
        with progress("index dense", len(base), "passages", done=first) as bar:
            for start in range(first, len(base), PART):
                rows = range(start, min(start + PART, len(base)))
                texts = [self.passage_prefix + passage_text(base.passage(row)) for row in rows]
                yield start, self.encode(encoder, texts)
                bar.advance(len(rows))

    def encode(self, encoder: Any, texts: Sequence[str]) -> Any:
        """Unit vectors [len(texts), D] float32."""
        short = [text[:MOST_CHARACTERS] for text in texts]
        return encoder.encode(
            short, batch_size=self.batch_size, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )


class OpenDense(Retriever):
    """Vectors of a base and the encoder that made them."""

    def __init__(self, base: KnowledgeBase, settings: Dense, encoder: Any, vectors: Any, cells: Any) -> None:
        self._base, self.settings, self.encoder, self.vectors, self.cells = base, settings, encoder, vectors, cells

    @property
    def base(self) -> KnowledgeBase:
        return self._base

    def rank(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        from lmdistill.retrievers._vectors import nearest

        out: list[list[tuple[int, float]]] = [[] for _ in queries]
        asked = [i for i, query in enumerate(queries) if _says_something(query)]
        if k < 1 or not asked or not len(self._base):
            return out
        vectors = self.settings.encode(self.encoder, [self.settings.query_prefix + queries[i] for i in asked])
        if self.cells is None:
            found = nearest(self.vectors, vectors, k)
        else:
            found = self.cells.nearest(self.vectors, vectors, k, self.settings.probes)
        for i, ranking in zip(asked, found, strict=True):
            out[i] = ranking
        return out

    def score_rows(self, query: str, rows: Sequence[int]) -> list[float]:
        import numpy as np

        if not _says_something(query):
            return [0.0] * len(rows)
        (vector,) = self.settings.encode(self.encoder, [self.settings.query_prefix + query])
        own = np.asarray(self.vectors[np.asarray(rows, dtype=np.int64)], dtype=np.float32)
        found: list[float] = (own @ vector).tolist()
        return found


def _says_something(query: str) -> bool:
    """Whether a query has a letter or a digit: punctuation alone has a vector too, and it points anywhere."""
    return any(letter.isalnum() for letter in query)


def _width(encoder: Any) -> int:
    ask = getattr(encoder, "get_embedding_dimension", None) or encoder.get_sentence_embedding_dimension
    return int(ask())
