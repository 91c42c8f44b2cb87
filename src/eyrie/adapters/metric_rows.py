"""Rows of the metrics file: the levels that time is kept at, and how summaries are packed. Used by `metric_file`."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from eyrie.domain.metrics import Summary, merged

CHUNK_MS = 10_000  # of seconds that share a row
MINUTE_MS = 60_000
_DAY_MS = 86_400_000

Chunk = dict[int, Summary]  # by second of the chunk, 0 to 9
_Row = tuple[float, float, float, float, dict[int, float]]


class Level(NamedTuple):
    """One coarseness of time: rows of `table` are of `step_ms` each, kept for `kept_ms`."""

    table: str
    step_ms: int
    kept_ms: int


SECONDS = Level("seconds", CHUNK_MS, 3 * 3_600_000)  # each second apart
MINUTES = Level("minutes", MINUTE_MS, 15 * _DAY_MS)
FIVES = Level("fives", 5 * MINUTE_MS, 63 * _DAY_MS)
HOURS = Level("hours", 60 * MINUTE_MS, 455 * _DAY_MS)
ROLLED = ((MINUTES, SECONDS), (FIVES, MINUTES), (HOURS, FIVES))  # each level, and the one that it is made of

# By time first where all series are written together, by series first where single ones are read.
SCHEMA = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    dimensions TEXT NOT NULL, unit TEXT NOT NULL, latest_ms INTEGER NOT NULL
);
CREATE TABLE seconds (at INTEGER, series INTEGER, data BLOB NOT NULL, PRIMARY KEY (at, series)) WITHOUT ROWID;
CREATE TABLE minutes (at INTEGER, series INTEGER, data BLOB NOT NULL, PRIMARY KEY (at, series)) WITHOUT ROWID;
CREATE TABLE fives (at INTEGER, series INTEGER, data BLOB NOT NULL, PRIMARY KEY (series, at)) WITHOUT ROWID;
CREATE TABLE hours (at INTEGER, series INTEGER, data BLOB NOT NULL, PRIMARY KEY (series, at)) WITHOUT ROWID;
CREATE TABLE rolled (level TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
"""

_BY_SERIES = (FIVES, HOURS)
_row = msgspec.msgpack.Decoder(_Row)
_chunk = msgspec.msgpack.Decoder(dict[int, _Row])


def packed(summary: Summary) -> bytes:
    """A summary as it is stored."""
    return msgspec.msgpack.encode(_plain(summary))


def summary_of(data: bytes) -> Summary:
    """The summary that `packed` stored."""
    return Summary(*_row.decode(data))


def packed_seconds(chunk: Chunk) -> bytes:
    """A chunk of seconds as it is stored."""
    rows = {second: (s.count, s.total, s.lowest, s.highest, s.buckets) for second, s in chunk.items()}
    return msgspec.msgpack.encode(rows)


def seconds_of(data: bytes) -> Chunk:
    """The chunk of seconds that `packed_seconds` stored."""
    return {second: Summary(*row) for second, row in _chunk.decode(data).items()}


def _plain(s: Summary) -> _Row:
    return s.count, s.total, s.lowest, s.highest, s.buckets


def read_rows(db: sqlite3.Connection, level: Level, series: int, first: int, last: int) -> list[tuple[int, bytes]]:
    """The rows of a series from `first` to before `last`, both in steps of the level."""
    if level in _BY_SERIES:
        query = f"SELECT at, data FROM {level.table} WHERE series = ? AND at >= ? AND at < ?"
        return db.execute(query, (series, first, last)).fetchall()
    low, high = _extent(db, level)
    first, last = max(first, low), min(last, high + 1)
    if first >= last:
        return []
    query = f"""
        WITH RECURSIVE times(at) AS (SELECT ? UNION ALL SELECT at + 1 FROM times WHERE at + 1 < ?)
        SELECT r.at, r.data FROM times CROSS JOIN {level.table} r ON r.at = times.at AND r.series = ?
    """
    return db.execute(query, (first, last, series)).fetchall()


def _extent(db: sqlite3.Connection, level: Level) -> tuple[int, int]:
    low = db.execute(f"SELECT min(at) FROM {level.table}").fetchone()[0]
    high = db.execute(f"SELECT max(at) FROM {level.table}").fetchone()[0]
    return (low, high) if low is not None else (0, -1)


def roll(db: sqlite3.Connection, level: Level, source: Level, first: int, last: int, series: int | None = None) -> None:
    """Make the rows of `level` from step `first` to before `last` of those of `source`, for one series or for all."""
    parts = level.step_ms // source.step_ms
    if series is None:
        query = f"SELECT series, at, data FROM {source.table} WHERE at >= ? AND at < ?"
        rows = db.execute(query, (first * parts, last * parts)).fetchall()
    else:
        rows = [(series, at, data) for at, data in read_rows(db, source, series, first * parts, last * parts)]
    found: dict[tuple[int, int], list[Summary]] = {}
    for number, at, data in rows:
        whole = seconds_of(data).values() if source is SECONDS else (summary_of(data),)
        found.setdefault((at // parts, number), []).extend(whole)
    replace(db, level, [(at, number, packed(merged(summaries))) for (at, number), summaries in found.items()])


def replace(db: sqlite3.Connection, level: Level, rows: list[tuple[int, int, bytes]]) -> None:
    """Write rows (step, series, data) in place of those that are there."""
    db.executemany(f"REPLACE INTO {level.table} (at, series, data) VALUES (?, ?, ?)", sorted(rows))


def amend(db: sqlite3.Connection, minute: int, series: int, summary: Summary) -> None:
    """Add to a minute whose seconds are kept no more."""
    row = db.execute("SELECT data FROM minutes WHERE at = ? AND series = ?", (minute, series)).fetchone()
    replace(db, MINUTES, [(minute, series, packed(merged([summary_of(row[0]), summary] if row else [summary])))])
