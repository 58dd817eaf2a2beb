"""Every answer that was ever paid for: raw responses in one SQLite file.

The key is (endpoint, model, full request, sample index). A response is committed before it is used, one commit each,
in WAL mode: a killed process loses what was in flight and nothing else, readers never wait, and two processes may
write to one file. What is kept is the untouched response, with usage and time, so a better parser costs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmdistill import wire
from lmdistill.errors import StoreError
from lmdistill.types import Completion

# One row an answer. The samples of one response share it: it stands in the row whose `sample` is `holder`.
SCHEMA = """
CREATE TABLE IF NOT EXISTS places (id INTEGER PRIMARY KEY, endpoint TEXT, model TEXT, UNIQUE (endpoint, model));
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, key TEXT, sample INTEGER, holder INTEGER, choice INTEGER, place INTEGER, at REAL,
    seconds REAL, batch INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER,
    request BLOB, response BLOB, UNIQUE (key, sample)
);
CREATE TABLE IF NOT EXISTS batches (id TEXT PRIMARY KEY, endpoint TEXT, at REAL, state TEXT, members TEXT);
"""
PATIENCE = 60.0
"""Seconds to wait for another process's lock."""
INSERT = "INSERT OR IGNORE INTO answers VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?)"


class Stored(NamedTuple):
    """One answer as it was found; the completion that came first in its response carries the usage."""

    completion: Completion
    seconds: float
    batch: bool


def default_path() -> Path:
    """Where answers are kept when nobody says: `LMDISTILL_CACHE` (a folder), or the user's cache folder."""
    named = os.environ.get("LMDISTILL_CACHE")
    if named:
        return Path(named) / "responses.sqlite"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "lmdistill" / "responses.sqlite"


def key_of(endpoint: str, model: str, payload: bytes) -> str:
    """The key of a request, 32 hex digits: equal requests to equal endpoints have equal keys on every machine."""
    found = hashlib.sha256(f"{endpoint}\n{model}\n".encode())
    found.update(payload)
    return found.hexdigest()[:32]


