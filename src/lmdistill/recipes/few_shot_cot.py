"""Few-shot chain-of-thought prompting: demonstrations that reason, then reasoning and answer; no training."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmdistill.prompting import Prompting
from lmdistill.recipes._prompted import Prompted


@dataclass(frozen=True)
class FewShotCot(Prompted):
    """Ask a model the test questions after a few demonstrations that think step by step.

    Paper:    KARD, arXiv 2305.18395, table 1, "few-shot + CoT" and, with `grounding.passages` 1, "KA few-shot + CoT"
    Differs:  the demonstrations are the task's own: often 3, which is said where more are asked for
    """

    prompting: Prompting = field(default_factory=lambda: Prompting(style="standard", shots=5))
