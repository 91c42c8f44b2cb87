"""Queues of the SQS API and their messages, as rows of DATA/queue.db.

A message is visible from `visible_ms` on; receiving it moves that into the future and gives it a new receipt. What
changes rows runs inside a transaction of the writing thread; what reads runs on the event loop.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import msgspec

from eyrie.domain.names import Scope

SCHEMA = """
CREATE TABLE queues (
    number INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
    created_ms INTEGER NOT NULL, modified_ms INTEGER NOT NULL, attributes TEXT NOT NULL, UNIQUE (account, region, name)
);
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, message_id TEXT NOT NULL, body TEXT NOT NULL,
    attributes TEXT NOT NULL, sender TEXT NOT NULL, sent_ms INTEGER NOT NULL, visible_ms INTEGER NOT NULL,
    receives INTEGER NOT NULL, first_ms INTEGER NOT NULL, receipt TEXT NOT NULL
);
CREATE INDEX messages_visible ON messages (queue, visible_ms, number);
CREATE INDEX messages_sent ON messages (queue, sent_ms);
"""
_MESSAGE = "number, message_id, body, attributes, sender, sent_ms, receives, first_ms, receipt"


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue. Attributes are those that were set, as the API spells them."""

    number: int
    scope: Scope
    name: str
    created_ms: int
    modified_ms: int
    attributes: dict[str, str]

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:sqs:{self.scope.region}:{self.scope.account}:{self.name}"


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was just received."""

    number: int
    message_id: str
    body: str
    attributes: str  # MessageAttributes, JSON
    sender: str
    sent_ms: int
    receives: int
    first_ms: int
    receipt: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages a queue has."""

    visible: int
    in_flight: int
    delayed: int


# --- in a transaction -----------------------------------------------------------------------------------------------


def create(db: sqlite3.Connection, scope: Scope, name: str, attributes: dict[str, str], now_ms: int) -> Queue:
    """Make a queue; one of that name is given back as it is."""
    found = find(db, scope, name)
    if found is not None:
        return found
    text = msgspec.json.encode(attributes).decode()
    row = (scope.account, scope.region, name, now_ms, now_ms, text)
    sql = "INSERT INTO queues (account, region, name, created_ms, modified_ms, attributes) VALUES (?,?,?,?,?,?)"
    number = db.execute(sql, row).lastrowid or 0
    return Queue(number, scope, name, now_ms, now_ms, attributes)


def change(db: sqlite3.Connection, queue: Queue, attributes: dict[str, str], now_ms: int) -> None:
    """Give a queue these attributes."""
    text = msgspec.json.encode(attributes).decode()
    db.execute("UPDATE queues SET attributes = ?, modified_ms = ? WHERE number = ?", (text, now_ms, queue.number))


def delete(db: sqlite3.Connection, queue: Queue) -> None:
    """Forget a queue with its messages."""
    db.execute("DELETE FROM messages WHERE queue = ?", (queue.number,))
    db.execute("DELETE FROM queues WHERE number = ?", (queue.number,))


def purge(db: sqlite3.Connection, queue: Queue) -> None:
    """Forget a queue's messages."""
    db.execute("DELETE FROM messages WHERE queue = ?", (queue.number,))


def send(
    db: sqlite3.Connection,
    queue: Queue,
    message_id: str,
    body: str,
    attributes: str,
    sender: str,
    now_ms: int,
    visible_ms: int,
) -> None:
    """Keep a message."""
    db.execute(
        """INSERT INTO messages (queue, message_id, body, attributes, sender, sent_ms, visible_ms, receives, first_ms,
            receipt) VALUES (?,?,?,?,?,?,?,0,0,'')""",
        (queue.number, message_id, body, attributes, sender, now_ms, visible_ms),
    )


def receive(
    db: sqlite3.Connection, queue: Queue, most: int, receipts: list[str], now_ms: int, visible_ms: int
) -> list[Message]:
    """Take the messages that have been visible longest, and hide them until `visible_ms`; each gets a receipt."""
    sql = (
        "SELECT number, first_ms FROM messages WHERE queue = ? AND visible_ms <= ? ORDER BY visible_ms, number LIMIT ?"
    )
    taken: list[Message] = []
    for (number, first_ms), receipt in zip(
        db.execute(sql, (queue.number, now_ms, most)).fetchall(), receipts, strict=False
    ):
        db.execute(
            "UPDATE messages SET visible_ms = ?, receives = receives + 1, first_ms = ?, receipt = ? WHERE number = ?",
            (visible_ms, first_ms or now_ms, receipt, number),
        )
        row = db.execute(f"SELECT {_MESSAGE} FROM messages WHERE number = ?", (number,)).fetchone()
        taken.append(Message(*row))
    return taken


