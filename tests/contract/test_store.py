"""One suite over every Store: the SQL one on SQLite, and a plain one in memory that says what is meant."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from eyrie.adapters import store_sql
from eyrie.adapters.store_sql import SqlStore, StoreVersionError
from eyrie.domain.names import Scope
from eyrie.ports import Action, Commit, Conflict, Document, Event, Store

HERE = Scope()
THERE = Scope("210987654321", "eu-west-1")


class MemoryStore:
    """The Store port in dictionaries: the promise in its shortest form."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, Scope, str], Document] = {}
        self.story: list[Event] = []
        self.owed: dict[str, Action] = {}
        self.leases: dict[str, tuple[str, int]] = {}

    def get(self, kind: str, scope: Scope, name: str) -> Document | None:
        return self.documents.get((kind, scope, name))

    def scan(self, kind: str, scope: Scope | None = None) -> list[Document]:
        found = [d for (k, s, _), d in self.documents.items() if k == kind and scope in (None, s)]
        return sorted(found, key=lambda d: (d.scope, d.name))

    def commit(self, commit: Commit) -> None:
        for document in [*commit.puts, *commit.deletes]:
            self._check(document)
        for document in commit.puts:
            self.documents[document.kind, document.scope, document.name] = replace(
                document, version=document.version + 1
            )
        for document in commit.deletes:
            del self.documents[document.kind, document.scope, document.name]
        self.story.extend(commit.events)
        for action in commit.actions:
            self.owed.setdefault(action.action_id, action)
        for action_id in commit.finished:
            self.owed.pop(action_id, None)

    def _check(self, document: Document) -> None:
        found = self.get(document.kind, document.scope, document.name)
        at = (found.version, found.created_ms) if found else (0, document.created_ms)
        if at != (document.version, document.created_ms):
            raise Conflict(document.name)

    def outbox(self) -> list[Action]:
        return list(self.owed.values())

    def events(self, kind: str, scope: Scope, name: str, limit: int = 1000) -> list[Event]:
        return [e for e in self.story if (e.kind, e.scope, e.name) == (kind, scope, name)][-limit:]

    def lease(self, name: str, holder: str, now_ms: int, duration_ms: int) -> bool:
        other, until_ms = self.leases.get(name, (holder, 0))
        if other != holder and until_ms > now_ms:
            return False
        self.leases[name] = (holder, now_ms + duration_ms)
        return True


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = SqlStore(f"sqlite:///{tmp_path / 'eyrie.db'}")
    yield opened
    opened.close()


@pytest.fixture
def sqlite_at(tmp_path: Path) -> Iterator[Callable[[], SqlStore]]:
    opened: list[SqlStore] = []

    def reopen() -> SqlStore:
        opened.append(SqlStore(f"sqlite:///{tmp_path / 'deep' / 'eyrie.db'}"))
        return opened[-1]

    yield reopen
    for each in opened:
        each.close()


def model(name: str = "m", version: int = 0, scope: Scope = HERE, **body: object) -> Document:
    return Document("Model", scope, name, version, created_ms=1, modified_ms=2, body=dict(body))


def event(what: str, name: str = "e", scope: Scope = HERE) -> Event:
    return Event("Endpoint", scope, name, at_ms=5, what=what, why="because")


def action(action_id: str, verb: str = "ensure_instance") -> Action:
    return Action(action_id, "Endpoint", HERE, "e", verb, {"n": 1, "deep": {"é": [1.5, None, True]}})


def test_a_document_reads_back_as_it_was_put(store: Store) -> None:
    put = model(image="x", nested={"a": [1, 2.5, None, "ü"]})
    store.commit(Commit(puts=[put]))
    assert store.get("Model", HERE, "m") == replace(put, version=1)


def test_nothing_is_found_under_another_kind_scope_or_name(store: Store) -> None:
    store.commit(Commit(puts=[model()]))
    assert store.get("Endpoint", HERE, "m") is None
    assert store.get("Model", THERE, "m") is None
    assert store.get("Model", HERE, "M") is None


