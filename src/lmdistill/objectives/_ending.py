"""Where the answer of a text that goes on is complete."""

from __future__ import annotations

import re

from lmdistill import render
from lmdistill.tasks import Task
from lmdistill.types import Example

SETTLED = 4
"""A choice or a number is complete when so many further words do not change how it is read."""
WITHIN = 24
"""An answer that has not begun after so many words is none."""


def answer_end(text: str, cue: str, task: Task, example: Example) -> int | None:
    """The length of a text up to the end of its first complete answer; None while there is none.

    A choice or a number is complete at the end of its line, or when further words do not change it; a line at its line
    break; an answer of several lines at a blank one.

    >>> from lmdistill import registry
    >>> task, asked = registry.load("tasks", "sums")(), Example("1", "6 and 6 ?")
    >>> text = "it is so . So the answer is: 12 apples . and then she went So the answer is: 9"
    >>> text[: answer_end(text, "So the answer is:", task, asked)]
    'it is so . So the answer is: 12'
    """
    for start in render.cue_ends(text, cue):
        length = _complete(text[start:], task, example)
        if length is not None:
            return start + length
    return None


def _complete(said: str, task: Task, example: Example) -> int | None:
    body = said.lstrip()
    before = len(said) - len(body)
    if task.reads == "text" and not example.choices:
        end = re.search(r"\s*\n\s*\n", body)
        return before + end.start() if end else None
    line, broken, _ = body.partition("\n")
    if broken:
        return before + len(line.rstrip()) if task.read(example, line).answer is not None else None
    if task.reads == "line" and not example.choices:
        return None
    ends = [word.end() for word in re.finditer(r"\S+", line)][: WITHIN + SETTLED]
    read = [task.read(example, line[:end]).answer for end in ends]
    for place in range(len(ends) - SETTLED):
        if read[place] is not None and len(set(read[place : place + SETTLED + 1])) == 1:
            return before + ends[place]
    return None
