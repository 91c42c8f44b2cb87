"""Copying: a copy shares its source's blobs, so it moves no byte and is one commit, however large the object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import unquote_to_bytes

from eyrie.http1.handlers import Response
from eyrie.objects import catalogue, checksums
from eyrie.objects.api_objects import requested_details, write_guard
from eyrie.objects.api_tagging import header_tags
from eyrie.objects.body import Body
from eyrie.objects.call import Call, visible_bucket, xml_reply
from eyrie.objects.checksums import Digests
from eyrie.objects.conditions import check_copy_source, iso_date
from eyrie.objects.errors import invalid_argument, no_such_key, refuse
from eyrie.objects.index import Change
from eyrie.objects.names import Place, key_of, text_of
from eyrie.objects.records import Details, Segment, StoredObject
from eyrie.objects.xml import Element, element

COPY_BYTES_MAX = 5 << 30


@dataclass(frozen=True, slots=True)
class CopySource:
    """What x-amz-copy-source names, as it stood when it was asked for."""

    place: Place
    found: StoredObject


def copy_source(call: Call) -> CopySource:
    """The source of a copy, its preconditions checked. Raises ApiError."""
    header = call.header("x-amz-copy-source") or ""
    path, _, version = header.removeprefix("/").partition("?versionId=")
    if version not in ("", "null"):
        raise refuse("NoSuchVersion")
    raw_bucket, slash, raw_key = path.partition("/")
    if not slash:
        # Some clients encode the slash as well.
        raw_bucket, slash, raw_key = text_of(unquote_to_bytes(path)).partition("/")
    if not raw_bucket or not raw_key:
        raise invalid_argument(
            "x-amz-copy-source", header, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        )
    bucket, key = text_of(unquote_to_bytes(raw_bucket)), key_of(raw_key)
    owner = visible_bucket(call.store, bucket, call.identity.account).account
    if call.header("x-amz-source-expected-bucket-owner") not in (None, owner):
        raise refuse("AccessDenied")
    found = catalogue.stored_object(call.store.index.db, bucket, key)
    if found is None:
        raise no_such_key(key)
    check_copy_source(call.header, found.etag, found.modified_ms)
    return CopySource(Place(bucket, key), found)


async def copy_object(call: Call) -> Response:
    """PUT /BUCKET/KEY with x-amz-copy-source."""
    call.owned_bucket()
    await Body(call, 0).whole()
    source = copy_source(call)
    if source.found.size > COPY_BYTES_MAX:
        what = "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120"
        raise refuse("InvalidRequest", what)
    details = _copied_details(call, source)
    algorithm = call.header("x-amz-checksum-algorithm")
    summed = await _checksum(call, source.found, algorithm) if algorithm else None

    def made_of(found: StoredObject) -> StoredObject:
        kept = replace(details, checksums=found.details.checksums, checksum_type=found.details.checksum_type)
        if summed is not None:
            kept = replace(details, checksums=summed, checksum_type=checksums.FULL_OBJECT)
        return StoredObject(call.bucket, call.key, call.store.token(32), found.size, found.etag, call.now_ms, kept)

    made = await call.store.index.write(_copying(call, source, made_of))
    result = element("CopyObjectResult", LastModified=iso_date(made.modified_ms), ETag=f'"{made.etag}"')
    _add_checksums(result, made.details)
    return xml_reply(result)


def _copying(
    call: Call, source: CopySource, made_of: Callable[[StoredObject], StoredObject]
) -> Callable[[Change], StoredObject]:
    def copy(change: Change) -> StoredObject:
        write_guard(call, change)
        found = _unchanged(change, source)
        made = made_of(found)
        segments = catalogue.segments(change.db, found.version, 0, found.size)
        catalogue.put_segments(change, made.version, segments)  # named twice before the old one may be dropped
        catalogue.put_object(change, made, ())
        return made

    return copy


def _unchanged(change: Change, source: CopySource) -> StoredObject:
    """The source as it stands in the transaction. Raises ApiError where somebody was faster."""
    found = catalogue.stored_object(change.db, source.place.bucket, source.place.key)
    if found is None:
        raise no_such_key(source.place.key)
    if found.version != source.found.version:
        raise refuse("OperationAborted")
    return found


def _copied_details(call: Call, source: CopySource) -> Details:
    """The new object's headers, metadata and tags, by the directives.

    Raises ApiError, also for a copy onto itself that changes nothing.
    """
    metadata = _directive(call, "x-amz-metadata-directive")
    tagging = _directive(call, "x-amz-tagging-directive")
    if metadata == tagging == "COPY" and source.place == (call.bucket, call.key):
        what = (
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes."
        )
        if call.header("x-amz-storage-class") is None and call.header("x-amz-server-side-encryption") is None:
            raise refuse("InvalidRequest", what)
    kept = source.found.details
    given = requested_details(call)
    details = given if metadata == "REPLACE" else kept
    return replace(details, tags=header_tags(call.header("x-amz-tagging")) if tagging == "REPLACE" else kept.tags)


def _directive(call: Call, name: str) -> str:
    value = (call.header(name) or "COPY").upper()
    if value not in ("COPY", "REPLACE"):
        raise invalid_argument(name, value, f"Unknown {name.removeprefix('x-amz-')}.")
    return value


async def _checksum(call: Call, found: StoredObject, algorithm: str) -> dict[str, str]:
    """The checksum that a copy asks for: its source's, or computed by reading it."""
    name = checksums.known(algorithm)
    if name in found.details.checksums and found.details.checksum_type == checksums.FULL_OBJECT:
        return {name: found.details.checksums[name]}
    digests = Digests([name])
    reading = call.store.read(found.version, 0, found.size)
    try:
        async for piece in reading:
            digests.update(piece)
    finally:
        await reading.aclose()
    return digests.checksums()


def _add_checksums(result: Element, details: Details) -> None:
    for algorithm, value in details.checksums.items():
        result.add(f"Checksum{algorithm}", value)
    if details.checksums:
        result.add("ChecksumType", details.checksum_type)


def cut(segments: list[Segment], start: int, end: int, part: int) -> list[Segment]:
    """The segments of a range of an object as those of a part that begins at 0."""
    placed = []
    for segment in segments:
        low, high = max(start, segment.start), min(end, segment.start + segment.size)
        placed.append(Segment(low - start, high - low, segment.blob, segment.blob_start + low - segment.start, part))
    return placed
