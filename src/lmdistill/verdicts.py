"""Two methods on the same test items: how far apart, how sure that is, and what the test set can show at all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from lmdistill import intervals
from lmdistill.arms import Arm, Scores, spread_of
from lmdistill.intervals import Noise, Spread
from lmdistill.outcomes import Outcomes
from lmdistill.significance import (
    approximate_randomisation,
    mcnemar,
    minimum_detectable_difference,
    over_trainings,
    paired_bootstrap,
    share_of_gap,
)
from lmdistill.types import Estimate

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Pair:
    """Two arms on the same items and seeds: `value` is the mean of first minus second.

    Of one training each (`trainings` 1), `low` and `high` come from resampling test items and `p` from swapping the
    two item by item: they speak of these two students. Of several, both count the seeds' variance beside the items'
    (see `significance.over_trainings`), and are never surer than the items alone: they speak of the methods.

    `seeds` is the mean difference with Student's interval over seeds alone. `mcnemar` has one p for each seed, where
    answers are right or wrong; `only_first` and `only_second` count such answers over all seeds. `left_out` counts
    items that only one of the two was asked, `family` names the question that the pair belongs to, `axis` the setting
    that sets the two apart where that is all, and `tests` how many pairs the corrected p values are corrected for.
    """

    where: str
    first: str
    second: str
    n: int
    value: float
    low: float
    high: float
    p: float
    seeds: Estimate | None
    mcnemar: Mapping[str, float]
    only_first: int | None
    only_second: int | None
    trainings: int
    seed_error: float
    item_error: float
    freedom: float
    left_out: int = 0
    family: str = "methods"
    axis: str = ""
    tests: int = 1
    holm: float = 1.0
    benjamini_hochberg: float = 1.0

    @property
    def significant(self) -> bool:
        return self.holm < LEVEL

    @property
    def noise(self) -> Noise:
        return Noise(self.seed_error**2, self.item_error**2, self.freedom)


@dataclass(frozen=True)
class Closed:
    """How much of the distance from the baseline to the ceiling a method closes; `share` is None without a gap."""

    where: str
    title: str
    method: str
    share: Estimate | None


@dataclass(frozen=True)
class Detectable:
    """What this test set can show: the smallest difference that is found 4 times in 5, at the level that is tested.

    `difference` is that of the middle one of the pairs tested, or None where they could not be told apart whatever
    they did. `discordant` is the share of items that one of two methods alone gets right, where answers are right or
    wrong: as seen between the methods here (`seen`), or for methods whose mistakes have nothing to do with each other.
    """

    n: int
    discordant: float | None
    seen: bool
    difference: float | None
    tests: int = 1
    trainings: int = 1


def gaps_closed(outcomes: Outcomes) -> list[Closed]:
    """The gap that each method closes, where the comparison names a ceiling and items are scored one by one."""
    found: dict[str, Closed] = {}
    for key, arms in outcomes.groups().items() if outcomes.ceiling else ():
        named = {arm.method: arm for arm in arms}
        low, high = named.get(outcomes.baseline), named.get(outcomes.ceiling or "")
        among = spread_of(arms, outcomes.metric)
        for arm in arms if low and high else ():
            if arm in (low, high) or arm.title in found:
                continue
            three = _by_item([one.scores(outcomes.metric) for one in (arm, low, high) if one])
            if three:
                sign = -1 if outcomes.lower else 1
                kd, student, teacher = ([[sign * one for one in row] for row in rows] for rows in three)
                where = ", ".join(f"{name} {value}" for name, value in key)
                found[arm.title] = Closed(where, arm.title, arm.method, share_of_gap(kd, student, teacher, among))
    return list(found.values())


def _by_item(every: Sequence[Scores]) -> list[list[list[float]]]:
    """Each arm's values [trainings, items] of the items that all runs of all arms have scored."""
    runs = [[scores for scores in own.values() if scores] for own in every]
    if not all(runs):
        return []
    ids = [name for name in runs[0][0] if all(name in scores for own in runs for scores in own)]
    return [[[scores[name] for name in ids] for scores in own] for own in runs] if ids else []


