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
from lmdistill.types import Completion, Usage

SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (key TEXT PRIMARY KEY, endpoint TEXT, model TEXT, body BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS responses (
    id INTEGER PRIMARY KEY, key TEXT, at REAL, seconds REAL, body BLOB,
    prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER, batch INTEGER
);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT, sample INTEGER, response INTEGER, choice INTEGER, PRIMARY KEY (key, sample)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (id TEXT PRIMARY KEY, endpoint TEXT, at REAL, state TEXT, members TEXT);
"""


class Stored(NamedTuple):
    """One answer as it was found: the completion, what its whole response billed, and how many answers shared it."""

    completion: Completion
    response: int
    usage: Usage | None
    seconds: float
    batch: bool


def default_path() -> Path:
    """Where answers are kept when nobody says: `LMDISTILL_CACHE` (a folder), or the user's cache folder."""
    named = os.environ.get("LMDISTILL_CACHE")
    if named:
        return Path(named) / "responses.sqlite"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "lmdistill" / "responses.sqlite"


def key_of(endpoint: str, model: str, body: Mapping[str, Any]) -> str:
    """The key of a request, 32 hex digits: equal requests to equal endpoints have equal keys on every machine."""
    text = json.dumps([endpoint, model, body], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


class ResponseCache:
    """An open cache file; `None` keeps answers in memory only."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the file.

        Raises:
            StoreError: the file is no cache, or the folder cannot be written.
        """
        self.path = path
        self._lock = threading.RLock()
        self._last: tuple[int, list[Completion], Usage | None, float, bool] | None = None
        with self._errors():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", timeout=60.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(SCHEMA)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            remedy = "free some space, or name another file (--cache, LMDISTILL_CACHE)"
            raise StoreError(f"the response cache {self.path} failed: {error}; {remedy}") from error

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
        request: Mapping[str, Any],
        response: Mapping[str, Any],
        seconds: float,
        batch: bool = False,
    ) -> int:
        """Keep a response; its choices become the answers of `samples`, in order. One commit.

        An answer that another process stored first stays as it is. Returns how many answers it brought.
        """
        choices = len(wire.read_response(response))
        usage = wire.read_usage(response)
        counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) if usage else (None, None, None)
        with self._errors():
            db = self._db
            db.execute("BEGIN IMMEDIATE")
            try:
                db.execute("INSERT OR IGNORE INTO requests VALUES (?,?,?,?)", (key, endpoint, model, _pack(request)))
                row = (key, time.time(), seconds, _pack(response), *counts, int(batch))
                columns = "key, at, seconds, body, prompt_tokens, completion_tokens, cached_tokens, batch"
                number = db.execute(f"INSERT INTO responses ({columns}) VALUES (?,?,?,?,?,?,?,?)", row).lastrowid
                for choice, sample in enumerate(samples[:choices]):
                    db.execute("INSERT OR IGNORE INTO answers VALUES (?,?,?,?)", (key, sample, number, choice))
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
        return min(choices, len(samples))

    def find(self, key: str, sample: int) -> Stored | None:
        """The stored answer, or None."""
        with self._errors():
            query = "SELECT response, choice FROM answers WHERE key = ? AND sample = ?"
            row = self._db.execute(query, (key, sample)).fetchone()
            if row is None:
                return None
            number, choice = row
            if self._last is None or self._last[0] != number:  # the samples of one response are read in turn
                query = "SELECT body, seconds, batch FROM responses WHERE id = ?"
                body, seconds, batch = self._db.execute(query, (number,)).fetchone()
                response = _unpack(body)
                usage = wire.read_usage(response)
                self._last = (number, wire.read_response(response), usage, seconds, bool(batch))
            _, completions, usage, seconds, batch = self._last
            return Stored(completions[choice], number, usage, seconds, batch)

    def count(self) -> int:
        """How many answers are stored."""
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM answers").fetchone()[0])

    def means(self, endpoint: str, model: str) -> tuple[float, float] | None:
        """Input and output tokens of an answer of this model, on average; None before the first."""
        query = """
            SELECT avg(prompt_tokens), sum(completion_tokens) * 1.0 / sum(n) FROM (
                SELECT r.prompt_tokens, r.completion_tokens,
                       (SELECT count(*) FROM answers a WHERE a.response = r.id AND a.key = r.key) AS n
                FROM responses r JOIN requests q ON q.key = r.key
                WHERE q.endpoint = ? AND q.model = ? AND r.prompt_tokens IS NOT NULL ORDER BY r.id DESC LIMIT 1000
            ) WHERE n > 0"""
        with self._errors():
            row = self._db.execute(query, (endpoint, model)).fetchone()
        return None if row is None or row[0] is None else (float(row[0]), float(row[1]))

    # --- looking and tidying ---

    def contents(self) -> list[dict[str, Any]]:
        """One row for each endpoint and model: answers, responses, tokens, first and last time."""
        query = """
            SELECT q.endpoint, q.model, sum((SELECT count(*) FROM answers a WHERE a.response = r.id AND a.key = r.key)),
                   count(r.id), sum(r.prompt_tokens), sum(r.completion_tokens), min(r.at), max(r.at)
            FROM responses r JOIN requests q ON q.key = r.key GROUP BY q.endpoint, q.model ORDER BY 1, 2"""
        names = ("endpoint", "model", "answers", "responses", "prompt_tokens", "completion_tokens", "first", "last")
        with self._errors():
            return [dict(zip(names, row, strict=True)) for row in self._db.execute(query)]

    def entries(self, prefix: str = "", model: str | None = None) -> Iterator[dict[str, Any]]:
        """Stored requests with their responses, oldest first, whose key begins with `prefix`."""
        query = """
            SELECT r.id, q.key, q.endpoint, q.model, q.body, r.body, r.at, r.seconds, r.batch
            FROM responses r JOIN requests q ON q.key = r.key
            WHERE q.key LIKE ? || '%' AND (? IS NULL OR q.model = ?) ORDER BY r.id"""
        with self._errors():
            for number, key, endpoint, name, request, response, at, seconds, batch in self._db.execute(
                query, (prefix, model, model)
            ):
                samples = self._db.execute(
                    "SELECT sample FROM answers WHERE key = ? AND response = ? ORDER BY choice", (key, number)
                ).fetchall()
                yield {
                    "key": key,
                    "samples": [sample for (sample,) in samples],
                    "endpoint": endpoint,
                    "model": name,
                    "at": at,
                    "seconds": seconds,
                    "batch": bool(batch),
                    "request": _unpack(request),
                    "response": _unpack(response),
                }

    def prune(self, *, before: float | None = None, model: str | None = None, endpoint: str | None = None) -> int:
        """Forget responses that are older than a time, of a model, of an endpoint (all that are given must hold).

        Returns how many answers were forgotten. The file shrinks.
        """
        where = """
            SELECT r.id FROM responses r JOIN requests q ON q.key = r.key
            WHERE (? IS NULL OR r.at < ?) AND (? IS NULL OR q.model = ?) AND (? IS NULL OR q.endpoint = ?)"""
        values = (before, before, model, model, endpoint, endpoint)
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            gone = self._db.execute(f"DELETE FROM answers WHERE response IN ({where})", values).rowcount
            self._db.execute(f"DELETE FROM responses WHERE id IN ({where})", values)
            self._db.execute("DELETE FROM requests WHERE key NOT IN (SELECT key FROM responses)")
            self._db.execute("COMMIT")
            self._db.execute("VACUUM")
        self._last = None
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
            return [(number, json.loads(members)) for number, members in self._db.execute(query, (endpoint,))]


def _pack(value: Mapping[str, Any]) -> bytes:
    return zlib.compress(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"), 1)


def _unpack(blob: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(zlib.decompress(blob).decode(errors="surrogatepass"))
    return value
