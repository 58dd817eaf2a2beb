"""Do the papers' headline claims hold here, at a scale that two cores do in minutes?

    python benchmarks/claims/run.py --out runs/claims                     # every claim that is not settled yet
    python benchmarks/claims/run.py --out runs/claims --only dss_beats_labels --workers 2
    python benchmarks/claims/run.py --table                               # only write docs/claims.md anew

A claim is a file beside this one: what a paper says, a comparison (the keys of `lmdistill compare`), and conditions
that must all hold. Its runs are resumable cells; its verdict goes to `results/NAME.json` with every number and seed,
and all verdicts to `docs/claims.md`. A verdict is kept only as long as its claim's file and the package's version
are the same, and cells of another version are not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmdistill import __version__, config, registry, runfile
from lmdistill.codec import digest, encode
from lmdistill.compare import compare
from lmdistill.errors import ConfigError, LmdistillError
from lmdistill.grid import Comparison, brief
from lmdistill.outcomes import Arm, Outcomes, load
from lmdistill.store import write_json, write_text
from lmdistill.verdicts import pair_of

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent.parent / "docs" / "claims.md"


@dataclass(frozen=True)
class Condition:
    """`better` minus `than` is above `by`, in the mean over seeds; with `sure` so is its 95 % interval over seeds
    and items.

    `where` and `than_where` choose among several shares, students or settings: `{fraction: 0.25}`. A `than` of
    'teacher' is the measured teacher.
    """

    better: str
    than: str
    where: Mapping[str, Any] = field(default_factory=dict)
    than_where: Mapping[str, Any] | None = None
    by: float = 0.0
    sure: bool = True


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and how it is put to the test. Claims of the same `runs` share a folder, and so equal cells;
    `minutes` is an estimate for two idle cores."""

    paper: str
    claim: str
    reported: str
    compare: Mapping[str, Any] = field(default_factory=dict)
    passes: tuple[Condition, ...] = ()
    minutes: float = 0.0
    runs: str = ""
    needs: tuple[str, ...] = ()
    not_testable: str = ""

    def __post_init__(self) -> None:
        if bool(self.not_testable) == bool(self.passes):
            raise ConfigError("passes: a claim has conditions, or says why it is not testable here, and not both")


def claims() -> dict[str, Claim]:
    """Every claim by its name."""
    return {path.stem: config.build(Claim, runfile.read(path), path.stem) for path in sorted(HERE.glob("*.yaml"))}


def key_of(claim: Claim) -> str:
    """Equal keys: the same experiment and the same conditions, under the same version of the package."""
    return digest([claim.compare, [asdict(one) for one in claim.passes], __version__])


def missing(claim: Claim) -> str:
    """Why a claim cannot be tested here, or ''."""
    if claim.not_testable:
        return claim.not_testable
    unset = [name for name in claim.needs if not os.environ.get(name)]
    if unset:
        return f"{', '.join(unset)} is not set"
    recipes = claim.compare.get("recipes", ())
    asked = (
        [(own or {}).get("recipe", title) for title, own in recipes.items()] if isinstance(recipes, dict) else recipes
    )
    unknown = sorted(set(asked) - set(registry.names("recipes")))
    return f"the package has no recipe {', '.join(unknown)}" if unknown else ""