def pair_of(where: str, first: Arm, second: Arm, metric: str, among: Spread | None = None) -> Pair | None:
    """Two arms, wherever they stand in the grid; p is not corrected. None where they share no scored items.

    Seeds that both have count. An arm that trains nothing meets every seed of the other; two arms of one seed each are
    two students, whatever their seeds are called. `among` is how far trainings of all methods here vary.
    """
    left, right = first.scores(metric), second.scores(metric)
    if not left or not right:
        return None
    if first.seedless or second.seedless or len(left) == len(right) == 1:
        seeds = list(right if first.seedless else left)
        mine, theirs = list(left.values()), list(right.values())
    else:
        seeds = sorted(left.keys() & right.keys())
        mine, theirs = [left[seed] for seed in seeds], [right[seed] for seed in seeds]
    ids = [name for name in mine[0] if all(name in own for own in (*mine, *theirs))] if mine and theirs else []
    if not ids:
        return None
    every = {name for own in (*left.values(), *right.values()) for name in own}
    a, b = ([[own[name] for name in ids] for own in runs] for runs in (mine, theirs))
    pair = _tested(where, (first.title, second.title), a, b, [str(seed) for seed in seeds], among)
    return replace(pair, left_out=len(every) - len(ids))


def _tested(
    where: str,
    titles: tuple[str, str],
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    names: Sequence[str],
    among: Spread | None,
) -> Pair:
    """The pair's numbers from values [trainings, items]; `names` are its seeds, for all of which a method without
    training has one run."""
    value, noise = over_trainings(a, b, among)
    means = [[sum(column) / len(column) for column in zip(*rows, strict=True)] for rows in (a, b)]
    told = paired_bootstrap(means[0], means[1])
    low, high, p = told.low, told.high, approximate_randomisation(means[0], means[1])
    if len(names) > 1:
        half = noise.half()
        low, high, p = min(low, value - half), max(high, value + half), max(p, noise.p(value))
    runs = [(a[place % len(a)], b[place % len(b)]) for place in range(len(names))]
    binary = all(one in (0.0, 1.0) for rows in (a, b) for row in rows for one in row)
    counts = [
        (sum(x > y for x, y in zip(*run, strict=True)), sum(x < y for x, y in zip(*run, strict=True))) for run in runs
    ]
    gaps = [(sum(one) - sum(other)) / len(one) for one, other in runs]
    return Pair(
        where,
        *titles,
        len(a[0]),
        value,
        low,
        high,
        p,
        intervals.over_seeds(gaps, len(a[0])) if len(gaps) > 1 else None,
        {name: mcnemar(*count) for name, count in zip(names, counts, strict=True)} if binary else {},
        sum(one for one, _ in counts) if binary else None,
        sum(other for _, other in counts) if binary else None,
        trainings=len(names),
        seed_error=math.sqrt(noise.seeds),
        item_error=math.sqrt(noise.items),
        freedom=noise.freedom,
    )


def detectable(outcomes: Outcomes, pairs: Sequence[Pair]) -> Detectable | None:
    """What the test set can show of the pairs that were tested; without any, of two runs like the first one."""
    asked = [pair for pair in pairs if pair.family == "methods"] or list(pairs)
    if asked:
        middle = statistics.median_high([found_four_times_in_five(pair) for pair in asked])
        shares = [own for pair in asked if (own := _discordant(pair)) is not None]
        return Detectable(
            n=min(pair.n for pair in asked),
            discordant=sum(shares) / len(shares) if len(shares) == len(asked) else None,
            seen=True,
            difference=middle if math.isfinite(middle) else None,
            tests=max(pair.tests for pair in asked),
            trainings=min(pair.trainings for pair in asked),
        )
    estimate = next((one for arm in outcomes.arms if (one := arm.estimate(outcomes.metric))), None)
    if estimate is None or not estimate.n or not 0 <= estimate.value <= 1:
        return None
    scores = next((one for arm in outcomes.arms for one in arm.scores(outcomes.metric).values()), {})
    if not scores or not set(scores.values()) <= {0.0, 1.0}:
        return None
    apart = 2 * estimate.value * (1 - estimate.value)
    least = minimum_detectable_difference(estimate.n, apart)
    return Detectable(estimate.n, apart, False, least if least < apart - 1e-9 else None)


def found_four_times_in_five(pair: Pair) -> float:
    """The difference that this pair's test would find so often at its corrected level; infinite where there is none."""
    level, share = LEVEL / max(pair.tests, 1), _discordant(pair)
    if pair.trainings == 1 and share is not None:
        least = minimum_detectable_difference(pair.n, share, level=level, power=POWER)
        return least if least < share - 1e-9 else math.inf
    noise = pair.noise
    error = math.sqrt(noise.seeds + noise.items)
    least = noise.half(1 - level) + NormalDist().inv_cdf(POWER) * error
    return least if error > 0 and (share is None or least < 1) else math.inf


def _discordant(pair: Pair) -> float | None:
    if pair.only_first is None or pair.only_second is None:
        return None
    return (pair.only_first + pair.only_second) / (pair.n * max(pair.trainings, 1))
