"""The tables of logs.db and what is done with their rows; `log_file` says when."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from eyrie.domain.logs import EVENT_OVERHEAD_BYTES, Entry, LogGroup, LogStream, MetricFilter, Place
from eyrie.domain.names import Scope

HOUR_MS = 3_600_000
VERSION = 1
# `hours` tells how much of a stream lies in which hour: what expires is found without reading events.
SCHEMA = """
CREATE TABLE groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
    created_ms INTEGER NOT NULL, retention_days INTEGER, hidden_before_ms INTEGER NOT NULL DEFAULT 0,
    tags TEXT NOT NULL DEFAULT '{}', settings TEXT NOT NULL DEFAULT '{}', UNIQUE (account, region, name));
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
    first_ms INTEGER NOT NULL DEFAULT 0, last_ms INTEGER NOT NULL DEFAULT 0, ingested_ms INTEGER NOT NULL DEFAULT 0,
    events INTEGER NOT NULL DEFAULT 0, UNIQUE (group_id, name));
CREATE TABLE events (
    stream INTEGER NOT NULL, at INTEGER NOT NULL, seq INTEGER NOT NULL, ingested INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (stream, at, seq)) WITHOUT ROWID;
CREATE TABLE hours (
    stream INTEGER NOT NULL, hour INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (stream, hour)) WITHOUT ROWID;
CREATE TABLE filters (
    group_id INTEGER NOT NULL, name TEXT NOT NULL, pattern TEXT NOT NULL, transformations TEXT NOT NULL,
    created_ms INTEGER NOT NULL, PRIMARY KEY (group_id, name)) WITHOUT ROWID;
"""
_GROUP = "id, account, region, name, created_ms, retention_days, hidden_before_ms, tags, settings"


def find_group(db: sqlite3.Connection, scope: Scope, name: str) -> tuple[int, LogGroup] | None:
    """A group and its number."""
    row = db.execute(
        f"SELECT {_GROUP} FROM groups WHERE account = ? AND region = ? AND name = ?",
        (scope.account, scope.region, name),
    ).fetchone()
    return None if row is None else (row[0], _group(row))


def all_groups(db: sqlite3.Connection) -> list[tuple[int, LogGroup]]:
    """Every group of everyone."""
    return [(row[0], _group(row)) for row in db.execute(f"SELECT {_GROUP} FROM groups")]


def _group(row: tuple[int, str, str, str, int, int | None, int, str, str]) -> LogGroup:
    _, account, region, name, created_ms, retention, hidden_ms, tags, settings = row
    return LogGroup(
        Scope(account, region), name, created_ms, retention, hidden_ms, json.loads(tags), json.loads(settings)
    )


def put_group(db: sqlite3.Connection, group: LogGroup) -> None:
    """Write a group as it is now."""
    db.execute(
        "INSERT INTO groups (account, region, name, created_ms, retention_days, hidden_before_ms, tags, settings) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (account, region, name) DO UPDATE SET "
        "retention_days = excluded.retention_days, hidden_before_ms = excluded.hidden_before_ms, tags = excluded.tags",
        (
            group.scope.account,
            group.scope.region,
            group.name,
            group.created_ms,
            group.retention_days,
            group.hidden_before_ms,
            json.dumps(dict(group.tags)),
            json.dumps(dict(group.settings)),
        ),
    )


def find_stream(db: sqlite3.Connection, group: int, name: str) -> int | None:
    """The number of a stream."""
    row = db.execute("SELECT id FROM streams WHERE group_id = ? AND name = ?", (group, name)).fetchone()
    return None if row is None else int(row[0])


def streams(db: sqlite3.Connection, group: int) -> dict[str, LogStream]:
    """The streams of a group, by name."""
    rows = db.execute(
        "SELECT name, created_ms, first_ms, last_ms, ingested_ms, "
        "(SELECT total(bytes) FROM hours WHERE hours.stream = streams.id) "
        "FROM streams WHERE group_id = ? ORDER BY name",
        (group,),
    )
    return {row[0]: LogStream(row[0], row[1], row[2], row[3], row[4], int(row[5])) for row in rows}


def stream_names(db: sqlite3.Connection, group: int) -> list[str]:
    """The names of a group's streams."""
    return [name for (name,) in db.execute("SELECT name FROM streams WHERE group_id = ?", (group,))]


def remove_empty(db: sqlite3.Connection, prefix: str, before_ms: int) -> None:
    """Remove streams without events that nothing was put into since, and groups of which nothing is left."""
    ours = "SELECT id FROM groups WHERE substr(name, 1, ?) = ?"
    db.execute(
        f"DELETE FROM streams WHERE group_id IN ({ours}) AND ingested_ms < ? AND created_ms < ? "
        "AND id NOT IN (SELECT stream FROM hours)",
        (len(prefix), prefix, before_ms, before_ms),
    )
    db.execute(
        f"DELETE FROM groups WHERE id IN ({ours}) AND created_ms < ? "
        "AND id NOT IN (SELECT group_id FROM streams) AND id NOT IN (SELECT group_id FROM filters)",
        (len(prefix), prefix, before_ms),
    )


