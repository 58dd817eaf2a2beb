"""A report's findings as sentences."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmdistill.arms import Arm, Run
from lmdistill.contests import SHARE, bars, by_share, goodness, leader, place_of
from lmdistill.grid import brief
from lmdistill.outcomes import Outcomes
from lmdistill.quantities import money
from lmdistill.types import Estimate
from lmdistill.verdicts import LEVEL, Detectable, Pair

TEACHER = "The teacher"
ANSWERS = 100_000
"""Answers over which methods are called cheap or dear."""
FEW = 10
"""Test items below which it is not told that answers are much the same."""
SPELLED_OUT = 12
"""Values of a setting up to which a sentence names each; of more, those that surely differ."""


def summary(
    outcomes: Outcomes,
    pairs: Sequence[Pair],
    limit: Detectable | None,
    bills: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """What was found, what the test set cannot show, and what is missing. `bills` are by arm's title."""
    told = list(_standing(outcomes, pairs))
    told += _aside(outcomes)
    told += _monotonous(outcomes)
    found = list(_efficiency(outcomes, pairs))
    teacher = outcomes.teacher()
    if teacher is not None and not any(one.startswith(TEACHER) for one in found):
        told.append(f"{TEACHER}: {outcomes.metric} {_shown(teacher)}.")
    elif teacher is None:
        told += _teachers(outcomes)
    told += found
    told += _along(outcomes, pairs)
    told += _cheapest(outcomes, pairs, bills or {})
    if limit is not None:
        told.append(_can_show(outcomes, limit))
    told += _missing(outcomes, pairs)
    return told


def _standing(outcomes: Outcomes, pairs: Sequence[Pair]) -> Iterator[str]:
    """Who leads in each group, and whom it beats."""
    metric = outcomes.metric
    for key, arms in outcomes.contenders().items():
        at = f"At {place_of(key)}: " if key else ""
        best = leader(arms, metric)
        estimate = best.estimate(metric)
        if estimate is None:
            continue
        if len(arms) == 1:
            yield f"{at}{best.method}: {metric} {_shown(estimate)}."
            continue
        beaten: dict[bool, list[str]] = {True: [], False: []}
        level, apart, turned = [], [], []
        for arm in sorted(arms, key=lambda one: -goodness(one, metric)):
            pair = _pair(pairs, best, arm)
            if arm is best:
                continue
            if pair is None:
                apart.append(arm.method)
            elif pair.significant and _ahead(pair, best, outcomes):
                beaten[pair.trainings > 1 or (best.seedless and arm.seedless)].append(arm.method)
            elif pair.significant:
                turned.append(arm.method)
            else:
                level.append(arm.method)
        lead = f"{at}{best.method} has the {'lowest' if outcomes.lower else 'highest'} {metric}, {_shown(estimate)}"
        if beaten[True]:
            trained = "several trainings, " if not all(arm.seedless for arm in arms) else ""
            lead += f"; it beats {_and(beaten[True])} (same items, {trained}corrected, p < {LEVEL:g})"
        if beaten[False]:
            lead += (
                f"; its student beats that of {_and(beaten[False])} (same items, corrected, p < {LEVEL:g}; one "
                "training each: this is about these two students, not about the methods)"
            )
        if level:
            lead += f"; it cannot be told apart from {_and(level)}"
        if turned:
            be = "is" if len(turned) == 1 else "are"
            lead += f"; on the seeds and items that both have, {_and(turned)} {be} surely better than it"
        if apart and not best.scores(metric):
            lead += f"; {metric} is no mean over test items, so nothing here is tested"
        elif apart:
            lead += f"; it is not compared with {_and(apart)}, which was scored on none of its test items and seeds"
        yield lead + "."


def _teachers(outcomes: Outcomes) -> Iterator[str]:
    """Teachers that were measured and differ, each with the arms that it taught."""
    parts = [f"{_shown(one)} for {_and([arm.title for arm in arms])}" for one, arms in outcomes.teachers()]
    if parts:
        yield f"The teachers differ, so no line of the table is theirs: {outcomes.metric} {'; '.join(parts)}."


def _aside(outcomes: Outcomes) -> Iterator[str]:
    """What was made beforehand, and the ceiling: no competitors."""
    told = []
    for arm in outcomes.arms:
        estimate = arm.estimate(outcomes.metric)
        if arm.method in outcomes.aside and estimate is not None:
            told.append(f"{arm.title}{', the ceiling,' if arm.method == outcomes.ceiling else ''} {_shown(estimate)}")
    if told:
        yield f"Outside the competition: {_and(told)}."


def _monotonous(outcomes: Outcomes) -> Iterator[str]:
    """Methods that say much the same to everything, far more often than the labels do: their scores mean little."""
    told = []
    for arm in outcomes.arms:
        found = [(seed, said) for seed, run in arm.runs.items() if (said := _said_mostly(run))]
        if found and len(found) == len(arm.runs):
            told.append(f"{arm.title} ({found[0][1]})")
        else:
            told += [f"{arm.title} seed {seed} ({said})" for seed, said in found]
    if told:
        yield f"Read no progress into the scores of what says nearly the same to everything: {_and(told)}."


