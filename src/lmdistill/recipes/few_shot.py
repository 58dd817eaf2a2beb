"""Few-shot prompting: demonstrations, then the answer alone; no training."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmdistill.prompting import Prompting
from lmdistill.recipes._prompted import Prompted
from lmdistill.types import Sampling


@dataclass(frozen=True)
class FewShot(Prompted):
    """Ask a model the test questions after a few demonstrations, for the answer alone, without reasoning.

    Paper:    KARD, arXiv 2305.18395, table 1, "few-shot" and, with `grounding.passages` 1, "knowledge-augmented"
    Differs:  the first demonstrations are the task's own; where more are asked for, the others are training examples
    """

    prompting: Prompting = field(default_factory=lambda: Prompting(style="kd4gen", shots=5))
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=64))
