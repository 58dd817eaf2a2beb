"""Files: rows of JSON, lazily read; stage folders with manifests; writes that are whole or absent.

Every stage of a run leaves a folder with its rows and a `manifest.json` (settings, hashes of its inputs, counts, seed,
versions, threads, status). A stage whose manifest says the same and is complete is skipped; one that says something
else belongs to another run and is never overwritten.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import time
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

from lmdistill.errors import DataError, StoreError

T = TypeVar("T")
Status = Literal["complete", "partial", "budget", "interrupted"]


# --- JSON ------------------------------------------------------------------------------------------------------------


def encode(value: Any) -> Any:
    """A dataclass (or a nest of containers with them) as plain JSON values; fields at their default are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            default = field.default_factory() if callable(field.default_factory) else field.default
            if item != default:
                out[field.name] = encode(item)
        return out
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable):
        return [encode(item) for item in value]
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def decode(kind: Any, value: Any) -> Any:
    """The inverse of `encode` for a dataclass type (unknown keys are ignored: a newer version may add fields)."""
    if value is None or kind is Any:
        return value
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            if argument is type(None):
                continue
            return decode(argument, value)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(decode(arguments[0], item) for item in value)
        return tuple(decode(argument, item) for argument, item in zip(arguments, value, strict=True))
    if origin is list:
        return [decode(arguments[0], item) for item in value]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: decode(arguments[1], item) for key, item in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: decode(hint, value[name]) for name, hint in hints.items() if name in value})
    if kind is float:
        return float(value)
    return value


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


# --- reading ---------------------------------------------------------------------------------------------------------


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, gzipped or not, without their line ends.

    Raises:
        DataError: no such file; not UTF-8 (with the line); a gzip file that is cut short.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except FileNotFoundError as error:
        raise DataError("no such file", path=path) from error
    except IsADirectoryError as error:
        raise DataError("is a folder; a file was expected", path=path) from error
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8; save the file as UTF-8", path=path, line=number) from error
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        message = f"the file is cut short or damaged after this line ({error}); copy it again"
        raise DataError(message, path=path, line=number) from error


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
        except ValueError as error:
            raise DataError(f"is not JSON ({error}); the file may be cut short", path=path, line=number) from error
        if not isinstance(row, dict):
            raise DataError(f"holds a {type(row).__name__}; a JSON object was expected", path=path, line=number)
        yield number, row


class Rows(Sequence[T], Generic[T]):
    """The rows of a JSON Lines file, decoded when asked for: memory holds one offset a row."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self.kind = kind
        self._offsets = array.array("Q")
        offset = 0
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    self._offsets.append(offset)
                offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            return typing.cast(T, decode(self.kind, json.loads(file.readline())))

    def __iter__(self) -> Iterator[T]:
        with self.path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield decode(self.kind, json.loads(line))


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
    write_text(path, json.dumps(encode(value), ensure_ascii=False, indent=2) + "\n")


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
            file.write(json.dumps(encode(row), ensure_ascii=False) + "\n")
            count += 1
    return count


# --- hashes ----------------------------------------------------------------------------------------------------------


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, 16 hex digits: the same on every machine."""
    text = json.dumps(encode(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 16 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def seed_for(*parts: Any) -> int:
    """A 63-bit seed from (run seed, round, item id ...): never from a running generator, so a resumed run repeats."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


# --- stages ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Manifest:
    """What a stage did, with what, from what."""

    stage: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    seed: int | None = None
    status: str = "partial"
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    threads: int | None = None
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Equal keys: the same work."""
        return digest([self.stage, self.settings, self.inputs, self.seed])


@dataclasses.dataclass
class Stage:
    """An open stage folder. `done` says that it was complete before; then its rows are simply read."""

    folder: Path
    manifest: Manifest
    done: bool

    def path(self, name: str = "rows.jsonl") -> Path:
        return self.folder / name

    def rows(self, kind: type[T], name: str = "rows.jsonl") -> Rows[T]:
        return Rows(self.path(name), kind)

    def count(self, what: str, by: int = 1) -> None:
        self.manifest.counts[what] = self.manifest.counts.get(what, 0) + by

    def save(self) -> None:
        write_json(self.folder / "manifest.json", dataclasses.asdict(self.manifest))


@contextlib.contextmanager
def stage(
    folder: Path,
    name: str,
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> Iterator[Stage]:
    """Open a stage's folder; on leaving without an error its manifest says `complete`.

    Args:
        settings: everything that changes the outcome. inputs: name -> digest of what is read.

    Raises:
        StoreError: the folder holds another stage, or the same one with other settings (the message names them).
    """
    manifest = Manifest(name, json.loads(json.dumps(encode(settings))), dict(inputs or {}), seed)
    previous = read_manifest(folder)
    if previous is not None and previous.key != manifest.key:
        raise StoreError(_belongs_elsewhere(folder, previous, manifest))
    if previous is not None and previous.status == "complete":
        yield Stage(folder, previous, done=True)
        return
    manifest.versions = versions()
    threads = os.environ.get("OMP_NUM_THREADS")
    manifest.threads = int(threads) if threads and threads.isdigit() else os.cpu_count()
    opened = Stage(folder, manifest, done=False)
    opened.save()
    started = time.monotonic()
    try:
        yield opened
        if manifest.status == "partial":
            manifest.status = "complete"
    except KeyboardInterrupt:
        manifest.status = "interrupted"
        raise
    finally:
        manifest.seconds = round(time.monotonic() - started, 3)
        opened.save()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a stage folder, or None where there is none.

    Raises:
        StoreError: the manifest is damaged.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return None
    try:
        return typing.cast(Manifest, decode(Manifest, json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}); remove the folder to make it again") from error


def _belongs_elsewhere(folder: Path, old: Manifest, new: Manifest) -> str:
    if old.stage != new.stage:
        return f"{folder} holds the stage {old.stage!r}, not {new.stage!r}; choose another --out"
    before = {**_flat(old.settings), **_flat(old.inputs, "input "), "seed": old.seed}
    after = {**_flat(new.settings), **_flat(new.inputs, "input "), "seed": new.seed}
    differing = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    shown = "; ".join(f"{key} was {before.get(key)!r}, now {after.get(key)!r}" for key in differing[:5])
    more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
    return f"{folder} belongs to another run: {shown}{more}. Choose another --out, or remove the folder"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        out: dict[str, Any] = {}
        for key, item in value.items():
            out.update(_flat(item, f"{prefix}{key}." if isinstance(item, Mapping) else f"{prefix}{key}"))
        return out
    return {prefix.rstrip("."): value}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that change numbers, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in ("lmdistill", "torch", "transformers", "tokenizers", "accelerate", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def map_rows(rows: Iterable[T], to: Callable[[T], Any], path: Path) -> int:
    """Write `to(row)` for every row; memory stays flat."""
    return write_rows(path, (to(row) for row in rows))
