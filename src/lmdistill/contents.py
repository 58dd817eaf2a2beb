"""What the files that settings name hold: so that an edited file makes other settings, and a moved one the same."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmdistill.store import Manifest, digest, digest_file, read_manifest

_TASKS = ("data", "file", "files", "knowledge", "path", "test", "train", "unlabelled", "valid")
_MODELS = ("model", "tokenizer", "vocabulary")
NAMED = frozenset({*_TASKS, *_MODELS, "corpus", "exemplar_file"})
"""Settings that may name a file or a folder which is read."""
WHOLE = 64 << 20
"""Files up to this size are read whole; of larger ones (weights) the size and both ends tell them apart."""
END = 1 << 20


def by_content(settings: Any) -> Any:
    """Settings with the digest of what is there in the place of each path that exists.

    A path that does not exist (a model of a hub, a file that is still to be made) stays as it is.
    """
    if not isinstance(settings, Mapping):
        return [by_content(one) for one in settings] if isinstance(settings, list | tuple) else settings
    return {key: _read(value) if key in NAMED else by_content(value) for key, value in settings.items()}


def _read(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_read(one) for one in value]
    if not isinstance(value, str | Path) or not str(value):
        return by_content(value)
    found = content(Path(value).expanduser())
    return value if found is None else {"content": found}


def content(path: Path) -> str | None:
    """The digest of a file or of everything in a folder; None where nothing is there, or nothing that can be read."""
    try:
        if path.is_file():
            return _of_file(path)
        if not path.is_dir():
            return None
        made = _stage(path)
        if made is not None:  # an index, a run: its settings and what it was made from
            return digest([made.key, made.counts])
        files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
        return digest([[str(one.relative_to(path)), _of_file(one)] for one in files])
    except OSError:
        return None


def _stage(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except OSError:  # damaged: its files say more
        return None


def _of_file(path: Path) -> str:
    stat = path.stat()
    return _digested(path.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digested(path: Path, size: int, _: int) -> str:
    if size <= WHOLE:
        return digest_file(path)
    with path.open("rb") as file:
        ends = [file.read(END)]
        file.seek(size - END)
        ends.append(file.read(END))
    return hashlib.sha256(b"".join([str(size).encode(), *ends])).hexdigest()[:16]


def found_below(folder: Path, told: str | Path) -> Path:
    """Where something of a run lies now, told by the path that it had when the run was made.

    The longest end of that path which is there below the run's folder; the path itself where there is none.
    """
    parts = Path(told).parts[1 if Path(told).is_absolute() else 0 :]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end.exists()), Path(told))
