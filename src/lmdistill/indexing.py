"""Documents -> a knowledge base in a folder: cut, signed, near-duplicates dropped; a killed build goes on.

A passage knows what it stands for: the document that it was cut from, and near-duplicates that were dropped for it. So
what data marks as relevant by a document's id is found in a base whose passages have other ids.
"""

from __future__ import annotations

import array
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from lmdistill.chunking import BANDS, Chunking, chunks, resemblance, signature
from lmdistill.codec import digest, from_line, to_line
from lmdistill.errors import DataError
from lmdistill.knowledge import FORMAT, Stored, hash_of, sizes_of
from lmdistill.progress import progress
from lmdistill.sources import Document, Skipped
from lmdistill.store import Stage, digest_file, stage, write_json, writing
from lmdistill.types import Passage

SAVE_EVERY = 2000
"""Documents between two states from which a killed build goes on."""


@dataclass
class _State:
    """How far a build is: what a resumed one starts from."""

    documents: int = 0
    bytes: int = 0
    passages: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def count(self, reason: str, where: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)


def build(
    documents: Iterable[Document | Skipped],
    folder: Path,
    *,
    inputs: Mapping[str, str],
    chunking: Chunking | None = None,
    resemblance_limit: float = 0.9,
) -> Stored:
    """Make a knowledge base, or go on with one.

    Args:
        documents: the same ones in the same order each time. inputs: digests of what they are read from.
        resemblance_limit: a passage whose shingles resemble an earlier one's at least so much is dropped; above 1,
            none are.

    Raises:
        StoreError: the folder belongs to other settings or inputs, or cannot be written.
        DataError: nothing usable in the source.
    """
    chunking = chunking or Chunking()
    settings = {"format": FORMAT, "chunking": chunking, "resemblance_limit": resemblance_limit}
    with stage(folder, "knowledge", settings=settings, inputs=inputs) as opened:
        if not opened.done:
            state = _read(documents, opened, chunking, signed=resemblance_limit <= 1)
            if not state.passages:
                shown = "; ".join(f"{n} {reason} (first: {state.first[reason]})" for reason, n in state.counts.items())
                raise DataError(f"no passage could be made: {shown or 'the source is empty'}")
            _finish(opened, state, resemblance_limit)
    return Stored(folder)


def _read(documents: Iterable[Document | Skipped], opened: Stage, chunking: Chunking, *, signed: bool) -> _State:
    """Documents -> passages.jsonl and their signatures, from the last saved state on."""
    folder = opened.folder
    saved = folder / "state.json"
    state = _State(**json.loads(saved.read_text(encoding="utf-8"))) if saved.exists() else _State()
    width = 8 * (1 + BANDS)
    with (
        _from(folder / "passages.jsonl", state.bytes) as text,
        _from(folder / "signatures.bin", state.passages * width if signed else 0) as signatures,
        progress("index", None, "documents", done=state.documents) as bar,
    ):
        for document in itertools.islice(documents, state.documents, None):
            if isinstance(document, Skipped):
                state.count(document.reason, document.where)
            else:
                _write(document, chunking, state, text, signatures if signed else None)
            state.documents += 1
            bar.advance(passages=state.passages)
            if state.documents % SAVE_EVERY == 0:
                _save(saved, state, text, signatures)
        _save(saved, state, text, signatures)
    return state


