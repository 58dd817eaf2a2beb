"""Which of the teacher's samples are good and which are bad, and what an old student writes wrongly."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from lmdistill.objectives._labels import LabelSource, label_of
from lmdistill.progress import progress
from lmdistill.store import seed_for
from lmdistill.students import Student
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Completion, Rationale, Sampling, vote

Positives = Literal["majority", "label", "first", "all"]
"""Which samples are learnt from. `majority`: those of the majority answer (self-consistency). `label`: those whose
answer is the training label. `first`: the first sample in use alone, as without self-consistency. `all`: every sample
in use."""

Ties = Literal["all", "label", "skip"]
"""What a tied vote means. `all`: every tied group is positive if the training label is among them, and there is no
contrast otherwise. `label`: the group of the training label is positive and the others negative, or no contrast.
`skip`: no contrast."""

Unfinished = Literal["open", "drop"]
"""What becomes of a student's sample that was cut at `max_tokens`. `open`: it is pushed away from without its end of
sequence, which the student did not write. `drop`: it is left out."""

AGREES = "agrees"
"""The score of a rationale whose answer the task was asked about: 1 where it is the gold label, else 0."""
UNFINISHED = "unfinished"
"""The score (1) of a student's sample that was cut at its token limit."""
WRONG = "wrong answer"
"""The reason with which gold labels set a sample aside: such a sample has no vote any more."""
NOT_POSITIVE = "not a positive"


class Split(NamedTuple):
    """Good and bad samples of one input; where nothing is good nothing is bad either, and `reason` says why."""

    positives: tuple[Rationale, ...]
    negatives: tuple[Rationale, ...]
    reason: str | None = None
    copies: int = 0
    """Bad samples that were left out because a good one has the same text."""


def agreeing(items: Sequence[Annotation], task: Task) -> list[Annotation]:
    """The items with the task's word on each sample of a labelled example: does its answer mean the gold label?"""

    def marked(item: Annotation, several: Sequence[Rationale]) -> tuple[Rationale, ...]:
        if item.example.label is None:
            return tuple(several)
        told = [task.is_correct(item.example, one.answer) for one in several]
        return tuple(
            replace(one, scores={**one.scores, AGREES: float(right)}) if one.answer is not None else one
            for one, right in zip(several, told, strict=True)
        )

    return [
        replace(item, rationales=marked(item, item.rationales), rejected=marked(item, item.rejected)) for item in items
    ]


def split(
    annotation: Annotation, *, positives: Positives, ties: Ties, unparsable_is_negative: bool, labels: LabelSource
) -> Split:
    """The teacher's samples, used or set aside, as positives and negatives; empty texts are neither, equal ones one.

    A sample that was set aside (too long, a duplicate) is never a positive, but still counts in the vote, unless it was
    set aside for its wrong answer; it is a negative where its answer is not the winning one. A sample in use that would
    have won without the votes of those is no negative.

    >>> from lmdistill.types import Example
    >>> said = [Rationale("a", "yes"), Rationale("b", "no"), Rationale("c", "yes"), Rationale("d")]
    >>> one = Annotation(Example("1", "x", "yes"), tuple(said[:3]), (said[3],))
    >>> parts = split(one, positives="majority", ties="all", unparsable_is_negative=True, labels="gold")
    >>> [r.text for r in parts.positives], [r.text for r in parts.negatives]
    (['a', 'c'], ['b', 'd'])
    """
    if positives in ("first", "all"):
        kept = _distinct(annotation.rationales)
        return Split(tuple(kept[:1] if positives == "first" else kept), (), None if kept else "no rationale in use")
    if not any(one.text.strip() for one in annotation.rationales):
        return Split((), (), "no rationale in use")
    winners, reason = _winners(annotation, positives, ties, labels)
    if reason is not None:
        return Split((), (), reason)
    good = _distinct([one for one in annotation.rationales if one.answer in winners])
    if not good:
        return Split((), (), "the winning samples were set aside")
    spared = {*winners, *(_overruled(annotation) if positives == "majority" else ())}
    lost = [one for one in (*annotation.rationales, *annotation.rejected) if one.answer not in spared]
    bad = _distinct([one for one in lost if one.answer is not None or unparsable_is_negative])
    known = {plain(one.text) for one in good}
    apart = tuple(one for one in bad if plain(one.text) not in known)
    return Split(tuple(good), apart, copies=len(bad) - len(apart))


def tallied(items: Sequence[Annotation], parts: Sequence[Split]) -> dict[str, int]:
    """What a round's contrast consists of: items with and without it (and why), and its negatives by who wrote them."""
    counts = {"items": len(items), "with_contrast": 0, "teacher_negatives": 0, "student_negatives": 0}
    counts["teacher_copies"] = sum(part.copies for part in parts)
    for item, part in zip(items, parts, strict=True):
        student = sum(one.source.startswith("student@") for one in item.negatives)
        counts["student_negatives"] += student
        counts["teacher_negatives"] += len(item.negatives) - student
        if item.rationales and item.negatives:
            counts["with_contrast"] += 1
        else:
            reason = f"without_contrast: {part.reason or 'no bad rationale'}"
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def without(notes: Mapping[str, float]) -> str:
    """Why items of a round have no contrast, in words."""
    head = "without_contrast: "
    told = {name.removeprefix(head): count for name, count in notes.items() if name.startswith(head)}
    return ", ".join(f"{why}: {count:,} items" for why, count in told.items())


