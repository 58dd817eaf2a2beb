"""Stopping a text once it has said what it is asked for, each row of a batch for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Enough = Callable[[str], int | None]
"""Where a text may end (its length until then), or None while it must go on."""
EVERY = 8
"""New tokens between two looks: texts are cut afterwards, so what is written meanwhile is not kept."""


def stopping(tokenizer: Any, enough: Sequence[Enough]) -> Any:
    """Criteria for transformers' `generate`: row r belongs to the prompt `r * len(enough) // rows`."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    class AtAnswer(StoppingCriteria):  # type: ignore[misc]
        """Knows where the new tokens begin from its first call, which is made after the first of them."""

        def __init__(self) -> None:
            self.first = -1
            self.done: list[bool] = []

        def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
            if self.first < 0:
                self.first, self.done = ids.shape[1] - 1, [False] * ids.shape[0]
            if (ids.shape[1] - self.first) % EVERY == 0:
                each = ids.shape[0] // len(enough)
                for row, tokens in enumerate(ids[:, self.first :].tolist()):
                    if not self.done[row]:
                        text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
                        self.done[row] = enough[row // each](text) is not None
            return torch.tensor(self.done, device=ids.device)

    return StoppingCriteriaList([AtAnswer()])
