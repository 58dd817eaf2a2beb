"""A knowledge base: passages with ids, in memory or in a folder that opens by memory map.

A folder holds `passages.jsonl`, where each passage begins (`starts.npy`), the ids of passages and of what they stand
for as sorted hashes (`ids.npy`, `rows.npy`) and a manifest with the size of every file, so a copy that was cut short is
noticed. Retrievers keep their indexes in folders beside these files. `lmdistill.indexing` makes one.
"""

from __future__ import annotations

import hashlib
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lmdistill.codec import digest, from_line
from lmdistill.errors import DataError, StoreError
from lmdistill.store import read_manifest
from lmdistill.types import Passage

FORMAT = 1
"""Raised when the files change their meaning; older folders are then refused with a clear message."""


class KnowledgeBase(ABC):
    """Passages by row and by id."""

    folder: Path | None = None

    @property
    @abstractmethod
    def digest(self) -> str:
        """A hash of the contents: indexes belong to one."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def passage(self, row: int) -> Passage:
        """The passage of a row."""

    @abstractmethod
    def row(self, passage_id: str) -> int:
        """The row of an id.

        Raises:
            DataError: there is no such id.
        """

    @abstractmethod
    def named(self, name: str) -> list[int]:
        """The rows of the passages that have an id or stand for it (see `Passage`), the former first; maybe none."""

    def __iter__(self) -> Iterator[Passage]:
        return (self.passage(row) for row in range(len(self)))


class Held(KnowledgeBase):
    """A knowledge base in memory, for thousands of passages.

    Raises:
        DataError: an id that two passages have.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self.passages = [passage for passage in passages if passage.text.strip()]
        self.rows: dict[str, int] = {}
        for row, passage in enumerate(self.passages):
            if self.rows.setdefault(passage.id, row) != row:
                raise DataError(f"two passages have the id {passage.id!r}; ids must differ")
        self.others: dict[str, list[int]] = {}
        for row, passage in enumerate(self.passages):
            for name in passage.stands_for:
                self.others.setdefault(name, []).append(row)

    @property
    def digest(self) -> str:
        return digest(self.passages)

    def __len__(self) -> int:
        return len(self.passages)

    def passage(self, row: int) -> Passage:
        return self.passages[row]

    def row(self, passage_id: str) -> int:
        if passage_id not in self.rows:
            raise DataError(f"the knowledge base has no passage {passage_id!r}")
        return self.rows[passage_id]

    def named(self, name: str) -> list[int]:
        own = [self.rows[name]] if name in self.rows else []
        return list(dict.fromkeys([*own, *self.others.get(name, ())]))


class Stored(KnowledgeBase):
    """A knowledge base in a folder that `lmdistill.indexing.build` made; opening reads no passage.

    Raises:
        StoreError: no base there, not finished, of another version, or a file of another size than was written.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder: Path = folder
        manifest = read_manifest(folder)
        if manifest is None or manifest.stage != "knowledge":
            raise StoreError(f"{folder} is no knowledge base; make one with: lmdistill index SOURCE --out {folder}")
        if manifest.settings.get("format") != FORMAT:
            found = manifest.settings.get("format")
            raise StoreError(f"{folder} has the format {found}, this version reads {FORMAT}: remove it and index again")
        if manifest.status != "complete":
            raise StoreError(f"{folder} is not finished; the same `lmdistill index` command goes on with it")
        check_sizes(folder, manifest.facts.get("sizes", {}))
        self.manifest = manifest
        self._starts = np.load(folder / "starts.npy", mmap_mode="r")
        self._ids = np.load(folder / "ids.npy", mmap_mode="r")
        self._rows = np.load(folder / "rows.npy", mmap_mode="r")
        with (folder / "passages.jsonl").open("rb") as file:
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(self._starts) else b""

    @property
    def digest(self) -> str:
        return str(self.manifest.facts["digest"])

    def __len__(self) -> int:
        return len(self._starts)

    def passage(self, row: int) -> Passage:
        start = int(self._starts[row])
        end = self._text.find(b"\n", start)
        try:
            return from_line(Passage, self._text[start:end])
        except ValueError as error:
            raise StoreError(f"{self.folder / 'passages.jsonl'} is damaged at byte {start} ({error})") from error

    def row(self, passage_id: str) -> int:
        for row in self._rows_of(passage_id):
            if self.passage(row).id == passage_id:
                return row
        raise DataError(f"the knowledge base {self.folder} has no passage {passage_id!r}")

    def named(self, name: str) -> list[int]:
        found = {row: self.passage(row) for row in self._rows_of(name)}
        rows = [row for row, passage in found.items() if name in passage.names]
        return sorted(rows, key=lambda row: (found[row].id != name, row))

    def _rows_of(self, name: str) -> Iterator[int]:
        """Rows that may have a name: those under its hash."""
        import numpy as np

        wanted = hash_of(name)
        place = int(np.searchsorted(self._ids, np.uint64(wanted)))
        while place < len(self._ids) and int(self._ids[place]) == wanted:
            yield int(self._rows[place])
            place += 1


def check_sizes(folder: Path, sizes: Mapping[str, int]) -> None:
    """Compare files with the sizes that a manifest recorded.

    Raises:
        StoreError: a file is gone, or of another size.
    """
    for name, size in sizes.items():
        path = folder / name
        found = path.stat().st_size if path.exists() else None
        if found is None:
            raise StoreError(f"{path} is gone; remove {folder} and index again")
        if found != size:
            word = "cut short" if found < size else "changed"
            raise StoreError(f"{path} is {word}: {size:,} bytes were written, {found:,} are there; index again")


def sizes_of(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Names with their sizes, for a manifest."""
    return {name: (folder / name).stat().st_size for name in names}


def open_base(folder: Path | None, passages: Sequence[Passage] = ()) -> KnowledgeBase:
    """The base of a folder, or one held in memory where no folder is given.

    Raises:
        StoreError: see `Stored`. DataError: neither a folder nor passages.
    """
    if folder is not None:
        return Stored(folder)
    if not passages:
        raise DataError("no knowledge base: the task has no passages of its own; make one with `lmdistill index`")
    return Held(passages)


def hash_of(passage_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(passage_id.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
