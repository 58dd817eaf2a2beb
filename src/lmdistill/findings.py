"""A report's findings as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmdistill.outcomes import Arm, Outcomes
from lmdistill.types import Estimate
from lmdistill.verdicts import LEVEL, Detectable, Pair

TEACHER = "The teacher"


def summary(outcomes: Outcomes, pairs: Sequence[Pair], limit: Detectable | None) -> list[str]:
    """What was found, what the test set cannot show, and what is missing."""
    told = list(_standing(outcomes, pairs))
    found = list(_efficiency(outcomes))
    teacher = outcomes.teacher()
    if teacher is not None and not found:
        told.append(f"{TEACHER}: {outcomes.metric} {_shown(teacher)}.")
    told += found
    if limit is not None:
        seen = "as these do" if limit.seen else "as methods with independent mistakes would"
        told.append(
            f"What {limit.n:,} test items can show: two runs that disagree {seen}, on {limit.discordant:.0%} of the "
            f"items, must differ by {100 * limit.difference:.1f} points to be told apart four times in five. Do not "
            "read less as progress."
        )
    if outcomes.failed:
        told.append(f"Failed and not counted: {len(outcomes.failed)}; the same command tries again.")
    if outcomes.waiting:
        told.append(f"Not done yet: {outcomes.waiting}.")
    return told


def _standing(outcomes: Outcomes, pairs: Sequence[Pair]) -> Iterator[str]:
    """Who leads in each group, and whom it beats."""
    metric = outcomes.metric
    for key, arms in outcomes.groups().items():
        ranked = [(arm, one) for arm in arms if (one := arm.estimate(metric)) is not None]
        ranked.sort(key=lambda pair: -pair[1].value)
        if not ranked:
            continue
        at = f"At {', '.join(f'{name} {value}' for name, value in key)}: " if key else ""
        (best, estimate), others = ranked[0], [arm for arm, _ in ranked[1:]]
        if not others:
            yield f"{at}{best.method}: {metric} {_shown(estimate)}."
            continue
        beaten: list[str] = []
        level: list[str] = []
        for arm in others:
            pair = next((one for one in pairs if {one.first, one.second} == {best.title, arm.title}), None)
            if pair is not None:
                (beaten if pair.significant else level).append(arm.method)
        lead = f"{at}{best.method} has the highest {metric}, {_shown(estimate)}"
        if beaten:
            lead += f"; it beats {_and(beaten)} (paired test on the same items, corrected, p < {LEVEL:g})"
        if level:
            lead += f"; it cannot be told apart from {_and(level)}"
        yield lead + "."


def _efficiency(outcomes: Outcomes) -> Iterator[str]:
    """The smallest share of the training data at which a method reaches the baseline on all of it, and the teacher."""
    sorts: dict[tuple[tuple[str, str], ...], dict[str, Arm]] = {}
    for key, group in outcomes.groups().items():
        rest = tuple(pair for pair in key if pair[0] != "fraction")
        sorts.setdefault(rest, {}).update({arm.title: arm for arm in group if "fraction" in arm.about})
    for rest, arms in sorts.items():
        shares = sorted({arm.about["fraction"] for arm in arms.values()})
        if len(shares) < 2:
            continue
        at = f" ({', '.join(f'{name} {value}' for name, value in rest)})" if rest else ""
        for name, bar in _bars(outcomes, list(arms.values()), shares[-1]):
            reached: list[str] = []
            never: list[str] = []
            for method in dict.fromkeys(arm.method for arm in arms.values()):
                own = sorted((arm for arm in arms.values() if arm.method == method), key=lambda a: a.about["fraction"])
                good = [a.about["fraction"] for a in own if (e := a.estimate(outcomes.metric)) and e.value >= bar]
                if method == outcomes.baseline and name != TEACHER:
                    continue
                (reached if good else never).append(f"{method} with {good[0]:.3g} of it" if good else method)
            parts = [f"is reached by {_and(reached)}"] if reached else []
            parts += [f"is not reached by {_and(never)}"] if never else []
            yield f"{name}{at}, {bar:.3f}, {'; it '.join(parts)}."


def _bars(outcomes: Outcomes, arms: Sequence[Arm], most: float) -> Iterator[tuple[str, float]]:
    for arm in arms:
        whole = arm.estimate(outcomes.metric)
        if arm.method == outcomes.baseline and arm.about["fraction"] == most and whole is not None:
            yield f"{arm.method} on {'all' if most == 1 else format(most, 'g') + ' of'} the data", whole.value
    teacher = outcomes.teacher()
    if teacher is not None:
        yield TEACHER, teacher.value


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
