"""Text that goes into a model, and what is read back out of it.

Prompts and sources are Jinja templates, rendered in a sandbox (a task file may come from somebody else). A rationale
and its answer are joined and split here and nowhere else, so training, prompting and inference agree.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import jinja2.exceptions
import jinja2.meta
import jinja2.sandbox

from lmdistill.errors import ConfigError, did_you_mean
from lmdistill.types import Example, Hit, Passage

# --- templates -------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    return jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )


@functools.lru_cache(maxsize=256)
def _compiled(template: str) -> jinja2.Template:
    try:
        return _environment().from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"template {_short(template)}, line {error.lineno}: {error.message}") from error


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template in.

    >>> render("Q: {{ question }} {% for c in choices %}({{ c }}){% endfor %}", {"question": "Why?", "choices": "ab"})
    'Q: Why? (a)(b)'

    Raises:
        ConfigError: a syntax error, a name that is not among `values` (the message lists them), an unsafe template.
    """
    compiled = _compiled(template)
    try:
        return compiled.render(values)
    except jinja2.UndefinedError as error:
        missing = sorted(_names(template) - set(values))
        near = did_you_mean(missing[0], values) if missing else "."
        known = ", ".join(sorted(values)) or "none"
        raise ConfigError(f"template {_short(template)}: {error.message}{near} Known names: {known}") from error
    except jinja2.exceptions.SecurityError as error:
        raise ConfigError(f"template {_short(template)}: not allowed in a template: {error}") from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise ConfigError(f"template {_short(template)}: {type(error).__name__}: {error}") from error


def check(template: str, known: Iterable[str], where: str = "template") -> list[str]:
    """What is wrong with a template before any row is read: its syntax, and every name that is not known.

    >>> check("{{ premis }} and {{ hypothesis }}", ["premise", "hypothesis"], "prompt")
    ["prompt: unknown name 'premis'; did you mean 'premise'? Known: hypothesis, premise"]
    """
    try:
        missing = sorted(_names(template) - set(known))
    except ConfigError as error:
        return [f"{where}: {error}"]
    listed = ", ".join(sorted(known))
    return [f"{where}: unknown name {name!r}{did_you_mean(name, known)} Known: {listed}" for name in missing]


def values_of(example: Example, hits: Sequence[Hit] = (), **more: Any) -> dict[str, Any]:
    """What a template may name for an example: its fields, `id`, `input`, `choices`, `passages`, and `more`.

    The label is not among them, so no source can show it by accident; pass it in `more` where it must be shown.
    """
    passages = [hit.passage for hit in hits]
    own = {"id": example.id, "input": example.input, "choices": list(example.choices), "passages": passages}
    return {**example.fields, **own, **more}


def _names(template: str) -> set[str]:
    _compiled(template)
    return jinja2.meta.find_undeclared_variables(_environment().parse(template))


def _short(template: str, width: int = 60) -> str:
    line = " ".join(template.split())
    return repr(line if len(line) <= width else line[: width - 3] + "...")


# --- passages --------------------------------------------------------------------------------------------------------


def passage_text(passage: Passage) -> str:
    """A passage in one line, its title first where it has one.

    >>> passage_text(Passage("p1", "The heart\\npumps blood.", title="Heart"))
    'Heart: The heart pumps blood.'
    """
    text = " ".join(passage.text.split())
    title = " ".join(passage.title.split())
    return f"{title}: {text}" if title else text


def passages_block(
    hits: Sequence[Hit | Passage], *, lead: str = "", between: str = "\n", numbered: bool = False
) -> str:
    """Passages as one block of text; nothing at all, not even `lead`, where there are none.

    >>> passages_block([Passage("p1", "Mice eat cheese."), Passage("p2", "Cats eat mice.")], numbered=True)
    '[1] Mice eat cheese.\\n[2] Cats eat mice.'
    """
    texts = [passage_text(hit.passage if isinstance(hit, Hit) else hit) for hit in hits]
    if numbered:
        texts = [f"[{number}] {text}" for number, text in enumerate(texts, 1)]
    return lead + between.join(texts) if texts else ""


# --- rationale, cue, answer ------------------------------------------------------------------------------------------


class Split(NamedTuple):
    """A text split at its cue; `answer` is None where there is no cue, or nothing after it."""

    rationale: str
    answer: str | None


def join_rationale(rationale: str, answer: str, cue: str) -> str:
    """'rationale cue answer', with one space where the cue brings no white space of its own.

    >>> join_rationale("6 and 6 make 12.", "12", "So the answer is")
    '6 and 6 make 12. So the answer is 12'
    >>> join_rationale("", "12", "So the answer is")
    'So the answer is 12'
    """
    before = "" if not rationale.strip() or cue[:1].isspace() else " "
    after = "" if cue[-1:].isspace() else " "
    return f"{rationale.strip()}{before}{cue}{after}{answer.strip()}".strip()


def split_rationale(text: str, cue: str) -> Split:
    """Split what a model wrote at the last cue that something follows: the inverse of `join_rationale`.

    Case and white space do not matter, so the output of a word-level tokenizer is read too; in a cue of three words
    or more neither does punctuation. An answer ends at the first blank line.

    >>> split_rationale("6 and 6 make 12 . so the answer is : 12", "So the answer is")
    Split(rationale='6 and 6 make 12 .', answer='12')
    >>> split_rationale("I wonder", "So the answer is")
    Split(rationale='I wonder', answer=None)
    """
    matches = list(_cue_pattern(cue).finditer(text))
    if not matches:
        return Split(text.strip(), None)
    ends = [match.start() for match in matches[1:]] + [len(text)]
    for match, end in zip(reversed(matches), reversed(ends), strict=True):
        answer = re.split(r"\n\s*\n", text[match.end() : end].strip(), maxsplit=1)[0].strip()
        if answer:
            return Split(text[: match.start()].strip(), answer)
    return Split(text[: matches[0].start()].strip(), None)


def cue_ends(text: str, cue: str) -> list[int]:
    """Where each occurrence of a cue ends.

    >>> cue_ends("so it is 5 . So it is: 6", "so it is")
    [8, 22]
    """
    return [match.end() for match in _cue_pattern(cue).finditer(text)]


@functools.lru_cache(maxsize=64)
def _cue_pattern(cue: str) -> re.Pattern[str]:
    pieces = re.findall(r"\w+|[^\w\s]", cue)
    if not pieces:
        raise ConfigError(f"an answer cue of at least one word was expected, got {cue!r}")
    lax = sum(piece[0].isalnum() for piece in pieces) >= 3
    pattern = ""
    for index, piece in enumerate(pieces):
        if re.match(r"\w", piece):
            spaced = index > 0 and re.match(r"\w", pieces[index - 1])
            pattern += (r"\s+" if spaced else r"\s*" if index else r"(?<!\w)") + re.escape(piece)
            pattern += r"(?!\w)"
        else:
            pattern += rf"(?:\s*{re.escape(piece)})" + ("?" if lax else "")
    return re.compile(pattern + (r"(?:\s*:)?" if lax else ""), re.IGNORECASE)
