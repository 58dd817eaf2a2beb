"""Rows of files and Hub data sets become examples: checked once, counted by reason, kept out of memory."""

from __future__ import annotations

import array
import contextlib
import csv
import datetime
import hashlib
import json
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast, overload

from lmdistill.errors import DataError, MissingExtra, did_you_mean
from lmdistill.store import decode, encode, read_jsonl, read_lines
from lmdistill.types import Example

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")


class Unusable(Exception):
    """A row that cannot be an example; the message is the reason it is counted under."""


@dataclass(frozen=True)
class Row:
    """One row and where it stands; `values` is None where it has more or fewer cells than the header, and `known` holds
    every column that its source has shown so far."""

    values: Mapping[str, Any] | None
    source: str
    line: int
    known: set[str]

    def get(self, *names: str) -> Any:
        """The first of these columns that is there and not empty, or None."""
        for name in names:
            value = (self.values or {}).get(name)
            if value is not None and (not isinstance(value, str) or value.strip()):
                return value
        return None

    def text(self, *names: str) -> str:
        """The same as text without surrounding blanks.

        Raises:
            DataError: the source has no such column. Unusable: this row has nothing in it.
        """
        value = self.get(*names)
        if value is not None:
            return str(value).strip()
        self._must_know(names)
        raise Unusable(f"{names[0]} is empty")

    def optional(self, name: str) -> Any:
        """A column's value, or None where this row has nothing in it; '' names no column.

        Raises:
            DataError: the source has no such column.
        """
        value = self.get(name) if name else None
        if value is None and name:
            self._must_know((name,))
        return value

    def _must_know(self, names: Sequence[str]) -> None:
        if not self.known.intersection(names):
            raise self.error(
                f"no column {' or '.join(map(repr, names))}{did_you_mean(names[0], self.known)} "
                f"Columns: {', '.join(sorted(self.known)) or 'none'}"
            )

    def error(self, message: str) -> DataError:
        """A complaint about this row."""
        return DataError(message, path=self.source, line=self.line)


# --- reading ---------------------------------------------------------------------------------------------------------


def kind_of(path: Path) -> str:
    """The suffix that says how a file is read, with '.gz' taken off.

    Raises:
        DataError: none of the suffixes that are read.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES or (suffix == ".parquet" and path.suffix == ".gz"):
        raise DataError(f"expected a file ending in {', '.join(SUFFIXES)} (the texts also in .gz)", path=path)
    return suffix


def rows_of(path: Path, delimiter: str = "") -> Iterator[Row]:
    """The rows of a file, by its suffix.

    Raises:
        DataError: no such file, not UTF-8, cut short, no header, a column twice.
    """
    kind = kind_of(path)
    known: set[str] = set()
    if kind == ".jsonl":
        numbered: Iterable[tuple[int, Mapping[str, Any] | None]] = read_jsonl(path)
    elif kind == ".parquet":
        numbered = _parquet(path)
    else:
        numbered = _table(path, delimiter or ("\t" if kind == ".tsv" else ","))
    for number, values in numbered:
        known.update(values or ())
        yield Row(values, str(path), number, known)


def _table(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    if len(delimiter) != 1:
        raise DataError(f"delimiter: one character was expected, got {delimiter!r}", path=path)
    csv.field_size_limit(2**27)
    lines = (line + "\n" for _, line in read_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            if not header:
                header = [cell.strip() for cell in cells]
                _check_header(header, path, delimiter)
            elif cells:
                yield reader.line_num, dict(zip(header, cells, strict=False)) if len(cells) == len(header) else None
    except csv.Error as error:
        message = f"is not a table of cells between {delimiter!r} ({error}); a quote may be left open"
        raise DataError(message, path=path, line=reader.line_num) from error
    if not header:
        raise DataError("is empty; a header line was expected", path=path)


def _check_header(header: Sequence[str], path: Path, delimiter: str) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"column {twice[0]!r} stands twice in the header", path=path, line=1)
    other = next((sign for sign in "\t;," if sign != delimiter and sign in header[0]), None)
    if len(header) == 1 and other:
        raise DataError(f"one column {header[0]!r}; is the delimiter {other!r}? Set delimiter", path=path, line=1)


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise DataError("no such file", path=path)
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1024):
            for values in batch.to_pylist():
                number += 1
                yield number, values
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"is not a whole Parquet file ({str(error).splitlines()[0]})", path=path) from error


def hub_rows(name: str, config: str, revision: str | None, split: str) -> Iterator[Row]:
    """The rows of a split of a Hub data set.

    Raises:
        MissingExtra: `datasets` is not installed. DataError: it cannot be had; the message says why and what to do.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtra("datasets", "hub", f"the data set {name!r} from the Hub") from error
    try:
        rows = datasets.load_dataset(name, config or None, split=split, revision=revision)
    except Exception as error:  # the library raises errors of many kinds, its own and others'
        why = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"split {split!r} cannot be loaded from the Hub ({why}); set `path` to a local folder instead"
        raise DataError(message, path=name) from error
    known = set(rows.column_names)
    named = {column: kind.names for column, kind in rows.features.items() if hasattr(kind, "names")}
    for number, values in enumerate(rows, 1):
        for column, labels in named.items():  # numbers of classes become their names; -1 means that there is none
            place = values[column]
            values[column] = labels[place] if place is not None and place >= 0 else None
        yield Row(values, f"{name}[{split}]", number, known)


