"""Text to text: a story told out of order in an old tongue is told again, in order and in a new one."""

from __future__ import annotations

import functools
import random
import re
from dataclasses import dataclass

from lmdistill.errors import ConfigError
from lmdistill.tasks._made import WORDS, Draw, Made, pick, word
from lmdistill.types import Example

PEOPLE = ("anna", "ben", "clara", "david", "emma", "felix", "greta", "henry", "irene", "jacob")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
JOINS = ("then", "after that", "later")
PLACES = {"yonder": "over there", "hereby": "right here", "aloft": "up high", "beneath": "down low"}
OLD_PLACES = tuple(PLACES)
_EVENT = re.compile(r"(\w+) (\w+) (\w+) the (\w+) (\w+)")


@dataclass(frozen=True)
class Retell(Made):
    """Events out of order become one sentence: every verb and thing has new words for it, the order is restored.

    'second ben vorak the budek aloft . first anna dorip the kasev yonder .' is told again as
    'anna tirop the goluz over there , then ben zavuk the nerip up high'

    Each of `verbs` verbs and `things` things has two new words that mean the same, and events are joined in three ways:
    one input has many right outputs, the label is one of them. Remembering the dictionary takes capacity and sorting
    takes depth, so a larger model that was trained on the same examples is clearly better than a smaller one.
    """

    events: int = 2
    verbs: int = 40
    things: int = 80

    metric = "token_f1"
    also = ("bleu", "rouge")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.events <= len(ORDINALS):
            raise ConfigError(f"events: 1 to {len(ORDINALS)} were expected, got {self.events}")
        if self.verbs < 2 or self.things < 2 or 3 * (self.verbs + self.things) > WORDS:
            raise ConfigError(f"expected 2 or more verbs and things, and at most {WORDS // 3} together")

    @property
    def instruction(self) -> str:
        say = "say who acts in which order , then tell the story again in order and in new words"
        return f"{say} . write '{self.answer_cue}' before the story ."

    def draw(self, rng: random.Random) -> Draw:
        events, shown = [], []
        for ordinal in ORDINALS[: self.events]:
            verb, thing = self.verb(int(rng.random() * self.verbs)), self.thing(int(rng.random() * self.things))
            place, person = pick(rng, OLD_PLACES), pick(rng, PEOPLE)
            events.append((person, verb, thing, place))
            shown.append(f"{ordinal} {person} {verb} the {thing} {place} .")
        source = " ".join(rng.sample(shown, len(shown)))
        return Draw(source, self._told(events, rng))

    def verb(self, index: int) -> str:
        """The old word of a verb."""
        return word((index + self.seed * 1009) % WORDS)

    def thing(self, index: int) -> str:
        """The old word of a thing."""
        return word((self.verbs + index + self.seed * 1009) % WORDS)

    def new(self, old: str) -> tuple[str, str]:
        """The two new words for an old one.

        Raises:
            ValueError: no such word.
        """
        return self._new(_dictionary(self), old)

    def _new(self, dictionary: dict[str, tuple[str, str]], old: str) -> tuple[str, str]:
        if old not in dictionary:
            raise ValueError(f"task 'retell' with seed {self.seed} knows no {old!r}")
        return dictionary[old]

    def _other(self, thing: str) -> str:
        place = list(_dictionary(self)).index(thing) - self.verbs
        return self.thing((place + 1) % self.things)

    def is_correct(self, example: Example, answer: str | None) -> bool:
        """Whether an answer is one of the right outputs for the input: any of the new words, any way to join."""
        if answer is None:
            return False
        parts = []
        for person, verb, thing, place in _events(example.input):
            verbs, things = "|".join(self.new(verb)), "|".join(self.new(thing))
            parts.append(rf"{person} (?:{verbs}) the (?:{things}) {PLACES.get(place, place)}")
        pattern = rf" , (?:{'|'.join(JOINS)}) ".join(parts)
        return re.fullmatch(pattern, self.canonical(answer)) is not None

    def _told(self, events: list[tuple[str, str, str, str]], rng: random.Random) -> str:
        parts, known = [], _dictionary(self)  # looked up once: its key is all of the task's settings
        for person, verb, thing, place in events:
            new_place = PLACES.get(place, place)
            new_verb, new_thing = pick(rng, self._new(known, verb)), pick(rng, self._new(known, thing))
            parts.append(f"{person} {new_verb} the {new_thing} {new_place}")
        text = parts[0]
        for part in parts[1:]:
            text += f" , {pick(rng, JOINS)} {part}"
        return text

    def explain(self, question: str, rng: random.Random, *, wrong: bool = False) -> tuple[str, str]:
        events = _events(question.strip())
        plan = " , ".join(f"{pick(rng, JOINS)} {event[0]}" if i else event[0] for i, event in enumerate(events))
        answer = self._told(events, rng)
        if wrong:  # the order is lost, or, where there is none to lose, a thing is taken for another
            moved = events[1:] + events[:1]
            if moved == events:
                moved = [(who, verb, self._other(thing), place) for who, verb, thing, place in events]
            plan = " , ".join(event[0] for event in moved)
            events, answer = moved, self._told(moved, rng)
        wordings = (f"the order is {plan} .", f"it begins with {events[0][0]} : {plan} .")
        return pick(rng, wordings), answer


@functools.lru_cache(maxsize=8)
def _dictionary(task: Retell) -> dict[str, tuple[str, str]]:
    """Every old word, verbs first, and its two new ones."""
    old = [task.verb(i) for i in range(task.verbs)] + [task.thing(i) for i in range(task.things)]
    base = len(old) + task.seed * 1009
    return {name: (word((base + 2 * i) % WORDS), word((base + 2 * i + 1) % WORDS)) for i, name in enumerate(old)}


def _events(source: str) -> list[tuple[str, str, str, str]]:
    """The events in their order: who, verb, thing, place.

    Raises:
        ValueError: the text is no question of this task.
    """
    found = {}
    for sentence in source.removesuffix(" .").split(" . "):
        match = _EVENT.fullmatch(sentence)
        if match is None or match[1] not in ORDINALS or match[1] in found:
            raise ValueError(f"not a question of task 'retell': {source!r}")
        found[match[1]] = (match[2], match[3], match[4], match[5])
    return [found[ordinal] for ordinal in ORDINALS if ordinal in found]
