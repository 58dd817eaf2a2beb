"""Files: rows of JSON, read line by line; writes that are whole or absent; digests and seeds."""

from __future__ import annotations

import array
import codecs
import contextlib
import gzip
import hashlib
import json
import os
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from lmdistill.codec import encode, from_line, is_unicode, to_line
from lmdistill.errors import DataError, StoreError

T = TypeVar("T")


# --- reading ---------------------------------------------------------------------------------------------------------


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file, gzipped or not, as bytes with their line ends, without a byte order mark.

    Raises:
        DataError: no such file; a gzip file that is cut short.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except FileNotFoundError as error:
        raise DataError("no such file", path=path) from error
    except IsADirectoryError as error:
        raise DataError("is a folder; a file was expected", path=path) from error
    except PermissionError as error:
        raise DataError("may not be read (permission denied)", path=path) from error
    except (EOFError, OSError, zlib.error) as error:
        message = f"the file is cut short or damaged after this line ({error}); copy it again"
        raise DataError(message, path=path, line=number) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, gzipped or not, without their line ends.

    Raises:
        DataError: as `raw_lines`; not UTF-8 (with the line).
    """
    for number, line in raw_lines(path):
        try:
            yield number, line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError("is not UTF-8; save the file as UTF-8", path=path, line=number) from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered objects of a JSON Lines file, gzipped or not; blank lines are passed over.

    Raises:
        DataError: as `read_lines`; a line that is no JSON object.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"is not JSON ({error}); the file may be cut short", path=path, line=number) from error
        if not isinstance(row, dict):
            raise DataError(f"holds a {type(row).__name__}; a JSON object was expected", path=path, line=number)
        yield number, row


class Rows(Sequence[T], Generic[T]):
    """The rows of a JSON Lines file that a stage wrote, decoded when asked for: memory holds one offset a row.

    Raises:
        StoreError: the file is gone or a row is damaged (on reading that row).
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self.kind = kind
        self._offsets = array.array("Q")
        offset = 0
        with self._opened() as file:
            for line in file:
                if line.strip():
                    self._offsets.append(offset)
                offset += len(line)

    def _opened(self) -> typing.BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read ({error.strerror}); {self._remedy()}") from error

    def _row(self, line: bytes) -> T:
        try:
            return from_line(self.kind, line)
        except ValueError as error:
            raise StoreError(f"{self.path} is damaged ({error}); {self._remedy()}") from error

    def _remedy(self) -> str:
        return f"if a stage of a run wrote it, remove the folder {self.path.parent} to make it again"

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self._opened() as file:
            file.seek(self._offsets[index])
            return self._row(file.readline())

    def __iter__(self) -> Iterator[T]:
        with self._opened() as file:
            for line in file:
                if line.strip():
                    yield self._row(line)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write the whole file or leave the old one: a temporary file, flushed to disk, then renamed.

    Raises:
        StoreError: the disk is full, the folder cannot be written.
    """
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    text = json.dumps(encode(value), ensure_ascii=False, indent=2)
    write_text(path, (text if is_unicode(text) else json.dumps(encode(value), indent=2)) + "\n")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes its place, on failure it is removed.

    Raises:
        StoreError: the disk is full, the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; what was there before is kept") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_rows(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSON Lines, whole or not at all; returns how many."""
    count = 0
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(to_line(row) + "\n")
            count += 1
    return count


def map_rows(rows: Iterable[T], to: Callable[[T], Any], path: Path) -> int:
    """Write `to(row)` for every row; memory stays flat."""
    return write_rows(path, (to(row) for row in rows))


# --- hashes ----------------------------------------------------------------------------------------------------------


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 16 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def digest_rows(rows: Iterable[Any]) -> str:
    """The digest of the file that `write_rows` makes of these rows, whether they lie in one or in memory."""
    if isinstance(rows, Rows):
        return digest_file(rows.path)
    summed = hashlib.sha256()
    for row in rows:
        summed.update(to_line(row).encode() + b"\n")
    return summed.hexdigest()[:16]


def seed_for(*parts: Any) -> int:
    """A 63-bit seed from (run seed, round, item id ...): never from a running generator, so a resumed run repeats."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big") >> 1