def test_scan_finds_a_kind_in_one_scope_or_all_by_name(store: Store) -> None:
    store.commit(Commit(puts=[model("b"), model("a"), model("c", scope=THERE)]))
    assert [d.name for d in store.scan("Model", HERE)] == ["a", "b"]
    assert [d.name for d in store.scan("Model")] == ["a", "b", "c"]
    assert store.scan("Endpoint") == []


def test_an_update_needs_the_version_that_is_stored(store: Store) -> None:
    store.commit(Commit(puts=[model(step=0)]))
    store.commit(Commit(puts=[model(version=1, step=1)]))
    for stale in (0, 1, 3):
        with pytest.raises(Conflict):
            store.commit(Commit(puts=[model(version=stale, step=9)]))
    found = store.get("Model", HERE, "m")
    assert found is not None
    assert (found.version, found.body) == (2, {"step": 1})


def test_a_delete_needs_the_version_that_is_stored(store: Store) -> None:
    store.commit(Commit(puts=[model()]))
    with pytest.raises(Conflict):
        store.commit(Commit(deletes=[model(version=2)]))
    store.commit(Commit(deletes=[model(version=1)]))
    with pytest.raises(Conflict):
        store.commit(Commit(deletes=[model(version=1)]))
    assert store.get("Model", HERE, "m") is None


def test_the_next_life_of_a_name_is_another_document(store: Store) -> None:
    store.commit(Commit(puts=[model()]))
    store.commit(Commit(deletes=[model(version=1)]))
    store.commit(Commit(puts=[replace(model(), created_ms=77)]))
    with pytest.raises(Conflict):  # a writer that still holds the first life, at the same version
        store.commit(Commit(puts=[model(version=1)]))


def test_a_conflict_leaves_nothing_of_its_commit_behind(store: Store) -> None:
    store.commit(Commit(puts=[model("a")], actions=[action("1")]))
    with pytest.raises(Conflict):
        store.commit(
            Commit(
                puts=[model("b"), model("a", version=7)],
                events=[event("lost")],
                actions=[action("2")],
                finished=["1"],
            )
        )
    assert [d.name for d in store.scan("Model")] == ["a"]
    assert store.events("Endpoint", HERE, "e") == []
    assert [a.action_id for a in store.outbox()] == ["1"]


def test_events_are_kept_in_order_a_resource_and_outlive_it(store: Store) -> None:
    store.commit(Commit(puts=[model("e")], events=[event("one"), event("two"), event("other", name="f")]))
    store.commit(Commit(deletes=[model("e", version=1)], events=[event("three"), event("far", scope=THERE)]))
    assert store.events("Endpoint", HERE, "e") == [event("one"), event("two"), event("three")]
    assert [e.what for e in store.events("Endpoint", HERE, "e", limit=2)] == ["two", "three"]


def test_the_outbox_keeps_order_and_forgets_what_is_finished(store: Store) -> None:
    store.commit(Commit(actions=[action("c"), action("a")]))
    store.commit(Commit(actions=[action("b")], finished=["c"]))
    assert store.outbox() == [action("a"), action("b")]


def test_an_action_owed_twice_is_owed_once(store: Store) -> None:
    store.commit(Commit(actions=[action("a"), action("b")]))
    store.commit(Commit(actions=[action("a", verb="other")]))
    assert store.outbox() == [action("a"), action("b")]


def test_a_lease_is_renewed_by_its_holder_and_taken_only_when_it_ended(store: Store) -> None:
    assert store.lease("loop", "one", now_ms=100, duration_ms=50)
    assert not store.lease("loop", "two", now_ms=149, duration_ms=50)
    assert store.lease("loop", "one", now_ms=140, duration_ms=50)
    assert not store.lease("loop", "two", now_ms=189, duration_ms=50)
    assert store.lease("loop", "two", now_ms=190, duration_ms=50)
    assert not store.lease("loop", "one", now_ms=191, duration_ms=50)
    assert store.lease("other", "one", now_ms=191, duration_ms=50)


