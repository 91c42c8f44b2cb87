"""The minutes of every endpoint, in DATA/availability.db: a row an endpoint and hour, for 92 days. Written by control.

What a row holds is msgpack, `{MINUTE: [requests, failed, observed_s, bad_s, planned]}`; how bad the hour was stands
beside it, so that a month is summed up without reading its minutes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from eyrie.adapters.sqlite_file import open_file
from eyrie.domain.availability import MINUTE_MS, Minute

HOUR_MS = 60 * MINUTE_MS
KEPT_MS = 92 * 24 * HOUR_MS
_EXPIRE_EVERY_MS = 6 * HOUR_MS
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE hours (
    endpoint TEXT, hour INTEGER, badness REAL NOT NULL, data BLOB NOT NULL, PRIMARY KEY (endpoint, hour)
) WITHOUT ROWID;
"""
_Row = tuple[int, int, float, float, bool]
_rows = msgspec.msgpack.Decoder(dict[int, _Row])


class AvailabilityFile:
    """Minutes by endpoint (its uid: one that was made anew under an old name begins anew). From any thread."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises FileUnusable for one of a newer version."""
        self._db = open_file(path, _SCHEMA, _SCHEMA_VERSION, autocommit=False)
        self._lock = threading.Lock()
        self._expired_ms = 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def keep(self, seen: Sequence[tuple[str, Minute]], now_ms: int) -> list[tuple[str, Minute]]:
        """Store minutes, all or none, each together with what is known of it already; as they are then."""
        kept: list[tuple[str, Minute]] = []
        with self._lock, self._db:
            for endpoint, minute in seen:
                kept.append((endpoint, self._keep(endpoint, minute)))
            if now_ms - self._expired_ms >= _EXPIRE_EVERY_MS:
                self._db.execute("DELETE FROM hours WHERE hour < ?", ((now_ms - KEPT_MS) // HOUR_MS,))
                self._expired_ms = now_ms
        return kept

    def _keep(self, endpoint: str, minute: Minute) -> Minute:
        hour = minute.at_ms // HOUR_MS
        known = {m.at_ms: m for m in self._hours(endpoint, hour, hour + 1)}
        before = known.get(minute.at_ms)
        now = known[minute.at_ms] = before.and_also(minute) if before else minute
        badness = sum(m.badness for m in known.values() if m.counts)
        data = msgspec.msgpack.encode({_place(m): _row(m) for m in known.values()})
        self._db.execute("REPLACE INTO hours VALUES (?, ?, ?, ?)", (endpoint, hour, badness, data))
        return now

    def minutes(self, endpoint: str, start_ms: int, end_ms: int) -> list[Minute]:
        """What is known of the minutes from `start_ms` to before `end_ms`, oldest first."""
        with self._lock:
            found = self._hours(endpoint, start_ms // HOUR_MS, -(-end_ms // HOUR_MS))
        return [minute for minute in found if start_ms <= minute.at_ms < end_ms]

    def badness(self, endpoint: str, start_ms: int) -> float:
        """Bad minutes since the hour after `start_ms` began."""
        query = "SELECT total(badness) FROM hours WHERE endpoint = ? AND hour > ?"
        with self._lock:
            return float(self._db.execute(query, (endpoint, start_ms // HOUR_MS)).fetchone()[0])

    def _hours(self, endpoint: str, first: int, last: int) -> list[Minute]:
        query = "SELECT hour, data FROM hours WHERE endpoint = ? AND hour >= ? AND hour < ? ORDER BY hour"
        return [
            Minute(hour * HOUR_MS + place * MINUTE_MS, *row)
            for hour, data in self._db.execute(query, (endpoint, first, last))
            for place, row in sorted(_rows.decode(data).items())
        ]


def _place(minute: Minute) -> int:
    return minute.at_ms % HOUR_MS // MINUTE_MS


def _row(minute: Minute) -> _Row:
    observed, bad = round(minute.observed_s, 3), round(minute.bad_s, 3)
    return minute.requests, minute.failed, observed, bad, minute.planned
