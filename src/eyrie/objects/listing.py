"""Ordered listings over the index: keys by their UTF-8 bytes, rolled up at a delimiter, one page at a time.

A rolled-up prefix costs one seek whatever lies below it, so a page costs at most its own length in seeks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from eyrie.objects.catalogue import object_of, upload_of
from eyrie.objects.records import StoredObject, Upload

PAGE_MAX = 1000
_OBJECTS = (
    "SELECT bucket, key, version, size, etag, modified_ms, details FROM objects"
    " WHERE bucket = ? AND key >= ? ORDER BY key LIMIT ?"
)
_UPLOADS = (
    "SELECT upload_id, bucket, key, started_ms, account, details FROM uploads"
    " WHERE bucket = ? AND (key > ? OR (key = ? AND upload_id > ?)) ORDER BY key, upload_id LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a bucket. `after` is exclusive: a key, or a rolled-up prefix."""

    bucket: str
    prefix: bytes = b""
    delimiter: bytes = b""
    after: bytes = b""
    limit: int = PAGE_MAX


@dataclass(slots=True)
class Page:
    """One page: objects and rolled-up prefixes, each in order; `last` is the greatest of both."""

    objects: list[StoredObject] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    truncated: bool = False
    last: bytes = b""


@dataclass(slots=True)
class UploadsPage:
    """One page of uploads in progress, as `Page`."""

    uploads: list[Upload] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    truncated: bool = False
    last_key: bytes = b""
    last_id: str = ""


def rolled_up(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """The prefix that a key is listed as, None where it is listed as itself."""
    cut = key.find(delimiter, len(prefix)) if delimiter else -1
    return None if cut < 0 else key[: cut + len(delimiter)]


def list_objects(db: sqlite3.Connection, question: Question) -> Page:
    """One page of a bucket's objects."""
    page = Page()
    if question.limit <= 0:
        return page
    for entry in _entries(db, question):
        if len(page.objects) + len(page.prefixes) == question.limit:
            page.truncated = True
            break
        if isinstance(entry, bytes):
            page.prefixes.append(entry)
            page.last = entry
        else:
            page.objects.append(entry)
            page.last = entry.key
    return page


def _entries(db: sqlite3.Connection, question: Question) -> Iterator[StoredObject | bytes]:
    """Objects and rolled-up prefixes in order, beyond `after`."""
    start: bytes | None = max(question.prefix, question.after + b"\0" if question.after else b"")
    while start is not None:
        seek, start = start, None
        for seen, row in enumerate(db.execute(_OBJECTS, (question.bucket, seek, question.limit + 1))):
            key: bytes = row[1]
            if not key.startswith(question.prefix):
                return
            prefix = rolled_up(key, question.prefix, question.delimiter)
            if prefix is not None:
                if prefix > question.after:
                    yield prefix
                start = prefix + b"\xff"  # beyond every key below it: UTF-8 has no such byte
                break
            yield object_of(row)
            start = key + b"\0" if seen >= question.limit else None


def list_uploads(db: sqlite3.Connection, question: Question, after_id: str) -> UploadsPage:
    """One page of a bucket's uploads in progress, ordered by key and id; `after_id` goes with `after`."""
    page = UploadsPage()
    key, upload_id = question.after, after_id if question.after else ""
    # Without an id the marker means the key itself and all of its uploads; beyond any id.
    if question.after and not after_id:
        upload_id = "\U0010ffff"
    while question.limit > 0:
        rows = db.execute(_UPLOADS, (question.bucket, key, key, upload_id, question.limit + 1)).fetchall()
        for row in rows:
            found = upload_of(row)
            key, upload_id = found.key, found.upload_id
            if not found.key.startswith(question.prefix):
                if found.key > question.prefix:
                    return page
                continue
            prefix = rolled_up(found.key, question.prefix, question.delimiter)
            if prefix is not None and (prefix in page.prefixes[-1:] or prefix <= question.after):
                continue
            if len(page.uploads) + len(page.prefixes) == question.limit:
                page.truncated = True
                return page
            if prefix is not None:
                page.prefixes.append(prefix)
            else:
                page.uploads.append(found)
            page.last_key, page.last_id = (prefix, "") if prefix is not None else (found.key, found.upload_id)
        if len(rows) <= question.limit:
            return page
    return page
