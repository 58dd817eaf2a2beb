"""Paired tests against scipy, statsmodels and hand-worked numbers; intervals that cover what they promise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

from lmdistill import intervals
from lmdistill.significance import (
    approximate_randomisation,
    benjamini_hochberg,
    holm,
    mcnemar,
    minimum_detectable_difference,
    over_trainings,
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
    unseen = [*ps, *[1.0] * 7]  # chosen among so many: the others might as well have found nothing
    count = len(ps)
    assert holm(ps, chosen_among=len(unseen)) == pytest.approx(holm(unseen)[:count])
    assert benjamini_hochberg(ps, chosen_among=len(unseen)) == pytest.approx(benjamini_hochberg(unseen)[:count])


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


def made_runs(rng: Any, seeds: int, spread: float, difficulty: Any, ahead: float = 0.0) -> Any:
    """Answers [seeds, items], right (1) or wrong (0); `spread` is the standard deviation of a training's skill."""
    skill = difficulty + ahead + rng.normal(0, spread, size=(seeds, 1))
    return (rng.random((seeds, len(difficulty))) < skill).astype(float)


def made_items(rng: Any, count: int) -> Any:
    """How likely each item is answered: many nearly always, some nearly never, 0.66 in the mean; no skill clips it."""
    return 0.12 + 0.72 * rng.beta(0.6, 0.2, size=count)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.04])
def test_the_interval_over_seeds_and_items_covers_both(seeds: int, spread: float) -> None:
    """The truth of all trainings on all items lies in 93 to 97.5 % of the intervals (of two seeds, at least 93 %)."""
    rng, trials, truth = numpy.random.default_rng(10 * seeds), 1000, 0.12 + 0.72 * 0.75
    held = seeds_alone = 0
    for _ in range(trials):
        runs = made_runs(rng, seeds, spread, made_items(rng, 200))
        told = intervals.over_seeds_and_items(runs)
        held += told.low <= truth <= told.high
        alone = intervals.over_seeds(runs.mean(axis=1).tolist()) if not spread else told
        seeds_alone += alone.low <= truth <= alone.high
    assert 0.93 <= held / trials <= (0.995 if seeds == 2 else 0.975), held / trials
    assert spread or seeds == 2 or seeds_alone / trials < 0.93, "seeds on one test set know nothing of other items"


def test_an_interval_of_shares_stays_within_0_and_1_and_has_a_width() -> None:
    told = intervals.over_seeds_and_items([[1.0] * 19 + [0.0], [1.0] * 20])
    assert told.low < told.value == 0.975 < told.high == 1.0
    same = intervals.over_seeds_and_items([[1.0] * 20] * 3)
    assert (same.low, same.high) == intervals.wilson(20, 20) and same.low < 0.9
    assert intervals.over_seeds_and_items([[3.0, 5.0], [2.0, 9.0]]).high > 1, "no share"
    with pytest.raises(ValueError, match="at least one"):
        intervals.over_seeds_and_items([])


def test_the_variances_of_a_crossed_table_are_those_of_the_mean_squares() -> None:
    stats = pytest.importorskip("statsmodels.formula.api")
    frame = pytest.importorskip("pandas").DataFrame
    anova = pytest.importorskip("statsmodels.stats.anova")
    rng = numpy.random.default_rng(0)
    table = rng.normal(size=(4, 7)) + rng.normal(size=(4, 1))
    told = [(str(i), str(j), table[i, j]) for i in range(4) for j in range(7)]
    fitted = stats.ols("y ~ seed + item", frame(told, columns=["seed", "item", "y"])).fit()
    found = anova.anova_lm(fitted)
    squares = (found["sum_sq"] / found["df"]).to_dict()
    own = intervals.crossed(table)
    for name, value in (("seed", own.seeds), ("item", own.items), ("Residual", own.residual)):
        assert value == pytest.approx(squares[name] / 28)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.04])
