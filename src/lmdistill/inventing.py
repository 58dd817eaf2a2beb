"""Inputs where there are none: the teacher writes varied ones from the task's description; they are then annotated.

Each request shows some inputs that are known already, drawn anew, and asks for others. What comes back is taken apart
into single inputs and de-duplicated: equal texts, and texts that share most of their words, count once.
"""

from __future__ import annotations

import collections
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmdistill.annotate import NO_CAP, open_cache
from lmdistill.config import settings_of
from lmdistill.errors import BudgetReached, ConfigError, TeacherError
from lmdistill.pricing import Budget, Ledger
from lmdistill.progress import progress
from lmdistill.store import Rows, seed_for, stage, write_rows
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings
from lmdistill.types import Example, Sampling
from lmdistill.wire import Message, Prompt

WRITE = "Write {count} new inputs for this task."
RULES = (
    "Do not answer them. Vary topic, wording, length and difficulty, and repeat nothing that is shown. "
    "Put each input between <input> and </input>."
)
INPUT = re.compile(r"<input>\s*(.*?)\s*</input>", re.DOTALL | re.IGNORECASE)
LISTED = re.compile(r"^\s*(?:[-*•]|\(?\d+[.)])\s+(.+?)\s*$", re.MULTILINE)
DRY_ROUNDS = 3
"""So many rounds that bring nothing new end the asking."""


def invent(
    task: Task,
    teacher: TeacherSettings,
    count: int,
    *,
    folder: Path,
    description: str | None = None,
    known: Sequence[str] = (),
    choices: Sequence[str] = (),
    at_once: int = 10,
    alike: float = 0.7,
    temperature: float = 1.0,
    seed: int = 0,
    cache: Path | None = None,
    budget: Budget = NO_CAP,
) -> Rows[Example]:
    """`count` different inputs for a task, written by a teacher; without labels.

    Args:
        description: what the task is; by default its instruction. known: inputs to vary; by default those of the task's
            exemplars. choices: the choices of every example, where the task has fixed ones. at_once: how many inputs a
            request asks for. alike: the share of common words from which two inputs count as one.

    Raises:
        TeacherError: the teacher goes on repeating itself before there are enough; what it wrote is kept.
        BudgetReached: a cap would be passed. ConfigError: no description and no known input to go by.
    """
    known = list(known) or [shot.input for shot in task.exemplars]
    told = description or task.instruction
    if not told.strip() and not known:
        raise ConfigError("invent: neither a description of the task nor a known input to vary was given")
    settings = {
        "task": settings_of(task), "teacher": teacher.identity(), "description": told, "known": known,
        "choices": list(choices), "count": count, "at_once": at_once, "alike": alike, "temperature": temperature,
    }  # fmt: skip
    with stage(folder, "invent", settings=settings, seed=seed) as opened:
        if opened.done:
            return opened.rows(Example)
        pool = Pool(known, alike)
        ledger = Ledger(budget)
        with open_cache((teacher,), cache) as store, progress("invent", count, "inputs") as bar:
            asked = teacher.open(task, ledger=ledger, cache=store)
            dry = turn = 0
            stopped: TeacherError | None = None
            while len(pool.new) < count and dry < DRY_ROUNDS and stopped is None:
                lacking = count - len(pool.new)
                requests = min(-(-lacking // at_once), 64)
                prompts = [ask(told, pool.texts, at_once, seed_for(seed, turn, i)) for i in range(requests)]
                sampling = Sampling(temperature=temperature, max_tokens=at_once * 200, seed=seed_for(seed, turn) >> 40)
                before = len(pool.new)
                try:
                    for written in asked.generate(prompts, sampling):
                        opened.count("written", pool.add(read_inputs(written[0].text)))
                except BudgetReached as error:
                    opened.manifest.status = "budget"
                    stopped = error
                except TeacherError as error:
                    stopped = error
                bar.advance(min(len(pool.new), count) - min(before, count))
                dry = 0 if len(pool.new) > before else dry + 1
                turn += 1
        new = pool.new[:count]
        examples = [Example(f"invented-{i}", text, None, tuple(choices)) for i, text in enumerate(new)]
        opened.manifest.counts |= {"inputs": len(examples), "alike": pool.alike_seen, "requests": ledger.requests}
        opened.manifest.facts["cost"] = round(ledger.cost, 6)
        whole = len(examples) == count
        write_rows(opened.path() if whole else opened.path("partial.jsonl"), examples)
        if stopped is None and not whole:
            stopped = TeacherError(
                f"{len(examples)} different inputs of {count} were written, then {DRY_ROUNDS} rounds brought nothing "
                "new; ask for fewer, allow more alike ones (alike), or describe the task in more detail"
            )
        if stopped is not None:
            raise stopped
        return opened.rows(Example)


def ask(description: str, known: Sequence[str], count: int, seed: int) -> Prompt:
    """A request for new inputs; it shows up to five that are known, drawn by the seed."""
    rng = random.Random(seed)
    shown = rng.sample(list(known), min(5, len(known)))
    examples = "\n".join(f"<input>{text}</input>" for text in shown)
    parts = [f"The task: {description}"] if description.strip() else []
    parts += [f"Inputs that are there already:\n{examples}"] if shown else []
    parts.append(f"{WRITE.format(count=count)} {RULES}")
    return Prompt((Message("user", "\n\n".join(parts)),))


def read_inputs(text: str) -> list[str]:
    """The inputs in what a teacher wrote: between marks, or else the points of a list."""
    found = INPUT.findall(text) or LISTED.findall(text)
    return [one.strip() for one in found if one.strip()]


class Pool:
    """Different texts; `new` are those that were added."""

    def __init__(self, known: Iterable[str], alike: float) -> None:
        self.alike = alike
        self.new: list[str] = []
        self.texts: list[str] = []
        self.alike_seen = 0
        self._words: list[frozenset[str]] = []
        self._holders: dict[str, list[int]] = collections.defaultdict(list)
        for text in known:
            self._add(text)

    def add(self, texts: Iterable[str]) -> int:
        """Add those that are like none before; how many were offered."""
        offered = 0
        for text in texts:
            offered += 1
            if next(self._near(_words(text)), None) is not None:
                self.alike_seen += 1
            else:
                self._add(text)
                self.new.append(text)
        return offered

    def _add(self, text: str) -> None:
        words = _words(text)
        for word in words:
            self._holders[word].append(len(self._words))
        self._words.append(words)
        self.texts.append(text)

    def _near(self, words: frozenset[str]) -> Iterator[int]:
        """Texts whose words are mostly the same (Jaccard index at least `alike`)."""
        shared = collections.Counter(row for word in words for row in self._holders.get(word, ()))
        for row, common in shared.items():
            if common >= self.alike * (len(words) + len(self._words[row]) - common):
                yield row


def _words(text: str) -> frozenset[str]:
    """What makes a text this one: its words and its numbers with their neighbours, so that order counts a little."""
    found = re.findall(r"\w+|[^\w\s]", text.casefold())
    return frozenset(found) | frozenset(f"{a} {b}" for a, b in itertools.pairwise(found))
