"""Confidence intervals: for a share of successes, and by resampling for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

from lmdistill.types import Estimate


class Interval(NamedTuple):
    """From `low` to `high`."""

    low: float
    high: float


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for a share: good at every n, also where the share is 0 or 1.

    With p = successes / n and z the normal quantile:
    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    _check(successes, n, level)
    share, z = successes / n, NormalDist().inv_cdf(0.5 + level / 2)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == n else (middle + spread) / scale
    return Interval(max(0.0, low), min(1.0, high))


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval for a share: never covers less than `level`, so it is the widest.

    The bounds are quantiles of Beta(k, n - k + 1) and Beta(k + 1, n - k), found by bisection.

    >>> [round(bound, 4) for bound in clopper_pearson(8, 10)]
    [0.4439, 0.9748]
    """
    _check(successes, n, level)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else _beta_quantile(successes, n - successes + 1, tail)
    high = 1.0 if successes == n else _beta_quantile(successes + 1, n - successes, 1 - tail)
    return Interval(low, high)


def bootstrap(values: Sequence[float] | Any, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """The percentile interval of a mean, by resampling the items; the same for the same seed.

    Args:
        values: a number for each item [n], or rows of numbers [n, m], whose sums are divided: the ratio of the first
            column's mean to the second's (for corpus values, like a micro average).

    Raises:
        ValueError: no values.
    """
    import numpy

    numbers = numpy.asarray(values, dtype=float)
    if len(numbers) == 0:
        raise ValueError("an interval needs at least one value")
    rng = numpy.random.default_rng(seed)
    found = []
    at_once = max(1, min(resamples, 2_000_000 // len(numbers)))
    for start in range(0, resamples, at_once):
        drawn = rng.integers(0, len(numbers), size=(min(at_once, resamples - start), len(numbers)))
        means = numbers[drawn].mean(axis=1)
        found.append(means if means.ndim == 1 else means[:, 0] / means[:, 1])
    low, high = numpy.quantile(numpy.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def over_seeds(values: Sequence[float], n: int = 0) -> Estimate:
    """The mean of one value for each seed, with Student's interval (one value: no width).

    Args:
        n: what the estimate says it rests on, for example the test items behind each value.

    >>> estimate = over_seeds([0.70, 0.74, 0.78])
    >>> round(estimate.value, 4), round(estimate.low, 4), round(estimate.high, 4)
    (0.74, 0.6406, 0.8394)
    """
    count = len(values)
    if count == 0:
        raise ValueError("an interval needs at least one value")
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, mean, mean, n or 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = student_quantile(0.975, count - 1) * deviation / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, n or count)


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution.

    >>> round(student_quantile(0.975, 2), 4), round(student_quantile(0.5, 7), 4)
    (4.3027, 0.0)
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"expected 0 < probability < 1 and freedom >= 1, got {probability} and {freedom}")
    tail = 2 * min(probability, 1 - probability)
    if tail >= 1:
        return 0.0
    x = _beta_quantile(freedom / 2, 0.5, tail)
    return math.copysign(math.sqrt(freedom * (1 - x) / x), probability - 0.5)


def resampled(n: int, resamples: int = 2000, seed: int = 0) -> Iterator[Any]:
    """Item numbers [n] drawn with replacement, `resamples` times, for statistics that are not means."""
    import numpy

    rng = numpy.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.integers(0, n, size=n)


def _check(successes: float, n: int, level: float) -> None:
    if n < 1 or not 0 <= successes <= n or not 0 < level < 1:
        raise ValueError(f"expected 0 <= successes <= n, n >= 1, 0 < level < 1; got {successes}, {n}, {level}")


# --- the beta distribution -------------------------------------------------------------------------------------------


def _beta_quantile(a: float, b: float, probability: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if _beta_cdf(a, b, middle) < probability:
            low = middle
        else:
            high = middle
        if high - low < 1e-15:
            break
    return (low + high) / 2


def _beta_cdf(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction where that converges fast."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """1 / (1 + d1 / (1 + d2 / ...)) by Lentz's method."""
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for step in range(10_000):
        m = step // 2
        if step == 0:
            numerator = 1.0
        elif step % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 + numerator * d
        d = 1.0 / (d if abs(d) > tiny else tiny)
        c = 1.0 + numerator / c
        c = c if abs(c) > tiny else tiny
        change = c * d
        value *= change
        if abs(1.0 - change) < 1e-15:
            break
    return value - 1.0
