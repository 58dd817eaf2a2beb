"""Which of the teacher's samples are good and which are bad, and what an old student writes wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from lmdistill.objectives._labels import LabelSource, label_of
from lmdistill.store import seed_for
from lmdistill.students import Student
from lmdistill.types import Annotation, Rationale, Sampling

Positives = Literal["majority", "label", "first", "all"]
"""Which samples are learnt from. `majority`: those of the majority answer (self-consistency). `label`: those whose
answer is the training label. `first`: the first sample in use alone, as without self-consistency. `all`: every sample
in use."""

Ties = Literal["all", "label", "skip"]
"""What a tied vote means. `all`: every tied group is positive if the training label is among them, and there is no
contrast otherwise. `label`: the group of the training label is positive and the others negative, or no contrast.
`skip`: no contrast."""


class Split(NamedTuple):
    """Good and bad samples of one input."""

    positives: tuple[Rationale, ...]
    negatives: tuple[Rationale, ...]


def split(
    annotation: Annotation, *, positives: Positives, ties: Ties, unparsable_is_negative: bool, labels: LabelSource
) -> Split:
    """The teacher's samples, used or set aside, as positives and negatives; empty texts are neither, equal ones one.

    A sample that was set aside (too long, a duplicate) is never a positive, but still counts in the vote, and is a
    negative where its answer is not the winning one.

    >>> from lmdistill.types import Example
    >>> said = [Rationale("a", "yes"), Rationale("b", "no"), Rationale("c", "yes"), Rationale("d")]
    >>> one = Annotation(Example("1", "x", "yes"), tuple(said[:3]), (said[3],))
    >>> good, bad = split(one, positives="majority", ties="all", unparsable_is_negative=True, labels="gold")
    >>> [r.text for r in good], [r.text for r in bad]
    (['a', 'c'], ['b', 'd'])
    """
    used = _distinct(annotation.rationales)
    if positives in ("first", "all"):
        return Split(tuple(used[:1] if positives == "first" else used), ())
    winners = _winners(annotation, positives, ties, label_of(annotation, labels))
    if not winners:
        return Split((), ())
    good = tuple(one for one in used if one.answer in winners)
    known = {one.text for one in good}
    lost = [one for one in _distinct((*used, *annotation.rejected)) if one.answer not in winners]
    lost = [one for one in lost if one.text not in known]
    return Split(good, tuple(one for one in lost if one.answer is not None or unparsable_is_negative))


def _distinct(several: Sequence[Rationale]) -> list[Rationale]:
    """The first of equal texts, without empty ones (a copy of a text would be scored again for nothing)."""
    first: dict[str, Rationale] = {}
    for one in several:
        if one.text.strip():
            first.setdefault(one.text.strip(), one)
    return list(first.values())


def _winners(annotation: Annotation, positives: Positives, ties: Ties, label: str | None) -> tuple[str, ...]:
    vote = annotation.vote
    if positives == "label":
        return () if label is None else (label,)
    if vote.answer is None:
        return ()
    if not vote.tied:
        return (vote.answer,)
    if ties == "skip" or label not in vote.tied:
        return ()
    return vote.tied if ties == "all" else tuple(answer for answer in vote.tied if answer == label)


def sampled_negatives(
    items: Sequence[Annotation],
    prompts: Sequence[str],
    writer: Student,
    sampling: Sampling,
    *,
    seed: int,
    round: int,
    source: str,
    batch_size: int,
) -> list[tuple[Rationale, ...]]:
    """What a student writes for each item: `sampling.n` rationales, none of which is empty or a copy of a positive.

    A rationale's seed follows from (run seed, round, item id) and is its `sample` number, so it can be drawn again.
    """
    seeds = [seed_for(seed, "negative", round, item.id) % (1 << 31) for item in items]
    written = writer.generate(prompts, sampling, batch_size=batch_size, seeds=seeds)
    out = []
    for item, completions, own in zip(items, written, seeds, strict=True):
        known = {one.text for one in item.rationales}
        made = [Rationale(one.text, source=source, sample=own + i) for i, one in enumerate(completions)]
        out.append(tuple(one for one in made if one.text.strip() and one.text not in known))
    return out


def with_split(annotation: Annotation, parts: Split) -> Annotation:
    """The annotation with its positives in use, all other samples set aside, and its negatives to push away from."""
    kept = {id(one) for one in parts.positives}
    dropped = [(one, "not a positive") for one in annotation.rationales if id(one) not in kept]
    return replace(annotation.with_rejected(parts.positives, dropped), negatives=parts.negatives)