def put_to_test(name: str, claim: Claim, out: Path, workers: int, threads: int) -> dict[str, Any]:
    """Run a claim's comparison and judge it; what `results/NAME.json` holds."""
    started = time.monotonic()
    write_text(out / f"{name}.yaml", json.dumps(encode(dict(claim.compare))))
    comparison = config.build(Comparison, runfile.load(out / f"{name}.yaml"))
    ends = compare(comparison, out / (claim.runs or name), workers=workers, threads=threads, tell=tell)
    failed = [ended for ended in ends if ended.report is None]
    if failed:
        raise LmdistillError(f"{failed[0].call.name} failed:\n{failed[0].error}")
    older = sorted({ended.version for ended in ends} - {"", __version__})
    if older:
        folder = out / (claim.runs or name)
        raise LmdistillError(
            f"{folder} has cells of lmdistill {', '.join(older)}, this is {__version__}: use another --out"
        )
    outcomes = load([out / (claim.runs or name)])
    found = [judged(condition, outcomes) for condition in claim.passes]
    return {
        "key": key_of(claim),
        "version": __version__,
        "verdict": "holds" if all(one["holds"] for one in found) else "does not hold",
        "metric": outcomes.metric,
        "conditions": found,
        "arms": {
            arm.title: {"seeds": arm.values(outcomes.metric), "mean": one.value, "low": one.low, "high": one.high}
            for arm in outcomes.arms
            if (one := arm.estimate(outcomes.metric)) is not None
        },
        "cell_seconds": round(sum(ended.seconds for ended in ends), 1),
        "wall_seconds": round(time.monotonic() - started, 1),
    }


def tell(ended: Any, done: int, total: int) -> None:
    print(f"  {done}/{total} {ended.call.name}: {'failed' if ended.report is None else 'done'}", flush=True)


def judged(condition: Condition, outcomes: Outcomes) -> dict[str, Any]:
    """Whether a condition holds, with its numbers."""
    metric = outcomes.metric
    first = arm_of(outcomes, condition.better, condition.where)
    if condition.than == "teacher":
        mine, bar = first.estimate(metric), outcomes.teacher()
        if mine is None or bar is None:
            raise ConfigError("than: 'teacher' needs settings.measure_teacher: true")
        value, low, high = mine.value - bar.value, mine.low - bar.value, mine.high - bar.value
        second_title = "the teacher"
    else:
        there = condition.where if condition.than_where is None else condition.than_where
        second = arm_of(outcomes, condition.than, there)
        pair = pair_of("", first, second, metric)
        if pair is None:
            raise ConfigError(f"{first.title} and {second.title} share no test items")
        value, low, high, second_title = pair.value, pair.low, pair.high, second.title
    holds = (low if condition.sure else value) > condition.by
    told = {"first": first.title, "second": second_title, "value": value, "low": low, "high": high}
    return {**told, "by": condition.by, "sure": condition.sure, "holds": holds}


def arm_of(outcomes: Outcomes, method: str, where: Mapping[str, Any]) -> Arm:
    """The arm of a method at a place of the grid.

    Raises:
        ConfigError: none, or several.
    """
    wanted = {key: brief(value) for key, value in where.items()}
    found = [
        arm
        for arm in outcomes.arms
        if arm.method == method and all(brief(arm.about[key]) == one for key, one in wanted.items() if key in arm.about)
    ]
    if len(found) != 1:
        known = ", ".join(arm.title for arm in outcomes.arms)
        raise ConfigError(f"passes: {method} at {wanted} names {len(found)} of: {known}; exactly one was expected")
    return found[0]


# --- the page --------------------------------------------------------------------------------------------------------


def result_of(name: str, claim: Claim) -> dict[str, Any] | None:
    """The settled verdict of a claim whose file still says the same."""
    try:
        found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found if found["key"] == key_of(claim) else None


