"""Which method wins: every pair on the same test items, corrected for how many were looked at."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lmdistill import intervals
from lmdistill.outcomes import Arm, Outcomes
from lmdistill.significance import (
    approximate_randomisation,
    benjamini_hochberg,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_bootstrap,
    share_of_gap,
)
from lmdistill.types import Estimate

ALL_PAIRS_UP_TO = 6
"""Methods up to which every pair is tested; of more, each against the baseline."""
LEVEL = 0.05


Scores = dict[int, dict[str, float]]
"""Seed -> test item -> value."""


@dataclass(frozen=True)
class Pair:
    """Two methods on the same items and seeds: `value` is the mean of first minus second.

    `low` and `high` come from resampling test items (of the mean over seeds), `p` from swapping the two methods item
    by item. `seeds` is the mean difference with Student's interval over seeds, where there are several: it says
    whether the difference outlives another training. `mcnemar` has one p for each seed, where answers are right or
    wrong; `only_first` and `only_second` count such answers over all seeds.
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
    mcnemar: dict[str, float]
    only_first: int | None
    only_second: int | None
    holm: float = 1.0
    benjamini_hochberg: float = 1.0

    @property
    def significant(self) -> bool:
        return self.holm < LEVEL


@dataclass(frozen=True)
class Closed:
    """How much of the distance from the baseline to the ceiling a method closes; `share` is None without a gap."""

    where: str
    title: str
    method: str
    share: Estimate | None


@dataclass(frozen=True)
class Detectable:
    """What this test set can show: the smallest difference that is found 4 times in 5 at the 5 % level.

    `discordant` is the share of items that one of two methods alone gets right, as seen between the methods here
    (`seen`), or as it would be for methods whose mistakes have nothing to do with each other.
    """

    n: int
    discordant: float
    seen: bool
    difference: float


def pairs_of(outcomes: Outcomes) -> list[Pair]:
    """The pairs of every group, each once, with adjusted p values over all of them."""
    found: dict[tuple[str, str], Pair] = {}
    scores = {arm.title: arm.scores(outcomes.metric) for arm in outcomes.arms}
    for key, arms in outcomes.groups().items():
        where = ", ".join(f"{name} {value}" for name, value in key)
        for first, second in _chosen(arms, outcomes.baseline):
            if (first.title, second.title) in found:
                continue
            pair = _pair(where, first, second, scores[first.title], scores[second.title])
            if pair is not None:
                found[first.title, second.title] = pair
    every = list(found.values())
    strict, loose = holm([pair.p for pair in every]), benjamini_hochberg([pair.p for pair in every])
    return [
        Pair(**{**pair.__dict__, "holm": a, "benjamini_hochberg": b})
        for pair, a, b in zip(every, strict, loose, strict=True)
    ]


def gaps_closed(outcomes: Outcomes) -> list[Closed]:
    """The gap that each method closes, where the comparison names a ceiling and items are scored one by one."""
    found: dict[str, Closed] = {}
    for key, arms in outcomes.groups().items() if outcomes.ceiling else ():
        named = {arm.method: arm for arm in arms}
        low, high = named.get(outcomes.baseline), named.get(outcomes.ceiling or "")
        for arm in arms if low and high else ():
            if arm in (low, high) or arm.title in found:
                continue
            three = _by_item([one.scores(outcomes.metric) for one in (arm, low, high) if one])
            if three:
                where = ", ".join(f"{name} {value}" for name, value in key)
                found[arm.title] = Closed(where, arm.title, arm.method, share_of_gap(*three))
    return list(found.values())


def _by_item(every: Sequence[Scores]) -> list[list[float]]:
    """Each arm's mean over seeds of every item that all runs of all arms have scored."""
    runs = [[scores for scores in own.values() if scores] for own in every]
    if not all(runs):
        return []
    ids = [name for name in runs[0][0] if all(name in scores for own in runs for scores in own)]
    return [[sum(scores[name] for scores in own) / len(own) for name in ids] for own in runs] if ids else []


def _chosen(arms: Sequence[Arm], baseline: str) -> list[tuple[Arm, Arm]]:
    """Pairs to test, the baseline always second."""
    against = [arm for arm in arms if arm.method == baseline]
    others = [arm for arm in arms if arm.method != baseline]
    chosen = [(arm, base) for base in against for arm in others]
    if len(arms) <= ALL_PAIRS_UP_TO:
        chosen += itertools.combinations(others, 2)
    return chosen


def pair_of(where: str, first: Arm, second: Arm, metric: str) -> Pair | None:
    """Two arms, wherever they stand in the grid; p is not corrected. None where they share no scored items."""
    return _pair(where, first, second, first.scores(metric), second.scores(metric))


def _pair(where: str, first: Arm, second: Arm, left: Scores, right: Scores) -> Pair | None:
    """The pair, or None where the two share no scored items.

    A method with one run for all seeds (it has none) meets each seed of the other.
    """
    shared = sorted(left.keys() & right.keys()) if len(left) > 1 and len(right) > 1 else sorted(left | right)
    runs = [(seed, a, b) for seed in shared if (a := _of(left, seed)) and (b := _of(right, seed))]
    ids = [name for name in runs[0][1] if all(name in a and name in b for _, a, b in runs)] if runs else []
    if not ids:
        return None
    mine = [sum(a[name] for _, a, _ in runs) / len(runs) for name in ids]
    theirs = [sum(b[name] for _, _, b in runs) / len(runs) for name in ids]
    told = paired_bootstrap(mine, theirs)
    binary = all(value in (0.0, 1.0) for _, a, b in runs for name in ids for value in (a[name], b[name]))
    counts = {seed: (sum(a[i] > b[i] for i in ids), sum(a[i] < b[i] for i in ids)) for seed, a, b in runs}
    gaps = [sum(a[i] - b[i] for i in ids) / len(ids) for _, a, b in runs]
    return Pair(
        where,
        first.title,
        second.title,
        len(ids),
        told.value,
        told.low,
        told.high,
        approximate_randomisation(mine, theirs),
        intervals.over_seeds(gaps, len(ids)) if len(gaps) > 1 else None,
        {str(seed): mcnemar(*count) for seed, count in counts.items()} if binary else {},
        sum(a for a, _ in counts.values()) if binary else None,
        sum(b for _, b in counts.values()) if binary else None,
    )


def _of(scores: Scores, seed: int) -> dict[str, float] | None:
    return scores.get(seed) or (next(iter(scores.values())) if len(scores) == 1 else None)


def detectable(outcomes: Outcomes, pairs: Sequence[Pair]) -> Detectable | None:
    """What the test set can show of two runs, or None where answers are not right or wrong."""
    estimate = next((one for arm in outcomes.arms if (one := arm.estimate(outcomes.metric))), None)
    counted = [pair for pair in pairs if pair.only_first is not None and pair.only_second is not None]
    if counted:
        shares = [(pair.only_first + pair.only_second) / (pair.n * max(len(pair.mcnemar), 1)) for pair in counted]  # type: ignore[operator]
        share, n = sum(shares) / len(shares), min(pair.n for pair in counted)
        return Detectable(n, share, True, minimum_detectable_difference(n, share))
    if estimate is None or not estimate.n or not 0 <= estimate.value <= 1:
        return None
    scores = next((one for arm in outcomes.arms for one in arm.scores(outcomes.metric).values()), {})
    if not scores or not set(scores.values()) <= {0.0, 1.0}:
        return None
    share = 2 * estimate.value * (1 - estimate.value)
    return Detectable(estimate.n, share, False, minimum_detectable_difference(estimate.n, share))
