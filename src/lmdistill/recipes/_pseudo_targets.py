"""Pseudo-targets: how many texts a teacher writes for each input, how, and the writing of a local one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lmdistill.codec import from_line, to_line
from lmdistill.config import settings_of
from lmdistill.errors import ConfigError
from lmdistill.progress import progress
from lmdistill.store import seed_for
from lmdistill.types import Annotation, Example, Rationale, Sampling

OUTSIDE = ("batch_size", "unlabelled")
"""Settings of pseudo-targets that do not change what is written for an input."""


@dataclass(frozen=True)
class PseudoTargets:
    """The texts that the teacher writes: `number` for each input, on labelled and (with `unlabelled`) other inputs.

    `unlabelled` true adds the task's unlabelled inputs, 'rest' those and the training inputs that `fraction` leaves
    out, without their labels (a local teacher must not have been trained on those: give its run the same `fraction`).
    `decoding` 'sample' draws them at `temperature` with `top_p` and `top_k` (0: no truncation); 'beam' takes the
    `number` best of a beam of `beams` (of `number`, where that is more). KD4Gen: 48 samples, temperature 1 (high: 1.5),
    top_p 0.95, a silent top_k of 50. A teacher that is not local is asked with these as its `sampling`, where any of
    them is set.
    """

    number: int = 48
    decoding: Literal["sample", "beam"] = "sample"
    beams: int = 4
    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 0
    max_tokens: int = 64
    unlabelled: bool | Literal["rest"] = True
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        sampled = self.decoding == "sample"
        checks = (
            ("number", "0 or more", self.number >= 0),
            ("beams", "1 or more", self.beams >= 1),
            ("temperature", "above 0 for samples", not sampled or 0 < self.temperature < math.inf),
            ("top_p", "a share above 0 and up to 1", 0 < self.top_p <= 1),
            ("top_k", "0 (no limit) or more", self.top_k >= 0),
            ("max_tokens", "1 or more", self.max_tokens >= 1),
            ("batch_size", "1 or more", self.batch_size >= 1),
        )
        wrong = [f"{name}: expected {what}, got {getattr(self, name)}" for name, what, fits in checks if not fits]
        if wrong:
            raise ConfigError(wrong)

    @property
    def sampling(self) -> Sampling:
        """How the teacher writes."""
        if self.decoding == "beam":
            return Sampling(n=self.number, beams=max(self.beams, self.number), max_tokens=self.max_tokens)
        return Sampling(self.number, self.temperature, self.top_p, self.top_k, self.max_tokens)

    @property
    def key(self) -> dict[str, Any]:
        """The settings that change what is written."""
        unread = ("beams",) if self.decoding == "sample" else ("temperature", "top_p", "top_k", "seed")
        return {key: value for key, value in settings_of(self).items() if key not in (*OUTSIDE, *unread)}


def write_missing(
    path: Path, examples: Sequence[Example], write: Callable[[Sequence[Example]], Iterable[Annotation]], size: int
) -> None:
    """Annotate examples, `size` at a time, into a file that grows: what a killed run left is not written again."""
    done = _whole_lines(path)
    left = [one for one in examples if one.id not in done]
    shown = progress("pseudo-targets", len(examples), "inputs", done=len(examples) - len(left))
    with shown as bar, path.open("a", encoding="utf-8") as file:
        for start in range(0, len(left), size):
            batch = left[start : start + size]
            file.write("".join(to_line(one) + "\n" for one in write(batch)))
            file.flush()
            bar.advance(len(batch))


def in_order(path: Path, examples: Sequence[Example]) -> Iterable[Annotation]:
    """The annotations of such a file in the order of the examples."""
    places: dict[str, int] = {}
    with path.open("rb") as file:
        while line := file.readline():
            places.setdefault(json.loads(line)["example"]["id"], file.tell() - len(line))
        for one in examples:
            file.seek(places[one.id])
            yield from_line(Annotation, file.readline())


def _whole_lines(path: Path) -> set[str]:
    """The ids in a file; a last line that was cut is taken away."""
    if not path.exists():
        return set()
    ids, end = set(), 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            ids.add(str(json.loads(line)["example"]["id"]))
            end += len(line)
        file.truncate(end)
    return ids


def written_by(
    model: Any, objective: Any, examples: Sequence[Example], pseudo: PseudoTargets, source: str
) -> list[Annotation]:
    """What an open model writes for examples, as an objective asks for it; empty texts are left out."""
    prompts = [objective.prompt(Annotation(one)) for one in examples]
    seeds = None
    if pseudo.decoding == "sample":
        seeds = [seed_for(pseudo.seed, "pseudo-target", one.id) % (1 << 31) for one in examples]
    written = model.generate(prompts, pseudo.sampling, batch_size=pseudo.batch_size, seeds=seeds)
    made = []
    for one, texts in zip(examples, written, strict=True):
        told = enumerate(text.text for text in texts)
        own = [Rationale(text, text, source=source, sample=i, raw=text) for i, text in told if text.strip()]
        made.append(Annotation(one, tuple(own)))
    return made
