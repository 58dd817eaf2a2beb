"""Example -> Prediction: generate or score, read, vote, abstain."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lmdistill import config
from lmdistill.errors import ConfigError, StoreError
from lmdistill.objectives import Objective, silver
from lmdistill.progress import progress
from lmdistill.store import digest_rows, seed_for, stage, write_rows
from lmdistill.tasks import Task
from lmdistill.train import CARD, digest_weights
from lmdistill.types import Annotation, Completion, Parsed, Prediction, Sampling


@dataclass(frozen=True)
class Decoding:
    """How a student answers.

    `constrained` scores the example's choices and takes the likeliest instead of reading free text. `samples` above 1
    is self-consistency: that many samples at `temperature`, and a vote; with 1 sample decoding is greedy (or a beam).
    `max_tokens` is the rationale budget and the answer's; a student that thinks and has used it up without an answer
    is made to answer at once, in at most `answer_tokens` more (0: it has no answer). It stops at its end of sequence,
    right after the answer; `stop` names strings that end a text too, for models that go on. A prediction whose
    confidence is below `abstain_below` has no answer. `confidence` asks for the answer's probability where there is no
    vote.
    """

    samples: int = 1
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 1
    max_tokens: int = 64
    answer_tokens: int = 0
    stop: tuple[str, ...] = ()
    constrained: bool = False
    confidence: bool = False
    abstain_below: float | None = None
    batch_size: int = 64
    seed: int = 0

    def sampling(self, seed: int) -> Sampling:
        """The generator's settings for one batch."""
        return Sampling(
            n=self.samples,
            temperature=self.temperature if self.samples > 1 else 0.0,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            stop=self.stop,
            beams=self.beams,
            seed=seed,
        )


class Opened(NamedTuple):
    """A student folder, opened: what it was trained for stands in its card."""

    student: Any
    objective: Objective
    card: Mapping[str, Any]


def predict(
    student: Any,
    objective: Objective,
    task: Task,
    items: Sequence[Annotation],
    *,
    decoding: Decoding = Decoding(),
    folder: Path | None = None,
) -> Sequence[Prediction]:
    """Answers for examples (given as annotations: passages, or rationales for objectives that read them, ride along).

    With `folder` the predictions are written to `folder/rows.jsonl` with a manifest, and read from there next time.

    Raises:
        StoreError: the folder belongs to another run. ConfigError: constrained decoding of a task without choices.
    """
    if folder is None:
        return list(_predict(student, objective, task, items, decoding))
    settings = {"decoding": config.settings_of(decoding), "objective": config.settings_of(objective)}
    inputs = {"items": digest_rows(items), "student": digest_weights(student)}
    with stage(folder, "predict", settings=settings, inputs=inputs) as opened:
        if not opened.done:
            write_rows(opened.path(), _predict(student, objective, task, items, decoding))
        return opened.rows(Prediction)


def _predict(
    student: Any, objective: Objective, task: Task, items: Sequence[Annotation], decoding: Decoding
) -> Sequence[Prediction]:
    predictions: list[Prediction] = []
    with progress("predict", len(items), "examples") as bar:
        for start in range(0, len(items), decoding.batch_size):
            batch = [items[i] for i in range(start, min(start + decoding.batch_size, len(items)))]
            sampling = decoding.sampling(seed_for(decoding.seed, start) % (1 << 31))
            answer = _score if decoding.constrained else _generate
            answered = answer(student, objective, task, batch, sampling, decoding.answer_tokens)
            if decoding.confidence and not decoding.constrained and decoding.samples == 1:
                answered = _with_confidence(student, objective, batch, answered)
            predictions += [_abstained(one, decoding) for one in answered]
            bar.advance(len(batch))
    return predictions


def _generate(
    student: Any,
    objective: Objective,
    task: Task,
    batch: Sequence[Annotation],
    sampling: Sampling,
    answer_tokens: int,
) -> list[Prediction]:
    written = student.generate([objective.prompt(item) for item in batch], sampling)
    if answer_tokens and objective.thinks:
        written = _brought_to_an_end(student, objective, task, batch, written, answer_tokens)
    return [voted(task, objective, item, completions) for item, completions in zip(batch, written, strict=True)]


def _brought_to_an_end(
    student: Any,
    objective: Objective,
    task: Task,
    batch: Sequence[Annotation],
    written: Sequence[Sequence[Completion]],
    answer_tokens: int,
) -> list[list[Completion]]:
    """The completions, where those that used up their budget without an answer go on with the cue and an answer."""
    made = [list(own) for own in written]
    places = [
        (i, j)
        for i, own in enumerate(made)
        for j, one in enumerate(own)
        if one.finish_reason == "length" and objective.read(task, batch[i], one.text).answer is None
    ]
    begun = [objective.with_answer(made[i][j].text, "").strip() for i, j in places]
    prompts = [objective.prompt(batch[i]) for i, _ in places]
    ends = student.finish(prompts, begun, Sampling(max_tokens=answer_tokens)) if places else []
    for (i, j), start, end in zip(places, begun, ends, strict=True):
        made[i][j] = replace(end, text=f"{start} {end.text}".strip())
    return made