def test_what_was_committed_is_there_after_a_restart(sqlite_at: Callable[[], SqlStore]) -> None:
    sqlite_at().commit(Commit(puts=[model()], events=[event("one")], actions=[action("a")]))
    again = sqlite_at()
    assert again.get("Model", HERE, "m") == model(version=1)
    assert again.events("Endpoint", HERE, "e") == [event("one")]
    assert again.outbox() == [action("a")]


def test_the_story_of_one_resource_is_bounded(
    sqlite_at: Callable[[], SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sql, "EVENTS_KEPT", 3)
    store = sqlite_at()
    store.commit(Commit(events=[event(str(n)) for n in range(5)] + [event("f", name="f")]))
    assert [e.what for e in store.events("Endpoint", HERE, "e")] == ["2", "3", "4"]
    assert len(store.events("Endpoint", HERE, "f")) == 1


def test_the_stories_of_what_is_gone_are_bounded(
    sqlite_at: Callable[[], SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sql, "STORIES_KEPT", 2)
    store = sqlite_at()
    living = replace(model("alive"), kind="Endpoint")
    store.commit(Commit(puts=[living], events=[event("born", name="alive")]))
    store.commit(Commit(events=[replace(event("gone", name=f"e{n}"), at_ms=100 + n) for n in range(4)]))
    again = sqlite_at()
    kept = [n for n in range(4) if again.events("Endpoint", HERE, f"e{n}")]
    assert kept == [2, 3]
    assert len(again.events("Endpoint", HERE, "alive")) == 1


def test_of_many_threads_each_version_is_won_by_one(sqlite_at: Callable[[], SqlStore]) -> None:
    one, two = sqlite_at(), sqlite_at()  # two processes in effect: each has its own connections and lock
    one.commit(Commit(puts=[model(count=0)]))
    wins: list[int] = []

    def count_up(store: SqlStore) -> None:
        done = 0
        while done < 10:
            found = store.get("Model", HERE, "m")
            assert found is not None
            try:
                store.commit(Commit(puts=[replace(found, body={"count": found.body["count"] + 1})]))
            except Conflict:
                continue
            done += 1
            wins.append(1)

    threads = [threading.Thread(target=count_up, args=(s,)) for s in (one, two, one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = one.get("Model", HERE, "m")
    assert found is not None
    assert (found.body["count"], found.version, len(wins)) == (40, 41, 40)


def test_two_creators_of_one_name_get_one_document(sqlite_at: Callable[[], SqlStore]) -> None:
    one, two = sqlite_at(), sqlite_at()
    one.commit(Commit(puts=[model(of="one")]))
    with pytest.raises(Conflict):
        two.commit(Commit(puts=[model(of="two")]))


def test_the_tables_are_as_the_code_describes_them(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    store = SqlStore(f"sqlite:///{tmp_path / 'eyrie.db'}")
    with store._engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), store_sql.METADATA)
    store.close()
    assert difference == []


def test_the_newest_migration_is_the_head_that_the_code_names() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(store_sql.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [store_sql.HEAD]


def test_a_database_of_a_newer_eyrie_is_refused_in_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'eyrie.db'}"
    SqlStore(url).close()
    raw = sqlite3.connect(tmp_path / "eyrie.db")
    raw.execute("update alembic_version set version_num = '9999'")
    raw.commit()
    raw.close()
    with pytest.raises(StoreVersionError, match="is at version 9999, this Eyrie knows 0001 at the most") as refused:
        SqlStore(url)
    assert "\n" not in str(refused.value)


def test_sqlite_is_durable_and_in_wal_mode(sqlite_at: Callable[[], SqlStore]) -> None:
    with sqlite_at()._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
