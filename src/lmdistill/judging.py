"""Whose rationales are better: two students compared pair by pair, by an LLM judge or by people, without knowing whose.

    pairs = pairs_of(first, second, seed=0, only="both_right", task=task)
    compared = judge(pairs, teacher)                          # an LLM, asked once or in both orders
    write_sheet(pairs, folder); compared = read_sheets(folder, [folder / "sheet.csv"])      # people

Which of the two is shown first is drawn for each pair, and is kept in the pair alone: neither a judge's prompt nor a
rating sheet tells it. A tie counts half for each; the interval is over pairs.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lmdistill import intervals
from lmdistill.errors import ConfigError, DataError
from lmdistill.progress import track
from lmdistill.store import seed_for
from lmdistill.students import Generator
from lmdistill.tasks import Task
from lmdistill.types import Estimate, Prediction, Sampling

Verdict = Literal["first", "second", "tie"]
Only = Literal["all", "both_right", "both_answered"]
"""Which pairs are compared. `both_right` takes correctness out of the comparison (SCoTD's controlled setting)."""

SAMPLING = Sampling(max_tokens=400)
INSTRUCTION = """Two explanations of an answer to the same question follow. Judge the explanations: which one is \
better reasoned, more coherent and better supported by facts? Do not mind their length or their order.

Question:
{question}

Explanation A:
{left}

Explanation B:
{right}

Think briefly, then end with exactly one of these lines:
Better: A
Better: B
Better: tie"""

_VERDICT = re.compile(
    r"""\bbetter\s*(?:is)?\s*[:=]\s*[*_("']*\s*(?:explanation\s+)?
    (?:
      (?:an?\s+)?(tie|both|neither|draw)\b
    | (a|b)\b(?![*_)"']*\s*(?:or|and|/)\s*(?:explanation\s+)?[*_("']*[ab]\b)  # 'A or B' chooses neither
    )""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class Pair:
    """One question with the rationales of two students; `swapped` says that the second one stands on the left."""

    id: str
    question: str
    first: str
    second: str
    swapped: bool

    @property
    def left(self) -> str:
        return self.second if self.swapped else self.first

    @property
    def right(self) -> str:
        return self.first if self.swapped else self.second

    def verdict(self, side: str | None) -> Verdict | None:
        """Whose win it is when 'a' (left), 'b' (right) or 'tie' is chosen."""
        if side is None or side == "tie":
            return side  # type: ignore[return-value]
        return "second" if (side == "a") == self.swapped else "first"


@dataclass(frozen=True)
class Compared:
    """The outcome: `share` is the first student's share of wins, a tie counting half for each.

    `left` is the share of decided pairs won by what stood on the left: far from one half, the judge minds the order.
    `agreement` is how often two ratings of one pair were the same (two orders of an LLM, or two people).
    """

    share: Estimate
    counts: Mapping[str, int]
    left: Estimate | None = None
    agreement: float | None = None
    verdicts: Mapping[str, Verdict | None] | None = None


def pairs_of(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    *,
    seed: int = 0,
    only: Only = "all",
    task: Task | None = None,
    most: int | None = None,
) -> list[Pair]:
    """The questions that both answered, in a random order and each with its sides drawn.

    Raises:
        ConfigError: no question in common, or none that `only` lets through; `both_right` without a task.
    """
    if only == "both_right" and task is None:
        raise ConfigError("only='both_right' needs the task, to know which answers are right")
    others = {one.example.id: one for one in second}
    pairs = []
    for one in first:
        other = others.get(one.example.id)
        if other is None or not (one.rationale.strip() or other.rationale.strip()):
            continue
        if only == "both_right" and task is not None:
            if not all(task.is_correct(each.example, each.answer) for each in (one, other)):
                continue
        elif only == "both_answered" and (one.answer is None or other.answer is None):
            continue
        swapped = random.Random(seed_for("sides", seed, one.example.id)).random() < 0.5
        pairs.append(Pair(one.example.id, one.example.input, one.rationale, other.rationale, swapped))
    if not pairs:
        raise ConfigError(
            f"no pair to compare: {len(first)} and {len(second)} predictions have no question in common that has a "
            f"rationale and is {only.replace('_', ' ')}. Compare predictions of the same split"
        )
    pairs.sort(key=lambda pair: seed_for("order", seed, pair.id))
    return pairs[:most]


def judge(
    pairs: Sequence[Pair],
    judge: Generator,
    *,
    sampling: Sampling = SAMPLING,
    both_orders: bool = True,
    batch_size: int = 64,
) -> Compared:
    """Ask an LLM which rationale is better; in `both_orders` a win must survive the swap, or the pair is a tie."""
    orders = (False, True) if both_orders else (False,)
    sides: dict[bool, list[str | None]] = {order: [] for order in orders}
    for start in track(range(0, len(pairs), batch_size), "judge", unit="batches"):
        chunk = pairs[start : start + batch_size]
        for order in orders:
            written = judge.generate([_prompt(pair, turned=order) for pair in chunk], sampling)
            sides[order] += [_turned(read_verdict(own[0].text), order) for own in written]
    verdicts: dict[str, Verdict | None] = {}
    agreed = []
    for pair, *found in zip(pairs, *sides.values(), strict=True):
        own = [pair.verdict(side) for side in found]
        verdicts[pair.id] = own[0] if len(set(own)) == 1 else None if None in own else "tie"
        if both_orders and None not in own:
            agreed.append(own[0] == own[1])
    compared = summed(verdicts)
    # Where both orders were asked, the side is that of the prompt: of the second one turned back.
    seen = [_turned(side, order) for order, own in sides.items() for side in own if side in ("a", "b")]
    return Compared(
        compared.share,
        compared.counts,
        share_of(seen.count("a"), len(seen)) if seen else None,
        sum(agreed) / len(agreed) if agreed else None,
        verdicts,
    )


def _prompt(pair: Pair, *, turned: bool) -> str:
    left, right = (pair.right, pair.left) if turned else (pair.left, pair.right)
    return INSTRUCTION.format(question=pair.question, left=left.strip() or "(none)", right=right.strip() or "(none)")


def _turned(side: str | None, turned: bool) -> str | None:
    return {"a": "b", "b": "a"}.get(side or "", side) if turned else side


def read_verdict(text: str) -> str | None:
    """'a', 'b' or 'tie' from a judge's text: its last verdict; None where it gives none.

    >>> read_verdict("A is short. Better: **B**"), read_verdict("Better: neither"), read_verdict("I like A")
    ('b', 'tie', None)
    >>> read_verdict("Better: A or B?"), read_verdict("Better: A tie")
    (None, 'tie')
    """
    found = _VERDICT.findall(text)
    if not found:
        return None
    _, side = found[-1]
    return str(side).lower() or "tie"


def summed(verdicts: Mapping[str, Verdict | None]) -> Compared:
    """The first student's share with its interval; unread verdicts are counted and left out.

    Raises:
        DataError: not one verdict.
    """
    counts = Counter("unread" if verdict is None else verdict for verdict in verdicts.values())
    values = [{"first": 1.0, "tie": 0.5, "second": 0.0}[verdict] for verdict in verdicts.values() if verdict]
    if not values:
        raise DataError(f"none of {len(verdicts)} pairs has a verdict that can be read")
    low, high = intervals.bootstrap(values)
    if len(set(values)) == 1 and values[0] in (0.0, 1.0):  # nothing varies: resampling would say that it is certain
        low, high = intervals.wilson(sum(values), len(values))
    share = Estimate(sum(values) / len(values), low, high, len(values))
    return Compared(share, {name: counts[name] for name in ("first", "second", "tie", "unread")}, verdicts=verdicts)


def share_of(part: int, n: int) -> Estimate:
    """A share with Wilson's interval."""
    low, high = intervals.wilson(part, n)
    return Estimate(part / n, low, high, n)
