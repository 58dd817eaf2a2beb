"""How often a comparison calls one of two equal methods better, where some methods' trainings vary more than others'.

    python benchmarks/false_alarms.py [--trials 1000] [--items 300 3000] [--seeds 2 3]

Simulated: every method answers the same items equally well, and each training of it draws a skill of its own with the
method's standard deviation. For the first two methods of each set: how often p < 0.05 before any correction. For all
pairs: how often any is told apart after Bonferroni's (which Holm's begins with).
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import numpy

from lmdistill.intervals import pooled
from lmdistill.significance import over_trainings

SPREADS = {
    "all alike": [0.02] * 6,
    "one restless, in the pair": [0.05, *[0.01] * 5],
    "two restless, both in the pair": [0.05, 0.05, *[0.01] * 4],
    "one restless of three, in the pair": [0.05, 0.003, 0.003],
    "one restless of three, not in the pair": [0.003, 0.003, 0.05],
    "two methods, one restless": [0.05, 0.003],
}


def runs_of(rng: Any, seeds: int, spread: float, difficulty: Any) -> Any:
    """Answers [seeds, items], right (1) or wrong (0)."""
    skill = difficulty + rng.normal(0, spread, size=(seeds, 1))
    return (rng.random((seeds, len(difficulty))) < skill).astype(float)


def alarms(spreads: list[float], seeds: int, items: int, trials: int) -> tuple[float, float]:
    """The shares of trials with a false alarm: of the first pair, and of any after correction."""
    rng = numpy.random.default_rng(0)
    level = 0.05 / (len(spreads) * (len(spreads) - 1) / 2)
    one = several = 0
    for _ in range(trials):
        difficulty = 0.12 + 0.72 * rng.beta(0.6, 0.2, size=items)
        runs = [runs_of(rng, seeds, spread, difficulty) for spread in spreads]
        among = pooled([rows.mean(axis=1).tolist() for rows in runs])
        told = [over_trainings(a, b, among) for a, b in itertools.combinations(runs, 2)]
        one += abs(told[0][0]) > told[0][1].half(0.95)
        several += any(abs(value) > noise.half(1 - level) for value, noise in told)
    return one / trials, several / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--items", type=int, nargs="+", default=[300, 3000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3])
    given = parser.parse_args()
    print("| methods | seeds | items | one pair, uncorrected | any pair, corrected |\n| --- | --- | --- | --- | --- |")
    for (name, spreads), seeds, items in itertools.product(SPREADS.items(), given.seeds, given.items):
        one, several = alarms(spreads, seeds, items, given.trials)
        print(f"| {name} | {seeds} | {items} | {one:.3f} | {several:.3f} |", flush=True)


if __name__ == "__main__":
    main()