def redrive(db: sqlite3.Connection, queue: Queue, dead: Queue, receives_max: int, now_ms: int) -> int:
    """Move what was received so often and is visible again to the dead-letter queue; how many."""
    sql = "UPDATE messages SET queue = ?, receipt = '' WHERE queue = ? AND visible_ms <= ? AND receives >= ?"
    return db.execute(sql, (dead.number, queue.number, now_ms, receives_max)).rowcount


def remove(db: sqlite3.Connection, queue: Queue, number: int, receipt: str) -> bool:
    """Forget a message, where this is its newest receipt."""
    sql = "DELETE FROM messages WHERE number = ? AND queue = ? AND receipt = ?"
    return db.execute(sql, (number, queue.number, receipt)).rowcount > 0


def hide(db: sqlite3.Connection, queue: Queue, number: int, receipt: str, now_ms: int, visible_ms: int) -> bool:
    """Move the time when a message in flight is visible again; False where it is not in flight by this receipt."""
    sql = "UPDATE messages SET visible_ms = ? WHERE number = ? AND queue = ? AND receipt = ? AND visible_ms > ?"
    return db.execute(sql, (visible_ms, number, queue.number, receipt, now_ms)).rowcount > 0


def forget_old(db: sqlite3.Connection, queue: Queue, before_ms: int, most: int) -> int:
    """Forget messages sent before a time, `most` at once; how many."""
    sql = """DELETE FROM messages WHERE number IN
        (SELECT number FROM messages WHERE queue = ? AND sent_ms < ? ORDER BY sent_ms LIMIT ?)"""
    return db.execute(sql, (queue.number, before_ms, most)).rowcount


# --- on the event loop, or in a transaction -------------------------------------------------------------------------


def _queue(row: tuple[Any, ...]) -> Queue:
    number, account, region, name, created_ms, modified_ms, attributes = row
    scope = Scope(account, region)
    return Queue(number, scope, name, created_ms, modified_ms, msgspec.json.decode(attributes, type=dict[str, str]))


_QUEUE = "SELECT number, account, region, name, created_ms, modified_ms, attributes FROM queues"


def find(db: sqlite3.Connection, scope: Scope, name: str) -> Queue | None:
    """A queue by its name."""
    sql = f"{_QUEUE} WHERE account = ? AND region = ? AND name = ?"
    row = db.execute(sql, (scope.account, scope.region, name)).fetchone()
    return None if row is None else _queue(row)


def listed(db: sqlite3.Connection, scope: Scope, prefix: str, after: str, most: int) -> list[Queue]:
    """Queues of an account and region in the order of their names."""
    sql = f"{_QUEUE} WHERE account = ? AND region = ? AND name > ? AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?"
    found = db.execute(sql, (scope.account, scope.region, after, len(prefix), prefix, most))
    return [_queue(row) for row in found]


def every(db: sqlite3.Connection) -> list[Queue]:
    """All queues."""
    return [_queue(row) for row in db.execute(_QUEUE)]


def visible(db: sqlite3.Connection, queue: Queue, now_ms: int) -> bool:
    """Whether there is anything to receive."""
    sql = "SELECT 1 FROM messages WHERE queue = ? AND visible_ms <= ? LIMIT 1"
    return db.execute(sql, (queue.number, now_ms)).fetchone() is not None


def counts(db: sqlite3.Connection, queue: Queue, now_ms: int) -> Counts:
    """How many messages a queue has now."""
    sql = """SELECT COALESCE(SUM(visible_ms <= ?1), 0), COALESCE(SUM(visible_ms > ?1 AND receipt != ''), 0),
        COALESCE(SUM(visible_ms > ?1 AND receipt = ''), 0) FROM messages WHERE queue = ?2"""
    return Counts(*db.execute(sql, (now_ms, queue.number)).fetchone())