def _said_mostly(run: Run) -> str:
    """What a run answered far more often than the labels would, and how often; '' where there is no such answer."""
    said: Counter[str | None] = Counter()
    labels: Counter[str | None] = Counter()
    for one in run.predictions() if run.rows.exists() else ():
        said[one.answer] += 1
        labels[one.example.label] += 1
    if said.total() < FEW:
        return ""
    (answer, most), (_, usual) = said.most_common(1)[0], labels.most_common(1)[0]
    share = usual / labels.total()
    if most / said.total() < max(0.5, min(share + 0.25, (1 + share) / 2)):
        return ""
    shown = "no answer" if answer is None else repr(textwrap.shorten(answer, 60, placeholder=" ..."))
    return f"{shown} to {most:,} of {said.total():,}"


def _efficiency(outcomes: Outcomes, pairs: Sequence[Pair]) -> Iterator[str]:
    """The smallest share of the training data at which a method reaches the baseline on all of it, and the teacher."""
    metric = outcomes.metric
    for rest, arms, bar in bars(outcomes):
        most, value = bar.about[SHARE], _value(bar, metric)
        at = f" ({place_of(rest)})" if rest else ""
        told: dict[tuple[bool, str, float], list[str]] = {}
        for method in dict.fromkeys(arm.method for arm in arms if arm.method != bar.method):
            own = sorted((arm for arm in arms if arm.method == method), key=lambda a: float(a.about[SHARE]))
            good = [arm for arm in own if goodness(arm, metric) >= goodness(bar, metric)]
            arm = (good or own[::-1])[0]
            said = _said(_pair(pairs, arm, bar), arm, ("surely better", "surely worse"), outcomes)
            told.setdefault((bool(good), said, float(arm.about[SHARE])), []).append(method)
        ranked = sorted(told.items(), key=lambda one: (not one[0][0], "better" not in one[0][1], one[0][2]))
        parts = [
            f"is {'' if good else 'not '}reached by {_and(names)} with {_part(share)} of it ({said})"
            for (good, said, share), names in ranked
        ]
        whole = f"{bar.method} on {'all' if most == 1 else format(most, 'g') + ' of'} the data{at}, {value:.3f}"
        if parts:
            yield f"{whole}, {'; '.join(parts)}."
    teacher = outcomes.teacher()
    for rest, arms in by_share(outcomes).items() if teacher is not None else ():
        assert teacher is not None
        reached: dict[bool, list[str]] = {True: [], False: []}
        for method in dict.fromkeys(arm.method for arm in arms):
            own = sorted((arm for arm in arms if arm.method == method), key=lambda a: float(a.about[SHARE]))
            sign = -1 if outcomes.lower else 1
            good = [arm for arm in own if goodness(arm, metric) >= sign * teacher.value]
            reached[bool(good)].append(f"{method} with {_part(good[0].about[SHARE])} of it" if good else method)
        parts = [f"is reached by {_and(reached[True])}"] if reached[True] else []
        parts += [f"is not reached by {_and(reached[False])}"] if reached[False] else []
        at = f" ({place_of(rest)})" if rest else ""
        yield f"{TEACHER}{at}, {teacher.value:.3f}, {'; it '.join(parts)} (by value; no test)."


def _along(outcomes: Outcomes, pairs: Sequence[Pair]) -> Iterator[str]:
    """Along each setting: which values differ from the first one, which shares of the data from the largest."""
    arms = {arm.title: arm for arm in outcomes.arms}
    lines: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.family == "settings":
            reference = brief(arms[pair.second].about[pair.axis])
            lines.setdefault((pair.axis, reference, pair.where), []).append(pair)
    for (axis, reference, where), own in lines.items():
        shown = own if len(own) <= SPELLED_OUT else [pair for pair in own if pair.significant]
        told = [
            f"{arms[pair.first].method} with {brief(arms[pair.first].about[axis])} "
            f"{_said(pair, arms[pair.first], ('is better', 'is worse'), outcomes)} ({pair.value:+.3f})"
            for pair in shown
        ]
        if len(shown) < len(own):
            rest = f"{'the other ' if shown else ''}{len(own) - len(shown)} of {len(own)}"
            told.append(f"{rest} cannot be told apart")
        yield f"By {axis}, against {reference}{f' ({where})' if where else ''}: {'; '.join(told)}."


def _said(pair: Pair | None, arm: Arm, words: tuple[str, str], outcomes: Outcomes) -> str:
    if pair is None:
        return "not tested"
    if not pair.significant:
        return "cannot be told apart"
    untrained = all(one.seedless for one in outcomes.arms if one.title in (pair.first, pair.second))
    ending = "" if pair.trainings > 1 or untrained else ", as two students"
    return words[0 if _ahead(pair, arm, outcomes) else 1] + ending


