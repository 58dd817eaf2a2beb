"""Is one method better than another on the same test items? Paired tests, corrections, and what can be seen at all.

Of one training of each method, items are what is resampled: that tells two students apart. Of several, the trainings
are a sample too (`over_trainings`): a method that is trained twice gives two students, and one of them is the better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

from lmdistill.intervals import UNLIKE, Noise, Spread, crossed, f_tail, pooled
from lmdistill.types import Estimate

EXACT_UP_TO = 14
"""Non-zero differences up to which every pattern of signs is tried instead of random ones."""

FARTHEST = 1000.0
"""Shares of a gap beyond which an interval says nothing."""


class Difference(NamedTuple):
    """A mean difference (first minus second), its 95 % interval, and the two-sided p of no difference."""

    value: float
    low: float
    high: float
    p: float


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test, from the items that only one of two methods got right.

    Under no difference each such item is a fair coin: p = min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2).

    >>> mcnemar(1, 7)  # 2 * (1 + 8) / 256
    0.0703125
    >>> mcnemar(0, 0)
    1.0

    Raises:
        ValueError: a negative count.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"expected counts of 0 or more, got {only_first} and {only_second}")
    n, few = only_first + only_second, min(only_first, only_second)
    ways, tail = 1, 1
    for k in range(1, few + 1):
        ways = ways * (n - k + 1) // k
        tail += ways
    return min(1.0, 2 * tail / (1 << n))


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95, resamples: int = 5000, seed: int = 0
) -> Difference:
    """The mean difference with its percentile interval, resampling items; p is twice the smaller tail at zero.

    Args:
        first, second: a value for each item, in the same order.

    Raises:
        ValueError: no items, or not the same number.
    """
    import numpy

    differences = _differences(first, second)
    rng = numpy.random.default_rng(seed)
    means = []
    at_once = max(1, min(resamples, 2_000_000 // len(differences)))
    for start in range(0, resamples, at_once):
        drawn = rng.integers(0, len(differences), size=(min(at_once, resamples - start), len(differences)))
        means.append(differences[drawn].mean(axis=1))
    found = numpy.concatenate(means)
    low, high = numpy.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    below, above = int((found <= 0).sum()), int((found >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (resamples + 1))
    return Difference(float(differences.mean()), float(low), float(high), p)


def over_trainings(
    first: Sequence[Sequence[float]] | Any, second: Sequence[Sequence[float]] | Any, among: Spread | None = None
) -> tuple[float, Noise]:
    """The mean difference of two methods from values [trainings, items], and its noise over trainings and items.

    The items are the same for both; trainings are drawn for each method by itself. A method with one row is taken as
    it is (it has no training), so that its trainings add no variance. `among` is what all methods of a comparison show
    of how trainings vary, these two among them: see `_of_trainings`.

    Raises:
        ValueError: not the same number of items.
    """
    import numpy

    a, b = numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)
    each = _differences(a.mean(axis=0), b.mean(axis=0))
    mine, theirs = crossed(a), crossed(b)
    both = crossed(each[None, :])
    seeds, freedom = _of_trainings([(1.0, mine.seeds, len(a)), (1.0, theirs.seeds, len(b))], among)
    items = max(both.items - mine.residual - theirs.residual, 0.0) if freedom else both.items
    return both.mean, Noise(seeds, items, freedom)


def _of_trainings(parts: Sequence[tuple[float, float, int]], among: Spread | None) -> tuple[float, float]:
    """The variance that trainings put into a weighted sum of methods' means, and its degrees of freedom.

    A few trainings of two methods know little of it, so all methods of a comparison pool theirs (`among`), and that
    counts with its many degrees of freedom unless these vary more. Where one method surely varies more than the others
    do, or these do, nothing is pooled: each has its own variance, with Welch and Satterthwaite's degrees of freedom.

    Args:
        parts: for each method its squared weight, the variance of its mean over trainings, and how many those are.
    """
    known = [(weight, variance, count) for weight, variance, count in parts if count > 1]
    own = sum(weight * variance for weight, variance, _ in known)
    alone = sum(count - 1 for *_, count in known)
    if not known or among is None:
        return own, alone
    squares = sum(variance * count * (count - 1) for _, variance, count in known)
    rest, freedom = among.variance * among.freedom - squares, among.freedom - alone
    if not among.alike or (freedom > 0 and f_tail(alone, freedom, squares, rest) < UNLIKE):
        spread = sum((weight * variance) ** 2 / (count - 1) for weight, variance, count in known)
        return own, own**2 / spread if spread > 0 else alone
    return max(own, among.variance * sum(weight / count for weight, _, count in known)), among.freedom


def share_of_gap(
    distilled: Sequence[Any] | Any,
    student: Sequence[Any] | Any,
    teacher: Sequence[Any] | Any,
    among: Spread | None = None,
) -> Estimate | None:
    """The share of the distance from a fine-tuned student to its teacher that distillation closes.

    Equation:  (KD - S) / (T - S), each a mean over test items and trainings. The interval is Fieller's: all shares r
               for which KD - (1 - r) S - r T lies within its noise over trainings and items.
    Source: Calderon et al., arXiv 2305.02031, section 5 (which gives no intervals).

    Args:
        distilled, student, teacher: values [trainings, items], or [items] of one training; the items are the same.
        among: as in `over_trainings`.

    Returns:
        None where the 95 % interval of T - S does not lie above 0: then there is no gap that could be closed. None too
        where the noise allows any share.

    Raises:
        ValueError: no items, or not the same number.
    """
    import numpy

    tables = [numpy.atleast_2d(numpy.asarray(one, dtype=float)) for one in (distilled, student, teacher)]
    kd, s, t = (one.mean(axis=0) for one in tables)
    gained, gap = _differences(kd, s), _differences(t, s)
    known = [crossed(one) for one in tables]
    among = among or pooled([one.mean(axis=1).tolist() for one in tables])

    def noise(weights: Sequence[float], each: Any) -> Noise:
        """Of a sum of the three: `weights` are squared, `each` is the sum for each item."""
        parts = [(weight, own.seeds, len(one)) for weight, own, one in zip(weights, known, tables, strict=True)]
        seeds, freedom = _of_trainings(parts, among)
        chance = sum(weight * own.residual for weight, own in zip(weights, known, strict=True))
        items = crossed(each[None, :]).items
        return Noise(seeds, max(items - chance, 0.0) if freedom else items, freedom)

    if float(gap.mean()) <= noise((0.0, 1.0, 1.0), gap).half():
        return None

    def outside(share: float) -> bool:
        each = gained - share * gap
        return abs(float(each.mean())) > noise((1.0, (1 - share) ** 2, share**2), each).half()

    middle = float(gained.mean() / gap.mean())
    ends = []
    for step in (-1e-9, 1e-9):
        while not outside(middle + step):
            step *= 2
            if abs(step) > FARTHEST:
                return None
        near, far = step / 2, step
        for _ in range(60):
            half = (near + far) / 2
            near, far = (near, half) if outside(middle + half) else (half, far)
        ends.append(middle + far)
    return Estimate(middle, ends[0], ends[1], len(gap))


def approximate_randomisation(
    first: Sequence[float], second: Sequence[float], *, draws: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p of no difference: how often swapping the two methods on random items gives as large a difference.

    All patterns of swaps are tried where few items differ, and differences of one size are McNemar's exact test; else
    p = (as large + 1) / (draws + 1), or Hoeffding's bound 2 exp(-sum^2 / 2 sum of squares) where that is smaller: it
    is never below the p of all patterns, and goes on where random ones find nothing.

    >>> approximate_randomisation([1, 1, 1, 1], [0, 0, 0, 0])  # of 16 patterns of signs, 2 are as large
    0.125

    Raises:
        ValueError: no items, or not the same number.
    """
    import numpy

    every = _differences(first, second)
    differences = every[every != 0]
    count = len(differences)
    if not count:
        return 1.0
    seen = abs(differences.sum()) - 1e-9  # equal sums may differ in their last digit
    if count <= EXACT_UP_TO:
        signs = 1 - 2 * ((numpy.arange(2**count)[:, None] >> numpy.arange(count)) & 1)
        return float((abs(signs @ differences) >= seen).mean())
    if numpy.ptp(abs(differences)) < 1e-12:
        return mcnemar(int((differences > 0).sum()), int((differences < 0).sum()))
    rng = numpy.random.default_rng(seed)
    larger, at_once = 0, max(1, 2_000_000 // count)
    for start in range(0, draws, at_once):
        signs = rng.integers(0, 2, size=(min(at_once, draws - start), count)) * 2 - 1
        larger += int((abs(signs @ differences) >= seen).sum())
    bound = 2 * math.exp(-(max(seen, 0.0) ** 2) / (2 * float((differences**2).sum())))
    return min((larger + 1) / (draws + 1), bound)


def holm(ps: Sequence[float], chosen_among: int = 0) -> list[float]:
    """Holm's adjusted p values: the chance of even one false alarm among all stays below the level.

    Args:
        chosen_among: how many tests there were to choose from, where these were chosen by their results.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, worst, count = [0.0] * len(ps), 0.0, max(len(ps), chosen_among)
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (count - rank) * ps[index]))
        adjusted[index] = worst
    return adjusted


def benjamini_hochberg(ps: Sequence[float], chosen_among: int = 0) -> list[float]:
    """Benjamini and Hochberg's adjusted p values: the share of false alarms among the alarms stays below the level.

    Args:
        chosen_among: as of `holm`; the tests that were not chosen count as ones that found nothing.

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    adjusted, best, count = [0.0] * len(ps), 1.0, max(len(ps), chosen_among)
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    for rank in range(len(ps), 0, -1):
        index = order[rank - 1]
        best = min(best, ps[index] * count / rank)
        adjusted[index] = best
    return adjusted


def minimum_detectable_difference(n: int, discordant: float, *, level: float = 0.05, power: float = 0.8) -> float:
    """The smallest difference in accuracy that McNemar's test on n items finds with this power.

    Solves n = (z_level sqrt(d) + z_power sqrt(d - x^2))^2 / x^2 for x (Connor 1987), at most d itself.

    Args:
        discordant: the share d of items that only one of the two methods gets right. Two methods of accuracy a whose
            mistakes have nothing to do with each other have d = 2 a (1 - a); real ones share mistakes and have less.

    >>> round(minimum_detectable_difference(200, 0.2), 3)
    0.088

    Raises:
        ValueError: n below 1, or a share outside [0, 1].
    """
    if n < 1 or not 0 <= discordant <= 1:
        raise ValueError(f"expected n >= 1 and a share from 0 to 1, got {n} and {discordant}")
    alarm, find = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    low, high = 0.0, discordant
    for _ in range(60):
        x = (low + high) / 2
        found = x * math.sqrt(n) >= alarm * math.sqrt(discordant) + find * math.sqrt(max(discordant - x * x, 0.0))
        low, high = (low, x) if found else (x, high)
    return high


def _differences(first: Sequence[float], second: Sequence[float]) -> Any:
    import numpy

    if len(first) != len(second) or not len(first):
        raise ValueError(f"expected the same items for both, at least one; got {len(first)} and {len(second)}")
    return numpy.asarray(first, dtype=float) - numpy.asarray(second, dtype=float)
