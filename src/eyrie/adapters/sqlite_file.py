"""Opens the SQLite files of one process each (metrics, logs, availability, queues, the object index): made where there
is none, a newer version's refused, and in WAL, so that readers do not wait for the writer.

The state of control is `store_sql`'s, which migrates.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path


class FileUnusable(Exception):
    """The file cannot be used; the message says why, for people."""


def open_file(
    path: Path,
    schema: str,
    version: int,
    *,
    durable: bool = False,
    autocommit: bool = True,
    wait_s: float = 5.0,
    made_with: Sequence[str] = (),
) -> sqlite3.Connection:
    """The writing connection, for any thread, one at a time. `schema` makes a new file, of format `version`.

    `durable`: a commit is on disk before it returns; else a crash of the host may lose the last moments, never the
    file. `autocommit`: transactions are begun by hand. `wait_s`: for a lock that another connection holds. `made_with`:
    pragmas that hold only when they come before the first table. Raises FileUnusable for a file of a newer version.
    """
    db = connect(path, autocommit=autocommit, wait_s=wait_s)
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found > version:
        db.close()
        raise FileUnusable(f"{path} was written by a newer Eyrie (format {found}; this one: {version})")
    if found == 0:
        for pragma in made_with:
            db.execute(f"PRAGMA {pragma}")
        db.executescript(f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    return db


def open_reader(path: Path, wait_s: float = 5.0) -> sqlite3.Connection:
    """A connection that only reads, beside the writer."""
    db = connect(path, autocommit=True, wait_s=wait_s)
    db.execute("PRAGMA query_only = ON")
    return db


def connect(path: Path, *, autocommit: bool, wait_s: float) -> sqlite3.Connection:
    """A connection for any thread, one at a time."""
    return sqlite3.connect(
        path, check_same_thread=False, isolation_level=None if autocommit else "DEFERRED", timeout=wait_s
    )