def _cheapest(outcomes: Outcomes, pairs: Sequence[Pair], bills: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The cheapest arm that cannot be told apart from the best one, among those whose costs are known."""
    groups = [arms for arms in outcomes.contenders().values() if len(arms) > 1]
    if not groups or not bills:
        return
    arms = max(groups, key=lambda own: goodness(leader(own, outcomes.metric), outcomes.metric))
    best = leader(arms, outcomes.metric)
    level = [best]
    for arm in arms:
        pair = _pair(pairs, best, arm)
        if arm is not best and pair is not None and not pair.significant:
            level.append(arm)
    unknown = [arm.title for arm in level if _spent(bills.get(arm.title, {}), 0) is None]
    rest = f" What {_and(unknown)} cost to make is not known." if unknown else ""
    used = [arm for arm in level if _spent(bills.get(arm.title, {}), ANSWERS) is not None]
    trained = [arm for arm in level if not arm.seedless and arm.title not in unknown]
    if any(arm not in used for arm in trained):  # what some cost to use is not known: they are not out of the running
        used = []
    count = ANSWERS if used else 0
    known = used or trained
    if not known:
        return
    arm = min(known, key=lambda one: _spent(bills[one.title], count) or 0.0)
    bill = bills[arm.title]
    parts = [f"{money(bill['made'])} to make"]
    if bill.get("student_per_1000") is not None:
        parts.append(f"{money(bill['student_per_1000'])} for 1,000 answers")
    if bill.get("break_even") is not None:
        parts.append(f"paid for after {bill['break_even']:,} answers that the teacher does not give")
    over = f", made and used for {ANSWERS:,} answers" if used else ""
    name = f"{arm.title}, the best itself" if arm is best else f"{arm.title}, where {best.title} is the best"
    yield f"Cheapest of what cannot be told apart from the best{over}: {name}: {', '.join(parts)}.{rest}"


def _part(share: float) -> str:
    return "all" if share == 1 else f"{share:.3g}"


def _spent(bill: Mapping[str, Any], answers: int) -> float | None:
    """Dollars for making a method and using it so often; None where that is not known."""
    made, each = bill.get("made"), bill.get("student_per_1000")
    if bill.get("teacher") is None or made is None or (answers and each is None):
        return None
    return float(made) + (float(each) * answers / 1000 if answers and each is not None else 0.0)


def _can_show(outcomes: Outcomes, limit: Detectable) -> str:
    trained = f" and {limit.trainings} trainings of each method" if limit.trainings > 1 else ""
    head = f"What {limit.n:,} test items{trained} can show:"
    which = "methods" if limit.trainings > 1 else "students"
    level = f", corrected for {limit.tests} pairs" if limit.tests > 1 else ""
    on = f", on {limit.discordant:.0%} of the items," if limit.discordant is not None else ""
    how = f"that disagree {'as these do' if limit.seen else 'as ones with independent mistakes would'}{on}"
    if limit.difference is None:
        return f"{head} nothing; two {which} {how} cannot be told apart whatever they do{level}."
    shares = all(0 <= _value(arm, outcomes.metric) <= 1 for arm in outcomes.arms if arm.estimate(outcomes.metric))
    least = f"{100 * limit.difference:.1f} points" if shares else f"{limit.difference:.3g}"
    return (
        f"{head} two {which} {how} must differ by {least} to be told apart four times in five{level}. Do not read less "
        "as progress."
    )


def _missing(outcomes: Outcomes, pairs: Sequence[Pair]) -> Iterator[str]:
    """What the numbers above leave out."""
    partly = [pair for pair in pairs if pair.left_out]
    if partly:
        worst = max(partly, key=lambda pair: pair.left_out)
        yield (
            f"Not all methods answered the same questions: {len(partly)} of {len(pairs)} pairs are tested on the part "
            f"that they share; {worst.first} and {worst.second} share {worst.n:,} items, and {worst.left_out:,} were "
            "asked of one alone."
        )
    if not outcomes.has_baseline():
        yield f"The baseline, {outcomes.baseline}, has no finished run, so every pair is tested."
    if outcomes.failed:
        yield f"Failed and not counted: {len(outcomes.failed)}; the same command tries again."
    if outcomes.waiting:
        yield f"Not done yet: {outcomes.waiting}."


def _ahead(pair: Pair, arm: Arm, outcomes: Outcomes) -> bool:
    """Whether an arm is the better one of its pair."""
    return ((pair.value > 0) != outcomes.lower) == (pair.first == arm.title)


def _pair(pairs: Sequence[Pair], one: Arm, other: Arm) -> Pair | None:
    wanted = {one.title, other.title}
    return next((pair for pair in pairs if {pair.first, pair.second} == wanted), None)


def _value(arm: Arm, metric: str) -> float:
    estimate = arm.estimate(metric)
    return float("-inf") if estimate is None else estimate.value


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