def voted(task: Task, objective: Objective, item: Annotation, completions: Sequence[Completion]) -> Prediction:
    """One prediction from one or several completions: the majority of their answers, of a tie the first seen."""
    read = [objective.read(task, item, completion.text) for completion in completions]
    forms = [task.canonical(parsed.answer) if parsed.answer is not None else None for parsed in read]
    votes = Counter(form for form in forms if form is not None)
    if not votes:
        return _prediction(item, read[0], completions[0].text)
    winner = max(votes, key=lambda form: votes[form])
    index = forms.index(winner)
    chosen = _prediction(item, read[index], completions[index].text)
    if len(completions) == 1:
        return chosen
    return replace(chosen, votes=dict(votes), confidence=votes[winner] / len(completions))


def _score(
    student: Any,
    objective: Objective,
    task: Task,
    batch: Sequence[Annotation],
    sampling: Sampling,
    answer_tokens: int,
) -> list[Prediction]:
    """The likeliest choice of each example, after a rationale where the student thinks first."""
    lacking = next((item for item in batch if not item.example.choices), None)
    if lacking is not None:
        raise ConfigError(
            f"decoding.constrained needs choices; example {lacking.id!r} has none. Set decoding.constrained=false"
        )
    prompts = [objective.prompt(item) for item in batch]
    thoughts = [[Completion("")] for _ in batch]
    if objective.thinks:
        thoughts = student.generate(prompts, sampling)
    sources, targets = [], []
    for item, prompt, completions in zip(batch, prompts, thoughts, strict=True):
        for completion in completions:
            sources += [prompt] * len(item.example.choices)
            targets += [objective.with_answer(completion.text, choice) for choice in item.example.choices]
    scores = iter(student.logprobs(sources, targets))
    predictions = []
    for item, completions in zip(batch, thoughts, strict=True):
        share = dict.fromkeys(item.example.choices, 0.0)
        for _ in completions:
            for choice, probability in zip(share, _softmax([next(scores) for _ in share]), strict=True):
                share[choice] += probability / len(completions)
        best = max(share, key=lambda choice: share[choice])
        rationale = objective.read(task, item, completions[0].text).rationale if objective.thinks else ""
        parsed = Parsed(rationale, best)
        text = objective.with_answer(completions[0].text, best)
        predictions.append(replace(_prediction(item, parsed, text), confidence=share[best]))
    return predictions


def _with_confidence(
    student: Any, objective: Objective, batch: Sequence[Annotation], predictions: Sequence[Prediction]
) -> list[Prediction]:
    """The probability of each answer as it was written, given the prompt and what stands before it."""
    sources, targets, bare = [], [], []
    for item, prediction in zip(batch, predictions, strict=True):
        sources.append(objective.prompt(item))
        targets.append(objective.with_answer(prediction.text, prediction.answer or ""))
        bare.append(objective.with_answer(prediction.text, "").strip())
    pairs = zip(predictions, student.logprobs(sources, targets, bare if objective.thinks else ()), strict=True)
    return [one if one.answer is None else replace(one, confidence=math.exp(logprob)) for one, logprob in pairs]


def _abstained(prediction: Prediction, decoding: Decoding) -> Prediction:
    limit, confidence = decoding.abstain_below, prediction.confidence
    if limit is None or confidence is None or confidence >= limit or prediction.answer is None:
        return prediction
    return replace(prediction, answer=None, reason=f"abstained: confidence {confidence:.2f} is below {limit:g}")


def _prediction(item: Annotation, parsed: Parsed, text: str) -> Prediction:
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


def open_student(folder: Path) -> Opened:
    """A trained student with the objective and the card that `train` wrote beside it.

    Raises:
        StoreError: the folder lacks a file (the message names it).
    """
    card = folder / CARD
    if not card.exists():
        raise StoreError(f"{folder} has no {CARD}: it is not a student that lmdistill trained (expected RUN/student)")
    try:
        contents = json.loads(card.read_text(encoding="utf-8"))
        settings = dict(contents["student"])
        objective = config.rebuild("objectives", contents["objective"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{card} is damaged ({error!r}); train again, or copy the folder again") from error
    if not (folder / "model.safetensors").exists() and not list(folder.glob("model-*.safetensors")):
        raise StoreError(f"{folder} has no model.safetensors; the checkpoint is not whole. Train or copy it again")
    student = config.rebuild("students", settings | {"model": str(folder)}).open()
    return Opened(student, objective, contents)
