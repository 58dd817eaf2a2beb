"""What a report shows of predictions and stages: confusions, calibration, the funnel of curation, every test item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmdistill.arms import Arm, item_key
from lmdistill.contests import goodness
from lmdistill.outcomes import Outcomes
from lmdistill.store import read_manifest
from lmdistill.types import Annotation, Hit, Prediction

LABELS = 12
"""Labels up to which a confusion matrix is drawn."""
NONE = "(no answer)"
HELD_ARMS = 12
"""Methods that the error browser holds: the baseline and the best ones."""
SHOWN_ARMS = 6
"""Those of them that it shows before others are chosen."""
LONGEST = 2000
"""Characters of a text that the error browser shows."""


def confusion(arm: Arm) -> dict[str, Any] | None:
    """Counts of gold against answer over all seeds; None where answers are no small set of labels."""
    counts: Counter[tuple[str, str]] = Counter()
    gold: Counter[str] = Counter()
    task = arm.task
    shown: dict[str, str] = {}
    for run in arm.runs.values():
        for one in run.predictions():
            if one.example.label is None:
                return None
            label = task.canonical(one.example.label)
            shown.setdefault(label, one.example.label)
            gold[label] += 1
            counts[label, NONE if one.answer is None else task.canonical(one.answer)] += 1
            if len(gold) > LABELS:
                return None
    if len(gold) < 2:
        return None
    labels = sorted(gold)
    rest = Counter(answer for _, answer in counts.elements() if answer not in gold)
    others = [NONE] if set(rest) == {NONE} else ["(another answer)"] if rest else []
    rows = [
        [counts[label, answer] for answer in labels]
        + ([sum(count for (own, answer), count in counts.items() if own == label and answer in rest)] if others else [])
        for label in labels
    ]
    written = [shown[one] for one in labels]
    return {"title": arm.title, "gold": written, "answers": [*written, *others], "rows": rows}


def calibration(arm: Arm, bins: int = 10) -> dict[str, Any] | None:
    """Mean confidence, share right and number of the items of each bin; None where there are no confidences."""
    task = arm.task
    found: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for run in arm.runs.values():
        for one in run.predictions():
            if one.answer is not None and one.confidence is not None:
                place = min(bins - 1, int(one.confidence * bins))
                found[place].append((one.confidence, task.is_correct(one.example, one.answer)))
    rows = [
        [sum(c for c, _ in own) / len(own), sum(right for _, right in own) / len(own), len(own)] for own in found if own
    ]
    if not rows:
        return None
    total = sum(row[2] for row in rows)
    error = sum(abs(row[0] - row[1]) * row[2] for row in rows) / total
    return {"title": arm.title, "bins": rows, "calibration_error": error, "n": total}


def funnels(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """What became of the teacher's answers at each step, for every way that differs; `titles` went it."""
    found: dict[str, dict[str, Any]] = {}
    for arm in arms:
        folder = next(iter(arm.runs.values())).folder
        rows: list[dict[str, Any]] = []
        asked, curated = read_manifest(folder / "annotations"), read_manifest(folder / "curated")
        if asked is not None:
            counts = asked.counts
            dropped = {key.removeprefix("rejected: "): n for key, n in counts.items() if key.startswith("rejected: ")}
            parsed = counts.get("parsed", 0)
            rows.append(_step("read the answers", parsed + sum(dropped.values()), dropped, parsed))
        for step in curated.facts.get("funnel", ()) if curated is not None else ():
            rows.append(_step(step["step"], step["reached"], step["dropped"], step["left"]))
        if rows:
            known = found.setdefault(repr(rows), {"titles": [], "steps": rows})
            known["titles"].append(arm.title)
    return list(found.values())


def _step(name: str, reached: int, dropped: Mapping[str, int], left: int) -> dict[str, Any]:
    return {"step": name, "reached": reached, "dropped": dict(dropped), "left": left}


# --- the error browser -----------------------------------------------------------------------------------------------


def items(outcomes: Outcomes, limit: int) -> dict[str, Any]:
    """Test items with every method's answer and rationale (the first seed of the arm with the most data)."""
    every = [arm for arm in outcomes.full() if next(iter(arm.runs.values())).rows.exists()]
    ranked = sorted(every, key=lambda arm: _rank(arm, outcomes))
    arms = [arm for arm in every if arm in ranked[:HELD_ARMS]]
    columns = [{item_key(one.example): one for one in next(iter(arm.runs.values())).predictions()} for arm in arms]
    teacher: dict[str, Annotation] = {}
    for arm in outcomes.arms if len(outcomes.teachers()) < 2 else ():
        teacher = teacher or {item_key(one.example): one for one in arm.teacher_rows().values()}
    order = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in order[:limit]:
        told = [column.get(name) for column in columns]
        first = next(one for one in told if one is not None)
        row: dict[str, Any] = {
            "id": first.example.id,
            "input": _cut(first.example.input),
            "choices": list(first.example.choices),
            "gold": first.example.label,
            "said": [None if one is None else _said(one, arm) for one, arm in zip(told, arms, strict=True)],
        }
        if name in teacher:
            row["teacher"] = _teacher(teacher[name], arms[0])
        rows.append(row)
    return {
        "methods": [arm.title for arm in arms],
        "shown": [place for place, arm in enumerate(arms) if arm in ranked[:SHOWN_ARMS]],
        "not_held": [arm.title for arm in ranked[HELD_ARMS:]],
        "items": rows,
        "of": len(order),
    }


def _rank(arm: Arm, outcomes: Outcomes) -> tuple[bool, bool, float]:
    """The baseline, then the best ones, then what competes with none."""
    return arm.method != outcomes.baseline, arm.method in outcomes.aside, -goodness(arm, outcomes.metric)


def _said(one: Prediction, arm: Arm) -> dict[str, Any]:
    row: dict[str, Any] = {"answer": one.answer, "right": _task_of(arm).is_correct(one.example, one.answer)}
    if one.rationale:
        row["rationale"] = _cut(one.rationale)
    elif one.answer is None:
        row["rationale"] = _cut(one.text)
    if one.reason:
        row["reason"] = one.reason
    if one.confidence is not None:
        row["confidence"] = round(one.confidence, 3)
    if one.hits:
        row["hits"] = list(_hits(one.hits))
    return row


_TASKS: dict[str, Any] = {}


def _task_of(arm: Arm) -> Any:
    """The arm's task, built once."""
    key = repr(arm.report.settings["task"])
    if key not in _TASKS:
        _TASKS[key] = arm.task
    return _TASKS[key]


def _teacher(one: Annotation, arm: Arm) -> dict[str, Any]:
    every = (*one.rationales, *one.rejected)
    answer = one.vote.answer
    behind = next((each for each in every if each.answer == answer), None)
    row: dict[str, Any] = {"answer": answer, "right": _task_of(arm).is_correct(one.example, answer)}
    if behind is not None:
        row["rationale"] = _cut(behind.text or behind.raw)
    return row


def _hits(hits: Sequence[Hit]) -> Iterator[dict[str, str]]:
    for hit in hits[:5]:
        yield {"id": hit.passage.id, "title": hit.passage.title, "text": _cut(hit.passage.text)}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