class ResponseCache:
    """An open cache file; `None` keeps answers in memory only."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the file.

        Raises:
            StoreError: the file is no cache, or the folder cannot be written.
        """
        self.path = path
        self._lock = threading.RLock()
        self._places: dict[tuple[str, str], int] = {}
        self._last: tuple[int, list[Completion]] | None = None
        self._fresh: dict[tuple[str, int], Stored] = {}  # what was just stored is looked up next
        with self._errors():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path or ":memory:", timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._set_up()

    def _set_up(self) -> None:
        """Several processes may do this at once; SQLite does not wait for a lock when it changes the journal's mode."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.executescript(SCHEMA)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            remedy = "free some space, or name another file (--cache, LMDISTILL_CACHE)"
            raise StoreError(f"the response cache {self.path} failed: {error}; {remedy}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> ResponseCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- answers ---

    def put(
        self,
        key: str,
        samples: Sequence[int],
        *,
        endpoint: str,
        model: str,
        request: bytes,
        raw: bytes,
        completions: Sequence[Completion],
        seconds: float,
        batch: bool = False,
    ) -> int:
        """Keep a response; `completions`, read from it, become the answers of `samples`, in order. One commit.

        An answer that another process stored first stays as it is. Returns how many answers it brought.
        """
        usage = completions[0].usage
        counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) if usage else (None, None, None)
        about = (time.time(), seconds, int(batch), *counts, _pack(request), _pack(raw))
        with self._errors():
            place = self._place(endpoint, model)
            if len(samples) == 1:
                new = self._db.execute(INSERT, (key, samples[0], samples[0], 0, place, *about)).rowcount == 1
            else:
                new = self._put_many(key, samples[: len(completions)], place, about)
        if new:
            if len(self._fresh) > 1000:
                self._fresh.clear()
            for completion, sample in zip(completions, samples, strict=False):
                self._fresh[key, sample] = Stored(completion, seconds, batch)
        return min(len(samples), len(completions))

    def _put_many(self, key: str, samples: Sequence[int], place: int, about: tuple[Any, ...]) -> bool:
        """Whether none of them was there before."""
        with self._transaction():
            known = {sample for (sample,) in self._db.execute("SELECT sample FROM answers WHERE key = ?", (key,))}
            missing = [(choice, sample) for choice, sample in enumerate(samples) if sample not in known]
            for choice, sample in missing:
                holder = missing[0][1]
                nothing = (*about[:3], None, None, None, None, None)
                row = (key, sample, holder, choice, place, *(about if sample == holder else nothing))
                self._db.execute(INSERT, row)
        return len(missing) == len(samples)

    def _place(self, endpoint: str, model: str) -> int:
        found = self._places.get((endpoint, model))
        if found is None:
            self._db.execute("INSERT OR IGNORE INTO places (endpoint, model) VALUES (?,?)", (endpoint, model))
            query = "SELECT id FROM places WHERE endpoint = ? AND model = ?"
            found = self._places[endpoint, model] = int(self._db.execute(query, (endpoint, model)).fetchone()[0])
        return found

    def find(self, key: str, sample: int) -> Stored | None:
        """The stored answer, or None."""
        fresh = self._fresh.get((key, sample))
        if fresh is not None:
            return fresh
        query = "SELECT id, sample, holder, choice, seconds, batch, response FROM answers WHERE key = ? AND sample = ?"
        with self._errors():
            row = self._db.execute(query, (key, sample)).fetchone()
            if row is None:
                return None
            _, own, holder, choice, seconds, batch, _ = row
            if own != holder:
                row = self._db.execute(query, (key, holder)).fetchone()
            if self._last is None or self._last[0] != row[0]:  # the samples of one response are read in turn
                self._last = (row[0], wire.read_response(json.loads(_unpack(row[6]))))
            return Stored(self._last[1][choice], seconds, bool(batch))

    def count(self) -> int:
        """How many answers are stored."""
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM answers").fetchone()[0])

    def recent(self, endpoint: str, model: str, last: int) -> list[tuple[str, int, int, int]]:
        """A model's last responses that say what they used: prompt, input tokens, output tokens, how many answers."""
        query = """
            SELECT a.request, a.prompt_tokens, a.completion_tokens,
                   (SELECT count(*) FROM answers b WHERE b.key = a.key AND b.holder = a.sample)
            FROM answers a JOIN places p ON p.id = a.place
            WHERE p.endpoint = ? AND p.model = ? AND a.prompt_tokens > 0 ORDER BY a.id DESC LIMIT ?"""
        with self._errors():
            rows = self._db.execute(query, (endpoint, model, last)).fetchall()
        return [(wire.shown(json.loads(_unpack(request))), *counts) for request, *counts in rows]

    # --- looking and tidying ---

    def contents(self) -> list[dict[str, Any]]:
        """One row for each endpoint and model: answers, responses, tokens, first and last time."""
        query = """
            SELECT p.endpoint, p.model, count(*), sum(a.sample = a.holder), sum(a.prompt_tokens),
                   sum(a.completion_tokens), min(a.at), max(a.at)
            FROM answers a JOIN places p ON p.id = a.place GROUP BY p.id ORDER BY 1, 2"""
        names = ("endpoint", "model", "answers", "responses", "prompt_tokens", "completion_tokens", "first", "last")
        with self._errors():
            return [dict(zip(names, row, strict=True)) for row in self._db.execute(query).fetchall()]

    def entries(self, prefix: str = "", model: str | None = None) -> Iterator[dict[str, Any]]:
        """Stored requests with their responses, oldest first, whose key begins with `prefix`."""
        query = """
            SELECT a.key, a.sample, p.endpoint, p.model, a.request, a.response, a.at, a.seconds, a.batch
            FROM answers a JOIN places p ON p.id = a.place WHERE a.sample = a.holder
            AND substr(a.key, 1, ?) = ? AND (? IS NULL OR p.model = ?) ORDER BY a.id"""
        with self._errors():
            for row in self._db.execute(query, (len(prefix), prefix, model, model)):
                key, holder, endpoint, name, request, response, at, seconds, batch = row
                own = "SELECT sample FROM answers WHERE key = ? AND holder = ? ORDER BY choice"
                yield {
                    "key": key,
                    "samples": [sample for (sample,) in self._db.execute(own, (key, holder))],
                    "endpoint": endpoint,
                    "model": name,
                    "at": at,
                    "seconds": seconds,
                    "batch": bool(batch),
                    "request": json.loads(_unpack(request)),
                    "response": json.loads(_unpack(response)),
                }

    def prune(self, *, before: float | None = None, model: str | None = None, endpoint: str | None = None) -> int:
        """Forget answers that are older than a time, of a model, of an endpoint (all that are given must hold).

        Returns how many answers were forgotten. The file shrinks.
        """
        where = """
            (? IS NULL OR at < ?) AND place IN (
                SELECT id FROM places WHERE (? IS NULL OR model = ?) AND (? IS NULL OR endpoint = ?))"""
        with self._errors():
            with self._transaction():
                values = (before, before, model, model, endpoint, endpoint)
                gone = self._db.execute(f"DELETE FROM answers WHERE {where}", values).rowcount
            self._db.execute("VACUUM")
        self._last = None
        self._fresh.clear()
        return gone

    # --- batches that the endpoint is working on ---

    def save_batch(self, number: str, endpoint: str, state: str, members: Mapping[str, Any]) -> None:
        """Remember a batch: `members` is whatever its owner needs to go on after a restart."""
        with self._errors():
            row = (number, endpoint, time.time(), state, json.dumps(members))
            self._db.execute("INSERT OR REPLACE INTO batches VALUES (?,?,?,?,?)", row)

    def open_batches(self, endpoint: str) -> list[tuple[str, dict[str, Any]]]:
        """Batches of an endpoint that are not done, oldest first."""
        query = "SELECT id, members FROM batches WHERE endpoint = ? AND state = 'open' ORDER BY at"
        with self._errors():
            rows = self._db.execute(query, (endpoint,)).fetchall()
        return [(number, json.loads(members)) for number, members in rows]


def _pack(raw: bytes) -> bytes:
    """JSON, compressed where that pays: what is not begins with '{'."""
    return raw if len(raw) < 400 and raw[:1] == b"{" else zlib.compress(raw, 1)


def _unpack(blob: bytes) -> bytes:
    return blob if blob[:1] == b"{" else zlib.decompress(blob)
