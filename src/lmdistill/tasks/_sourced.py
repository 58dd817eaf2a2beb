"""Where a task's rows come from: files or the Hub, which split takes which of them, read once and kept."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmdistill.errors import DataError
from lmdistill.store import digest_file
from lmdistill.tasks import SPLITS, Task, known_split
from lmdistill.tasks._rows import SUFFIXES, Collected, Row, collect
from lmdistill.types import Example

ALIASES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test",),
    "unlabelled": ("unlabelled", "unlabeled"),
}

LOOKED_AT = 100
"""How many rows of a file `check` reads."""


class Share(NamedTuple):
    """Files (or, on the Hub, one split's name) and the part of their rows, by hash, that a split takes."""

    files: tuple[Path, ...] = ()
    hub_split: str = ""
    low: float = 0.0
    high: float = 1.0


class Sourced(Task):
    """A task whose examples are rows of something."""

    strict: bool = False

    @abstractmethod
    def shares(self) -> Mapping[str, Share]:
        """What each split that there is takes."""

    @abstractmethod
    def rows(self, share: Share) -> Iterator[Row]:
        """All rows of a share's source."""

    @abstractmethod
    def row_example(self, row: Row, split: str, share: Share) -> Example | None:
        """The example of a row, or None for a row of another split.

        Raises:
            Unusable: the row lacks something. DataError: a column is missing, a label is none of the choices.
        """

    @abstractmethod
    def source(self) -> str:
        """What to call the whole of it in a message."""

    def examples(self, split: str) -> Sequence[Example]:
        return self._collected(known_split(split)).examples

    def check(self) -> None:
        for split, share in self.shares().items():
            rows = itertools.islice(self.rows(share), LOOKED_AT) if share.files else ()
            self._collect(rows, split, share)

    def problems(self, split: str) -> Mapping[str, int]:
        return self._collected(known_split(split)).problems

    def origin(self, split: str) -> str:
        share = self.shares().get(known_split(split))
        if share is None:
            return "no such rows"
        names = " and ".join(path.name for path in share.files) or f"{self.source()}[{share.hub_split}]"
        if share.high - share.low >= 1:
            return f"{names}, all rows"
        return f"{names}, {share.high - share.low:.0%} of the rows, by hash"

    def digests(self) -> Mapping[str, str]:
        files = {path.name: path for share in self.shares().values() for path in share.files}
        return {name: digest_file(path) for name, path in files.items() if path.is_file()}

    def _collected(self, split: str) -> Collected:
        share = self.shares().get(split)
        if share is None:
            if split == "unlabelled":
                return collect((), lambda row: None)
            have = ", ".join(self.shares()) or "none"
            raise DataError(f"has no rows for split {split!r}; there are: {have}", path=self.source())
        stamps = [(str(path), path.stat().st_mtime_ns) for path in share.files if path.is_file()]
        key = (repr(self), split, *stamps)
        if key not in _KEPT:
            while len(_KEPT) >= 8:
                _KEPT.pop(next(iter(_KEPT)))
            _KEPT[key] = self._collect(self.rows(share), split, share)
        return _KEPT[key]

    def _collect(self, rows: Iterable[Row], split: str, share: Share) -> Collected:
        return collect(rows, lambda row: self.row_example(row, split, share), strict=self.strict)


_KEPT: dict[Any, Collected] = {}


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


def shared_out(found: Mapping[str, Share], valid: float, test: float, *, folder: bool) -> dict[str, Share]:
    """Which rows each split takes, from the sources that there are; 'all' is one source for all of them.

    A split that is missing takes a share of the training rows (`valid`, `test`), which training then does without.

    Args:
        folder: whether the names are only what files happen to be called. Then, where there is no test source, the
            validation source is the test set, and a source by itself is shared out whatever its name.
    """
    out = dict(found)
    if folder and "train" in out and "valid" in out and "test" not in out:
        out["test"] = out.pop("valid")
    source = out.pop("all", None) or out.get("train")
    labelled = [split for split in out if split != "unlabelled"]
    if folder and source is None and len(labelled) == 1:
        source = out.pop(labelled[0])
    if source is not None:
        low = 0.0
        for split, share in (("test", test), ("valid", valid)):
            if split not in out:
                out[split] = source._replace(low=low, high=low + share)
                low += share
        out["train"] = source._replace(low=low)
    return {split: out[split] for split in SPLITS if split in out}
