"""A plain SQLite file of one process, durable by group commit: as many writes as are waiting become one transaction
and one fsync, each in its own savepoint.

Reads go through `db` on the event loop, against the last commit (WAL); writes are functions that one thread runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eyrie.adapters.sqlite_file import open_file, open_reader

T = TypeVar("T")

BATCH_MAX = 512
WAIT_S = 30.0  # for a lock that another connection holds
_CACHE = "PRAGMA cache_size = -16384"


@dataclass(slots=True)
class _Job:
    write: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class GroupCommit:
    """Made on the event loop's thread, which alone may call it. Raises FileUnusable."""

    def __init__(self, path: Path, schema: str, version: int) -> None:
        """`schema` makes a new file; `version` is its format, and a newer one is refused."""
        self._loop = asyncio.get_running_loop()
        self._writer = open_file(path, schema, version, durable=True, wait_s=WAIT_S)
        self._writer.execute(_CACHE)
        self.db = open_reader(path, WAIT_S)
        self.db.execute(_CACHE)
        self.commits = 0  # transactions so far
        self.waiting = 0  # writes that were asked for and are not durable yet
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=path.name, daemon=True)
        self._thread.start()

    def write(self, write: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run `write` in a transaction; the future has its result once that is durable, or what it raised, and then
        nothing was changed. Whoever stops waiting does not stop the write.
        """
        done: asyncio.Future[T] = self._loop.create_future()
        self.waiting += 1
        self._jobs.put(_Job(write, done))
        return done

    def close(self) -> None:
        """Finish what was asked for and close the file."""
        self._jobs.put(None)
        self._thread.join()
        self.db.close()

    def _work(self) -> None:
        db = self._writer
        try:
            while (job := self._jobs.get()) is not None:
                jobs, last = self._gather(job)
                _run(db, jobs)
                self._loop.call_soon_threadsafe(self._finish, jobs)
                if last:
                    return
        finally:
            db.close()

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        jobs = [first]
        while len(jobs) < BATCH_MAX:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _finish(self, jobs: Sequence[_Job]) -> None:
        self.commits += 1
        self.waiting -= len(jobs)
        for job in jobs:
            if job.done.done():
                continue
            if job.error is not None:
                job.done.set_exception(job.error)
                job.done.exception()  # taken, also where nobody waits for it any more
            else:
                job.done.set_result(job.result)


def _run(db: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
    """One transaction for all; a job that fails is undone alone, a commit that fails undoes all."""
    try:
        _leave(db)
        db.execute("BEGIN IMMEDIATE")
        for job in jobs:
            _run_one(db, job)
        db.execute("COMMIT")
    except sqlite3.Error as error:
        with contextlib.suppress(sqlite3.Error):
            _leave(db)
        for job in jobs:
            job.error = error


def _leave(db: sqlite3.Connection) -> None:
    """Undo what is not committed; where that failed the last time, it is tried again. Raises sqlite3.Error."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def _run_one(db: sqlite3.Connection, job: _Job) -> None:
    db.execute("SAVEPOINT job")
    try:
        job.result = job.write(db)
    except Exception as error:  # the thread's boundary: handed to whoever asked for the write
        if not db.in_transaction:  # SQLite has undone all of it, as on a full disk
            raise sqlite3.OperationalError(str(error)) from error
        job.error = error
        db.execute("ROLLBACK TO job")
    db.execute("RELEASE job")
