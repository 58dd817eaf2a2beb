"""Paired tests against scipy, statsmodels and hand-worked numbers; intervals that cover what they promise."""

from __future__ import annotations

import itertools

import numpy
import pytest

from lmdistill import intervals
from lmdistill.significance import (
    approximate_randomisation,
    benjamini_hochberg,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_bootstrap,
    share_of_gap,
)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 7), (5, 5), (12, 30), (0, 6), (140, 90), (400, 401)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    peer = stats.binomtest(min(b, c), b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(peer, rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)
    if b + c:
        theirs = contingency.mcnemar([[50, b], [c, 50]], exact=True).pvalue
        assert mcnemar(b, c) == pytest.approx(min(1.0, theirs), rel=1e-9)


def test_mcnemar_by_hand_and_nonsense_refused() -> None:
    # 2 of 12 coins: 2 * (1 + 12 + 66) / 4096
    assert mcnemar(2, 10) == pytest.approx(158 / 4096)
    with pytest.raises(ValueError, match="0 or more"):
        mcnemar(-1, 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_corrections_are_those_of_statsmodels(seed: int) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    ps = [*numpy.random.default_rng(seed).uniform(0, 0.2, size=9).tolist(), 0.01, 0.01]
    assert holm(ps) == pytest.approx(list(multitest.multipletests(ps, method="holm")[1]))
    assert benjamini_hochberg(ps) == pytest.approx(list(multitest.multipletests(ps, method="fdr_bh")[1]))
    assert holm([]) == benjamini_hochberg([]) == []


def test_randomisation_tries_every_pattern_where_few_items_differ() -> None:
    first, second = [0.9, 0.2, 1.0, 0.5, 0.3], [0.1, 0.4, 0.5, 0.5, 0.0]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    patterns = list(itertools.product((1, -1), repeat=5))
    sums = [abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) for signs in patterns]
    by_hand = sum(value >= abs(sum(differences)) - 1e-9 for value in sums) / len(patterns)
    assert approximate_randomisation(first, second) == pytest.approx(by_hand)


def test_randomisation_of_right_and_wrong_is_mcnemar() -> None:
    first, second = [1.0] * 30 + [0.0] * 12 + [1.0] * 60, [0.0] * 30 + [1.0] * 12 + [1.0] * 60
    assert approximate_randomisation(first, second, draws=40_000) == pytest.approx(mcnemar(30, 12), abs=0.003)


def test_randomisation_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = numpy.random.default_rng(3)
    first = rng.normal(0.2, 1.0, size=60)
    peer = stats.permutation_test(
        (first, numpy.zeros(60)), lambda a, b: (a - b).mean(), permutation_type="samples", n_resamples=9999, rng=1
    ).pvalue
    assert approximate_randomisation(list(first), [0.0] * 60) == pytest.approx(peer, abs=0.02)


def test_no_difference_is_no_difference() -> None:
    same = [1.0, 0.0, 1.0]
    assert approximate_randomisation(same, same) == 1.0
    assert paired_bootstrap(same, same) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="the same items"):
        paired_bootstrap([1.0], [1.0, 0.0])


def test_bootstrap_agrees_with_scipy_and_repeats() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = numpy.random.default_rng(0)
    first, second = rng.binomial(1, 0.8, size=300), rng.binomial(1, 0.7, size=300)
    mine = paired_bootstrap(list(first), list(second), resamples=8000)
    peer = stats.bootstrap((first - second,), numpy.mean, method="percentile", n_resamples=8000, rng=1)
    assert mine.value == pytest.approx(float((first - second).mean()))
    assert (mine.low, mine.high) == pytest.approx(tuple(peer.confidence_interval), abs=0.006)
    assert mine == paired_bootstrap(list(first), list(second), resamples=8000)


