"""One S3 request as the handlers see it: who calls, what it names, its parameters, and the checks that all of them
share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eyrie.http1.handlers import Request, Response
from eyrie.objects import catalogue
from eyrie.objects.conditions import http_date
from eyrie.objects.errors import invalid_argument, no_such_bucket, no_such_key, refuse
from eyrie.objects.records import Bucket, StoredObject
from eyrie.objects.store import ObjectStore
from eyrie.objects.xml import Element, document
from eyrie.wire.auth import Claim
from eyrie.wire.credentials import Identity


@dataclass(slots=True)
class Call:
    """A request whose head is verified. Headers and query parameters are text; names of headers are lower case."""

    request: Request
    store: ObjectStore
    claim: Claim
    bucket: str
    key: bytes
    query: Mapping[str, str]
    headers: Mapping[str, str]
    request_id: str
    now_ms: int
    reply_headers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        """Whose request it is."""
        return self.claim.identity

    @property
    def method(self) -> str:
        """GET, PUT, ..."""
        return self.request.method.decode()

    def header(self, name: str) -> str | None:
        """A header by its lower-case name."""
        return self.headers.get(name)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A number of the query, cut to `high`. Raises ApiError (InvalidArgument) where it is none or below `low`."""
        text = self.query.get(name)
        if text is None or text == "":
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 11) or int(text) < low:
            what = f"Provided {name} not an integer or within integer range"
            raise invalid_argument(name, text, what)
        return min(int(text), high)

    def owned_bucket(self) -> Bucket:
        """The bucket that the request names.

        Raises ApiError (NoSuchBucket; AccessDenied for one of another account).
        """
        found = visible_bucket(self.store, self.bucket, self.identity.account)
        expected = self.header("x-amz-expected-bucket-owner")
        if expected is not None and expected != found.account:
            raise refuse("AccessDenied")
        return found

    def object(self) -> StoredObject:
        """The object that the request names, in a bucket of the caller's.

        Raises ApiError (NoSuchKey, NoSuchVersion).
        """
        self.owned_bucket()
        if self.query.get("versionId", "null") != "null":
            raise refuse("NoSuchVersion", Key=self.key.decode(), VersionId=self.query["versionId"][:1024])
        found = catalogue.stored_object(self.store.index.db, self.bucket, self.key)
        if found is None:
            raise no_such_key(self.key)
        return found


def visible_bucket(store: ObjectStore, name: str, account: str) -> Bucket:
    """A bucket that an account may use. Raises ApiError (NoSuchBucket, AccessDenied)."""
    found = catalogue.bucket(store.index.db, name)
    if found is None:
        raise no_such_bucket(name)
    if found.account != account:
        raise refuse("AccessDenied")
    return found


def reply(status: int = 200, headers: Mapping[str, str | int | None] | None = None, **body: Any) -> Response:
    """A reply without XML: headers whose value is None are left out; `body` and `length` as in Response."""
    lines = [
        (name.encode(), str(value).encode("latin-1", "replace"))
        for name, value in (headers or {}).items()
        if value is not None
    ]
    return Response(status, lines, **body)


def xml_reply(root: Element, status: int = 200, headers: Mapping[str, str | int | None] | None = None) -> Response:
    """A reply that is an XML document."""
    return reply(status, {"content-type": "application/xml", **(headers or {})}, body=document(root))


def object_headers(found: StoredObject) -> dict[str, str | int | None]:
    """The headers that tell of an object, for GET and HEAD."""
    details = found.details
    return {
        **details.headers,
        **{f"x-amz-meta-{name}": value for name, value in details.metadata.items()},
        "etag": f'"{found.etag}"',
        "last-modified": http_date(found.modified_ms),
        "accept-ranges": "bytes",
        "x-amz-tagging-count": len(details.tags) or None,
    }
