"""The logs that users write, and what they set of log groups, in one SQLite file of its own, DATA/logs.db.

Control alone writes it, one transaction a PutLogEvents; readers have connections of their own and wait for nobody.
A thread removes, in small bites, what is past its group's retention, what is left of deleted streams, and the oldest
hours where all of it together is over the bound. A killed process loses nothing that was acknowledged; a crash of the
host the last moments, never the file.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from eyrie.adapters import log_rows as rows
from eyrie.adapters.sqlite_file import open_file, open_reader
from eyrie.domain.logs import Entry, LogGroup, LogStream, MetricFilter, Place
from eyrie.domain.names import Scope
from eyrie.ports import Clock

log = logging.getLogger(__name__)

PAGE = 2_000  # events read at a time
_BITE = 5_000  # events removed at a time: nobody who writes waits longer than that
_SWEEP_EVERY_S = 10.0
_VACUUM_PAGES = 2_000
Event = tuple[int, str]  # milliseconds since the epoch, text


class Missing(Exception):
    """There is no such group or stream: "group" or "stream"."""


class LogFile:
    """Groups, streams, events and metric filters of all accounts. Every method may be called from any thread."""

    def __init__(self, path: Path, clock: Clock, bytes_max: int) -> None:
        """Open or make the file. `bytes_max`: of all events. Raises FileUnusable for one of a newer version."""
        self._path = path
        self._clock = clock
        self._bytes_max = bytes_max
        self._db = open_file(path, rows.SCHEMA, rows.VERSION, made_with=["auto_vacuum = INCREMENTAL"])
        self._lock = threading.Lock()  # the writing connection
        self._filters: dict[tuple[Scope, str], list[MetricFilter]] | None = None
        self._ending = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_on, name="logs", daemon=True)

    def start(self) -> None:
        """Begin to remove what expires."""
        self._sweeper.start()

    def close(self) -> None:
        """End the thread, and close the file."""
        self._ending.set()
        if self._sweeper.is_alive():
            self._sweeper.join()
        with self._lock:
            self._db.close()

    # --- groups and streams -------------------------------------------------------------------------------------------

    def groups(self, scope: Scope) -> dict[str, LogGroup]:
        """The groups of an account and region that were made or set, by name."""
        with self._reading() as db:
            return {group.name: group for _, group in rows.all_groups(db) if group.scope == scope}

    def group(self, scope: Scope, name: str) -> LogGroup | None:
        """One group."""
        with self._reading() as db:
            found = rows.find_group(db, scope, name)
        return found[1] if found else None

    def put_group(self, group: LogGroup) -> None:
        """Make a group, or change its retention, tags and what is hidden of it."""
        with self._writing() as db:
            rows.put_group(db, group)

    def delete_group(self, scope: Scope, name: str) -> None:
        """Remove a group with its streams and filters; its events go within moments. No-op where there is none."""
        with self._writing() as db:
            found = rows.find_group(db, scope, name)
            if found is not None:
                for table, column in (("streams", "group_id"), ("filters", "group_id"), ("groups", "id")):
                    db.execute(f"DELETE FROM {table} WHERE {column} = ?", (found[0],))
            self._filters = None

    def streams(self, scope: Scope, name: str) -> dict[str, LogStream]:
        """The streams of a group, by name; none where there is no such group."""
        with self._reading() as db:
            found = rows.find_group(db, scope, name)
            return rows.streams(db, found[0]) if found else {}

    def stream_names(self, scope: Scope, name: str) -> list[str]:
        """The names of a group's streams, and nothing else of them."""
        with self._reading() as db:
            found = rows.find_group(db, scope, name)
            return rows.stream_names(db, found[0]) if found else []

    def remove_empty(self, prefix: str, before_ms: int) -> None:
        """Remove streams of groups whose names begin so, where all they had has expired and nothing came since; and
        those groups themselves, once they have neither streams nor filters.
        """
        with self._writing() as db:
            rows.remove_empty(db, prefix, before_ms)

    def create_stream(self, scope: Scope, group: str, name: str, now_ms: int) -> bool:
        """Make a stream; False where it is there already. Raises Missing."""
        with self._writing() as db:
            number = _group(db, scope, group)
            if rows.find_stream(db, number, name) is not None:
                return False
            db.execute("INSERT INTO streams (group_id, name, created_ms) VALUES (?, ?, ?)", (number, name, now_ms))
            return True

    def delete_stream(self, scope: Scope, group: str, name: str) -> None:
        """Remove a stream; its events go within moments. Raises Missing."""
        with self._writing() as db:
            number = rows.find_stream(db, _group(db, scope, group), name)
            if number is None:
                raise Missing("stream")
            db.execute("DELETE FROM streams WHERE id = ?", (number,))

    # --- events -------------------------------------------------------------------------------------------------------

    def append(self, scope: Scope, group: str, stream: str, events: Sequence[Event], now_ms: int) -> None:
        """Put events into a stream, durably against the end of this process. Raises Missing."""
        sizes = rows.sizes_by_hour(events)
        with self._writing() as db:
            number = rows.find_stream(db, _group(db, scope, group), stream)
            if number is None:
                raise Missing("stream")
            if events:
                rows.append(db, number, events, now_ms, sizes)

    def append_all(self, scope: Scope, group: LogGroup, by_stream: dict[str, list[Event]], now_ms: int) -> None:
        """Put events into streams of a group of Eyrie's own in one transaction; what is missing is made."""
        sized = [(stream, events, rows.sizes_by_hour(events)) for stream, events in by_stream.items() if events]
        with self._writing() as db:
            found = rows.find_group(db, scope, group.name)
            if found is None:
                rows.put_group(db, group)
                found = rows.find_group(db, scope, group.name)
            assert found is not None
            for stream, events, sizes in sized:
                db.execute(
                    "INSERT OR IGNORE INTO streams (group_id, name, created_ms) VALUES (?, ?, ?)",
                    (found[0], stream, now_ms),
                )
                number = rows.find_stream(db, found[0], stream)
                assert number is not None
                rows.append(db, number, events, now_ms, sizes)

    def read(
        self, scope: Scope, group: str, stream: str, span: tuple[int, int], after: Place | None, forward: bool,
        page: int = PAGE,
    ) -> Iterator[Entry]:  # fmt: skip
        """The events of a stream with times from `span[0]` to before `span[1]`, beyond a place, oldest first; newest
        first where not `forward`. None where there is no such stream. `page`: how many are fetched at a time.
        """
        while True:
            with self._reading() as db:
                found = rows.find_group(db, scope, group)
                number = rows.find_stream(db, found[0], stream) if found else None
                fetched = [] if number is None else rows.page(db, number, stream, span, after, forward, page)
            yield from fetched
            if len(fetched) < page:
                return
            after = Place(fetched[-1].at_ms, fetched[-1].ordinal)

    # --- metric filters -----------------------------------------------------------------------------------------------

    def filters(self, scope: Scope) -> dict[str, list[MetricFilter]]:
        """The metric filters of an account and region, by group. Cheap: kept in memory."""
        known = self._filters
        if known is None:
            with self._lock:
                known = self._filters = {
                    (group.scope, group.name): found
                    for number, group in rows.all_groups(self._db)
                    if (found := rows.filters(self._db, number, group.name))
                }
        return {name: found for (at, name), found in known.items() if at == scope}

    def filtered(self) -> list[tuple[Scope, str, list[MetricFilter]]]:
        """Every group that has metric filters, with them."""
        with self._reading() as db:
            return [
                (group.scope, group.name, found)
                for number, group in rows.all_groups(db)
                if (found := rows.filters(db, number, group.name))
            ]

    def put_filter(self, scope: Scope, put: MetricFilter) -> None:
        """Make or replace a filter. Raises Missing."""
        with self._writing() as db:
            rows.put_filter(db, _group(db, scope, put.group), put)
            self._filters = None

    def delete_filter(self, scope: Scope, group: str, name: str) -> bool:
        """Remove a filter; False where there is none. Raises Missing."""
        with self._writing() as db:
            number = _group(db, scope, group)
            done = db.execute("DELETE FROM filters WHERE group_id = ? AND name = ?", (number, name))
            self._filters = None
            return done.rowcount > 0

    # --- what expires -------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove what is past its time or over the bound."""
        with self._reading() as db:
            due = [*rows.expired(db, self._clock.now_ms()), *rows.overfull(db, self._bytes_max)]
        for stream, before_ms in due:
            while not self._ending.is_set():
                with self._writing() as db:
                    more = rows.remove_before(db, stream, before_ms, _BITE)
                if not more:
                    break
        if due:
            with self._lock, suppress(sqlite3.OperationalError):  # busy: the next sweep does it
                self._db.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()

    def _sweep_on(self) -> None:
        while not self._ending.wait(_SWEEP_EVERY_S):
            try:
                self.sweep()
            except sqlite3.Error as error:  # a full disk, say: tried again
                log.error("logs cannot be expired: %s", error)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with closing(open_reader(self._path)) as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it
                    self._db.execute("ROLLBACK")
                raise


def _group(db: sqlite3.Connection, scope: Scope, name: str) -> int:
    found = rows.find_group(db, scope, name)
    if found is None:
        raise Missing("group")
    return found[0]