def test_a_method_trained_twice_rarely_beats_itself(seeds: int, spread: float) -> None:
    """At most 7 % false alarms, where a test of items alone has many; p and the interval say the same."""
    rng, trials, alarms, of_items = numpy.random.default_rng(seeds), 1000, 0, 0
    for _ in range(trials):
        difficulty = made_items(rng, 300)
        first, second = (made_runs(rng, seeds, spread, difficulty) for _ in range(2))
        value, noise = over_trainings(first, second)
        half = noise.half()
        assert (noise.p(value) < 0.05) == (abs(value) > half)
        alarms += abs(value) > half
        of_items += intervals.Noise(0.0, float((first.mean(0) - second.mean(0)).var() / 300), 0).p(value) < 0.05
    assert alarms / trials <= 0.07, alarms / trials
    assert spread < 0.04 or of_items / trials > 0.25, "what a test of items alone would say"


@pytest.mark.parametrize(
    ("seeds", "spread", "least"), [(3, 0.0, 0.85), (5, 0.0, 0.98), (3, 0.015, 0.75), (5, 0.03, 0.6)]
)
def test_a_method_that_is_better_by_eight_points_is_found(seeds: int, spread: float, least: float) -> None:
    rng, trials, found = numpy.random.default_rng(seeds), 400, 0
    for _ in range(trials):
        difficulty = made_items(rng, 300)
        better = made_runs(rng, seeds, spread, difficulty, 0.08)
        value, noise = over_trainings(better, made_runs(rng, seeds, spread, difficulty))
        found += value > 0 and noise.p(value) < 0.05
    assert found / trials >= least, found / trials


@pytest.mark.parametrize("spreads", [[0.0] * 6, [0.02] * 6, [0.05, *[0.01] * 5]])
def test_all_methods_together_say_how_trainings_vary(spreads: list[float]) -> None:
    """Of six equal methods with three seeds, hardly ever is one pair of all told apart; a better one mostly is."""
    rng, trials, level = numpy.random.default_rng(0), 150, 0.05 / 15
    alarms = found = alone = 0
    for ahead in (0.0, 0.12):
        for _ in range(trials):
            difficulty = made_items(rng, 300)
            runs = [made_runs(rng, 3, own, difficulty, ahead * (n == 0)) for n, own in enumerate(spreads)]
            among = intervals.pooled([one.mean(axis=1).tolist() for one in runs])
            pairs = itertools.combinations(runs, 2) if not ahead else [(runs[0], runs[1])]
            told = [over_trainings(a, b, among) for a, b in pairs]
            sure = any(abs(value) > noise.half(1 - level) for value, noise in told)
            alarms, found = alarms + (sure and not ahead), found + (sure and ahead > 0)
            value, noise = over_trainings(runs[0], runs[1])
            alone += ahead > 0 and abs(value) > noise.half(1 - level)
    assert alarms / trials <= 0.07, alarms / trials
    if len(set(spreads)) == 1:
        assert found / trials > 0.6 and found > 1.2 * alone, (found, alone)


def test_a_restless_method_hides_no_difference_between_two_steady_ones() -> None:
    """One of three methods varies by 5 points and two hardly at all: those are told apart by their own variances."""
    rng, trials, level = numpy.random.default_rng(1), 150, 0.05 / 3
    alarms = found = hidden = 0
    for ahead in (0.0, 0.06):
        for _ in range(trials):
            difficulty = made_items(rng, 3000)
            restless, plain = (made_runs(rng, 3, own, difficulty) for own in (0.05, 0.003))
            better = made_runs(rng, 3, 0.003, difficulty, ahead)
            among = intervals.pooled([one.mean(axis=1).tolist() for one in (restless, better, plain)])
            assert among is not None
            value, noise = over_trainings(better, plain, among)
            sure = abs(value) > noise.half(1 - level)
            alarms, found = alarms + (sure and not ahead), found + (sure and ahead > 0)
            value, noise = over_trainings(better, plain, among._replace(alike=True))
            hidden += ahead > 0 and abs(value) <= noise.half(1 - level)
    assert alarms / trials <= 0.05 and found / trials > 0.9, (alarms, found)
    assert hidden / trials > 0.5, "a variance that all three share"


