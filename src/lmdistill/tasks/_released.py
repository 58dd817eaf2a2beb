"""What the tasks of published data share: a local folder or the Hub, and splits that are honest about themselves.

A folder holds files named after their split (`train`, `valid`/`validation`/`val`/`dev`, `test`, `unlabelled`, with
anything behind a `_` or `-`), as JSON Lines, CSV, TSV or Parquet; the texts may be gzipped. Files that begin with `kb_`
are knowledge bases. Where splits are missing:

    train, valid, test    as they are
    train, test           valid is a share of train (`valid_fraction`), by a hash of the row's id
    train, valid          valid is the test set, and a share of train is the validation set
    one file              test is a share of it (`test_fraction`), valid another, train the rest

so nothing is ever selected on the rows that are reported. `origin(split)` says which case it was.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from lmdistill.errors import ConfigError, DataError
from lmdistill.tasks._rows import Row, Unusable, hub_rows, plain, rows_of, share_of
from lmdistill.tasks._sourced import Share, Sourced, files_of, shared_out
from lmdistill.types import Example, Passage

Style = Literal["lines", "inline", "letters", "none"]


@dataclass(frozen=True)
class Released(Sourced):
    """Settings of every task of published data: `path` is a local folder or file, None means the Hub."""

    path: Path | None = None
    hub: str = ""
    hub_config: str = ""
    revision: str | None = None
    valid_fraction: float = 0.1
    test_fraction: float = 0.2
    strict: bool = False

    ids: ClassVar[tuple[str, ...]] = ("id", "qid", "uid")
    together: ClassVar[tuple[str, ...]] = ()
    """Columns whose rows must stay in one split, where a file is split by hash: a story, an article."""
    hub_splits: ClassVar[Mapping[str, str]] = {"train": "train", "valid": "validation", "test": "test"}

    def __post_init__(self) -> None:
        if not (0 < self.valid_fraction < 1 and 0 < self.test_fraction < 1):
            raise ConfigError("valid_fraction and test_fraction: numbers between 0 and 1 were expected")
        if self.valid_fraction + self.test_fraction >= 1:
            raise ConfigError("valid_fraction + test_fraction: less than 1 was expected, so that train keeps something")

    @abstractmethod
    def example(self, row: Row, name: str) -> Example:
        """The example of a row; `name` is its id.

        Raises:
            Unusable: the row lacks something. DataError: a column is missing, a label is none of the choices.
        """

    def source(self) -> str:
        return str(self.path or self.hub)

    def digests(self) -> Mapping[str, str]:
        return super().digests() if self.path is not None else {self.hub: self.revision or "main"}

    def shares(self) -> Mapping[str, Share]:
        if self.path is None:
            found = {split: Share(hub_split=name) for split, name in self.hub_splits.items()}
        else:
            found = {split: Share(files) for split, files in files_of(self.path).items()}
        return shared_out(found, self.valid_fraction, self.test_fraction, folder=True)

    def rows(self, share: Share) -> Iterator[Row]:
        if share.hub_split:
            yield from hub_rows(self.hub, self.hub_config, self.revision, share.hub_split)
        for path in share.files:
            yield from rows_of(path)

    def row_example(self, row: Row, split: str, share: Share) -> Example | None:
        own = next((column for column in self.ids if column in (row.values or {})), None)
        if own is not None:
            name = str(row.get(own) or "")
        else:
            stem = share.hub_split or Path(row.source).name.partition(".")[0]
            name = f"{stem}-{row.line}"
        kept = str(row.get(*self.together) or name)
        return self.example(row, name) if share.low <= share_of(kept) < share.high else None


def knowledge_base(path: Path | None, ids: Sequence[str]) -> Sequence[Passage]:
    """The passages of a folder's `kb_*` file, empty without one: a column of ids, `text`, and maybe `title`.

    Raises:
        DataError: several such files, a missing column, a duplicate id.
    """
    files = sorted(path.glob("kb_*")) if path is not None and path.is_dir() else []
    if not files:
        return ()
    if len(files) > 1:
        raise DataError(f"several knowledge bases ({', '.join(file.name for file in files)}); keep one", path=path)
    return passages_of(files[0], ids)


def passages_of(file: Path, ids: Sequence[str]) -> Sequence[Passage]:
    """The passages of a file: one of these columns of ids, `text`, and maybe `title`.

    Raises:
        DataError: no such file, a missing column, a duplicate id.
    """
    if not file.is_file():
        raise DataError("no such file of passages", path=file)
    return _passages(file, tuple(ids), file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _passages(file: Path, ids: tuple[str, ...], _changed: int) -> tuple[Passage, ...]:
    found: dict[str, Passage] = {}
    for row in rows_of(file):
        name = row.text(*ids)
        if name in found:
            raise row.error(f"id {name!r} stands in the knowledge base already; every passage needs its own")
        found[name] = Passage(name, row.text("text"), str(row.get("title") or ""))
    return tuple(found.values())


# --- what examples are made of ---------------------------------------------------------------------------------------


def others(row: Row, *used: str) -> dict[str, Any]:
    """The columns that the example does not hold elsewhere, as its fields."""
    return {str(key): plain(value) for key, value in (row.values or {}).items() if key not in used}


def with_choices(question: str, choices: Sequence[str], style: Style) -> str:
    """A question with its choices written out.

    >>> with_choices("Why?", ["yes", "no"], "lines")
    'Why?\\nAnswer Choices:\\n(a) yes\\n(b) no'
    >>> with_choices("Why?", ["yes", "no"], "inline"), with_choices("Why?", ["yes", "no"], "letters")
    ('Why? (a) yes (b) no', 'Why? A. yes B. no')
    """
    if style == "lines":
        lines = [f"({chr(97 + index)}) {choice}" for index, choice in enumerate(choices)]
        return "\n".join([question, "Answer Choices:", *lines])
    if style == "inline":
        return " ".join([question, *(f"({chr(97 + index)}) {choice}" for index, choice in enumerate(choices))])
    if style == "letters":
        return " ".join([question, *(f"{chr(65 + index)}. {choice}" for index, choice in enumerate(choices))])
    return question


def listed(row: Row, *names: str) -> tuple[str, ...]:
    """A column of several texts: a list, or the `text` list of Hub multiple-choice sets, or values of a mapping.

    Raises:
        DataError: no such column. Unusable: nothing in it.
    """
    value = row.get(*names)
    if isinstance(value, Mapping):
        value = value.get("text", list(value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return tuple(str(item).strip() for item in value)
    return (row.text(*names),)


def chosen(row: Row, choices: Sequence[str], *names: str) -> str:
    """A label as the choice's text, from its text, its letter ('B', '(b)') or its number from 0.

    Raises:
        DataError: it is none of the choices. Unusable: the row has none.
    """
    value = row.get(*names)
    if isinstance(value, bool | int):
        if 0 <= int(value) < len(choices):
            return choices[int(value)]
        if int(value) == -1:  # how the Hub's data sets say that nobody labelled it
            raise Unusable("no label")
    text = row.text(*names)
    if text in choices:
        return text
    letter = text.strip("()").upper()
    if len(letter) == 1 and letter.isalpha() and ord(letter) - 65 < len(choices):
        return choices[ord(letter) - 65]
    raise row.error(f"label {text!r} is not among the choices {', '.join(choices)}")
