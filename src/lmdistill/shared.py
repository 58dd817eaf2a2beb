"""Stages that several runs share: made once, by whoever comes first, while the others wait."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lmdistill.errors import StoreError
from lmdistill.progress import note
from lmdistill.store import read_manifest


@contextlib.contextmanager
def shared_stage(shared: Path, folder: Path, key: str) -> Iterator[Path]:
    """The folder below `shared` for a stage of this key, held for oneself; `folder` becomes a link to it.

    A process that dies lets go of it, so the next one goes on where that one stopped.

    Raises:
        StoreError: it cannot be made; `folder` is there and is no link.
    """
    target = shared / f"{folder.name}-{key}"
    with contextlib.ExitStack() as held:
        try:
            target.mkdir(parents=True, exist_ok=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((shared / f".{target.name}.held").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            _link(folder, target)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"cannot share {target} ({error.strerror or error})") from error
        yield target


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else who asks for it works in this folder meanwhile: who comes second waits, and then finds the work done.

    Raises:
        StoreError: the lock beside the folder cannot be made.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((folder.parent / f".{folder.name}.lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note(f"{folder}: another process works here; waiting until it ends")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise StoreError(f"cannot lock {folder} ({error.strerror or error})") from error
        yield


def until_made(folder: Path) -> contextlib.AbstractContextManager[None]:
    """`alone` in a stage's folder that is still to be made; one that is complete is open to all, read-only ones too."""
    manifest = read_manifest(folder)
    return contextlib.nullcontext() if manifest is not None and manifest.status == "complete" else alone(folder)


def _link(folder: Path, target: Path) -> None:
    if folder.exists() and folder.resolve() == target.resolve():
        return
    if folder.exists() and not folder.is_symlink():
        raise StoreError(f"{folder} holds a stage of its own; choose another --out, or leave the setting 'shared' out")
    folder.unlink(missing_ok=True)
    folder.symlink_to(os.path.relpath(target, folder.parent), target_is_directory=True)
