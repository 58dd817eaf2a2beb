"""Confidence intervals: for a share of successes, over seeds and items, and by resampling for everything else."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
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

    It says how far the mean moves with another training on the same test items, and nothing of other items: see
    `over_seeds_and_items`.

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


class Crossed(NamedTuple):
    """What a mean over seeds and items varies by: the variance of the mean that each of three sources puts into it.

    `seeds` and `items` hold the `residual` too (what one training says of one item by chance), as their mean squares
    do, so that the variance of the mean is seeds + items - residual.
    """

    mean: float
    seeds: float
    items: float
    residual: float


class Noise(NamedTuple):
    """The variance of a mean: what comes from trainings, known with `freedom` degrees, and what comes from items."""

    seeds: float
    items: float
    freedom: float

    def half(self, level: float = 0.95) -> float:
        """Half the interval's width: Student's for seeds and the normal one for items, as squares.

        >>> round(Noise(0.0, 0.0001, 0).half(), 4), round(Noise(0.0001, 0.0, 2).half(), 4)
        (0.0196, 0.043)
        """
        normal = NormalDist().inv_cdf(0.5 + level / 2)
        student = student_quantile(0.5 + level / 2, self.freedom) if self.seeds > 0 else 0.0
        return math.sqrt(student**2 * self.seeds + normal**2 * self.items)

    def p(self, value: float) -> float:
        """The two-sided p of no difference: 1 minus the level whose interval just reaches 0.

        >>> noise = Noise(0.0001, 0.0002, 4)
        >>> round(noise.p(noise.half(0.99)), 6), noise.p(0.0)
        (0.01, 1.0)
        """
        value = abs(value)
        if value == 0:
            return 1.0
        if self.seeds <= 0:
            return 2 * NormalDist().cdf(-value / math.sqrt(self.items)) if self.items > 0 else 0.0
        low, high = 0.0, value / math.sqrt(self.seeds)
        for _ in range(60):
            middle = (low + high) / 2
            p = max(_student_tails(middle, self.freedom), 1e-300)
            reach = middle**2 * self.seeds + NormalDist().inv_cdf(p / 2) ** 2 * self.items
            low, high = (middle, high) if reach < value**2 else (low, middle)
        return _student_tails(low, self.freedom)


UNLIKE = 0.05
"""The level at which trainings of some methods are said to vary more than those of others."""


class Spread(NamedTuple):
    """How far apart trainings of one method come out: the variance of one, and the degrees of freedom behind it.

    `alike` is false where one of the methods that it was pooled from surely varies more than the others do.
    """

    variance: float
    freedom: int
    alike: bool = True


def pooled(runs: Sequence[Sequence[float]]) -> Spread | None:
    """The variance of a training from the values of several methods' seeds; None where none has two.

    They count as alike unless, after Bonferroni's correction, an F test finds one method to vary more than the others
    do together (p < 0.05): Cochran's test of an outlying variance, for any numbers of seeds.

    >>> pooled([[0.5, 1.0], [0.5, 1.0, 0.0, 0.5], [0.9]])  # (0.125 + 0.5) / (1 + 3)
    Spread(variance=0.15625, freedom=4, alike=True)
    >>> pooled([[0.5, 0.51, 0.52], [0.3, 0.31, 0.32], [0.1, 0.5, 0.9]]).alike
    False
    """
    known = [(len(own) - 1, _squares(own)) for own in runs if len(own) > 1]
    freedom, squares = sum(one for one, _ in known), math.fsum(one for _, one in known)
    if not known:
        return None
    lowest = min(f_tail(one, freedom - one, own, squares - own) for one, own in known) if len(known) > 1 else 1.0
    return Spread(squares / freedom, freedom, lowest * len(known) >= UNLIKE)


def _squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


def f_tail(freedom: int, others: int, squares: float, rest: float) -> float:
    """The chance that an F of these degrees of freedom is above that of two sums of squares."""
    if squares <= 0:
        return 1.0
    return _beta_cdf(others / 2, freedom / 2, max(rest, 0.0) / (max(rest, 0.0) + squares))


def crossed(values: Sequence[Sequence[float]] | Any) -> Crossed:
    """The mean of numbers [seeds, items] and its variances, from the mean squares of the two-way table.

    >>> [round(one, 4) for one in crossed([[1, 0, 1, 1], [1, 0, 0, 1]])]
    [0.625, 0.0156, 0.0573, 0.0156]
    """
    import numpy

    table = numpy.asarray(values, dtype=float)
    seeds, items = table.shape
    rows, columns, mean = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    spread = float(columns.var(ddof=1)) / items if items > 1 else 0.0
    if seeds < 2:
        return Crossed(mean, 0.0, spread, 0.0)
    between = float(rows.var(ddof=1)) / seeds
    rest = table - rows[:, None] - columns[None, :] + mean
    residual = float((rest**2).sum()) / ((seeds - 1) * max(items - 1, 1)) / (seeds * items)
    return Crossed(mean, between, spread, residual)


def over_seeds_and_items(values: Sequence[Sequence[float]] | Any) -> Estimate:
    """The mean of numbers [seeds, items] with an interval for other trainings and other items of the same kinds.

    Its half width is the root of Student's half width over seeds squared plus the normal one over items squared. What
    chance does to single answers stands in both, and is taken from the seeds' part where there are seeds enough to
    see it (3). Numbers from 0 to 1 have an interval within 0 and 1, Wilson's where no number differs.

    Raises:
        ValueError: no numbers.
    """
    import numpy

    table = numpy.asarray(values, dtype=float)
    if table.ndim != 2 or not table.size:
        raise ValueError("an interval needs at least one value")
    seeds, items = table.shape
    found = crossed(table)
    if seeds > 2:
        noise = Noise(max(found.seeds - found.residual, 0.0), found.items, seeds - 1)
    else:
        noise = Noise(found.seeds, max(found.items - found.residual, 0.0), seeds - 1)
    half = noise.half()
    low, high = found.mean - half, found.mean + half
    if table.min() >= 0 and table.max() <= 1:
        low, high = max(0.0, low), min(1.0, high)
        if half == 0:
            low, high = wilson(found.mean * items, items)
    return Estimate(found.mean, low, high, items)


def over_runs(values: Sequence[float], runs: Sequence[Estimate]) -> Estimate:
    """The mean of runs of which only a value and an interval over items is known; for other seeds alone.

    Runs that all found the same keep the interval over items, and shares stay within 0 and 1.

    >>> over_runs([0.9, 1.0], [Estimate(0.9, 0.7, 1.0, 10), Estimate(1.0, 0.7, 1.0, 10)]).high
    1.0
    """
    if runs and len(set(values)) == 1:
        return runs[0]
    found = over_seeds(values, runs[0].n if runs else 0)
    if runs and all(one.low >= 0 and one.high <= 1 for one in runs):
        found = Estimate(found.value, max(0.0, found.low), min(1.0, found.high), found.n)
    return found


def of_runs(values: Mapping[int, float], scores: Mapping[int, Mapping[str, float]]) -> Estimate | None:
    """The mean of runs, with an interval over seeds and items, from what each run scored on each item.

    None where the runs did not score the same items, or a run's value is not its items' mean (as BLEU's is not).

    >>> of_runs({0: 0.5, 1: 1.0}, {0: {"a": 1.0, "b": 0.0}, 1: {"a": 1.0, "b": 1.0}}).value
    0.75
    """
    if not values or scores.keys() != values.keys() or len({frozenset(own) for own in scores.values()}) > 1:
        return None
    names = list(next(iter(scores.values())))
    table = [[scores[seed][name] for name in names] for seed in values]
    if not names or any(abs(sum(row) / len(row) - one) > 1e-6 for row, one in zip(table, values.values(), strict=True)):
        return None
    return over_seeds_and_items(table)


@functools.lru_cache(maxsize=256)
def student_quantile(probability: float, freedom: float) -> float:
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


def _student_tails(t: float, freedom: float) -> float:
    """The chance that Student's t lies further from 0 than this."""
    return _beta_cdf(freedom / 2, 0.5, freedom / (freedom + t * t))


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
