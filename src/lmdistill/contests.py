"""Which pairs are tested: methods against each other, settings of one method, little data against the baseline on all.

Each of the three is a question of its own (a pair's `family`), and p values are corrected within it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lmdistill.arms import Arm, spread_of
from lmdistill.evaluate import lower_is_better
from lmdistill.grid import brief
from lmdistill.outcomes import Outcomes
from lmdistill.significance import benjamini_hochberg, holm
from lmdistill.verdicts import Pair, pair_of

ALL_PAIRS_UP_TO = 6
"""Methods up to which every pair is tested; of more, each against the baseline and against the best."""
SHARE = "fraction"


def pairs_of(outcomes: Outcomes) -> list[Pair]:
    """Every pair that is tested, each once, with p values adjusted over all of its family."""
    return [*_methods(outcomes), *_settings(outcomes), *_shares(outcomes)]


def _methods(outcomes: Outcomes) -> list[Pair]:
    """The pairs within each group. The best one's are chosen by looking, so they are corrected for all pairs there."""
    found: dict[frozenset[str], Pair] = {}
    possible: set[frozenset[str]] = set()
    for key, arms in outcomes.contenders().items():
        where, chosen, spread = place_of(key), chosen_pairs(arms, outcomes), spread_of(arms, outcomes.metric)
        if len(chosen) < len(arms) * (len(arms) - 1) // 2:
            possible |= {frozenset((a.title, b.title)) for a, b in itertools.combinations(arms, 2)}
        for first, second in chosen:
            both = frozenset((first.title, second.title))
            pair = None if both in found else pair_of(where, first, second, outcomes.metric, spread)
            if pair is not None:
                found[both] = pair
                possible.add(both)
    return _corrected(list(found.values()), len(possible))


def chosen_pairs(arms: Sequence[Arm], outcomes: Outcomes) -> list[tuple[Arm, Arm]]:
    """Pairs of a group to test, the baseline always second; all of them where there is none."""
    against = [arm for arm in arms if arm.method == outcomes.baseline]
    others = [arm for arm in arms if arm.method != outcomes.baseline]
    chosen = [(arm, base) for base in against for arm in others]
    if len(arms) <= ALL_PAIRS_UP_TO or not against:
        return chosen + list(itertools.combinations(others, 2))
    best = leader(arms, outcomes.metric)
    return chosen + [(best, arm) for arm in others if best is not arm and best not in against]


def leader(arms: Sequence[Arm], metric: str) -> Arm:
    """The best one."""
    return max(arms, key=lambda arm: goodness(arm, metric))


def goodness(arm: Arm, metric: str) -> float:
    """A number that is higher where an arm is better; without a value it is the lowest that there is."""
    found = arm.estimate(metric)
    return -math.inf if found is None else -found.value if lower_is_better(metric) else found.value


def _settings(outcomes: Outcomes) -> list[Pair]:
    """Along each axis of each method: values against the first one, shares of the data against the largest."""
    found = []
    arms = [arm for arm in outcomes.arms if arm.method not in outcomes.aside and arm.estimate(outcomes.metric)]
    for axis in dict.fromkeys(key for arm in arms for key in arm.about):
        lines: dict[tuple[str, str], list[Arm]] = {}
        for arm in arms:
            if axis in arm.about:
                rest = ", ".join(f"{key} {brief(value)}" for key, value in arm.about.items() if key != axis)
                lines.setdefault((arm.method, rest), []).append(arm)
        for (_, rest), line in lines.items():
            reference, spread = reference_of(line, axis), spread_of(line, outcomes.metric)
            for arm in line:
                pair = pair_of(rest, arm, reference, outcomes.metric, spread) if arm is not reference else None
                if pair is not None:
                    found.append(replace(pair, family="settings", axis=axis))
    return _corrected(found, len(found))


def reference_of(line: Sequence[Arm], axis: str) -> Arm:
    """What the other values of an axis are measured against."""
    return max(line, key=lambda arm: float(arm.about[SHARE])) if axis == SHARE else line[0]


def _shares(outcomes: Outcomes) -> list[Pair]:
    """Each method on less data against the baseline on the most."""
    found = []
    for rest, arms, bar in bars(outcomes):
        spread = spread_of(arms, outcomes.metric)
        for arm in arms:
            if arm.method != bar.method and arm.about[SHARE] != bar.about[SHARE]:
                pair = pair_of(place_of(rest), arm, bar, outcomes.metric, spread)
                if pair is not None:
                    found.append(replace(pair, family="shares"))
    return _corrected(found, len(found))


def bars(outcomes: Outcomes) -> Iterator[tuple[tuple[tuple[str, str], ...], list[Arm], Arm]]:
    """Where there are several shares of the data: the other choices, the arms there, the baseline on the most."""
    for rest, arms in by_share(outcomes).items():
        most = max(arm.about[SHARE] for arm in arms)
        bar = next((arm for arm in arms if arm.method == outcomes.baseline and arm.about[SHARE] == most), None)
        if bar is not None:
            yield rest, arms, bar


def by_share(outcomes: Outcomes) -> dict[tuple[tuple[str, str], ...], list[Arm]]:
    """The arms that have a share of the data, by the rest of their place in the grid, where shares differ."""
    found: dict[tuple[tuple[str, str], ...], dict[str, Arm]] = {}
    for key, arms in outcomes.contenders().items():
        rest = tuple(part for part in key if part[0] != SHARE)
        found.setdefault(rest, {}).update({arm.title: arm for arm in arms if SHARE in arm.about})
    several = {rest: list(arms.values()) for rest, arms in found.items()}
    return {rest: arms for rest, arms in several.items() if len({arm.about[SHARE] for arm in arms}) > 1}


def place_of(key: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in key)


def _corrected(pairs: Sequence[Pair], tests: int) -> list[Pair]:
    strict = holm([pair.p for pair in pairs], chosen_among=tests)
    loose = benjamini_hochberg([pair.p for pair in pairs], chosen_among=tests)
    return [
        replace(pair, holm=a, benjamini_hochberg=b, tests=max(tests, len(pairs)))
        for pair, a, b in zip(pairs, strict, loose, strict=True)
    ]
