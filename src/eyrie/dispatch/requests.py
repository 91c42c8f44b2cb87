"""Requests, their outcomes and the notifications that are owed, as rows of DATA/queue.db.

A request is a row from before its 202 on until its result is visible. `add`, `lose`, `decide` and `finish` run inside a
transaction of the writing thread; what reads runs on the event loop. An outcome is decided once: whatever comes later
finds it decided and changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from eyrie.domain.async_inference import AsyncRoute, Ended, Outcome, Waiting

SCHEMA = """
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT, slug TEXT NOT NULL, inference_id TEXT NOT NULL,
    accepted_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, timeout_s INTEGER NOT NULL, content_type TEXT NOT NULL,
    accept TEXT NOT NULL, attributes TEXT NOT NULL, location TEXT NOT NULL, output TEXT NOT NULL,
    failure TEXT NOT NULL, losses INTEGER NOT NULL, route TEXT NOT NULL, body BLOB, decided INTEGER NOT NULL
);
CREATE INDEX requests_waiting ON requests (slug, number) WHERE decided = 0;
CREATE INDEX requests_expiring ON requests (expires_ms) WHERE decided = 0;
CREATE INDEX requests_decided ON requests (number) WHERE decided = 1;
CREATE TABLE outcomes (
    number INTEGER PRIMARY KEY, ended TEXT NOT NULL, content_type TEXT NOT NULL, reason TEXT NOT NULL,
    body BLOB NOT NULL, spool TEXT NOT NULL, size INTEGER NOT NULL, variant TEXT NOT NULL, model_us INTEGER NOT NULL
);
CREATE TABLE notifications (
    number INTEGER PRIMARY KEY AUTOINCREMENT, slug TEXT NOT NULL, variant TEXT NOT NULL, topic TEXT NOT NULL,
    message TEXT NOT NULL, tries INTEGER NOT NULL, next_ms INTEGER NOT NULL
);
CREATE INDEX notifications_due ON notifications (next_ms);
"""
_WAITING = """number, slug, inference_id, accepted_ms, expires_ms, timeout_s, content_type, accept, attributes,
    location, output, failure, losses"""
_OUTCOME = "ended, content_type, reason, body, spool, size, variant, model_us"
_INSERT = f"INSERT INTO requests ({_WAITING.replace('number, ', '')}, route, body, decided) VALUES ({'?,' * 14} 0)"


@dataclass(frozen=True, slots=True)
class Notification:
    """A message that a topic is owed."""

    number: int
    slug: str
    variant: str
    topic: str
    message: str
    tries: int


# --- in a transaction -----------------------------------------------------------------------------------------------


def add(db: sqlite3.Connection, request: Waiting, route: str, body: bytes | None) -> int:
    """Keep a new request (its number does not count); the number that it has."""
    r = request
    row = (r.slug, r.inference_id, r.accepted_ms, r.expires_ms, r.timeout_s, r.content_type, r.accept, r.attributes)
    more = (r.location, r.output, r.failure, r.losses, route, body)
    return db.execute(_INSERT, (*row, *more)).lastrowid or 0


def lose(db: sqlite3.Connection, number: int) -> None:
    """An instance died with this request."""
    db.execute("UPDATE requests SET losses = losses + 1 WHERE number = ? AND decided = 0", (number,))


def decide(db: sqlite3.Connection, number: int, outcome: Outcome) -> bool:
    """Keep what came of a request; False where that was decided before, or the request is gone."""
    changed = db.execute("UPDATE requests SET decided = 1, body = NULL WHERE number = ? AND decided = 0", (number,))
    if not changed.rowcount:
        return False
    _put_outcome(db, number, outcome)
    return True


def decide_anew(db: sqlite3.Connection, number: int, outcome: Outcome) -> None:
    """In place of an outcome that can never become visible: its bucket is gone, say."""
    db.execute("DELETE FROM outcomes WHERE number = ?", (number,))
    _put_outcome(db, number, outcome)


def _put_outcome(db: sqlite3.Connection, number: int, o: Outcome) -> None:
    row = (number, str(o.ended), o.content_type, o.reason, o.body, o.spool, o.size, o.variant, o.model_us)
    db.execute(f"INSERT INTO outcomes (number, {_OUTCOME}) VALUES (?,?,?,?,?,?,?,?,?)", row)


def finish(db: sqlite3.Connection, request: Waiting, variant: str, topic: str, message: str, now_ms: int) -> None:
    """The outcome is visible: forget the request, and owe the topic (if any) its message."""
    db.execute("DELETE FROM requests WHERE number = ?", (request.number,))
    db.execute("DELETE FROM outcomes WHERE number = ?", (request.number,))
    if topic:
        db.execute(
            "INSERT INTO notifications (slug, variant, topic, message, tries, next_ms) VALUES (?,?,?,?,0,?)",
            (request.slug, variant, topic, message, now_ms),
        )


def told(db: sqlite3.Connection, number: int) -> None:
    """A topic has its message, or will never have it."""
    db.execute("DELETE FROM notifications WHERE number = ?", (number,))


def tell_later(db: sqlite3.Connection, number: int, next_ms: int) -> None:
    """A topic could not be reached."""
    db.execute("UPDATE notifications SET tries = tries + 1, next_ms = ? WHERE number = ?", (next_ms, number))


# --- on the event loop ----------------------------------------------------------------------------------------------


def waiting(db: sqlite3.Connection, slug: str, after: int, most: int) -> list[Waiting]:
    """The oldest requests of an endpoint with a number above `after` of which nothing is decided."""
    found = db.execute(
        f"SELECT {_WAITING} FROM requests WHERE slug = ? AND number > ? AND decided = 0 ORDER BY number LIMIT ?",
        (slug, after, most),
    )
    return [Waiting(*row) for row in found]


def expired(db: sqlite3.Connection, now_ms: int, most: int) -> list[Waiting]:
    """Requests whose time in the queue is up."""
    sql = f"SELECT {_WAITING} FROM requests WHERE expires_ms <= ? AND decided = 0 ORDER BY expires_ms LIMIT ?"
    return [Waiting(*row) for row in db.execute(sql, (now_ms, most))]


def backlogs(db: sqlite3.Connection) -> dict[str, int]:
    """How many requests each endpoint has of which nothing is decided."""
    return dict(db.execute("SELECT slug, COUNT(*) FROM requests WHERE decided = 0 GROUP BY slug"))


def oldest_ms(db: sqlite3.Connection, slug: str) -> int | None:
    """When the oldest request of an endpoint was accepted."""
    sql = "SELECT accepted_ms FROM requests WHERE slug = ? AND decided = 0 ORDER BY number LIMIT 1"
    row = db.execute(sql, (slug,)).fetchone()
    return None if row is None else int(row[0])


def body_of(db: sqlite3.Connection, number: int) -> bytes:
    """The input that came with the call."""
    row = db.execute("SELECT body FROM requests WHERE number = ?", (number,)).fetchone()
    return b"" if row is None or row[0] is None else bytes(row[0])


def route_of(db: sqlite3.Connection, number: int) -> AsyncRoute:
    """The configuration that a request was accepted under."""
    row = db.execute("SELECT route FROM requests WHERE number = ?", (number,)).fetchone()
    return AsyncRoute() if row is None else msgspec.json.decode(row[0], type=AsyncRoute)


def decided(db: sqlite3.Connection, after: int, most: int) -> list[Waiting]:
    """Requests whose outcome is decided and not visible yet, by number."""
    sql = f"SELECT {_WAITING} FROM requests WHERE decided = 1 AND number > ? ORDER BY number LIMIT ?"
    return [Waiting(*row) for row in db.execute(sql, (after, most))]


def outcome_of(db: sqlite3.Connection, number: int) -> Outcome | None:
    """What was decided of a request."""
    row = db.execute(f"SELECT {_OUTCOME} FROM outcomes WHERE number = ?", (number,)).fetchone()
    return None if row is None else Outcome(Ended(row[0]), *row[1:])


def spools(db: sqlite3.Connection) -> Iterator[str]:
    """Names of the files that outcomes need."""
    return (name for (name,) in db.execute("SELECT spool FROM outcomes WHERE spool != ''"))


def due(db: sqlite3.Connection, now_ms: int, most: int, but: Sequence[int]) -> list[Notification]:
    """Notifications to be sent now, but for those under way."""
    sql = """SELECT number, slug, variant, topic, message, tries FROM notifications WHERE next_ms <= ?
        ORDER BY next_ms, number LIMIT ?"""
    found = (Notification(*row) for row in db.execute(sql, (now_ms, most + len(but))))
    return [one for one in found if one.number not in but][:most]


def notifications(db: sqlite3.Connection) -> int:
    """How many are owed."""
    (count,) = db.execute("SELECT COUNT(*) FROM notifications").fetchone()
    return int(count)