def append(
    db: sqlite3.Connection, stream: int, events: Sequence[tuple[int, str]], now_ms: int, sizes: dict[int, int]
) -> None:
    """Put events, (time, text), behind those that a stream has; `sizes`: their bytes by hour."""
    (before,) = db.execute("SELECT events FROM streams WHERE id = ?", (stream,)).fetchone()
    rows = [(stream, at_ms, before + n, now_ms, text) for n, (at_ms, text) in enumerate(events)]
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
    first_ms, last_ms = min(events)[0], max(events)[0]
    db.execute(
        "UPDATE streams SET events = events + ?, ingested_ms = ?, last_ms = max(last_ms, ?), "
        "first_ms = CASE first_ms WHEN 0 THEN ? ELSE min(first_ms, ?) END WHERE id = ?",
        (len(events), now_ms, last_ms, first_ms, first_ms, stream),
    )
    db.executemany(
        "INSERT INTO hours VALUES (?, ?, ?) ON CONFLICT (stream, hour) DO UPDATE SET bytes = bytes + excluded.bytes",
        [(stream, hour, size) for hour, size in sizes.items()],
    )


def sizes_by_hour(events: Iterable[tuple[int, str]]) -> dict[int, int]:
    """How many bytes of events lie in which hour since the epoch."""
    found: dict[int, int] = {}
    for at_ms, text in events:
        hour = at_ms // HOUR_MS
        size = len(text) if text.isascii() else len(text.encode())
        found[hour] = found.get(hour, 0) + size + EVENT_OVERHEAD_BYTES
    return found


def page(
    db: sqlite3.Connection,
    stream: int,
    name: str,
    span: tuple[int, int],
    after: Place | None,
    forward: bool,
    count: int,
) -> list[Entry]:
    """Up to `count` events of a stream with times from `span[0]` to before `span[1]`, beyond a place."""
    start_ms, end_ms = span
    if forward:
        at_ms, ordinal = max(after, Place(start_ms, -1)) if after else (start_ms, -1)
        rows = db.execute(
            "SELECT at, ?, seq, text, ingested FROM events WHERE stream = ? AND (at, seq) > (?, ?) AND at < ? "
            "ORDER BY at, seq LIMIT ?",
            (name, stream, at_ms, ordinal, end_ms, count),
        )
    else:
        at_ms, ordinal = min(after, Place(end_ms, -1)) if after else (end_ms, -1)
        rows = db.execute(
            "SELECT at, ?, seq, text, ingested FROM events WHERE stream = ? AND (at, seq) < (?, ?) AND at >= ? "
            "ORDER BY at DESC, seq DESC LIMIT ?",
            (name, stream, at_ms, ordinal, start_ms, count),
        )
    return [Entry(*row) for row in rows]


def filters(db: sqlite3.Connection, group: int, name: str) -> list[MetricFilter]:
    """The metric filters of a group, by name."""
    rows = db.execute(
        "SELECT name, pattern, transformations, created_ms FROM filters WHERE group_id = ? ORDER BY name", (group,)
    )
    return [MetricFilter(name, row[0], row[1], tuple(json.loads(row[2])), row[3]) for row in rows]


def put_filter(db: sqlite3.Connection, group: int, put: MetricFilter) -> None:
    """Write a filter, in place of one of its name."""
    row = (group, put.name, put.pattern, json.dumps(put.transformations), put.created_ms)
    db.execute("REPLACE INTO filters VALUES (?, ?, ?, ?, ?)", row)


def expired(db: sqlite3.Connection, now_ms: int) -> Iterator[tuple[int, int]]:
    """(stream, time before which its events are to go), of streams that have such: by retention, or without a group."""
    limits = {number: group.shown_from_ms(now_ms) for number, group in all_groups(db)}
    oldest = db.execute(
        "SELECT hours.stream, streams.group_id, min(hour) FROM hours LEFT JOIN streams ON streams.id = hours.stream "
        "GROUP BY hours.stream"
    ).fetchall()
    for stream, group, hour in oldest:
        before_ms = limits.get(group, 1 << 62) if group is not None else 1 << 62
        if hour * HOUR_MS < before_ms:
            yield stream, before_ms


def overfull(db: sqlite3.Connection, bytes_max: int) -> Iterator[tuple[int, int]]:
    """(stream, time before which its events are to go) until all that is left fits: the oldest hours go first."""
    excess = int(db.execute("SELECT total(bytes) FROM hours").fetchone()[0]) - bytes_max
    if excess <= 0:
        return
    for stream, hour, size in db.execute("SELECT stream, hour, bytes FROM hours ORDER BY hour").fetchall():
        if excess <= 0:
            return
        yield stream, (hour + 1) * HOUR_MS
        excess -= size


def remove_before(db: sqlite3.Connection, stream: int, before_ms: int, count: int) -> bool:
    """Remove up to `count` of a stream's oldest events; True while there may be more to go."""
    gone = db.execute(
        "SELECT at, seq, text FROM events WHERE stream = ? AND at < ? ORDER BY at, seq LIMIT ?",
        (stream, before_ms, count),
    ).fetchall()
    if gone:
        last = gone[-1]
        db.execute("DELETE FROM events WHERE stream = ? AND (at, seq) <= (?, ?)", (stream, last[0], last[1]))
        for hour, size in sizes_by_hour((at_ms, text) for at_ms, _, text in gone).items():
            db.execute("UPDATE hours SET bytes = bytes - ? WHERE stream = ? AND hour = ?", (size, stream, hour))
    more = len(gone) == count
    if not more:
        db.execute("DELETE FROM hours WHERE stream = ? AND (hour + 1) * ? <= ?", (stream, HOUR_MS, before_ms))
        first = db.execute("SELECT min(at) FROM events WHERE stream = ?", (stream,)).fetchone()[0]
        db.execute(
            "UPDATE streams SET first_ms = ?, last_ms = CASE WHEN ? = 0 THEN 0 ELSE last_ms END WHERE id = ?",
            (first or 0, first or 0, stream),
        )
    return more
