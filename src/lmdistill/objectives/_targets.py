"""Which texts a generation student is trained on: the labels, the teacher's texts, or both."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from lmdistill.types import Annotation, View

TargetSource = Literal["gold", "pseudo", "both"]
"""`gold`: labels alone. `pseudo`: the teacher's texts (pseudo-targets) alone. `both`: labels where there are any, and
pseudo-targets."""

PerEpoch = Literal["one", "all"]
"""`one`: the pseudo-target number (epoch mod K) of each input, as the files of KD4Gen are laid out. `all`: all K."""

ROLE = "target"
"""The role of all of them: they share one mean."""


def pseudo_targets(annotation: Annotation) -> list[tuple[int, str]]:
    """The teacher's texts for an input, each with its number; empty ones are never targets."""
    texts = [rationale.answer or rationale.text for rationale in annotation.rationales]
    return [(index, text) for index, text in enumerate(texts) if text.strip()]


def target_views(
    item: Annotation, prompt: str, source: TargetSource, per_epoch: PerEpoch, epoch: int
) -> Sequence[View]:
    """The rows of an input in an epoch: group 0 is its label, group 1 + k its pseudo-target k."""
    label = item.example.label
    views = [View(prompt, label, ROLE)] if label and label.strip() and source != "pseudo" else []
    if source == "gold":
        return views
    made = pseudo_targets(item)
    if per_epoch == "one" and made:
        made = [made[epoch % len(made)]]
    return [*views, *(View(prompt, text, ROLE, group=1 + index) for index, text in made)]


def every_view(objective: Any, item: Annotation) -> Iterator[View]:
    """Each row that an objective will ever show of an input, once, whatever the epoch."""
    seen = set()
    for epoch in range(max(1, len(item.rationales))):
        for view in objective.views(item, epoch, random.Random(0)):
            if (view.source, view.target) not in seen:
                seen.add((view.source, view.target))
                yield view