def plain(text: str) -> str:
    """A text as a student would write it again: many vocabularies know no line breaks and no double blanks."""
    return " ".join(text.split())


def _distinct(several: Sequence[Rationale]) -> list[Rationale]:
    """The first of equal texts, without empty ones (a copy of a text would be scored again for nothing)."""
    first: dict[str, Rationale] = {}
    for one in several:
        if one.text.strip():
            first.setdefault(plain(one.text), one)
    return list(first.values())


def _winners(
    annotation: Annotation, positives: Positives, ties: Ties, labels: LabelSource
) -> tuple[tuple[str, ...], str | None]:
    """The answers whose samples are good, or why there are none."""
    label = label_of(annotation, labels)
    right = _meaning(annotation, label)
    if positives == "label":
        return (right, None) if label is not None else ((), "no label")
    found = vote(_answers(annotation, with_rejected=True))
    if found.answer is None:
        return (), "no answer could be read"
    if not found.tied:
        return (found.answer,), None
    agreed = tuple(answer for answer in found.tied if answer in right)
    if ties == "skip" or not agreed:
        return (), "tied vote"
    return (found.tied if ties == "all" else agreed), None


def _meaning(annotation: Annotation, label: str | None) -> tuple[str, ...]:
    """The answers that mean the label: by the task's own equality where it was asked, else the same string."""
    every = (*annotation.rationales, *annotation.rejected)
    gold = label is not None and label == annotation.example.label
    told = {one.answer: one.scores[AGREES] > 0 for one in every if gold and one.answer and AGREES in one.scores}
    answers = dict.fromkeys(one.answer for one in every if one.answer is not None)
    return tuple(answer for answer in answers if told.get(answer, answer == label))


def _answers(annotation: Annotation, *, with_rejected: bool) -> list[str | None]:
    """The answers that vote, in the order in which they were sampled."""
    aside = [
        one for one in annotation.rejected if one.reason == NOT_POSITIVE or (with_rejected and one.reason != WRONG)
    ]
    return [one.answer for one in sorted((*annotation.rationales, *aside), key=lambda one: one.sample)]


def _overruled(annotation: Annotation) -> tuple[str, ...]:
    """The answers that samples in use would have voted for, where samples that were set aside have a vote too."""
    own = vote(_answers(annotation, with_rejected=False))
    if own.answer is None or own.counts == vote(_answers(annotation, with_rejected=True)).counts:
        return ()
    return own.tied or (own.answer,)


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
    unfinished: Unfinished = "open",
    notes: MutableMapping[str, float] | None = None,
) -> list[tuple[Rationale, ...]]:
    """What a student writes for each item: `sampling.n` rationales, none of which is empty or a copy of a positive.

    A rationale's seed follows from (run seed, round, item id) and is its `sample` number, so it can be drawn again.
    What was cut at the token limit carries the score 'unfinished'. `notes` are given the counts of what was left out.
    """
    seeds = [seed_for(seed, "negative", round, item.id) % (1 << 31) for item in items]
    written = _written(writer, prompts, sampling, seeds, batch_size)
    counted: dict[str, int] = dict.fromkeys(("student_empty", "student_copies", "student_unfinished"), 0)
    out = []
    for item, completions, own in zip(items, written, seeds, strict=True):
        known = {plain(one.text) for one in item.rationales}
        made = []
        for i, one in enumerate(completions):
            cut = one.finish_reason == "length"
            counted["student_empty"] += not one.text.strip()
            counted["student_copies"] += plain(one.text) in known
            counted["student_unfinished"] += cut
            if one.text.strip() and plain(one.text) not in known and not (cut and unfinished == "drop"):
                made.append(Rationale(one.text, None, source, own + i, scores={UNFINISHED: 1.0} if cut else {}))
        out.append(tuple(made))
    if notes is not None:
        for name, count in counted.items():
            notes[name] = notes.get(name, 0) + count
    return out


def _written(
    writer: Student, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], batch_size: int
) -> list[list[Completion]]:
    """What the student writes for prompts, in pieces of prompts of about the same length, with progress told."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    out: list[list[Completion]] = [[] for _ in prompts]
    piece = 4 * batch_size
    with progress("negatives", len(prompts), "inputs") as bar:
        for start in range(0, len(order), piece):
            own = order[start : start + piece]
            asked, drawn = [prompts[i] for i in own], [seeds[i] for i in own]
            made = writer.generate(asked, sampling, batch_size=batch_size, seeds=drawn)
            for index, completions in zip(own, made, strict=True):
                out[index] = completions
            bar.advance(len(own))
    return out


def with_split(annotation: Annotation, parts: Split) -> Annotation:
    """The annotation with its positives in use, all other samples set aside, and its negatives to push away from."""
    kept = {id(one) for one in parts.positives}
    dropped = [(one, NOT_POSITIVE) for one in annotation.rationales if id(one) not in kept]
    return replace(annotation.with_rejected(parts.positives, dropped), negatives=parts.negatives)
