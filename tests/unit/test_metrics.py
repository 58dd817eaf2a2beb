"""Metrics and intervals against numbers worked by hand and against scipy and statsmodels."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdistill.errors import DataError
from lmdistill.intervals import bootstrap, clopper_pearson, over_seeds, resampled, student_quantile, wilson
from lmdistill.metrics._words import normalised
from lmdistill.metrics.accuracy import Accuracy
from lmdistill.metrics.calibration import Calibration
from lmdistill.metrics.equation import Equation
from lmdistill.metrics.exact_match import ExactMatch
from lmdistill.metrics.token_f1 import TokenF1, f1
from lmdistill.tasks import Task
from lmdistill.types import Example, Prediction


@dataclass(frozen=True)
class Plain(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return ()

    def references(self, example: Example) -> tuple[str, ...]:
        return (*super().references(example), *example.fields.get("references", ()))


TASK = Plain()


def answered(answer: str | None, label: str | None, confidence: float | None = None, **fields: object) -> Prediction:
    return Prediction(Example("e", "?", label, (), fields), answer, confidence=confidence)


# --- intervals -------------------------------------------------------------------------------------------------------


def test_wilson_by_hand() -> None:
    # 8 of 10 at 95 %: z = 1.959964, z^2 = 3.841459. Middle (0.8 + 0.192073) / 1.384146 = 0.716740; spread
    # 1.959964 * sqrt(0.016 + 0.0096036) / 1.384146 = 1.959964 * 0.160011 / 1.384146 = 0.226577.
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.490163, abs=1e-5)
    assert high == pytest.approx(0.943317, abs=1e-5)
    assert wilson(0, 5).low == 0.0 and wilson(5, 5).high == 1.0


def test_clopper_pearson_by_hand() -> None:
    # All of n right: the lower bound solves p^n = 0.025, so p = 0.025 ** (1 / n).
    assert clopper_pearson(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert clopper_pearson(0, 4) == pytest.approx((0.0, 1 - 0.025 ** (1 / 4)))


@pytest.mark.parametrize("n", [1, 2, 7, 50, 1000, 100_000])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_shares_agree_with_scipy_and_statsmodels(n: int, level: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for k in {0, 1, n // 3, n // 2, n - 1, n}:
        theirs = stats.binomtest(k, n).proportion_ci(level, "wilson")
        assert wilson(k, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        theirs = stats.binomtest(k, n).proportion_ci(level, "exact")
        assert clopper_pearson(k, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        both = proportion.proportion_confint(k, n, 1 - level, method="beta")
        assert clopper_pearson(k, n, level) == pytest.approx([float(bound) for bound in both], abs=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 500])
def test_student_agrees_with_scipy(freedom: int) -> None:
    t = pytest.importorskip("scipy.stats").t
    for probability in (0.025, 0.3, 0.5, 0.9, 0.975, 0.999):
        assert student_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=1e-8, abs=1e-12)


def test_over_seeds_by_hand() -> None:
    # 0.70, 0.74, 0.78: mean 0.74, deviation 0.04, t(0.975, 2) = 4.302653; half width 4.302653 * 0.04 / sqrt(3).
    found = over_seeds([0.70, 0.74, 0.78], n=500)
    half = 4.302653 * 0.04 / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx((0.74, 0.74 - half, 0.74 + half), abs=1e-6)
    assert found.n == 500
    assert over_seeds([0.5]).low == over_seeds([0.5]).high == 0.5


@pytest.mark.parametrize("wrong", [(-1, 5), (6, 5), (0, 0)])
def test_shares_out_of_range_are_refused(wrong: tuple[int, int]) -> None:
    for interval in (wilson, clopper_pearson):
        with pytest.raises(ValueError, match="expected"):
            interval(*wrong)


def test_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    rng = random.Random(1)
    values = [rng.gauss(3.0, 2.0) for _ in range(1000)]
    low, high = bootstrap(values, seed=4)
    assert (low, high) == bootstrap(values, seed=4) != bootstrap(values, seed=5)
    half = 1.96 * statistics.stdev(values) / math.sqrt(1000)
    assert low == pytest.approx(statistics.mean(values) - half, abs=0.02)
    assert high == pytest.approx(statistics.mean(values) + half, abs=0.02)
    assert bootstrap([0.5, 0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap([])


def test_bootstrap_in_pieces_equals_itself_in_size() -> None:
    # 3,000 values: 2,000 resamples are drawn in several pieces; the mean of a constant column divides out.
    values = [[float(i % 7), 2.0] for i in range(3000)]
    low, high = bootstrap(values)
    ratio = sum(value for value, _ in values) / 6000
    assert low < ratio < high and high - low < 0.1


def test_resampled_draws_items() -> None:
    drawn = list(resampled(5, 3, seed=2))
    assert len(drawn) == 3 and all(len(items) == 5 and set(items) <= set(range(5)) for items in drawn)


@pytest.mark.slow
def test_intervals_cover_what_they_promise() -> None:
    # 2,000 samples of 100 with p = 0.8: a 95 % interval should hold p in 93 to 97 % of them (the exact one in more).
    rng = random.Random(0)
    hits = {"wilson": 0, "exact": 0, "bootstrap": 0}
    for trial in range(2000):
        values = [float(rng.random() < 0.8) for _ in range(100)]
        right = int(sum(values))
        hits["wilson"] += wilson(right, 100).low <= 0.8 <= wilson(right, 100).high
        exact = clopper_pearson(right, 100)
        hits["exact"] += exact.low <= 0.8 <= exact.high
        drawn = bootstrap(values, resamples=400, seed=trial)
        hits["bootstrap"] += drawn.low <= 0.8 <= drawn.high
    assert 0.93 <= hits["wilson"] / 2000 <= 0.97
    assert 0.95 <= hits["exact"] / 2000 <= 0.99
    assert 0.92 <= hits["bootstrap"] / 2000 <= 0.97


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_accuracy_asks_the_task_and_counts_silence_as_wrong() -> None:
    metric = Accuracy()
    scores = [metric.score(answered(answer, "Yes"), TASK) for answer in ("yes.", " YES ", "no", None)]
    assert [score.values["accuracy"] for score in scores] == [1.0, 1.0, 0.0, 0.0]
    found = metric.aggregate(scores)["accuracy"]
    assert (found.value, found.n) == (0.5, 4)
    assert (found.low, found.high) == tuple(wilson(2, 4))
    assert metric.score(answered("yes", None), TASK).values == {"accuracy": 0.0}


def test_equation_compares_values() -> None:
    metric = Equation()
    for answer, right in (("(84 / 2)", 1), ("42", 1), ("42.5", 0), ("x", 0), ("", 0), (None, 0), ("84 / 0", 0)):
        assert metric.score(answered(answer, "( 84.0 / 2.0 )"), TASK).values == {"equation": float(right)}
    assert metric.score(answered("x", "x"), TASK).values == {"equation": 0.0}


def test_squad_normalisation() -> None:
    assert normalised("The  Cat, an owl & a dog's!") == "cat owl dogs"
    assert normalised("theatre anatomy a") == "theatre anatomy"
    assert normalised("The.") == ""


def test_exact_match_takes_the_best_reference_and_gives_silence_nothing() -> None:
    metric = ExactMatch()
    assert metric.score(answered("the Mill!", "a mill"), TASK).values == {"exact_match": 1.0}
    assert metric.score(answered("river", "mill", references=["The River"]), TASK).values == {"exact_match": 1.0}
    assert metric.score(answered("old mill", "mill"), TASK).values == {"exact_match": 0.0}
    assert metric.score(answered(None, "The"), TASK).values == {"exact_match": 0.0}
    assert metric.score(answered("", "The"), TASK).values == {"exact_match": 1.0}


def test_token_f1_by_hand() -> None:
    # 'red red car' against 'red car park': shared red (once) and car = 2 of 3 and 3 words: F1 = 2 * 2 / 6.
    assert f1("red red car", "a red car park") == pytest.approx(4 / 6)
    assert f1("bus", "car") == 0.0
    metric = TokenF1(seed=3)
    scores = [
        metric.score(answered("red red car", "a red car park"), TASK),
        metric.score(answered("bus", "car", references=["the bus"]), TASK),
        metric.score(answered(None, "car"), TASK),
    ]
    assert [score.values["token_f1"] for score in scores] == pytest.approx([4 / 6, 1.0, 0.0])
    found = metric.aggregate(scores)["token_f1"]
    assert found.value == pytest.approx((4 / 6 + 1) / 3)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert metric.aggregate(scores) == metric.aggregate(scores)


@given(st.text(max_size=30), st.text(max_size=30))
def test_token_f1_is_symmetric_and_between_0_and_1(first: str, second: str) -> None:
    assert 0 <= f1(first, second) <= 1
    assert f1(first, second) == f1(second, first)
    assert f1(first, first) == 1


def test_calibration_by_hand() -> None:
    # Two bins of equal width. (0, 0.5]: confidences 0.2 wrong, 0.5 right; mean 0.35, right 0.5: gap 0.15.
    # (0.5, 1]: 0.9 right, 0.7 wrong; mean 0.8, right 0.5: gap 0.3. ECE = (2 * 0.15 + 2 * 0.3) / 4 = 0.225.
    # Brier = (0.04 + 0.25 + 0.01 + 0.49) / 4 = 0.1975.
    given_ = [("no", 0.2), ("yes", 0.5), ("yes", 0.9), ("no", 0.7)]
    metric = Calibration(bins=2)
    scores = [metric.score(answered(answer, "yes", confidence), TASK) for answer, confidence in given_]
    found = metric.aggregate(scores)
    assert found["calibration_error"].value == pytest.approx(0.225)
    assert found["brier"].value == pytest.approx(0.1975)
    assert found["brier"].n == 4
    assert found["brier"].low <= 0.1975 <= found["brier"].high
    # Equal mass: in the order of confidence 0.2 0.5 | 0.7 0.9, the same two groups.
    assert Calibration(bins=2, binning="mass").aggregate(scores)["calibration_error"].value == pytest.approx(0.225)
    # One bin: |0.5 - 0.575| = 0.075.
    assert Calibration(bins=1).aggregate(scores)["calibration_error"].value == pytest.approx(0.075)


def test_calibration_edges_belong_to_the_bin_below() -> None:
    # Ten bins; 0.7 right and 0.71 wrong are in different bins: gaps 0.3 and 0.71, ECE = 1.01 / 2.
    metric = Calibration()
    scores = [metric.score(answered(a, "yes", c), TASK) for a, c in (("yes", 0.7), ("no", 0.71))]
    assert metric.aggregate(scores)["calibration_error"].value == pytest.approx(0.505)
    ends = [metric.score(answered(a, "yes", c), TASK) for a, c in (("no", 0.0), ("yes", 1.0))]
    assert metric.aggregate(ends)["calibration_error"].value == 0.0


def test_calibration_without_confidence() -> None:
    metric = Calibration()
    silent = metric.score(answered(None, "yes"), TASK)
    assert silent.values == {"confidence": 0.0, "right": 0.0, "brier": 0.0}
    unsure = metric.score(answered("yes", "yes"), TASK)
    assert unsure.values == {}
    assert metric.aggregate([silent, unsure])["brier"].n == 1
    with pytest.raises(ValueError, match="needs confidences"):
        metric.aggregate([unsure])
    for confidence in (-0.1, 1.1, math.nan):
        with pytest.raises(DataError, match="from 0 to 1"):
            metric.score(answered("yes", "yes", confidence), TASK)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_calibration_is_bounded(pairs: list[tuple[float, bool]]) -> None:
    metric = Calibration(resamples=5)
    scores = [metric.score(answered("yes" if right else "no", "yes", c), TASK) for c, right in pairs]
    found = metric.aggregate(scores)
    assert 0 <= found["calibration_error"].value <= 1 and 0 <= found["brier"].value <= 1
