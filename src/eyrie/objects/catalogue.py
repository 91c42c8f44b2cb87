"""Reads and single steps of writes over the index's tables.

Every function takes the connection; transactions are the caller's.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from eyrie.objects.index import Change
from eyrie.objects.records import Bucket, Details, Part, Segment, StoredObject, Upload

_OBJECT = "bucket, key, version, size, etag, modified_ms, details"
_UPLOAD = "upload_id, bucket, key, started_ms, account, details"
_PART = "number, version, size, etag, modified_ms, checksums"


# --- buckets ------------------------------------------------------------------------------------------


def bucket(db: sqlite3.Connection, name: str) -> Bucket | None:
    """The bucket of that name, whoever owns it."""
    row = db.execute("SELECT name, account, region, created_ms, tags FROM buckets WHERE name = ?", (name,)).fetchone()
    return None if row is None else _bucket(row)


def buckets_of(db: sqlite3.Connection, account: str, prefix: str, after: str, region: str, limit: int) -> list[Bucket]:
    """An account's buckets by name, beyond `after`; of one region where that is not ""."""
    rows = db.execute(
        "SELECT name, account, region, created_ms, tags FROM buckets WHERE account = ? AND name > ?"
        " AND substr(name, 1, length(?)) = ? AND (? = '' OR region = ?) ORDER BY name LIMIT ?",
        (account, after, prefix, prefix, region, region, limit),
    )
    return [_bucket(row) for row in rows]


def count_buckets(db: sqlite3.Connection, account: str) -> int:
    """How many buckets an account has."""
    (count,) = db.execute("SELECT count(*) FROM buckets WHERE account = ?", (account,)).fetchone()
    return int(count)


def put_bucket(change: Change, made: Bucket) -> None:
    """Store a bucket, new or changed."""
    change.db.execute(
        "INSERT OR REPLACE INTO buckets VALUES (?, ?, ?, ?, ?)",
        (made.name, made.account, made.region, made.created_ms, json.dumps(made.tags)),
    )


def is_empty(db: sqlite3.Connection, name: str) -> bool:
    """Whether a bucket holds no object."""
    return db.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (name,)).fetchone() is None


def drop_bucket(change: Change, name: str) -> None:
    """Remove an empty bucket and the uploads that were begun in it."""
    for upload_id, *_ in change.db.execute("SELECT upload_id FROM uploads WHERE bucket = ?", (name,)).fetchall():
        drop_upload(change, upload_id)
    change.db.execute("DELETE FROM buckets WHERE name = ?", (name,))


# --- objects ------------------------------------------------------------------------------------------


def stored_object(db: sqlite3.Connection, bucket_name: str, key: bytes) -> StoredObject | None:
    """The object at a key."""
    row = db.execute(f"SELECT {_OBJECT} FROM objects WHERE bucket = ? AND key = ?", (bucket_name, key)).fetchone()
    return None if row is None else object_of(row)


def object_of(row: Sequence[Any]) -> StoredObject:
    """A row of `objects` as a record."""
    name, key, version, size, etag, modified_ms, text = row
    return StoredObject(name, key, version, size, etag, modified_ms, _details(text))


def put_object(change: Change, made: StoredObject, segments: Iterable[Segment]) -> None:
    """Store an object with its segments in place of whatever its key held."""
    delete_object(change, made.bucket, made.key)
    put_segments(change, made.version, segments)
    change.db.execute(
        "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
        (made.bucket, made.key, made.version, made.size, made.etag, made.modified_ms, _text(made.details)),
    )


def put_details(change: Change, changed: StoredObject) -> None:
    """Store an object's details anew; its bytes stay."""
    change.db.execute(
        "UPDATE objects SET details = ? WHERE bucket = ? AND key = ?",
        (_text(changed.details), changed.bucket, changed.key),
    )


def delete_object(change: Change, bucket_name: str, key: bytes) -> bool:
    """Remove the object at a key; False when there was none."""
    row = change.db.execute("SELECT version FROM objects WHERE bucket = ? AND key = ?", (bucket_name, key)).fetchone()
    if row is None:
        return False
    change.db.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket_name, key))
    drop_segments(change, row[0])
    return True


# --- segments ------------------------------------------------------------------------------------------


def segments(db: sqlite3.Connection, version: str, start: int, end: int) -> list[Segment]:
    """The segments that hold bytes from `start` to before `end`, in order."""
    rows = db.execute(
        "SELECT start, size, blob, blob_start, part FROM segments"
        " WHERE version = ? AND start < ? AND start + size > ? ORDER BY start",
        (version, end, start),
    )
    return [Segment(*row) for row in rows]


