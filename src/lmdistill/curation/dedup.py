"""Drop what says the same again."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lmdistill.curation import Curation
from lmdistill.errors import ConfigError
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Rationale


@dataclass(frozen=True)
class Dedup(Curation):
    """Drop rationales that nearly repeat an earlier one, of the same input or of the whole corpus.

    Data:      needs rationales
    Equation:  similarity = |A and B| / |A or B| over runs of five characters (Jaccard), or the cosine of embeddings
    Differs:   (no paper) over the corpus the similarity is estimated by MinHash (120 functions, standard error 0.03 at
               a similarity of 0.9) and pairs at the threshold meet with probability 0.99
    """

    threshold: float = 0.9
    """The similarity from which on a rationale repeats another."""
    scope: Literal["input", "corpus"] = "input"
    """Compare the rationales of one input, or all of them."""
    encoder: str | None = None
    """A sentence-transformers model, by path or Hub id, to compare by cosine (scope 'input' only)."""

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.threshold <= 1:
            problems.append(f"threshold: a number above 0 and up to 1 was expected, got {self.threshold}")
        if self.encoder is not None and self.scope == "corpus":
            problems.append("encoder: embeddings are compared within an input only; use scope: input, or no encoder")
        if problems:
            raise ConfigError(problems)

    def survey(self, annotations: Iterable[Annotation], task: Task) -> Dedup:
        if self.scope == "input":
            return self
        import numpy as np

        from lmdistill.curation._minhash import MinHash, character_shingles, near_duplicates

        minhash = MinHash()
        keys: list[tuple[str, int]] = []
        signatures = []
        for annotation in annotations:
            for place, one in enumerate(annotation.rationales):
                keys.append((annotation.id, place))
                signatures.append(minhash.signature(character_shingles(one.text)))
        if not keys:
            return self
        doomed = near_duplicates(np.stack(signatures), self.threshold)
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _Surveyed(**settings, doomed=frozenset(key for key, out in zip(keys, doomed, strict=True) if out))

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        if self.scope == "corpus":
            raise ConfigError("curation step 'dedup' with scope 'corpus' must survey the corpus first; call `curate`")
        repeats = self._repeats([one.text for one in annotation.rationales])
        return _without(annotation, repeats, "near-duplicate")

    def _repeats(self, texts: list[str]) -> set[int]:
        """Places of the texts that repeat an earlier text which is kept."""
        from lmdistill.curation._minhash import character_shingles, jaccard
        from lmdistill.curation._vectors import embed

        if len(texts) < 2:
            return set()
        vectors = None if self.encoder is None else embed(texts, self.encoder, "curation step 'dedup'")
        shingled = [character_shingles(text) for text in texts]
        kept: list[int] = []
        repeats: set[int] = set()
        for place in range(len(texts)):
            if vectors is None:
                alike = any(jaccard(shingled[place], shingled[other]) >= self.threshold for other in kept)
            else:
                alike = any(float(vectors[place] @ vectors[other]) >= self.threshold for other in kept)
            if alike:
                repeats.add(place)
            else:
                kept.append(place)
        return repeats


@dataclass(frozen=True)
class _Surveyed(Dedup):
    """The step after it saw the corpus: what to drop, by input and place."""

    doomed: frozenset[tuple[str, int]] = frozenset()

    def apply(self, annotation: Annotation, task: Task, rng: random.Random) -> Annotation:
        places = {place for place in range(len(annotation.rationales)) if (annotation.id, place) in self.doomed}
        return _without(annotation, places, "near-duplicate in the corpus")


def _without(annotation: Annotation, places: set[int], reason: str) -> Annotation:
    kept: list[Rationale] = []
    dropped: list[tuple[Rationale, str]] = []
    for place, one in enumerate(annotation.rationales):
        if place in places:
            dropped.append((one, reason))
        else:
            kept.append(one)
    return annotation.with_rejected(kept, dropped)
