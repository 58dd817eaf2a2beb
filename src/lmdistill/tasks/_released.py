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
from typing import Any, ClassVar, Literal, NamedTuple

from lmdistill.errors import ConfigError, DataError
from lmdistill.store import digest_file
from lmdistill.tasks import SPLITS, Task, known_split
from lmdistill.tasks._rows import SUFFIXES, Collected, Row, Unusable, collect, hub_rows, plain, rows_of, share_of
from lmdistill.types import Example, Passage

ALIASES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test",),
    "unlabelled": ("unlabelled", "unlabeled"),
}
Style = Literal["lines", "inline", "letters", "none"]


class Share(NamedTuple):
    """Files (or, on the Hub, one split's name) and the part of their rows, by hash, that a split takes."""

    files: tuple[Path, ...]
    hub_split: str
    low: float
    high: float


@dataclass(frozen=True)
class Released(Task):
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

    def examples(self, split: str) -> Sequence[Example]:
        return self._collected(known_split(split)).examples

    def problems(self, split: str) -> Mapping[str, int]:
        return self._collected(known_split(split)).problems

    def origin(self, split: str) -> str:
        share = self._shares().get(known_split(split))
        if share is None:
            return "no such rows"
        names = " and ".join(path.name for path in share.files) or f"{self.hub}[{share.hub_split}]"
        if share.high - share.low >= 1:
            return f"{names}, all rows"
        return f"{names}, {share.high - share.low:.0%} of the rows, by hash of the id"

    def digests(self) -> Mapping[str, str]:
        files = {path.name: path for share in self._shares().values() for path in share.files}
        if not files:
            return {self.hub: self.revision or "main"}
        return {name: digest_file(path) for name, path in files.items()}

    def _shares(self) -> dict[str, Share]:
        found: dict[str, tuple[tuple[Path, ...], str]]
        if self.path is None:
            found = {split: ((), name) for split, name in self.hub_splits.items()}
        else:
            found = {split: (files, "") for split, files in files_of(self.path).items()}
        return shares(found, self.valid_fraction, self.test_fraction)

    def _collected(self, split: str) -> Collected:
        share = self._shares().get(split)
        if share is None:
            if split == "unlabelled":
                return collect((), lambda row: None)
            have = ", ".join(self._shares()) or "none"
            raise DataError(f"has no rows for split {split!r}; there are: {have}", path=self.path or self.hub)
        key = (repr(self), split, *((str(path), path.stat().st_mtime_ns) for path in share.files))
        if key not in _CACHE:
            while len(_CACHE) >= 8:
                _CACHE.pop(next(iter(_CACHE)))
            _CACHE[key] = collect(self._rows(share), lambda row: self._example(row, share), strict=self.strict)
        return _CACHE[key]

    def _rows(self, share: Share) -> Iterator[Row]:
        if share.hub_split:
            yield from hub_rows(self.hub, self.hub_config, self.revision, share.hub_split)
        for path in share.files:
            yield from rows_of(path)

    def _example(self, row: Row, share: Share) -> Example | None:
        own = next((column for column in self.ids if column in (row.values or {})), None)
        if own is not None:
            name = str(row.get(own) or "")
        else:
            stem = share.hub_split or Path(row.source).name.partition(".")[0]
            name = f"{stem}-{row.line}"
        kept = str(row.get(*self.together) or name)
        return self.example(row, name) if share.low <= share_of(kept) < share.high else None


_CACHE: dict[Any, Collected] = {}


def files_of(path: Path) -> dict[str, tuple[Path, ...]]:
    """The data files of a folder by split; a file by itself counts as the whole data set ('all').

    Raises:
        DataError: no such folder, or no data file in it.
    """
    if path.is_file():
        return {"all": (path,)}
    if not path.is_dir():
        raise DataError("no such file or folder", path=path)
    every = sorted(
        file
        for file in path.iterdir()
        if Path(file.name.removesuffix(".gz")).suffix in SUFFIXES and not file.name.startswith("kb_")
    )
    found: dict[str, tuple[Path, ...]] = {}
    for split, names in ALIASES.items():
        for name in names:
            exact = [file for file in every if file.name.partition(".")[0] == name]
            longer = [file for file in every if file.name.startswith((f"{name}_", f"{name}-"))]
            if (exact or longer) and split not in found:
                found[split] = tuple(exact or longer)
    if found:
        return found
    if len(every) != 1:
        what = "no data file" if not every else "several files, none named after a split"
        raise DataError(f"{what}; expected train, valid or test ending in {', '.join(SUFFIXES)}", path=path)
    return {"all": (every[0],)}


def shares(found: Mapping[str, tuple[tuple[Path, ...], str]], valid: float, test: float) -> dict[str, Share]:
    """Which rows each split takes; the module's docstring has the table."""
    whole = {split: Share(files, name, 0.0, 1.0) for split, (files, name) in found.items()}
    labelled = [split for split in ("all", "train", "valid", "test") if split in whole]
    out = {split: share for split, share in whole.items() if split == "unlabelled"}
    if len(labelled) == 1:
        only = whole[labelled[0]]
        out["test"] = only._replace(high=test)
        out["valid"] = only._replace(low=test, high=test + valid)
        out["train"] = only._replace(low=test + valid)
    elif "train" in whole and not {"valid", "test"} <= set(whole):
        out["test"] = whole["test"] if "test" in whole else whole["valid"]
        out["valid"] = whole["train"]._replace(high=valid)
        out["train"] = whole["train"]._replace(low=valid)
    else:
        out |= {split: whole[split] for split in labelled}
    return {split: out[split] for split in SPLITS if split in out}


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
    return _passages(files[0], tuple(ids), files[0].stat().st_mtime_ns)


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
