"""A model's dropout: whether there is any, and how much."""

from __future__ import annotations

from typing import Any

from torch import nn

from lmdistill.students._scratch import RATES


def largest_dropout(model: Any) -> float | None:
    """The largest dropout rate of a model; None where it has no place for any.

    >>> largest_dropout(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.2))), largest_dropout(nn.Linear(1, 1))
    (0.2, None)
    """
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    for module in model.modules():
        own = (getattr(module, name, None) for name in RATES)
        rates += [rate for rate in own if isinstance(rate, float)]
    return max(rates, default=None)