@pytest.mark.parametrize("seeds", [(3, 3), (2, 5), (4, 3)])
def test_methods_that_are_not_alike_have_welch_s_degrees_of_freedom(seeds: tuple[int, int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = numpy.random.default_rng(2)
    a, b = (
        numpy.repeat(rng.normal(0, own, (count, 1)), 20, axis=1) for own, count in zip((0.1, 0.3), seeds, strict=True)
    )
    among = intervals.pooled([[0.0, 0.01, 0.02], [0.0, 0.01, 0.02], [0.0, 5.0, 9.0]])
    assert among is not None and not among.alike
    _, noise = over_trainings(a, b, among)
    told = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False)
    assert noise.freedom == pytest.approx(told.df) and noise.seeds == pytest.approx(
        (a[:, 0].var(ddof=1) / seeds[0]) + (b[:, 0].var(ddof=1) / seeds[1])
    )


def test_one_method_that_varies_more_than_the_others_is_no_common_variance() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = numpy.random.default_rng(0)
    for _ in range(50):
        runs = [rng.normal(0, rng.choice([1, 1, 1, 8]), size=rng.integers(2, 6)).tolist() for _ in range(4)]
        squares = [numpy.var(own) * len(own) for own in runs]
        tails = []
        for place, own in enumerate(runs):
            rest = sum(len(one) - 1 for one in runs) - len(own) + 1
            other = (sum(squares) - squares[place]) / rest
            tails.append(stats.f.sf(numpy.var(own, ddof=1) / other, len(own) - 1, rest))
        told = intervals.pooled(runs)
        assert told is not None and told.alike == (4 * min(tails) >= 0.05)
    alarms = sum(not (intervals.pooled(rng.normal(size=(6, 3)).tolist()) or told).alike for _ in range(2000))
    assert 0.03 < alarms / 2000 < 0.06
    assert intervals.pooled([[1.0, 1.0], [2.0, 2.0]]) == intervals.Spread(0.0, 2, True)
    assert intervals.pooled([[1.0, 2.0], [3.0]]) == intervals.Spread(0.5, 1, True)


def test_a_method_without_training_adds_no_variance_of_trainings() -> None:
    first, asked = [[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0, 1.0]]
    value, noise = over_trainings(first, asked)
    assert value == pytest.approx(0.125) and noise.freedom == 1
    assert noise.seeds == pytest.approx(intervals.crossed(first).seeds)
    value, noise = over_trainings(asked, [[1.0, 1.0, 1.0, 1.0]])
    assert value == -0.5 and (noise.seeds, noise.freedom) == (0.0, 0)
    assert noise.items == pytest.approx(1 / 12)  # differences -1, 0, -1, 0: variance 1/3 over 4 items


def test_p_goes_on_where_random_swaps_find_nothing() -> None:
    rng = numpy.random.default_rng(0)
    sure = rng.normal(0.5, 0.5, size=400).tolist()
    p = approximate_randomisation(sure, [0.0] * 400, draws=1000)
    assert p < 1e-20, "not 1 / 1001: a correction for thousands of pairs can still fire"
    assert holm([p] * 2000)[0] < 0.05
    right, wrong = [1.0] * 40 + [0.0] * 60, [0.0] * 38 + [1.0] * 2 + [0.0] * 60
    assert approximate_randomisation(right, wrong) == mcnemar(38, 0), "right and wrong: the exact test"
    assert holm([0.01, 0.02], chosen_among=10) == [pytest.approx(0.1), pytest.approx(0.18)]


def test_the_share_of_a_gap_by_hand_and_only_where_there_is_one() -> None:
    student, teacher = [0.0] * 60 + [1.0] * 40, [0.0] * 20 + [1.0] * 80
    distilled = [0.0] * 30 + [1.0] * 70  # 30 of the 40 items that the teacher is ahead
    found = share_of_gap(distilled, student, teacher)
    assert found is not None and found.n == 100
    assert found.value == pytest.approx(0.75)
    assert 0.55 < found.low < 0.75 < found.high < 0.95
    same = share_of_gap(teacher, student, teacher)
    assert same is not None and (same.low, same.value, same.high) == pytest.approx((1.0, 1.0, 1.0))
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
        found = share_of_gap(distilled, student, teacher)
        assert found is not None
        covered += found.low <= TRUE_SHARE <= found.high
    assert 180 <= covered <= 199


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_closed_gap_counts_how_trainings_vary(share: float) -> None:
    """Three trainings each, whose own luck is larger than that of 500 items; the teacher is one."""
    rng = numpy.random.default_rng(5)
    covered = alone = told = 0
    for _ in range(300):
        hard = 0.3 * rng.normal(size=500)

        def runs(mean: float, count: int = 3, hard: numpy.ndarray = hard) -> numpy.ndarray:
            return mean + hard + 0.02 * rng.normal(size=(count, 1)) + 0.1 * rng.normal(size=(count, 500))

        distilled, student = runs(0.5 + 0.2 * share), runs(0.5)
        teacher = 0.7 + hard + 0.1 * rng.normal(size=500)
        found = share_of_gap(distilled, student, teacher)
        if found is None:  # three students that vary so much may hide the gap
            continue
        told += 1
        covered += found.low <= share <= found.high
        fixed = share_of_gap(distilled.mean(axis=0), student.mean(axis=0), teacher)
        assert fixed is not None
        alone += fixed.low <= share <= fixed.high
    assert told > 270 and 0.92 <= covered / told < 0.99
    assert alone < 0.7 * told, "items alone promise far too much"


@pytest.mark.parametrize(("distilled", "student", "least"), [(0.15, 0.02, 0.9), (0.05, 0.005, 0.86)])
def test_a_closed_gap_counts_that_methods_vary_differently(distilled: float, student: float, least: float) -> None:
    """Half of the gap, three trainings each: one variance for all three held .73 and .83 of the intervals' promises."""
    rng = numpy.random.default_rng(5)
    held = told = 0
    for _ in range(200):
        hard = 0.3 * rng.normal(size=500)
        means, spreads = (0.6, 0.5, 0.7), (distilled, student, 0.0)
        tables = [
            mean + hard + spread * rng.normal(size=(3, 1)) + 0.1 * rng.normal(size=(3, 500))
            for mean, spread in zip(means, spreads, strict=True)
        ]
        found = share_of_gap(*tables, intervals.pooled([one.mean(axis=1).tolist() for one in tables]))
        told += found is not None
        held += found is not None and found.low <= 0.5 <= found.high
    assert told > 190 and held / told >= least, held / told


def test_a_share_of_which_nothing_is_known_is_none() -> None:
    """Where the gap is hardly there, the noise of a restless method allows any share: no end, no number."""
    rng = numpy.random.default_rng(0)
    ends = []
    for _ in range(60):
        hard = 0.3 * rng.normal(size=300)
        tables = [
            mean + hard + spread * rng.normal(size=(3, 1)) + 0.1 * rng.normal(size=(3, 300))
            for mean, spread in ((0.5, 0.2), (0.5, 0.03), (0.6, 0.0))
        ]
        ends.append(share_of_gap(*tables))
    known = [one for one in ends if one is not None]
    assert 0 < len(known) < 60 and all(-1001 < one.low < one.value < one.high < 1001 for one in known)


def _true_share() -> float:
    rng = numpy.random.default_rng(0)
    mixed = 0.7 * rng.random(4_000_000) + 0.3 * rng.random(4_000_000)
    low, middle, high = ((mixed < level).mean() for level in (0.4, 0.55, 0.6))
    return float((middle - low) / (high - low))


TRUE_SHARE = _true_share()
