"""The object index: DATA/objects.db, plain SQLite, written by the objects process alone.

A PUT is blob first, then one commit here, so a crash never shows half an object; what a commit no longer names is
handed to `freed` after it, and bytes that nothing names are swept. Reads run on the event loop against the last commit
(WAL); writes share a commit with whatever else waits (`adapters/group_commit`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from eyrie.adapters.group_commit import GroupCommit

T = TypeVar("T")

SCHEMA_VERSION = 1
SCHEMA = """
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


@dataclass(slots=True)
class Change:
    """One write inside a transaction. `freed` collects the blobs that nothing names any more once it is committed."""

    db: sqlite3.Connection
    freed: list[str] = field(default_factory=list)


class Index:
    """Reads through `db`, on the event loop's thread that made the index; writes through `write`."""

    def __init__(self, path: Path, freed: Callable[[Sequence[str]], None], new_id: str) -> None:
        """`new_id` becomes the `store_id` of an index that is made now. Raises FileUnusable."""
        self._freed = freed
        self._file = GroupCommit(path, f"{SCHEMA} INSERT INTO store VALUES ('{new_id}');", SCHEMA_VERSION)
        self.db = self._file.db
        (self.store_id,) = self.db.execute("SELECT id FROM store").fetchone()

    async def write(self, write: Callable[[Change], T]) -> T:
        """Run `write` in a transaction and answer its result once that is durable.

        Raises what it raises, changing nothing.
        """
        freed: list[str] = []

        def changed(db: sqlite3.Connection) -> T:
            return write(Change(db, freed))

        def committed(done: asyncio.Future[Any]) -> None:
            if freed and done.exception() is None:
                self._freed(freed)

        done = self._file.write(changed)
        done.add_done_callback(committed)
        # A caller who is cancelled does not cancel the write: whether it happened must not depend on who waits.
        return await asyncio.shield(done)

    def close(self) -> None:
        """Finish what was asked for and close the file."""
        self._file.close()