def page(every: Mapping[str, Claim]) -> str:
    """`docs/claims.md`."""
    lines = [
        "# The papers' claims, put to the test",
        "",
        "Written by `python benchmarks/claims/run.py --out runs/claims`; each claim is a file of `benchmarks/claims/`, "
        "with its experiment and its condition. Students here are small and made from nothing, on generated tasks "
        "where nothing else is said, so a verdict is about this scale, not the paper's. Differences are means over "
        "seeds on the same test items, with the 95 % interval over seeds and items; a condition holds where the whole "
        "interval is above the stated bar. No number stands here that was not run.",
        "",
        _many(every),
        "",
        "| claim | paper says | condition | verdict | numbers | seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [row(name, claim) for name, claim in every.items()]
    counted = [verdict(name, claim)[0] for name, claim in every.items()]
    told = ", ".join(f"{counted.count(one)} {one}" for one in dict.fromkeys(counted))
    lines += [
        "",
        f"In all: {told}.",
        "",
        "One claim alone: `python benchmarks/claims/run.py --out runs/claims --only NAME`.",
    ]
    settled = [found for name, claim in every.items() if (found := result_of(name, claim))]
    minutes = sum(claim.minutes for claim in every.values())
    told = f"All of them: about {minutes:.0f} minutes on two idle cores, by estimate, not measured"
    if len(settled) == sum(not claim.not_testable for claim in every.values()):
        took = sum(one.get("wall_seconds", 0.0) for one in settled) / 60
        told = f"All of them took {took:.0f} minutes here, beside other work"
    lines += [f"{told}.", ""]
    return "\n".join(lines)


def _many(every: Mapping[str, Claim]) -> str:
    """How many conditions were put to the test: of many, some hold by chance."""
    found = [one for name, claim in every.items() for one in (result_of(name, claim) or {}).get("conditions", ())]
    if not found:
        return "No condition was tested yet."
    sure = sum(one.get("sure", True) for one in found)
    some = "1 condition was" if len(found) == 1 else f"{len(found)} conditions were"
    told = f"{some} tested, each at its own level and not corrected for how many there are: if none were true, "
    told += f"about {sure * 0.025:.2g} of the {sure} that ask for a whole interval above the bar would hold by chance"
    return told + (f", and about half of the other {len(found) - sure}." if sure < len(found) else ".")


def over_time(claim: Claim, passed: float, most: float) -> str:
    """Why a claim is not begun after so many minutes of at most so many; '' where it fits."""
    left = most - passed
    if left <= 0:
        return "the time is over"
    return f"it takes about {claim.minutes:g} minutes, {left:.0f} remain" if claim.minutes > left else ""


def verdict(name: str, claim: Claim) -> tuple[str, str, str]:
    """The verdict, its numbers and its seeds, as the table has them."""
    found = result_of(name, claim)
    if found is not None:
        numbers = "; ".join(
            f"{one['first']} - {one['second']} = {one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})"
            for one in found["conditions"]
        )
        values = "; ".join(f"{title} {one['mean']:.3f}" for title, one in found["arms"].items())
        seeds = sorted({seed for one in found["arms"].values() for seed in one["seeds"]}, key=int)
        return found["verdict"], f"{numbers}. {found['metric']}: {values}", ", ".join(seeds)
    if claim.not_testable:
        return "not testable here", claim.not_testable, ""
    return "not run yet", f"needs {', '.join(claim.needs)}" if claim.needs else "", ""


def row(name: str, claim: Claim) -> str:
    wanted = "; ".join(
        f"{one.better}{place(one.where)} above {one.than}{place(one.than_where or {})}"
        + (f" by {one.by:g}" if one.by else "")
        + ("" if one.sure else " (mean)")
        for one in claim.passes
    )
    told, numbers, seeds = verdict(name, claim)
    cells = [f"`{name}`: {claim.claim} ({claim.paper})", claim.reported, wanted, told, numbers, seeds]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def place(where: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{key} {brief(value)}' for key, value in where.items())})" if where else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    parser.add_argument("--only", nargs="+", default=None, help="names of claims")
    parser.add_argument("--minutes", type=float, default=240.0, help="start no claim that would end later")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    every = claims()
    unknown = sorted(set(options.only or ()) - set(every))
    if unknown:
        parser.error(f"no claim {', '.join(unknown)}; known: {', '.join(every)}")
    started = time.monotonic()
    for name, claim in every.items() if not options.table else ():
        if (options.only and name not in options.only) or missing(claim) or result_of(name, claim):
            continue
        why = over_time(claim, (time.monotonic() - started) / 60, options.minutes)
        if why:
            print(f"{name}: not begun, {why}")
            continue
        print(f"{name}: {claim.claim}", flush=True)
        try:
            found = put_to_test(name, claim, options.out, options.workers, options.threads)
        except LmdistillError as error:  # the others go on
            print(f"  no verdict: {error}", flush=True)
            continue
        write_json(RESULTS / f"{name}.json", found)
        print(f"  {found['verdict']}", flush=True)
        write_text(PAGE, page(every))
    write_text(PAGE, page(every))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
