"""From what a student thought to its answer: the likeliest choice, an answer that is due, how sure it is.

In all of them the thought stands as the student wrote it: only what follows the cue is scored or written.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lmdistill.errors import ConfigError
from lmdistill.objectives import Objective, silver
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Completion, Parsed, Prediction, Sampling


class Asked(NamedTuple):
    """Who is asked what: a batch of questions, and how many rows go through the student at a time."""

    student: Any
    objective: Objective
    task: Task
    items: Sequence[Annotation]
    batch_size: int
    stop_at_answer: bool = True

    @property
    def prompts(self) -> list[str]:
        return [self.objective.prompt(item) for item in self.items]


def written(asked: Asked, sampling: Sampling) -> list[list[Completion]]:
    """What the student writes; where it thinks first, it stops once its answer is complete, whatever it goes on to."""
    more: dict[str, Any] = {}
    if asked.objective.thinks and asked.stop_at_answer:
        more["enough"] = [functools.partial(asked.objective.answer_end, asked.task, item) for item in asked.items]
    made: list[list[Completion]] = asked.student.generate(asked.prompts, sampling, batch_size=asked.batch_size, **more)
    return made


def choices_scored(asked: Asked, sampling: Sampling) -> list[Prediction]:
    """The likeliest choice of each example, after a rationale where the student thinks first.

    After several rationales it is the choice with the highest mean probability; each of them votes for its own
    likeliest, and the one that is shown is the one that speaks most for the winner.

    Raises:
        ConfigError: an example without choices.
    """
    lacking = next((item for item in asked.items if not item.example.choices), None)
    if lacking is not None:
        raise ConfigError(
            f"decoding.constrained needs choices; example {lacking.id!r} has none. Set decoding.constrained=false"
        )
    thoughts = [[Completion("")] for _ in asked.items]
    if asked.objective.thinks:
        thoughts = written(asked, sampling)
    shares = _shares(asked, thoughts)
    return [_chosen(asked, *one) for one in zip(asked.items, thoughts, shares, strict=True)]


def _shares(asked: Asked, thoughts: Sequence[Sequence[Completion]]) -> list[list[dict[str, float]]]:
    """The probability of each choice after each thought of each example."""
    sources, targets, given = [], [], []
    for item, prompt, completions in zip(asked.items, asked.prompts, thoughts, strict=True):
        for completion in completions:
            sources += [prompt] * len(item.example.choices)
            targets += [asked.objective.with_answer(completion.text, choice) for choice in item.example.choices]
            given += [asked.objective.with_answer(completion.text, "")] * len(item.example.choices)
    known = given if asked.objective.thinks else ()
    scores = iter(asked.student.logprobs(sources, targets, known, batch_size=asked.batch_size))
    return [
        [
            dict(zip(item.example.choices, _softmax([next(scores) for _ in item.example.choices]), strict=True))
            for _ in own
        ]
        for item, own in zip(asked.items, thoughts, strict=True)
    ]


def _chosen(
    asked: Asked, item: Annotation, thoughts: Sequence[Completion], shares: Sequence[Mapping[str, float]]
) -> Prediction:
    mean = {choice: sum(share[choice] for share in shares) / len(shares) for choice in shares[0]}
    best = max(mean, key=lambda choice: mean[choice])
    thought = thoughts[max(range(len(shares)), key=lambda i: shares[i][best])].text
    rationale = asked.objective.read(asked.task, item, thought).rationale if asked.objective.thinks else ""
    made = prediction_of(item, Parsed(rationale, best), asked.objective.with_answer(thought, best))
    votes: Counter[str] = Counter()
    if len(shares) > 1:
        votes.update(asked.task.canonical(max(share, key=lambda choice: share[choice])) for share in shares)
    return replace(made, confidence=mean[best], votes=dict(votes))


def brought_to_an_end(
    asked: Asked, texts: Sequence[Sequence[Completion]], answer_tokens: int
) -> list[list[Completion]]:
    """The completions, where those that used up their budget without an answer go on with the cue and an answer."""
    objective = asked.objective
    made = [list(own) for own in texts]
    places = [
        (i, j)
        for i, own in enumerate(made)
        for j, one in enumerate(own)
        if one.finish_reason == "length" and objective.read(asked.task, asked.items[i], one.text).answer is None
    ]
    if not places:
        return made
    begun = [objective.with_answer(made[i][j].text, "").strip() for i, j in places]
    prompts = [asked.prompts[i] for i, _ in places]
    ends = asked.student.finish(prompts, begun, Sampling(max_tokens=answer_tokens), batch_size=asked.batch_size)
    for (i, j), start, end in zip(places, begun, ends, strict=True):
        made[i][j] = replace(end, text=f"{start} {end.text}".strip())
    return made


def with_confidence(asked: Asked, predictions: Sequence[Prediction]) -> list[Prediction]:
    """The probability of each answer as it was written, given the prompt and what stands before it."""
    objective = asked.objective
    targets = [objective.with_answer(one.text, one.answer or "") for one in predictions]
    bare = [objective.with_answer(one.text, "") for one in predictions] if objective.thinks else ()
    scores = asked.student.logprobs(asked.prompts, targets, bare, batch_size=asked.batch_size)
    pairs = zip(predictions, scores, strict=True)
    return [one if one.answer is None else replace(one, confidence=math.exp(logprob)) for one, logprob in pairs]


def prediction_of(item: Annotation, parsed: Parsed, text: str) -> Prediction:
    """What was read of a text, as a prediction."""
    return Prediction(
        example=item.example,
        answer=parsed.answer,
        rationale=parsed.rationale,
        hits=silver(item),
        reason=parsed.reason,
        text=text,
    )


def _softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return [weight / sum(weights) for weight in weights]
