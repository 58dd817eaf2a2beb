"""Two-hop questions over a knowledge base of made-up facts: what must be remembered, and what can be looked up."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lmdistill.errors import ConfigError
from lmdistill.tasks._made import WORDS, Draw, Made, pick, word
from lmdistill.types import Example, Passage

CLASSES = ("bird", "cat", "fish", "frog", "horse", "lizard", "monkey", "spider", "toad", "whale")
VERBS = ("eat", "drink", "fear", "like", "hunt", "build", "wear", "hide", "bring", "guard")
_QUESTIONS = (
    "what does the {entity} {verb} ?",
    "tell me what the {entity} will {verb} .",
    "what will the {entity} {verb} ?",
    "say what a {entity} does {verb} .",
)
_QUESTION = re.compile(
    r"(?:what does the (?P<a>\w+) (?P<b>\w+) \?|tell me what the (?P<c>\w+) will (?P<d>\w+) \."
    r"|what will the (?P<e>\w+) (?P<f>\w+) \?|say what a (?P<g>\w+) does (?P<h>\w+) \.)"
)
_PROPERTIES = WORDS - 2000
"""The properties' words begin here; the entities' words end here."""


@dataclass(frozen=True)
class Facts(Made):
    """What does some creature eat? Its class says: 'every bird eats dalup', and the creature is a bird.

    The knowledge base has `facts` passages: one for each class and relation, one for the class of each entity, and
    for each entity `noise` more that only mention it with a relation (so that the question's own words are a worse
    query than the rationale's). A test question asks for a pair of entity and relation that training never shows.
    More facts at the same number of training examples are more to remember, but no more to read.
    """

    facts: int = 600
    classes: int = 10
    relations: int = 10
    noise: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.classes <= len(CLASSES) and 1 <= self.relations <= len(VERBS) and 0 <= self.noise <= 10):
            raise ConfigError("expected 2 to 10 classes, 1 to 10 relations and a noise of 0 to 10")
        least = self.classes * self.relations + 20 * (1 + self.noise)
        if not least <= self.facts <= _PROPERTIES:
            raise ConfigError(f"facts: {least} to {_PROPERTIES} were expected with these settings, got {self.facts}")

    @property
    def instruction(self) -> str:
        return f"say what the creature is , and what all of its kind do . then end with '{self.answer_cue} ...' ."

    @property
    def entities(self) -> int:
        """How many entities the facts are about."""
        return (self.facts - self.classes * self.relations) // (1 + self.noise)

    def entity(self, index: int) -> str:
        """The name of an entity."""
        return word((index + self.seed * 1009) % _PROPERTIES)

    def class_of(self, index: int) -> int:
        """The class of an entity; classes are equally large."""
        return (index + self.seed) % self.classes

    def property_of(self, kind: int, relation: int) -> str:
        """What all of a class eat, drink, fear ..."""
        return word(_PROPERTIES + (kind * len(VERBS) + relation + self.seed * 1013) % 2000)

    def draw(self, rng: random.Random) -> Draw:
        index = int(rng.random() * self.entities)
        relation = int(rng.random() * self.relations)
        entity, verb = self.entity(index), VERBS[relation]
        kind = self.class_of(index)
        fields = {"gold": (f"class-{index}", f"kind-{kind}-{relation}")}
        question = pick(rng, _QUESTIONS).format(entity=entity, verb=verb)
        return Draw(question, self.property_of(kind, relation), f"{entity} {verb}", fields)

    def explain(self, question: str, rng: random.Random, *, wrong: bool = False) -> tuple[str, str]:
        match = _QUESTION.fullmatch(question.strip())
        entity, verb = [part for part in match.groups() if part] if match else ("", "")
        if verb not in VERBS[: self.relations] or entity not in _index(self):
            raise ValueError(f"not a question of task 'facts' with seed {self.seed}: {question!r}")
        kind, relation = self.class_of(_index(self)[entity]), VERBS.index(verb)
        if wrong:
            kind = (kind + 1 + int(rng.random() * (self.classes - 1))) % self.classes
        name, thing = CLASSES[kind], self.property_of(kind, relation)
        wordings = (
            f"the {entity} is a {name} . every {name} {verb}s {thing} .",
            f"a {entity} is a {name} , and every {name} {verb}s {thing} .",
            f"every {name} {verb}s {thing} , and the {entity} is a {name} .",
        )
        return pick(rng, wordings), thing

    def passages(self) -> Sequence[Passage]:
        return _passages(self)

    def relevant(self, example: Example) -> tuple[str, ...]:
        return tuple(example.fields.get("gold", ()))


@functools.lru_cache(maxsize=8)
def _index(task: Facts) -> dict[str, int]:
    return {task.entity(index): index for index in range(task.entities)}


@functools.lru_cache(maxsize=2)
def _passages(task: Facts) -> tuple[Passage, ...]:
    found = []
    for kind in range(task.classes):
        for relation in range(task.relations):
            text = f"every {CLASSES[kind]} {VERBS[relation]}s {task.property_of(kind, relation)} ."
            found.append(Passage(f"kind-{kind}-{relation}", text))
    for index in range(task.entities):
        found.append(Passage(f"class-{index}", f"the {task.entity(index)} is a {CLASSES[task.class_of(index)]} ."))
    rng = random.Random(task.seed)
    for index in range(task.facts - len(found)):
        entity = task.entity(index % task.entities)
        found.append(Passage(f"noise-{index}", f"nobody saw what the {entity} did {pick(rng, VERBS)} ."))
    return tuple(found)
