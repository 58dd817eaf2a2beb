"""e-SNLI: inference between two sentences about a picture, with people's explanations."""

from __future__ import annotations

from dataclasses import dataclass

from lmdistill.tasks import Exemplar
from lmdistill.tasks._nli import Inference


@dataclass(frozen=True)
class Esnli(Inference):
    """Camburu et al. 2018; input 'premise</s>hypothesis', labels entailment, neutral, contradiction."""

    hub: str = "esnli/esnli"
    revision: str | None = "refs/convert/parquet"

    ids = ("id", "pairID")

    @property
    def exemplars(self) -> tuple[Exemplar, ...]:
        between = self.separator
        return (
            Exemplar(
                f"Two boys kick a ball in a muddy field.{between}Children are playing outdoors.",
                "Boys are children, a field is outdoors, and kicking a ball is playing.",
                "entailment",
            ),
            Exemplar(
                f"A woman in a red coat waits at a bus stop.{between}The woman is late for work.",
                "Nothing says why she waits or where she is going, so she may or may not be late for work.",
                "neutral",
            ),
            Exemplar(
                f"A man is asleep on a bench in the park.{between}The man is running a race.",
                "Nobody can be asleep on a bench and run a race at the same time.",
                "contradiction",
            ),
        )