def put_segments(change: Change, version: str, placed: Iterable[Segment]) -> None:
    """Name the blobs that hold an object's or a part's bytes; empty ones need none."""
    change.db.executemany(
        "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)",
        [(version, s.start, s.size, s.blob, s.blob_start, s.part) for s in placed if s.size],
    )


def drop_segments(change: Change, version: str) -> None:
    """Forget a version's segments; blobs that no other version names are freed."""
    db = change.db
    blobs = [row[0] for row in db.execute("SELECT DISTINCT blob FROM segments WHERE version = ?", (version,))]
    db.execute("DELETE FROM segments WHERE version = ?", (version,))
    change.freed.extend(blob for blob in blobs if not is_named(db, blob))


def is_named(db: sqlite3.Connection, blob: str) -> bool:
    """Whether any object or part has bytes in a blob."""
    return db.execute("SELECT 1 FROM segments WHERE blob = ? LIMIT 1", (blob,)).fetchone() is not None


def part_extent(db: sqlite3.Connection, version: str, part: int) -> tuple[int, int] | None:
    """First byte and the one after the last that came with a part; None where there is no such part."""
    row = db.execute(
        "SELECT min(start), max(start + size) FROM segments WHERE version = ? AND part = ?", (version, part)
    ).fetchone()
    return None if row[0] is None else (row[0], row[1])


def count_parts(db: sqlite3.Connection, version: str) -> int:
    """How many parts an object was made of."""
    (count,) = db.execute("SELECT count(DISTINCT part) FROM segments WHERE version = ?", (version,)).fetchone()
    return int(count)


# --- multipart uploads ------------------------------------------------------------------------------------------


def upload(db: sqlite3.Connection, upload_id: str) -> Upload | None:
    """An upload in progress."""
    row = db.execute(f"SELECT {_UPLOAD} FROM uploads WHERE upload_id = ?", (upload_id,)).fetchone()
    return None if row is None else upload_of(row)


def upload_of(row: Sequence[Any]) -> Upload:
    """A row of `uploads` as a record."""
    upload_id, name, key, started_ms, account, text = row
    return Upload(upload_id, name, key, started_ms, account, _details(text))


def put_upload(change: Change, begun: Upload) -> None:
    """Store a new upload."""
    change.db.execute(
        "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)",
        (begun.upload_id, begun.bucket, begun.key, begun.started_ms, begun.account, _text(begun.details)),
    )


def drop_upload(change: Change, upload_id: str) -> None:
    """Remove an upload and its parts."""
    for (version,) in change.db.execute("SELECT version FROM parts WHERE upload_id = ?", (upload_id,)).fetchall():
        drop_segments(change, version)
    forget_upload(change, upload_id)


def forget_upload(change: Change, upload_id: str) -> None:
    """Remove an upload's rows; the segments of its parts are the caller's."""
    change.db.execute("DELETE FROM parts WHERE upload_id = ?", (upload_id,))
    change.db.execute("DELETE FROM uploads WHERE upload_id = ?", (upload_id,))


def uploads_before(db: sqlite3.Connection, started_ms: int, limit: int) -> list[str]:
    """Ids of uploads that were begun before a moment."""
    rows = db.execute("SELECT upload_id FROM uploads WHERE started_ms < ? LIMIT ?", (started_ms, limit))
    return [row[0] for row in rows]


def parts(db: sqlite3.Connection, upload_id: str, after: int = 0, limit: int = -1) -> list[Part]:
    """The parts of an upload beyond a number, in order."""
    rows = db.execute(
        f"SELECT {_PART} FROM parts WHERE upload_id = ? AND number > ? ORDER BY number LIMIT ?",
        (upload_id, after, limit),
    )
    return [Part(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows]


def put_part(change: Change, upload_id: str, made: Part, placed: Iterable[Segment]) -> None:
    """Store a part in place of an earlier one of its number."""
    db = change.db
    row = db.execute(
        "SELECT version FROM parts WHERE upload_id = ? AND number = ?", (upload_id, made.number)
    ).fetchone()
    if row is not None:
        drop_segments(change, row[0])
    put_segments(change, made.version, placed)
    db.execute(
        "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
        (upload_id, made.number, made.version, made.size, made.etag, made.modified_ms, json.dumps(made.checksums)),
    )


def _bucket(row: Sequence[Any]) -> Bucket:
    return Bucket(row[0], row[1], row[2], row[3], json.loads(row[4]))


def _details(text: str) -> Details:
    return Details(**json.loads(text))


def _text(details: Details) -> str:
    named = {name: getattr(details, name) for name in Details.__slots__}
    return json.dumps({name: value for name, value in named.items() if value}, separators=(",", ":"))
