"""Adversarial NLI: inference over a paragraph, written so that models fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmdistill.errors import ConfigError
from lmdistill.tasks import Exemplar
from lmdistill.tasks._nli import Inference


@dataclass(frozen=True)
class Anli(Inference):
    """Nie et al. 2020, one of its three rounds (the papers use the first)."""

    hub: str = "facebook/anli"
    round: int = 1

    ids = ("id", "uid")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.round not in (1, 2, 3):
            raise ConfigError(f"round: 1, 2 or 3 was expected, got {self.round}")

    @property
    def hub_splits(self) -> Mapping[str, str]:  # type: ignore[override]
        return {
            split: f"{name}_r{self.round}" for split, name in (("train", "train"), ("valid", "dev"), ("test", "test"))
        }

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        between = self.separator
        river = (
            "The Aldren is a river in the north of the country. It rises near the village of Hoss at 840 metres, flows "
            "through two lakes and reaches the sea after 112 kilometres."
        )
        return (
            Exemplar(
                f"{river}{between}The Aldren is more than a hundred kilometres long.",
                "The river reaches the sea after 112 kilometres, and 112 is more than a hundred.",
                "entailment",
            ),
            Exemplar(
                f"{river}{between}People fish in both lakes of the Aldren.",
                "The text names two lakes, but it says nothing about fishing.",
                "neutral",
            ),
            Exemplar(
                f"{river}{between}The Aldren rises at sea level.",
                "The river rises at 840 metres, which is far above sea level.",
                "contradiction",
            ),
        )
