"""The Store port on SQLAlchemy Core: documents with versions, events, an outbox of actions, leases.

Floor 3, control's hand for state. The embedded default is SQLite (WAL, synchronous=FULL, one writer at a time by
BEGIN IMMEDIATE). Another SQLAlchemy URL is honoured where its driver is installed, but only SQLite is tested so far.
Tables are made by the migrations in `adapters/migrations`, run at start; a database that a newer Eyrie wrote is
refused. Safe to use from many threads.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from eyrie.domain.names import Scope
from eyrie.ports import Action, Commit, Conflict, Document, Event

HEAD = "0001"  # the newest migration; a test holds it to the scripts. At it, start-up need not import alembic.
EVENTS_KEPT = 5_000  # newest lines of one resource's story; older ones are dropped as new ones come
STORIES_KEPT = 2_000  # of resources that are gone; those whose last line is oldest are dropped when control starts
BUSY_TIMEOUT_MS = 10_000
CONNECTIONS_MAX = 24  # one a thread of the handler pool, and the loop's

METADATA = sa.MetaData()
DOCUMENTS = sa.Table(
    "documents",
    METADATA,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("account", sa.String(32), primary_key=True),
    sa.Column("region", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("modified_ms", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("account", sa.String(32), primary_key=True),
    sa.Column("region", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),  # rises by one within a resource's story
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)
OUTBOX = sa.Table(
    "outbox",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("action_id", sa.String(128), nullable=False, unique=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("account", sa.String(32), nullable=False),
    sa.Column("region", sa.String(64), nullable=False),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("verb", sa.String(64), nullable=False),
    sa.Column("arguments", sa.Text, nullable=False),
    sqlite_autoincrement=True,  # an order that never reuses a number
)
LEASES = sa.Table(
    "leases",
    METADATA,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("holder", sa.String(256), nullable=False),
    sa.Column("until_ms", sa.BigInteger, nullable=False),
)


class StoreVersionError(Exception):
    """The database was written by another, newer Eyrie; the message is one line for people."""


class SqlStore:
    """A Store behind a SQLAlchemy URL. Commits are serialised; reads see the last commit."""

    def __init__(self, url: str) -> None:
        """Open the database and migrate it to HEAD. Raises StoreVersionError for a newer one."""
        self._engine = _engine(url)
        self._writing = threading.Lock()  # fair turns for our own threads; BEGIN IMMEDIATE is what guards the file
        try:
            migrate(self._engine)
            with self._transaction() as connection:
                _forget_old_stories(connection)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def get(self, kind: str, scope: Scope, name: str) -> Document | None:
        """The document, or None."""
        query = sa.select(DOCUMENTS).where(*_is(DOCUMENTS, kind, scope, name))
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return _document(row) if row is not None else None

    def scan(self, kind: str, scope: Scope | None = None) -> list[Document]:
        """All documents of a kind, in one scope or in all, ordered by scope and name."""
        table = DOCUMENTS.c
        query = sa.select(DOCUMENTS).where(table.kind == kind).order_by(table.account, table.region, table.name)
        if scope is not None:
            query = query.where(table.account == scope.account, table.region == scope.region)
        with self._engine.connect() as connection:
            return [_document(row) for row in connection.execute(query).mappings()]

    def commit(self, commit: Commit) -> None:
        """Store a transaction durably. Raises Conflict when any document is at another version."""
        with self._transaction() as connection:
            for document in commit.puts:
                _put(connection, document)
            for document in commit.deletes:
                _delete(connection, document)
            _record(connection, commit.events)
            _owe(connection, commit.actions)
            if commit.finished:
                connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.action_id.in_(list(commit.finished))))

    def outbox(self) -> list[Action]:
        """Actions not finished yet, in the order they were committed."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(OUTBOX).order_by(OUTBOX.c.seq)).mappings().all()
        return [
            Action(r["action_id"], r["kind"], _scope(r), r["name"], r["verb"], json.loads(r["arguments"])) for r in rows
        ]

    def events(self, kind: str, scope: Scope, name: str, limit: int = 1000) -> list[Event]:
        """The newest events of a resource, oldest first; they outlive the resource."""
        query = sa.select(EVENTS).where(*_is(EVENTS, kind, scope, name)).order_by(EVENTS.c.seq.desc()).limit(limit)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [Event(kind, scope, name, r["at_ms"], r["what"], r["why"]) for r in reversed(rows)]

    def lease(self, name: str, holder: str, now_ms: int, duration_ms: int) -> bool:
        """Take or renew a lease; False while another holds it."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(LEASES).where(LEASES.c.name == name)).mappings().first()
            until_ms = now_ms + duration_ms
            if row is None:
                connection.execute(sa.insert(LEASES).values(name=name, holder=holder, until_ms=until_ms))
                return True
            if row["holder"] != holder and row["until_ms"] > now_ms:
                return False
            connection.execute(sa.update(LEASES).where(LEASES.c.name == name).values(holder=holder, until_ms=until_ms))
            return True

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._writing, _writer(self._engine) as connection:
                yield connection
        except IntegrityError as error:  # two processes inserting the same row, where the database lets them race
            raise Conflict(str(error.orig)) from error


def migrate(engine: sa.Engine) -> None:
    """Bring the database to HEAD. Raises StoreVersionError where its version is unknown here."""
    found = _version(engine)
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreVersionError(
            f"the state in {engine.url.render_as_string()} is at version {found}, this Eyrie knows {HEAD} at the most: "
            "it was written by a newer Eyrie"
        )
    with _writer(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)


def _version(engine: sa.Engine) -> str | None:
    if not sa.inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        found = connection.execute(sa.text("select version_num from alembic_version")).scalar()
    return None if found is None else str(found)


def _engine(url: str) -> sa.Engine:
    engine = sa.create_engine(url, pool_size=CONNECTIONS_MAX, max_overflow=0, pool_timeout=30)
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def _writer(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect().execution_options(eyrie_write=True) as connection, connection.begin():
        yield connection


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("eyrie_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _put(connection: sa.Connection, document: Document) -> None:
    row = _row(document)
    if document.version == 0:
        if connection.execute(sa.select(DOCUMENTS.c.version).where(*_where(document))).first() is not None:
            raise Conflict(f"{document.kind} {document.name} exists already")
        connection.execute(sa.insert(DOCUMENTS).values(row))
        return
    done = connection.execute(sa.update(DOCUMENTS).where(*_where(document), *_at(document)).values(row))
    _expect_one(done, document)


def _delete(connection: sa.Connection, document: Document) -> None:
    _expect_one(connection.execute(sa.delete(DOCUMENTS).where(*_where(document), *_at(document))), document)


def _expect_one(done: sa.CursorResult[Any], document: Document) -> None:
    if done.rowcount != 1:
        raise Conflict(f"{document.kind} {document.name} is not at version {document.version}")


def _record(connection: sa.Connection, events: Sequence[Event]) -> None:
    """Continue the stories of these events' resources: three statements a resource, however much it has to tell."""
    stories: dict[tuple[str, Scope, str], list[Event]] = {}
    for event in events:
        stories.setdefault((event.kind, event.scope, event.name), []).append(event)
    for (kind, scope, name), told in stories.items():
        same = _is(EVENTS, kind, scope, name)
        last = connection.execute(sa.select(sa.func.max(EVENTS.c.seq)).where(*same)).scalar() or 0
        subject = {"kind": kind, "account": scope.account, "region": scope.region, "name": name}
        rows = [
            {**subject, "seq": seq, "at_ms": event.at_ms, "what": event.what, "why": event.why}
            for seq, event in enumerate(told, last + 1)
        ]
        connection.execute(sa.insert(EVENTS), rows)
        too_old = last + len(told) - EVENTS_KEPT
        if too_old > 0:
            connection.execute(sa.delete(EVENTS).where(*same, EVENTS.c.seq <= too_old))


