"""Answers read out of what a model wrote.

Every function here is total (any text gives a result, nothing raises) and none guesses: where a text names no answer,
or several, the answer is None and a reason says why. A completion is read in four steps: cut off what the model
invented after its answer, find the cues ('so the answer is', 'Answer:'), read what follows each, and take the one
answer that the conclusive cues agree on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lmdistill.answers import SENTENCE, Found, choice_in, folded, line_in, text_in
from lmdistill.types import Parsed

Reader = Callable[[str], Found]
"""Reads what stands after an answer cue."""

RUN_ON = ("Q:", "Question:", "Premise:", "Input:", "Problem:", "Example:")
"""Beginnings of a line at which a model has gone on to a next, invented question."""

_CUE = re.compile(
    r"""
    (?P<so>\b(?:so|therefore|thus|hence|consequently|finally)\b[\s,:]*
        (?:among\s\(?\w\)?\s(?:through|to)\s\(?\w\)?[\s,]*)?)?
    (?:\b(?:the|my|our)\s+)?
    [*_<]*
    (?: (?P<final>\bfinal\s+)?(?:(?:correct|best|right)\s+)?\banswer | \b(?:correct|best|right)\s+(?:choice|option) )
    (?:\s*\([^()\n]{0,40}\))?
    (?:\s+to\s+(?:the|this)\s+(?:question|problem))?
    [*_>]*
    (?: \s+is\b(?!\s+(?:not|neither)\b|n't) (?:\s+that\b)? | \s*(?P<colon>:) )
    [\s:*_]* (?:answer\s*:[\s*_]*)?
    | (?P<marked> \\boxed\{ | ^\#{4}\s* )
    """,
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_BACKWARD = re.compile(
    r"(?P<said>[^.\n]{1,120}?),?\s+(?:is|would\s+be)\s+(?:therefore\s+|thus\s+)?the\s+"
    r"(?:correct|best|right|most\s+likely)\s+(?:answer|choice|option)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^\W{0,2}(?:rationale|explanation|reasonings?|reason|thought|a)\s*\W?\s*:\s*", re.IGNORECASE)


class _Cue(NamedTuple):
    start: int
    said: str
    conclusive: bool


def read_answer(
    text: str,
    choices: Sequence[str] = (),
    *,
    lettered: bool = True,
    cue: str = "",
    run_on: Sequence[str] = RUN_ON,
    read: Reader | None = None,
) -> Parsed:
    """Split a completion into its rationale and its answer.

    Args:
        choices: the answers that are possible, named by their text or, if `lettered`, by their letter.
        cue: the task's own answer cue, where it is none of the usual ones.
        run_on: beginnings of a line at which the text is cut.
        read: how to read what follows a cue where there are no choices; by default the rest of the line.

    >>> read_answer("It adds up. So the answer is (b) blue.\\n\\nQ: What", ["red", "blue"])
    Parsed(rationale='It adds up.', answer='blue', reason=None)
    >>> read_answer("I am not sure.").reason
    'no answer cue'
    >>> read_answer("So the answer is either (a) red or (b) blue.", ["red", "blue"]).reason
    'names several choices'
    """
    body = cut_run_on(text, run_on)
    if not body:
        return Parsed("", None, "empty")
    reader = functools.partial(choice_in, choices=choices, lettered=lettered) if choices else read or line_in
    cues = _cues(body, cue)
    found = [(each, reader(each.said)) for each in cues]
    conclusive = [(each, result) for each, result in found if each.conclusive and each.said]
    for group in (conclusive, [] if conclusive else found):
        answers = {result.key or folded(result.answer) for _, result in group if result.answer is not None}
        if len(answers) > 1:
            return Parsed(_rationale(body, cues[0].start), None, "gives several different answers")
        for each, result in group:
            if result.answer is not None:
                return Parsed(_rationale(body, each.start), result.answer)
    if choices:
        backward = _BACKWARD.findall(body)
        named = {result.answer for result in map(reader, backward) if result.answer is not None}
        if len(named) == 1:
            return Parsed(_rationale(body, len(body)), named.pop())
    if not cues:
        return _bare(body, choices, lettered)
    return Parsed(_rationale(body, cues[0].start), None, (conclusive or found)[-1][1].reason)


def read_text(text: str, *, cue: str, bare: bool = False, run_on: Sequence[str] = ()) -> Parsed:
    """Split a completion whose answer is a text of its own at the task's own cue, and at nothing else.

    Args:
        bare: whether a completion without the cue is all answer.

    >>> read_text("It rained. Summary: A wet day. So the answer is no.", cue="Summary:")
    Parsed(rationale='It rained.', answer='A wet day. So the answer is no.', reason=None)
    """
    body = cut_run_on(text, run_on)
    if not body:
        return Parsed("", None, "empty")
    match = _own_cue(cue).search(body)
    if match is None:
        return Parsed("", body) if bare else Parsed(_rationale(body, len(body)), None, "no answer cue")
    found = text_in(body[match.end() :])
    return Parsed(_rationale(body, match.start()), found.answer, found.reason)


def cut_run_on(text: str, run_on: Sequence[str] = RUN_ON) -> str:
    """The text before the first line that begins like a new question.

    >>> cut_run_on("Answer: yes\\n\\nPremise: A man")
    'Answer: yes'
    """
    body = text.strip()
    if not run_on:
        return body
    match = _next_question(tuple(run_on)).search(body)
    return body[: match.start()].rstrip() if match else body


@functools.lru_cache(maxsize=64)
def _next_question(run_on: tuple[str, ...]) -> re.Pattern[str]:
    starts = "|".join(r"\s*".join(re.escape(piece) for piece in re.findall(r"\w+|[^\w\s]", mark)) for mark in run_on)
    return re.compile(rf"\n\s*(?:{starts})", re.IGNORECASE)


def _cues(body: str, own: str) -> list[_Cue]:
    spans = [
        (match.start(), match.end(), bool(match["so"] or match["final"] or match["marked"] or _opens_line(body, match)))
        for match in _CUE.finditer(body)
    ]
    if own:
        for match in _own_cue(own).finditer(body):
            if not any(start <= match.start() < end or match.start() <= start < match.end() for start, end, _ in spans):
                spans.append((match.start(), match.end(), True))
        spans.sort()
    if not spans:
        return []
    limits = [start for start, _, _ in spans[1:]] + [len(body)]
    found = []
    for (start, end, conclusive), limit in zip(spans, limits, strict=True):
        said = body[end:limit]
        if body[:end].endswith("\\boxed{"):
            said = said.partition("}")[0]
        found.append(_Cue(start, said.strip(), conclusive))
    return found


def _opens_line(body: str, match: re.Match[str]) -> bool:
    return bool(match["colon"]) and not body[body.rfind("\n", 0, match.start()) + 1 : match.start()].strip()


@functools.lru_cache(maxsize=64)
def _own_cue(cue: str) -> re.Pattern[str]:
    pieces = re.findall(r"\w+|[^\w\s]", cue)
    if not pieces:
        return re.compile(r"(?!)")
    return re.compile(r"\s*".join(map(re.escape, pieces)) + r"[\s:]*", re.IGNORECASE)


def _rationale(body: str, end: int) -> str:
    return _LABEL.sub("", body[:end].strip(), count=1).rstrip(" ,;").strip()


def _bare(body: str, choices: Sequence[str], lettered: bool) -> Parsed:
    """A completion without a cue whose first or last sentence is nothing but one of the choices."""
    units = [unit for line in body.splitlines() for unit in SENTENCE.split(line) if unit and unit.strip()]
    if choices and units:
        first, last = (choice_in(unit, choices, lettered=lettered, bare=True) for unit in (units[0], units[-1]))
        answers = {found.answer for found in (first, last)} - {None}
        if len(answers) == 1:
            rest = body[body.find(units[0]) + len(units[0]) :] if first.answer else body[: body.rfind(units[-1])]
            return Parsed(_LABEL.sub("", rest.strip().removeprefix("."), count=1).strip(), answers.pop())
    return Parsed(_LABEL.sub("", body, count=1).strip(), None, "no answer cue")
