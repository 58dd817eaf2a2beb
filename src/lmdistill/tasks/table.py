"""Your own data: a CSV, TSV, JSONL or Parquet file, or a Hub data set, described in a short YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from lmdistill import arithmetic, config, registry, render
from lmdistill.errors import ConfigError, did_you_mean
from lmdistill.reading import cut_run_on
from lmdistill.tasks import ANSWER_ALONE, Exemplar, Reads
from lmdistill.tasks._released import Style, passages_of, with_choices
from lmdistill.tasks._rows import Row, Unusable, hub_rows, plain, rows_of, share_of
from lmdistill.tasks._sourced import ALIASES, Share, Sourced, shared_out
from lmdistill.types import Example, Parsed, Passage

Answer = Literal["", "choices", "number", "equation", "line", "text", "pattern"]
_READS: dict[str, Reads] = {"number": "value", "equation": "value", "text": "text"}
_METRICS = {"equation": "equation", "line": "exact_match", "pattern": "exact_match", "text": "token_f1"}
_FILES = ("data", "train", "valid", "test", "unlabelled")


@dataclass(frozen=True)
class Description:
    """The keys of a description file; every one may also be set directly, which then counts.

    Where rows are: `data`, one file that is split by hash (or by `split_column`); or a file for each split (a split
    that is missing takes a share of `train`); or `hub`. Columns: `id` (the line's number without one), `input` (a
    column, or a Jinja template over the columns), `label`; rows of training data without a label are `unlabelled`.

    `answer` says how an answer is read: `choices` (given here, or row by row in `choices_column`, texts between `|`),
    `number`, `equation`, `line` (what follows the cue on its line), `text` (all that follows it; without the cue the
    whole completion), or `pattern`, a regular expression whose one group is the answer.

    `knowledge` is a file of the task's own passages (columns `id`, `text`, maybe `title`); `relevant_column` holds the
    ids of those that bear on a row (a list, or texts between `|`), for hits@k, faults and oracles.
    """

    data: Path | None = None
    train: Path | None = None
    valid: Path | None = None
    test: Path | None = None
    unlabelled: Path | None = None
    hub: str = ""
    hub_config: str = ""
    hub_splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "valid": "validation", "test": "test"}, hash=False
    )
    revision: str | None = None
    delimiter: str = ""
    split_column: str = ""
    group_column: str = ""
    valid_fraction: float = 0.1
    test_fraction: float = 0.2
    id: str = ""
    input: str = ""
    label: str = ""
    choices: tuple[str, ...] = ()
    choices_column: str = ""
    knowledge: Path | None = None
    relevant_column: str = ""
    style: Style = "none"
    answer: Answer = ""
    pattern: str = ""
    answer_cue: str = ""
    metric: str = ""
    instruction: str = ""
    exemplars: tuple[Exemplar, ...] = ()
    strict: bool = False


@dataclass(frozen=True)
class Table(Description, Sourced):  # type: ignore[misc]
    """The task that a description file describes, with settings laid over it.

    Example:
        >>> task = Table(data=Path("mail.csv"), input="subject", label="kind", choices=("spam", "ham"))
        >>> task.answer, task.metric
        ('choices', 'accuracy')
    """

    file: Path | None = None

    def __post_init__(self) -> None:
        place = "" if self.file is None else f"{self.file}: "
        if self.file is not None:
            self._take(_described(self.file))
            self._set("file", None)  # all it said is known now, also to who opens a student without that file
        problems = list(self._problems())
        if problems:
            raise ConfigError([f"{place}{problem}" for problem in problems])
        chosen = self.choices or self.choices_column
        self._set("answer", self.answer or ("choices" if chosen else "line"))
        self._set("metric", self.metric or _METRICS.get(self.answer, "accuracy"))
        self._set("answer_cue", self.answer_cue or Sourced.answer_cue)
        self._set("instruction", self.instruction or self._reasons)

    @property
    def _reasons(self) -> str:
        return f"Think step by step, then end with '{self.answer_cue} ...'."

    @property
    def answer_instruction(self) -> str:
        own = "" if self.instruction == self._reasons else self.instruction
        return f"{own} {ANSWER_ALONE}".strip()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _take(self, given: Description) -> None:
        """Fill in from a description what is not set directly."""
        default = Description()
        for each in fields(Description):
            if getattr(self, each.name) == getattr(default, each.name):
                self._set(each.name, getattr(given, each.name))

    def _problems(self) -> Iterator[str]:
        files = [name for name in _FILES if getattr(self, name) is not None]
        if self.hub and files:
            yield f"hub and {files[0]}: give one of them"
        elif not self.hub and not files:
            yield "data: is required (or train, valid and test, or hub)"
        if self.data is not None and len(files) > 1:
            yield f"data and {files[1]}: give one file for all splits, or one for each"
        for name in ("input", "label"):
            if not getattr(self, name) and (name == "input" or files != ["unlabelled"]):
                yield f"{name}: is required, the name of a column"
        if not (self.valid_fraction > 0 and self.test_fraction > 0 and self.valid_fraction + self.test_fraction < 1):
            yield "valid_fraction and test_fraction: numbers above 0 and together below 1 were expected"
        if self.split_column and self.data is None and not self.hub:
            yield "split_column: only with one file in data, or with hub"
        if self.choices and self.choices_column:
            yield "choices and choices_column: give one of them"
        if self.answer == "choices" and not (self.choices or self.choices_column):
            yield "choices: required where answer is 'choices'"
        if (self.choices or self.choices_column) and self.answer not in ("", "choices", "pattern"):
            yield f"answer: {self.answer!r} reads no choices; leave it out, or leave the choices out"
        if (self.answer == "pattern") != bool(self.pattern):
            yield "pattern: required where answer is 'pattern', and only there"
        try:
            if self.pattern and re.compile(self.pattern).groups != 1:
                yield f"pattern: exactly one group was expected in {self.pattern!r}"
        except re.error as error:
            yield f"pattern: {self.pattern!r} is no regular expression ({error})"
        if self.metric and self.metric not in registry.names("metrics"):
            yield f"metric: unknown name {self.metric!r}{did_you_mean(self.metric, registry.names('metrics'))}"
        if self._is_template():
            yield from (wrong for wrong in render.check(self.input, (), "input") if "unknown name" not in wrong)

    # --- the contract's attributes, as the settings say ---

    @property
    def lettered(self) -> bool:  # type: ignore[override]
        return self.style != "none"

    @property
    def reads(self) -> Reads:  # type: ignore[override]
        return _READS.get(self.answer, "line")

    @property
    def bare(self) -> bool:  # type: ignore[override]
        return self.answer == "text"

    @property
    def run_on(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.answer == "text" else Sourced.run_on

    def parse(self, example: Example, text: str) -> Parsed:
        if self.answer != "pattern":
            return super().parse(example, text)
        body = cut_run_on(text, self.run_on)
        found = list(re.finditer(self.pattern, body))
        answers = {match[1].strip() for match in found if match[1] and match[1].strip()}
        if len(answers) == 1:
            rationale, answer = body[: found[0].start()].strip(), answers.pop()
            if not example.choices:
                return Parsed(rationale, answer)
            named = self.read(example, answer)
            return Parsed(rationale, named.answer, named.reason)
        reason = "gives several different answers" if answers else "the pattern matches nothing" if body else "empty"
        return Parsed(body, None, reason)

    # --- rows ---

    def source(self) -> str:
        return self.hub or str(next(path for name in _FILES if (path := getattr(self, name)) is not None))

    def digests(self) -> Mapping[str, str]:
        return {self.hub: self.revision or "main"} if self.hub else super().digests()

    def with_rows(self, path: Path) -> Table:
        """See `lmdistill.tasks.Task.with_rows`; passages that are known to bear on a row need not be marked."""
        changed: dict[str, Any] = dict.fromkeys(_FILES) | {"unlabelled": path}
        changed |= dict.fromkeys(("hub", "split_column", "group_column", "relevant_column", "delimiter"), "")
        return replace(self, **changed)

    def shares(self) -> Mapping[str, Share]:
        if self.hub:
            found = {split: Share(hub_split=name) for split, name in self.hub_splits.items()}
        else:
            paths = {"all" if name == "data" else name: getattr(self, name) for name in _FILES}
            found = {split: Share((path,)) for split, path in paths.items() if path is not None}
        if self.split_column:
            every = found.get("all") or found["train"]
            return dict.fromkeys(ALIASES, every)
        out = shared_out(found, self.valid_fraction, self.test_fraction, folder=False)
        unlabelled = found.get("all") or found.get("train")
        return out if "unlabelled" in out or unlabelled is None else {**out, "unlabelled": unlabelled}

    def rows(self, share: Share) -> Iterator[Row]:
        if share.hub_split:
            yield from hub_rows(self.hub, self.hub_config, self.revision, share.hub_split)
        for path in share.files:
            yield from rows_of(path, self.delimiter)

    def row_example(self, row: Row, split: str, share: Share) -> Example | None:
        label = None if split == "unlabelled" and self.unlabelled else row.optional(self.label)
        name = str(row.optional(self.id) or "") if self.id else f"{Path(row.source).name.partition('.')[0]}-{row.line}"
        if not self._belongs(row, split, share, name, labelled=label is not None):
            return None
        choices = self._choices(row)
        text = self._text(row, choices)
        if label is None and split != "unlabelled":
            raise Unusable(f"{self.label} is empty")
        fields = self._fields(row)
        whole = with_choices(text, choices, self.style)
        if whole != text:
            fields.setdefault("question", text)  # what a knowledge base is searched with
        return Example(name, whole, self._label(row, label, choices), choices, fields)

    def _belongs(self, row: Row, split: str, share: Share, name: str, *, labelled: bool) -> bool:
        """Whether a row is of a split: by its column, by its hash, or, in training data, by having no label."""
        spare = not labelled and self.unlabelled is None
        if self.split_column:
            given = row.text(self.split_column).casefold()
            own = next((known for known, names in ALIASES.items() if given in names), None)
            if own is None:
                raise row.error(f"split {given!r} is none of {', '.join(ALIASES)}{did_you_mean(given, ALIASES)}")
            return split == ("unlabelled" if spare and own == "train" else own)
        if split == "unlabelled":
            return self.unlabelled is not None or not labelled
        training = share.files in ((self.data,), (self.train,)) or share.hub_split == self.hub_splits.get("train")
        if spare and training:
            return False
        return share.low <= share_of(str(row.optional(self.group_column) or name)) < share.high

    def passages(self) -> Sequence[Passage]:
        return () if self.knowledge is None else passages_of(self.knowledge, ("id", "pid"))

    def relevant(self, example: Example) -> tuple[str, ...]:
        return _listed(example.fields.get(self.relevant_column)) if self.relevant_column else ()

    def _choices(self, row: Row) -> tuple[str, ...]:
        if not self.choices_column:
            return self.choices
        value = row.optional(self.choices_column)
        if value is None:
            raise Unusable(f"{self.choices_column} is empty")
        choices = _listed(value)
        if len(choices) < 2 or not all(choices):
            raise Unusable(f"{self.choices_column} has fewer than two choices, or an empty one")
        return choices

    def _is_template(self) -> bool:
        return "{{" in self.input or "{%" in self.input

    def _text(self, row: Row, choices: tuple[str, ...]) -> str:
        if self._is_template():
            values = {**(row.values or {}), "row": dict(row.values or {}), "choices": list(choices)}
            try:
                text = render.render(self.input, values)
            except ConfigError as error:
                raise row.error(str(error)) from error
        else:
            text = row.text(self.input)
        if not text.strip():
            raise Unusable("input is empty")
        return text

    def _label(self, row: Row, value: Any, choices: tuple[str, ...]) -> str | None:
        if value is None:
            return None
        text = str(value).strip()
        if choices and text not in choices:
            letter = text.strip("()").upper()
            if self.lettered and len(letter) == 1 and 0 <= ord(letter) - 65 < len(choices):
                return choices[ord(letter) - 65]
        if self.answer in ("number", "equation") and arithmetic.value(text) is None:
            raise row.error(f"label {text!r} is not a {self.answer}; mend it, or read answers as 'line'")
        return text

    def _fields(self, row: Row) -> dict[str, Any]:
        row.optional(self.relevant_column)  # a column that is not there is told
        used = {self.label, self.choices_column}
        return {str(key): plain(value) for key, value in (row.values or {}).items() if key not in used}


def _listed(value: Any) -> tuple[str, ...]:
    """The texts of a list, or between the `|` of a text."""
    many = value.split("|") if isinstance(value, str) else value or ()
    return tuple(str(one).strip() for one in many)


def _described(file: Path) -> Description:
    """A description file, its relative paths taken from where it lies.

    Raises:
        ConfigError: every problem in it at once.
    """
    settings = config.load(file)
    try:
        given = config.build(Description, settings)
    except ConfigError as error:
        raise ConfigError([f"{file}: {problem}" for problem in error.problems]) from error
    paths = {name: getattr(given, name) for name in (*_FILES, "knowledge")}
    return replace(given, **{name: file.parent / path for name, path in paths.items() if path is not None})
