"""What the metrics of right or wrong share: a share with Wilson's interval, a mean with a bootstrapped one."""

from __future__ import annotations

from collections.abc import Sequence

from lmdistill.intervals import bootstrap, wilson
from lmdistill.types import Estimate, Score


def share(scores: Sequence[Score], name: str, level: float) -> dict[str, Estimate]:
    """The share of scores that are 1.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError(f"metric {name!r} has no scores to aggregate")
    right = sum(score.values[name] for score in scores)
    interval = wilson(right, len(scores), level)
    return {name: Estimate(right / len(scores), interval.low, interval.high, len(scores))}


def mean(scores: Sequence[Score], name: str, *, level: float, resamples: int, seed: int) -> dict[str, Estimate]:
    """The mean of the scores.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError(f"metric {name!r} has no scores to aggregate")
    values = [score.values[name] for score in scores]
    low, high = bootstrap(values, level=level, resamples=resamples, seed=seed)
    return {name: Estimate(sum(values) / len(values), low, high, len(values))}
