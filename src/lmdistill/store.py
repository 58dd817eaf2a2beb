"""Stage folders with manifests, and in one place the names of `codec` and `files` that the verbs use.

Every stage of a run leaves a folder with its rows and a `manifest.json` (settings, hashes of its inputs, counts, seed,
versions, threads, status). A stage whose manifest says the same and is complete is skipped; one that says something
else belongs to another run and is never overwritten.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from lmdistill.codec import decode as decode
from lmdistill.codec import digest as digest
from lmdistill.codec import encode as encode
from lmdistill.codec import from_line
from lmdistill.errors import StoreError
from lmdistill.files import Rows as Rows
from lmdistill.files import digest_file as digest_file
from lmdistill.files import digest_rows as digest_rows
from lmdistill.files import map_rows as map_rows
from lmdistill.files import read_jsonl as read_jsonl
from lmdistill.files import read_lines as read_lines
from lmdistill.files import seed_for as seed_for
from lmdistill.files import write_json as write_json
from lmdistill.files import write_rows as write_rows
from lmdistill.files import write_text as write_text
from lmdistill.files import writing as writing

T = TypeVar("T")
Status = Literal["complete", "partial", "budget", "interrupted"]


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
    again: bool = False,
) -> Iterator[Stage]:
    """Open a stage's folder; on leaving without an error its manifest says `complete`.

    Args:
        settings: everything that changes the outcome. inputs: name -> digest of what is read.
        again: do the work of a complete stage anew; what it left stays until it is replaced.

    Raises:
        StoreError: the folder holds another stage, or the same one with other settings (the message names them).
    """
    manifest = Manifest(name, json.loads(json.dumps(encode(settings))), dict(inputs or {}), seed)
    previous = read_manifest(folder)
    if previous is None:
        _refuse_foreign(folder)
    elif previous.key != manifest.key and not (previous.status != "complete" and _nothing_done(folder)):
        raise StoreError(_belongs_elsewhere(folder, previous, manifest))
    elif previous.status == "complete" and not again:
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
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            manifest.status = "interrupted"
        manifest.seconds = round(time.monotonic() - started, 3)
        with contextlib.suppress(StoreError):  # what went wrong inside matters more
            opened.save()
        raise
    if manifest.status == "partial":
        manifest.status = "complete"
    manifest.seconds = round(time.monotonic() - started, 3)
    opened.save()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a stage folder, or None where there is none.

    Raises:
        StoreError: the manifest is damaged.
    """
    path = folder / "manifest.json"
    try:
        return from_line(Manifest, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}); remove the folder to make it again") from error


def _nothing_done(folder: Path) -> bool:
    """A stage that failed before it wrote a row (a mistyped endpoint) claims no folder."""
    return all(path.name == "manifest.json" or path.name.startswith(".") for path in folder.iterdir())


def _refuse_foreign(folder: Path) -> None:
    """A folder without a manifest may hold folders and hidden files (an unfinished write), but no file of others."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; --out names a folder")
    files = sorted(path.name for path in folder.glob("[!.]*") if path.is_file()) if folder.exists() else []
    files = [name for name in files if name != "manifest.json"]  # another process of this run may just have written it
    if files:
        shown = ", ".join(files[:3]) + (" ..." if len(files) > 3 else "")
        raise StoreError(f"{folder} holds files that no run of lmdistill wrote ({shown}); choose another --out")


def _belongs_elsewhere(folder: Path, old: Manifest, new: Manifest) -> str:
    if old.stage != new.stage:
        return f"{folder} holds the stage {old.stage!r}, not {new.stage!r}; choose another --out"
    before = {**_flat(old.settings), **_flat(old.inputs, "input "), "seed": old.seed}
    after = {**_flat(new.settings), **_flat(new.inputs, "input "), "seed": new.seed}
    names = [name for name in sorted({**before, **after}) if _shown(before, name) != _shown(after, name)]
    shown = "; ".join(f"{name} was {_shown(before, name)}, now {_shown(after, name)}" for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{folder} belongs to another run: {shown}{more}. Choose another --out, or remove the folder"


def _shown(settings: Mapping[str, Any], name: str, width: int = 80) -> str:
    text = repr(settings[name]) if name in settings else "absent"
    return text if len(text) <= width else f"{text[: width - 12]}... ({digest(settings[name])[:6]})"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            out.update(_flat(item, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = item
    return out


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that change numbers, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in ("lmdistill", "torch", "transformers", "tokenizers", "accelerate", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
