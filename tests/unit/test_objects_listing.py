"""Listings against a sorted Python model, over keys that a file system could not hold."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyrie.adapters.sqlite_file import FileUnusable
from eyrie.objects import catalogue
from eyrie.objects.index import SCHEMA, Change, Index
from eyrie.objects.listing import Question, list_objects, list_uploads
from eyrie.objects.records import Details, StoredObject, Upload

ODD = st.text(
    st.sampled_from(["a", "b", "/", ".", " ", "é", "z", "\U0001f600", "\x01", "\uffff"]), min_size=1, max_size=6
)
KEYS = st.sets(ODD.map(str.encode), max_size=40)
BYTES = ODD.map(str.encode) | st.just(b"")


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript(SCHEMA)
    yield made
    made.close()


def fill(db: sqlite3.Connection, keys: set[bytes]) -> None:
    db.execute("DELETE FROM objects")
    change = Change(db)
    for key in keys:
        catalogue.put_object(change, StoredObject("b", key, key.hex(), 1, "e", 1), ())
        catalogue.put_object(change, StoredObject("c", b"other" + key, "c" + key.hex(), 1, "e", 1), ())


def model(keys: set[bytes], prefix: bytes, delimiter: bytes, after: bytes) -> list[bytes]:
    """Everything that a listing shows beyond `after`, in order."""
    shown: list[bytes] = []
    for key in sorted(keys):
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if cut < 0 else key[: cut + len(delimiter)]
        if entry > after and (not shown or shown[-1] != entry):
            shown.append(entry)
    return shown


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(KEYS, BYTES, st.sampled_from([b"", b"/", b"a", "é".encode(), b"//"]), BYTES, st.integers(1, 7))
def test_pages_equal_the_sorted_model(
    db: sqlite3.Connection, keys: set[bytes], prefix: bytes, delimiter: bytes, after: bytes, limit: int
) -> None:
    fill(db, keys)
    expected = model(keys, prefix, delimiter, after)
    seen: list[bytes] = []
    for _ in range(100):
        page = list_objects(db, Question("b", prefix, delimiter, after, limit))
        entries = sorted([found.key for found in page.objects] + page.prefixes)
        assert [found.key for found in page.objects] == sorted(found.key for found in page.objects)
        assert len(entries) <= limit
        seen += entries
        if not page.truncated:
            break
        assert len(entries) == limit
        assert page.last == entries[-1]
        after = page.last
    assert seen == expected


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ODD.map(str.encode), max_size=20), BYTES, st.sampled_from([b"", b"/", b"a"]), st.integers(1, 5))
def test_pages_of_uploads_equal_the_sorted_model(
    db: sqlite3.Connection, keys: list[bytes], prefix: bytes, delimiter: bytes, limit: int
) -> None:
    db.execute("DELETE FROM uploads")
    for number, key in enumerate(keys):
        catalogue.put_upload(Change(db), Upload(f"{number:04x}", "b", key, 1, "1", Details()))
    rolled = set(model(set(keys), prefix, delimiter, b""))
    expected = sorted((key, f"{n:04x}") for n, key in enumerate(keys) if key in rolled and key.startswith(prefix))
    expected = [(k, i) for k, i in expected if not (delimiter and delimiter in k[len(prefix) :])]
    prefixes = [entry for entry in sorted(rolled) if delimiter and entry.find(delimiter, len(prefix)) >= 0]
    seen: list[tuple[bytes, str]] = []
    seen_prefixes: list[bytes] = []
    after, after_id = b"", ""
    for _ in range(100):
        page = list_uploads(db, Question("b", prefix, delimiter, after, limit), after_id)
        seen += [(upload.key, upload.upload_id) for upload in page.uploads]
        seen_prefixes += page.prefixes
        if not page.truncated:
            break
        after, after_id = page.last_key, page.last_id
    assert seen == expected
    assert seen_prefixes == prefixes


def test_no_keys_asked_for_are_none_given(db: sqlite3.Connection) -> None:
    fill(db, {b"a"})
    page = list_objects(db, Question("b", limit=0))
    assert (page.objects, page.truncated) == ([], False)


def test_a_prefix_costs_one_seek_however_much_lies_below(db: sqlite3.Connection) -> None:
    fill(db, {b"%d/%04d" % (top, n) for top in range(5) for n in range(500)})
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(count, 1)
    page = list_objects(db, Question("b", delimiter=b"/"))
    db.set_progress_handler(None, 1)
    assert page.prefixes == [b"%d/" % top for top in range(5)]
    assert steps < 1000  # reading all 2,500 rows takes ten times as many


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"

    async def opened(new_id: str) -> str:
        index = Index(path, lambda _: None, new_id)
        index.close()
        return str(index.store_id)

    assert [asyncio.run(opened(new_id)) for new_id in ("a1", "b2")] == ["a1", "a1"]
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FileUnusable, match="format 99"):
        asyncio.run(opened("c3"))