def _forget_old_stories(connection: sa.Connection) -> None:
    """Drop the stories of all but the newest STORIES_KEPT resources that are gone."""
    e, d = EVENTS.c, DOCUMENTS.c
    lives = sa.exists().where(d.kind == e.kind, d.account == e.account, d.region == e.region, d.name == e.name)
    subject = (e.kind, e.account, e.region, e.name)
    oldest_last = sa.func.max(e.at_ms).desc()
    gone = sa.select(*subject).where(~lives).group_by(*subject).order_by(oldest_last).offset(STORIES_KEPT)
    for row in connection.execute(gone).all():
        connection.execute(sa.delete(EVENTS).where(*_is(EVENTS, row.kind, Scope(row.account, row.region), row.name)))


def _owe(connection: sa.Connection, actions: Sequence[Action]) -> None:
    """An action that is owed already keeps its place: its id is its idempotency key."""
    if not actions:
        return
    named = OUTBOX.c.action_id.in_([action.action_id for action in actions])
    owed = set(connection.execute(sa.select(OUTBOX.c.action_id).where(named)).scalars())
    new: dict[str, Action] = {}
    for action in actions:
        if action.action_id not in owed:
            new.setdefault(action.action_id, action)
    rows = [
        {
            "action_id": action.action_id,
            "kind": action.kind,
            "account": action.scope.account,
            "region": action.scope.region,
            "name": action.name,
            "verb": action.verb,
            "arguments": _encode(action.arguments),
        }
        for action in new.values()
    ]
    if rows:
        connection.execute(sa.insert(OUTBOX), rows)


def _is(table: sa.Table, kind: str, scope: Scope, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    c = table.c
    return (c.kind == kind, c.account == scope.account, c.region == scope.region, c.name == name)


def _where(document: Document) -> tuple[sa.ColumnElement[bool], ...]:
    return _is(DOCUMENTS, document.kind, document.scope, document.name)


def _at(document: Document) -> tuple[sa.ColumnElement[bool], ...]:
    """At this version of this life: one deleted and created again is another document, though its version may match."""
    return (DOCUMENTS.c.version == document.version, DOCUMENTS.c.created_ms == document.created_ms)


def _row(document: Document) -> dict[str, Any]:
    return {
        "kind": document.kind,
        "account": document.scope.account,
        "region": document.scope.region,
        "name": document.name,
        "version": document.version + 1,
        "created_ms": document.created_ms,
        "modified_ms": document.modified_ms,
        "body": _encode(document.body),
    }


def _document(row: sa.RowMapping) -> Document:
    return Document(
        kind=row["kind"],
        scope=_scope(row),
        name=row["name"],
        version=row["version"],
        created_ms=row["created_ms"],
        modified_ms=row["modified_ms"],
        body=json.loads(row["body"]),
    )


def _scope(row: sa.RowMapping) -> Scope:
    return Scope(row["account"], row["region"])


def _encode(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