# --- collecting ------------------------------------------------------------------------------------------------------


class Collected(NamedTuple):
    """The usable rows of a split, and the others counted by reason."""

    examples: Spool
    problems: Mapping[str, int]


def collect(rows: Iterable[Row], example: Callable[[Row], Example | None], *, strict: bool = False) -> Collected:
    """Turn rows into examples; `example` gives None for a row of another split.

    Raises:
        DataError: an empty or duplicate id, a label outside the choices, and what reading raises; with `strict`,
            also a row that cannot be used.
    """
    spool = Spool()
    problems: Counter[str] = Counter()
    seen: dict[int, int] = {}
    for row in rows:
        try:
            if row.values is None:
                raise Unusable("another number of cells than the header")
            made = example(row)
        except Unusable as reason:
            if strict:
                raise row.error(f"{reason}; mend the row, or leave `strict` off to pass over such rows") from None
            problems[str(reason)] += 1
            continue
        if made is None:
            continue
        if not made.id.strip():
            raise row.error("empty id; every row needs its own")
        key = hash_of(made.id)
        if key in seen:
            raise row.error(f"id {made.id!r} stands in line {seen[key]} already; every row needs its own")
        seen[key] = row.line
        if made.label is not None and made.choices and made.label not in made.choices:
            near = did_you_mean(made.label, made.choices)
            raise row.error(f"label {made.label!r} is not among the choices {', '.join(made.choices)}{near}")
        spool.append(made)
    return Collected(spool, dict(problems))


class Spool(Sequence[Example]):
    """Examples in a temporary file (in memory while it is small); memory holds one offset each."""

    def __init__(self, in_memory: int = 2**26) -> None:
        self._file: IO[bytes] = cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=in_memory))  # noqa: SIM115
        self._offsets = array.array("Q")
        self._end = 0
        self._lock = threading.Lock()

    def append(self, example: Example) -> None:
        """Add one at the end."""
        line = json.dumps(encode(example), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        self._file.seek(self._end)
        self._file.write(line)
        self._offsets.append(self._end)
        self._end += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self._lock:
            self._file.seek(self._offsets[index])
            line = self._file.readline()
        return cast(Example, decode(Example, json.loads(line.decode("utf-8", "surrogatepass"))))

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._file.close()


def hash_of(text: str) -> int:
    """64 bits that are the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def share_of(key: str) -> float:
    """Where a key falls in [0, 1): how rows are split, whatever their order and number."""
    return hash_of(f"split\x1f{key}") / 2**64


def plain(value: Any) -> Any:
    """A cell as JSON can hold it; dates and the like become text."""
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)
