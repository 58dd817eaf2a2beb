"""Example -> Prediction: generate or score, read, vote, abstain."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lmdistill import config
from lmdistill.choosing import Asked, brought_to_an_end, choices_scored, prediction_of, with_confidence, written
from lmdistill.errors import ConfigError, StoreError
from lmdistill.objectives import Objective
from lmdistill.progress import progress
from lmdistill.registry import name_of
from lmdistill.store import digest_rows, seed_for, stage, write_rows
from lmdistill.tasks import Task
from lmdistill.train import CARD, digest_weights
from lmdistill.types import Annotation, Completion, Prediction, Sampling


@dataclass(frozen=True)
class Decoding:
    """How a student answers.

    `constrained` scores the example's choices and takes the likeliest instead of reading free text. `samples` above 1
    is self-consistency: that many samples at `temperature`, and a vote; with 1 sample decoding is greedy (or a beam).
    `max_tokens` is the rationale budget and the answer's; a student that thinks and has used it up without an answer
    is made to answer at once, in at most `answer_tokens` more (0: it has no answer). It stops at its end of sequence,
    right after the answer, and with `stop_at_answer` also where one that thinks goes on after a complete answer (the
    first one counts then); `stop` names strings that end a text too. A prediction whose
    confidence is below `abstain_below` has no answer. `confidence` asks for the answer's probability where there is no
    vote; `abstain_below` does so too. `batch_size` counts examples, and rows that go through the student at a time.
    """

    samples: int = 1
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 1
    max_tokens: int = 64
    answer_tokens: int = 0
    stop_at_answer: bool = True
    stop: tuple[str, ...] = ()
    constrained: bool = False
    confidence: bool = False
    abstain_below: float | None = None
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            f"{name}: {most} was expected, got {getattr(self, name)!r}"
            for name, most, fits in (
                ("samples", "at least 1", self.samples >= 1),
                ("temperature", "0 or more", self.temperature >= 0),
                ("top_k", "0 (no limit) or more", self.top_k >= 0),
                ("top_p", "a share above 0 and up to 1", 0 < self.top_p <= 1),
                ("beams", "at least 1", self.beams >= 1),
                ("max_tokens", "at least 1", self.max_tokens >= 1),
                ("answer_tokens", "0 or more", self.answer_tokens >= 0),
                ("stop", "strings of at least one character", all(self.stop)),
                ("abstain_below", "a probability from 0 to 1", 0 <= (self.abstain_below or 0.0) <= 1),
                ("batch_size", "at least 1", self.batch_size >= 1),
            )
            if not fits
        ]
        if wrong:
            raise ConfigError(wrong)

    @property
    def asks_confidence(self) -> bool:
        """Whether answers that are read from one text are scored too."""
        return (self.confidence or self.abstain_below is not None) and not self.constrained and self.samples == 1

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


EXPLAINED = 256
"""Examples that are asked for their rationales between two notes of progress."""


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
    rationale_tokens: int = 0,
) -> Sequence[Prediction]:
    """Answers for examples (given as annotations: passages, or rationales for objectives that read them, ride along).

    With `rationale_tokens` a student that learnt rationales as a task apart, and answers without one, is asked for one
    too, in at most so many tokens; the answer does not change by it.
    With `folder` the predictions are written to `folder/rows.jsonl` with a manifest, and read from there next time.

    Raises:
        StoreError: the folder belongs to another run. ConfigError: constrained decoding of a task without choices;
            rationales of a student that learnt none as a task apart.
    """
    if folder is None:
        return explained(
            student, objective, items, _predict(student, objective, task, items, decoding), rationale_tokens
        )
    settings = {
        "decoding": config.settings_of(decoding),
        "objective": config.settings_of(objective),
        "task": config.settings_of(task) if dataclasses.is_dataclass(task) else {"name": type(task).__name__},
        "student": student.reading() if hasattr(student, "reading") else {},
    }
    if rationale_tokens:
        settings["rationale_tokens"] = rationale_tokens
    inputs = {"items": digest_rows(items), "student": digest_weights(student)}
    with stage(folder, "predict", settings=settings, inputs=inputs) as opened:
        if not opened.done:
            answered = _predict(student, objective, task, items, decoding)
            write_rows(opened.path(), explained(student, objective, items, answered, rationale_tokens))
            if hasattr(student, "cut_sources"):
                opened.manifest.counts["sources_shortened"] = student.cut_sources(map(objective.prompt, items))
        return opened.rows(Prediction)


def explained(
    student: Any, objective: Objective, items: Sequence[Annotation], answered: Sequence[Prediction], tokens: int
) -> list[Prediction]:
    """The predictions with the rationale that the student gives when it is asked for one alone (0 tokens: not asked).

    Raises:
        ConfigError: the objective has no such prompt.
    """
    if not tokens:
        return list(answered)
    out: list[Prediction] = []
    with progress("rationales", len(items), "examples") as bar:
        for start in range(0, len(items), EXPLAINED):
            asked = [objective.rationale_prompt(items[i]) for i in range(start, min(start + EXPLAINED, len(items)))]
            prompts = [prompt for prompt in asked if prompt is not None]
            if len(prompts) < len(asked):
                message = (
                    f"objective {name_of(objective)!r} learns no rationale as a task of its own, so none can be asked "
                )
                raise ConfigError(
                    message + "for; leave rationales out (one that is written before an answer is kept anyway)"
                )
            told = student.generate(prompts, Sampling(max_tokens=tokens))
            out += [replace(answered[start + i], rationale=one.text.strip()) for i, (one,) in enumerate(told)]
            bar.advance(len(asked))
    return out


def _predict(
    student: Any, objective: Objective, task: Task, items: Sequence[Annotation], decoding: Decoding
) -> Sequence[Prediction]:
    predictions: list[Prediction] = []
    with progress("predict", len(items), "examples") as bar:
        for start in range(0, len(items), decoding.batch_size):
            batch = [items[i] for i in range(start, min(start + decoding.batch_size, len(items)))]
            sampling = decoding.sampling(seed_for(decoding.seed, start) % (1 << 31))
            asked = Asked(student, objective, task, batch, decoding.batch_size, decoding.stop_at_answer)
            if decoding.constrained:
                answered = choices_scored(asked, sampling)
            else:
                answered = _generate(asked, sampling, decoding.answer_tokens)
            if decoding.asks_confidence:
                answered = with_confidence(asked, answered)
            predictions += [_abstained(one, decoding) for one in answered]
            bar.advance(len(batch))
    if hasattr(student, "cut_sources"):
        student.tell_of_cuts("source", student.cut_sources(map(objective.prompt, items)), len(items))
    return predictions


def _generate(asked: Asked, sampling: Sampling, answer_tokens: int) -> list[Prediction]:
    texts = written(asked, sampling)
    if answer_tokens and asked.objective.thinks:
        texts = brought_to_an_end(asked, texts, answer_tokens)
    pairs = zip(asked.items, texts, strict=True)
    return [voted(asked.task, asked.objective, item, completions) for item, completions in pairs]


def voted(task: Task, objective: Objective, item: Annotation, completions: Sequence[Completion]) -> Prediction:
    """One prediction from one or several completions: the majority of their answers, of a tie the first seen."""
    read = [objective.read(task, item, completion.text) for completion in completions]
    forms = [task.canonical(parsed.answer) if parsed.answer is not None else None for parsed in read]
    votes = Counter(form for form in forms if form is not None)
    if not votes:
        return prediction_of(item, read[0], completions[0].text)
    winner = max(votes, key=lambda form: votes[form])
    index = forms.index(winner)
    chosen = prediction_of(item, read[index], completions[index].text)
    if len(completions) == 1:
        return chosen
    return replace(chosen, votes=dict(votes), confidence=votes[winner] / len(completions))


def _abstained(prediction: Prediction, decoding: Decoding) -> Prediction:
    limit, confidence = decoding.abstain_below, prediction.confidence
    if limit is None or confidence is None or confidence >= limit or prediction.answer is None:
        return prediction
    return replace(prediction, answer=None, reason=f"abstained: confidence {confidence:.2f} is below {limit:g}")


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
