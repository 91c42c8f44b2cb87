"""The object index: DATA/objects.db, plain SQLite, written by the objects process alone.

A PUT is blob first, then one commit here, so a crash never shows half an object; what a commit no longer names is
handed to `freed` after it, and bytes that nothing names are swept. Reads run on the event loop against the last commit
(WAL); writes are functions that one thread runs, as many as are waiting in one transaction, each in its own savepoint:
one fsync serves them all.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SCHEMA_VERSION = 1
_BATCH_MAX = 256
_SCHEMA = """
CREATE TABLE store (id TEXT NOT NULL);
CREATE TABLE buckets (
    name TEXT PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, created_ms INTEGER NOT NULL, tags TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE objects (
    bucket TEXT NOT NULL, key BLOB NOT NULL, version TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    modified_ms INTEGER NOT NULL, details TEXT NOT NULL, PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE segments (
    version TEXT NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL, blob TEXT NOT NULL,
    blob_start INTEGER NOT NULL, part INTEGER NOT NULL, PRIMARY KEY (version, start)
) WITHOUT ROWID;
CREATE INDEX segments_of_blob ON segments (blob);
CREATE TABLE uploads (
    upload_id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key BLOB NOT NULL, started_ms INTEGER NOT NULL,
    account TEXT NOT NULL, details TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_of_key ON uploads (bucket, key, upload_id);
CREATE TABLE parts (
    upload_id TEXT NOT NULL, number INTEGER NOT NULL, version TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    modified_ms INTEGER NOT NULL, checksums TEXT NOT NULL, PRIMARY KEY (upload_id, number)
) WITHOUT ROWID;
"""


class IndexUnusable(Exception):
    """The index cannot be used; the message says why, for people."""


@dataclass(slots=True)
class Change:
    """One write inside a transaction. `freed` collects the blobs that nothing names any more once it is committed."""

    db: sqlite3.Connection
    freed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Job:
    write: Callable[[Change], Any]
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None
    freed: list[str] = field(default_factory=list)


class Index:
    """Reads through `db`, on the thread that made the index; writes through `write`."""

    def __init__(self, path: Path, freed: Callable[[Sequence[str]], None], new_id: str) -> None:
        """`new_id` becomes the `store_id` of an index that is made now. Raises IndexUnusable."""
        self._path = path
        self._freed = freed
        writer = _open(path)
        _migrate(writer, path, new_id)
        writer.close()
        self.db = _open(path)
        self.db.execute("PRAGMA query_only = ON")
        (self.store_id,) = self.db.execute("SELECT id FROM store").fetchone()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="objects-index", daemon=True)
        self._thread.start()

    async def write(self, write: Callable[[Change], T]) -> T:
        """Run `write` in a transaction and answer its result once that is durable.

        Raises what it raises, changing nothing.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(write, done, loop))
        # A caller who is cancelled does not cancel the write: whether it happened must not depend on who waits.
        return await asyncio.shield(done)

    def close(self) -> None:
        """Finish what was asked for and close the file."""
        self._jobs.put(None)
        self._thread.join()
        self.db.close()

    def _work(self) -> None:
        db = _open(self._path)
        try:
            while (job := self._jobs.get()) is not None:
                jobs, last = self._waiting(job)
                _run(db, jobs)
                jobs[0].loop.call_soon_threadsafe(self._finish, jobs)
                if last:
                    return
        finally:
            db.close()

    def _waiting(self, first: _Job) -> tuple[list[_Job], bool]:
        jobs = [first]
        while len(jobs) < _BATCH_MAX:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _finish(self, jobs: Sequence[_Job]) -> None:
        freed = [blob for job in jobs if job.error is None for blob in job.freed]
        for job in jobs:
            if job.done.done():
                continue
            if job.error is not None:
                job.done.set_exception(job.error)
            else:
                job.done.set_result(job.result)
        if freed:
            self._freed(freed)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA cache_size = -16384")
    return db


def _migrate(db: sqlite3.Connection, path: Path, new_id: str) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        db.close()
        raise IndexUnusable(f"{path} has format {version}; this Eyrie knows {SCHEMA_VERSION} at most")
    if version == 0:
        make = f"INSERT INTO store VALUES ('{new_id}'); PRAGMA user_version = {SCHEMA_VERSION};"
        db.executescript(f"BEGIN; {_SCHEMA} {make} COMMIT;")


def _run(db: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
    """One transaction for all; a job that fails is undone alone, a commit that fails undoes all."""
    try:
        db.execute("BEGIN IMMEDIATE")
        for job in jobs:
            _run_one(db, job)
        db.execute("COMMIT")
    except sqlite3.Error as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        for job in jobs:
            job.error = error


def _run_one(db: sqlite3.Connection, job: _Job) -> None:
    change = Change(db)
    db.execute("SAVEPOINT job")
    try:
        job.result = job.write(change)
        job.freed = change.freed
    except Exception as error:  # the thread's boundary: handed to whoever asked for the write
        job.error = error
        db.execute("ROLLBACK TO job")
    db.execute("RELEASE job")
