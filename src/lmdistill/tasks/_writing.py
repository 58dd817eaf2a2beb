"""What the text-to-text tasks share: a completion is all answer, unless it thinks aloud and then says its cue."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmdistill.tasks._released import Released
from lmdistill.types import Example


@dataclass(frozen=True)
class Writing(Released):
    """Settings of all of them: `prefix` stands before the input (KD4Gen gives T5 students 'summarize: ')."""

    prefix: str = field(default="", kw_only=True)

    metric = "token_f1"
    also = ("bleu", "rouge")
    reads = "text"
    bare = True
    lettered = False
    run_on = ()

    def references(self, example: Example) -> tuple[str, ...]:
        more = example.fields.get("references") or ()
        return tuple(dict.fromkeys([*super().references(example), *map(str, more)]))