def test_intervals_cover_as_often_as_they_say() -> None:
    """95 % intervals hold the truth in 93 to 97 % of 1,500 made-up test sets."""
    rng = numpy.random.default_rng(7)
    trials, items = 1500, 200
    held = {"wilson": 0, "paired bootstrap": 0, "over seeds": 0}
    for trial in range(trials):
        right = int(rng.binomial(items, 0.7))
        held["wilson"] += intervals.wilson(right, items).low <= 0.7 <= intervals.wilson(right, items).high
        # only the first right 15 %, only the second 10 %: the true difference is 0.05
        kind = rng.choice([1.0, -1.0, 0.0], size=items, p=[0.15, 0.10, 0.75])
        told = paired_bootstrap(list(kind), [0.0] * items, resamples=500, seed=trial)
        held["paired bootstrap"] += told.low <= 0.05 <= told.high
        estimate = intervals.over_seeds([float(value) for value in rng.normal(0.6, 0.03, size=5)])
        held["over seeds"] += estimate.low <= 0.6 <= estimate.high
    assert {name: 0.93 <= count / trials <= 0.97 for name, count in held.items()} == dict.fromkeys(held, True), held


def test_the_exact_interval_never_covers_less() -> None:
    rng = numpy.random.default_rng(1)
    drawn = [int(value) for value in rng.binomial(60, 0.9, size=1500)]
    held = sum(b.low <= 0.9 <= b.high for b in (intervals.clopper_pearson(k, 60) for k in drawn))
    assert held / len(drawn) >= 0.95


def test_the_detectable_difference_is_found_with_the_stated_power() -> None:
    """At the difference the formula names, McNemar's test finds it in about 80 % of made-up test sets."""
    n, discordant = 500, 0.2
    x = minimum_detectable_difference(n, discordant)
    rng = numpy.random.default_rng(5)
    gains, losses = (discordant + x) / 2, (discordant - x) / 2
    counts = rng.multinomial(n, [gains, losses, 1 - gains - losses], size=2000)
    found = float(numpy.mean([mcnemar(int(b), int(c)) < 0.05 for b, c, _ in counts]))
    assert 0.74 <= found <= 0.84  # the exact test gives a little power away
    assert minimum_detectable_difference(200, 0.2) > x > minimum_detectable_difference(5000, 0.2)
    assert minimum_detectable_difference(10, 0.1) == pytest.approx(0.1)  # never: more than can differ


def test_the_share_of_a_gap_by_hand_and_only_where_there_is_one() -> None:
    student, teacher = [0.0] * 60 + [1.0] * 40, [0.0] * 20 + [1.0] * 80
    distilled = [0.0] * 30 + [1.0] * 70  # 30 of the 40 items that the teacher is ahead
    found = share_of_gap(distilled, student, teacher)
    assert found is not None and found.n == 100
    assert found.value == pytest.approx(0.75)
    assert 0.55 < found.low < 0.75 < found.high < 0.95
    same = share_of_gap(teacher, student, teacher)
    assert same is not None and (same.low, same.value, same.high) == (1.0, 1.0, 1.0)
    assert share_of_gap(distilled, teacher, student) is None, "a teacher that is worse"
    level = [0.0, 1.0] * 50
    assert share_of_gap(distilled, level, level[::-1]) is None, "a teacher that cannot be told apart"
    with pytest.raises(ValueError, match="same"):
        share_of_gap(distilled, student, teacher[1:])


def test_the_interval_of_a_closed_gap_covers_what_it_promises() -> None:
    rng = numpy.random.default_rng(3)
    covered = 0
    for _ in range(200):
        luck = rng.random(300)
        student, distilled, teacher = (
            (0.7 * luck + 0.3 * rng.random(300) < level).astype(float) for level in (0.4, 0.55, 0.6)
        )
        # The true shares are those of the distribution, which a large draw gives.
        found = share_of_gap(distilled, student, teacher, resamples=400)
        assert found is not None
        covered += found.low <= TRUE_SHARE <= found.high
    assert 180 <= covered <= 199


def _true_share() -> float:
    rng = numpy.random.default_rng(0)
    mixed = 0.7 * rng.random(4_000_000) + 0.3 * rng.random(4_000_000)
    low, middle, high = ((mixed < level).mean() for level in (0.4, 0.55, 0.6))
    return float((middle - low) / (high - low))


TRUE_SHARE = _true_share()