def _from(path: Path, length: int) -> BinaryIO:
    """A file to append to, cut back to a length that is known to be good."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(length)
    file.seek(length)
    return file


def _save(saved: Path, state: _State, *files: BinaryIO) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    write_json(saved, asdict(state))


def _write(document: Document, chunking: Chunking, state: _State, text: BinaryIO, signatures: BinaryIO | None) -> None:
    parts = list(chunks(document.text, chunking))
    if not parts:
        state.count("empty", document.where)
    for number, part in enumerate(parts, 1):
        whole = len(parts) == 1
        own_id = document.id if whole else f"{document.id}#{number}"
        passage = Passage(own_id, part, document.title, () if whole else (document.id,))
        line = to_line(passage).encode() + b"\n"
        text.write(line)
        if signatures is not None:
            signatures.write(signature(part).tobytes())
        state.bytes += len(line)
        state.passages += 1


def _finish(opened: Stage, state: _State, limit: float) -> None:
    """Drop near-duplicates, give each id to one passage, write where passages begin and where ids are."""
    import numpy as np

    folder = opened.folder
    starts = _starts(folder / "passages.jsonl", state.passages)
    if limit <= 1:
        instead = _duplicates(folder, starts, limit)
        _take_over(folder / "passages.jsonl", starts, instead)
        keep = np.ones(len(starts), dtype=bool)
        keep[list(instead)] = False
        starts = starts[keep]
        opened.count("near_duplicates_dropped", len(instead))
    ids, rows = _ids(folder / "passages.jsonl", starts, opened)
    order = np.argsort(ids, kind="stable")
    arrays = {"starts.npy": starts, "ids.npy": ids[order], "rows.npy": rows[order]}
    for name, values in arrays.items():
        with writing(folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, values)
    for reason, n in state.counts.items():
        opened.count(reason, n)
    opened.count("documents", state.documents)
    opened.count("passages", len(starts))
    files = ("passages.jsonl", *arrays)
    first = {f"first {reason}": where for reason, where in state.first.items()}
    hashes = [digest_file(folder / name) for name in files]
    opened.manifest.facts |= {"sizes": sizes_of(folder, files), "digest": digest(hashes), **first}
    for name in ("state.json", "signatures.bin"):
        (folder / name).unlink(missing_ok=True)


def _starts(path: Path, count: int) -> Any:
    import numpy as np

    starts = np.zeros(count, dtype=np.uint64)
    offset = 0
    with path.open("rb") as file:
        for row, line in zip(range(count), file, strict=False):
            starts[row] = offset
            offset += len(line)
    return starts


def _duplicates(folder: Path, starts: Any, limit: float) -> dict[int, int]:
    """Rows that are dropped, each with the row that stays in its place: of rows that resemble each other, the first."""
    import numpy as np

    signatures = np.fromfile(folder / "signatures.bin", dtype=np.uint64).reshape(-1, 1 + BANDS)
    instead: dict[int, int] = {}
    with (folder / "passages.jsonl").open("rb") as file:

        def text(row: int) -> str:
            return _at(file, starts[row]).text

        for band in range(1 + BANDS):
            order = np.argsort(signatures[:, band], kind="stable")
            same = np.flatnonzero(signatures[order[1:], band] == signatures[order[:-1], band])
            first, last = -1, -2
            for place in same.tolist():
                if place != last + 1:
                    first = int(order[place])
                last = place
                row = int(order[place + 1])
                if first in instead:
                    first = row
                elif row not in instead and resemblance(text(first), text(row)) >= limit:
                    instead[row] = first
    for row in instead:
        while instead[row] in instead:
            instead[row] = instead[instead[row]]
    return instead


def _take_over(path: Path, starts: Any, instead: Mapping[int, int]) -> None:
    """Write passages that stay in others' place again at the end, with the others' names."""
    names: dict[int, list[str]] = {}
    with path.open("r+b") as file:
        for row, stays in instead.items():
            names.setdefault(stays, []).extend(_at(file, starts[row]).names)
        for row, more in names.items():
            passage = _at(file, starts[row])
            own = dict.fromkeys([*passage.stands_for, *more])
            own.pop(passage.id, None)
            starts[row] = _append(file, replace(passage, stands_for=tuple(own)))


def _at(file: BinaryIO, start: int) -> Passage:
    file.seek(int(start))
    return from_line(Passage, file.readline())


def _append(file: BinaryIO, passage: Passage) -> int:
    """Write a passage at the end; where it begins."""
    start = file.seek(0, os.SEEK_END)
    file.write(to_line(passage).encode() + b"\n")
    return start


def _ids(path: Path, starts: Any, opened: Stage) -> tuple[Any, Any]:
    """Hashes of the passages' ids and then of what they stand for, each with its row.

    A passage whose id is taken is written again at the end with a new one ('ID~2').
    """
    import numpy as np

    others, theirs = array.array("Q"), array.array("I")
    ids = np.zeros(len(starts), dtype=np.uint64)
    with path.open("r+b") as file:
        for row in range(len(starts)):
            passage = _at(file, starts[row])
            ids[row] = hash_of(passage.id)
            others.extend(map(hash_of, passage.stands_for))
            theirs.extend([row] * len(passage.stands_for))
        order = np.argsort(ids, kind="stable")
        taken, given = ids[order], set[int]()
        same = taken[1:] == taken[:-1]
        number = 1
        for place in np.flatnonzero(same).tolist():
            number = number + 1 if place and same[place - 1] else 2
            row = int(order[place + 1])
            passage = _at(file, starts[row])
            while (new := hash_of(f"{passage.id}~{number}")) in given or _holds(taken, new):
                number += 1
            given.add(new)
            opened.count("duplicate_ids_renamed")
            opened.manifest.facts.setdefault("first duplicate id", passage.id)
            starts[row] = _append(file, replace(passage, id=f"{passage.id}~{number}"))
            ids[row] = new
    rows = np.concatenate([np.arange(len(ids), dtype=np.uint32), np.asarray(theirs, dtype=np.uint32)])
    return np.concatenate([ids, np.asarray(others, dtype=np.uint64)]), rows


def _holds(ascending: Any, value: int) -> bool:
    import numpy as np

    place = int(np.searchsorted(ascending, np.uint64(value)))
    return place < len(ascending) and int(ascending[place]) == value
