"""Multipart uploads: create, upload part, upload part copy, complete, abort, list parts.

A part is stored like an object; completing moves no byte: the parts' segments become the object's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from eyrie.http1.handlers import Response
from eyrie.objects import catalogue, checksums
from eyrie.objects.api_buckets import owner
from eyrie.objects.api_copy import copy_source, cut
from eyrie.objects.api_objects import requested_details, write_guard
from eyrie.objects.body import PUT_BYTES_MAX, Body, read_document
from eyrie.objects.call import Call, reply, xml_reply
from eyrie.objects.checksums import FULL_OBJECT, HEADER_PREFIX, Digests
from eyrie.objects.conditions import byte_range, iso_date
from eyrie.objects.errors import invalid_argument, no_such_upload, refuse
from eyrie.objects.index import Change
from eyrie.objects.records import Details, Part, Segment, StoredObject, Upload
from eyrie.objects.xml import Element, element

PARTS_MAX = 10_000
PART_BYTES_MIN = 5 << 20  # of every part but the last
OBJECT_BYTES_MAX = 5 << 40
_PAGE_MAX = 1000


async def create_upload(call: Call) -> Response:
    """POST /BUCKET/KEY?uploads."""
    call.owned_bucket()
    await Body(call, 0).whole()
    details = requested_details(call)
    algorithm = call.header("x-amz-checksum-algorithm")
    if algorithm is not None:
        name = checksums.known(algorithm)
        kind = checksums.upload_type(name, call.header("x-amz-checksum-type"))
        details = replace(details, checksum_algorithm=name, checksum_type=kind)
    begun = Upload(call.store.token(64), call.bucket, call.key, call.now_ms, call.identity.account, details)

    def create(change: Change) -> None:
        if catalogue.bucket(change.db, begun.bucket) is None:
            raise refuse("NoSuchBucket", BucketName=begun.bucket)
        catalogue.put_upload(change, begun)

    await call.store.index.write(create)
    result = element(
        "InitiateMultipartUploadResult", Bucket=call.bucket, Key=call.key.decode(), UploadId=begun.upload_id
    )
    headers = {
        "x-amz-checksum-algorithm": details.checksum_algorithm or None,
        "x-amz-checksum-type": details.checksum_type or None,
    }
    return xml_reply(result, headers=headers)


def _upload(call: Call) -> Upload:
    """The upload that a request names. Raises ApiError (NoSuchUpload)."""
    call.owned_bucket()
    upload_id = call.query.get("uploadId", "")
    found = catalogue.upload(call.store.index.db, upload_id)
    if found is None or (found.bucket, found.key) != (call.bucket, call.key):
        raise no_such_upload(upload_id)
    return found


def _number(call: Call) -> int:
    text = call.query.get("partNumber", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= PARTS_MAX):
        raise invalid_argument(
            "partNumber", text, f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive"
        )
    return int(text)


async def upload_part(call: Call) -> Response:
    """PUT /BUCKET/KEY?partNumber=N&uploadId=ID."""
    upload, number = _upload(call), _number(call)
    wanted = upload.details.checksum_algorithm
    body = Body(call, PUT_BYTES_MAX, [wanted] if wanted else [])
    if wanted and body.claimed and wanted not in body.claimed:
        got = next(iter(body.claimed)).lower()
        what = f"Checksum Type mismatch occurred, expected checksum Type: {wanted.lower()}, actual checksum Type: {got}"
        raise refuse("InvalidRequest", what)
    incoming = await call.store.receive(aiter(body))
    version = call.store.token(32)
    made = Part(number, version, incoming.size, body.digests.etag, call.now_ms, body.checksum)

    def put(change: Change) -> None:
        if catalogue.upload(change.db, upload.upload_id) is None:
            raise no_such_upload(upload.upload_id)
        catalogue.put_part(change, upload.upload_id, made, [incoming.segment(number)])

    await call.store.commit(incoming, put)
    found = {HEADER_PREFIX + algorithm.lower(): value for algorithm, value in made.checksums.items()}
    return reply(200, {"etag": f'"{made.etag}"', **found})


async def upload_part_copy(call: Call) -> Response:
    """The same with x-amz-copy-source: it reads the source for its MD5, shares its blobs."""
    upload, number = _upload(call), _number(call)
    await Body(call, 0).whole()
    source = copy_source(call)
    start, end = _copy_range(call, source.found.size)
    wanted = upload.details.checksum_algorithm
    digests = Digests([wanted] if wanted else [])
    reading = call.store.read(source.found.version, start, end)
    try:
        async for piece in reading:
            digests.update(piece)
    finally:
        await reading.aclose()
    made = Part(number, call.store.token(32), end - start, digests.etag, call.now_ms, digests.checksums())

    def put(change: Change) -> None:
        if catalogue.upload(change.db, upload.upload_id) is None:
            raise no_such_upload(upload.upload_id)
        found = catalogue.stored_object(change.db, source.place.bucket, source.place.key)
        if found is None or found.version != source.found.version:
            raise refuse("OperationAborted")
        placed = cut(catalogue.segments(change.db, found.version, start, end), start, end, number)
        catalogue.put_part(change, upload.upload_id, made, placed)

    await call.store.index.write(put)
    result = element("CopyPartResult", LastModified=iso_date(made.modified_ms), ETag=f'"{made.etag}"')
    for algorithm, value in made.checksums.items():
        result.add(f"Checksum{algorithm}", value)
    return xml_reply(result)


def _copy_range(call: Call, size: int) -> tuple[int, int]:
    header = call.header("x-amz-copy-source-range")
    if header is None:
        if size > PUT_BYTES_MAX:
            raise refuse(
                "InvalidRequest",
                "The specified copy source is larger than the maximum allowable size for a copy source",
            )
        return 0, size
    found = byte_range(header, size)
    if found is None or found[1] - found[0] > PUT_BYTES_MAX or header.rpartition("-")[2] != str(found[1] - 1):
        what = "The x-amz-copy-source-range value must be bytes=first-last, both offsets within the source"
        raise invalid_argument("x-amz-copy-source-range", header, what)
    return found


@dataclass(frozen=True, slots=True)
class _Named:
    """A part as CompleteMultipartUpload names it."""

    number: int
    etag: str
    checksums: dict[str, str]


async def complete_upload(call: Call) -> Response:
    """POST /BUCKET/KEY?uploadId=ID: the named parts, in order, become the object. May be repeated while it stands."""
    call.owned_bucket()
    document = await read_document(call, "CompleteMultipartUpload")
    assert document is not None
    named = _named_parts(document)
    made = _completed_before(call)
    if made is None:
        upload = _upload(call)
        made = await call.store.index.write(lambda change: _complete(call, change, upload, named))
    result = element(
        "CompleteMultipartUploadResult",
        Location=f"http://{call.header('host') or 'localhost'}/{call.bucket}/{quote(call.key)}",
        Bucket=call.bucket,
        Key=call.key.decode(),
        ETag=f'"{made.etag}"',
    )
    for algorithm, value in made.details.checksums.items():
        result.add(f"Checksum{algorithm}", value)
        result.add("ChecksumType", made.details.checksum_type)
    return xml_reply(result)


def _completed_before(call: Call) -> StoredObject | None:
    """The object that this very upload became: the answer to its completion may have been lost."""
    found = catalogue.stored_object(call.store.index.db, call.bucket, call.key)
    return found if found is not None and found.version == _version_of(call.query.get("uploadId", "")) else None


def _version_of(upload_id: str) -> str:
    return upload_id[:32]


def _named_parts(document: Element) -> list[_Named]:
    named: list[_Named] = []
    for one in document.all("Part"):
        text = one.get("PartNumber").strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 5) or one.find("ETag") is None:
            raise refuse("MalformedXML")
        found = {
            algorithm: value for algorithm in checksums.ALGORITHMS if (value := one.get(f"Checksum{algorithm}").strip())
        }
        named.append(_Named(int(text), one.get("ETag").strip().strip('"'), found))
        if len(named) > 1 and named[-1].number <= named[-2].number:
            raise refuse("InvalidPartOrder")
    if not 1 <= len(named) <= PARTS_MAX:
        raise refuse("MalformedXML")
    return named


def _complete(call: Call, change: Change, upload: Upload, named: Sequence[_Named]) -> StoredObject:
    version = _version_of(upload.upload_id)
    if catalogue.upload(change.db, upload.upload_id) is None:
        raise no_such_upload(upload.upload_id)
    write_guard(call, change)
    stored = {part.number: part for part in catalogue.parts(change.db, upload.upload_id)}
    chosen = [_chosen(one, stored.get(one.number), upload) for one in named]
    _check_sizes(call, chosen)
    made = _completed(call, upload, chosen, version)
    start = 0
    for part in chosen:
        moved = catalogue.segments(change.db, part.version, 0, part.size)
        placed = [Segment(start + s.start, s.size, s.blob, s.blob_start, part.number) for s in moved]
        catalogue.put_segments(change, version, placed)
        start += part.size
    catalogue.drop_upload(change, upload.upload_id)
    catalogue.put_object(change, made, ())
    return made


def _chosen(named: _Named, stored: Part | None, upload: Upload) -> Part:
    """The stored part that is named. Raises ApiError (InvalidPart)."""
    wrong = stored is None or stored.etag != named.etag
    if stored is not None:
        wrong = wrong or any(stored.checksums.get(a) != value for a, value in named.checksums.items())
    if wrong or stored is None:
        raise refuse("InvalidPart", UploadId=upload.upload_id, PartNumber=named.number, ETag=named.etag[:256])
    return stored


def _check_sizes(call: Call, chosen: Sequence[Part]) -> None:
    for part in chosen[:-1]:
        if part.size < PART_BYTES_MIN:
            raise refuse(
                "EntityTooSmall",
                ProposedSize=part.size,
                MinSizeAllowed=PART_BYTES_MIN,
                PartNumber=part.number,
                ETag=part.etag,
            )
    total = sum(part.size for part in chosen)
    if total > OBJECT_BYTES_MAX:
        raise refuse("EntityTooLarge", ProposedSize=total, MaxSizeAllowed=OBJECT_BYTES_MAX)
    expected = call.header("x-amz-mp-object-size")
    if expected is not None and expected.strip() != str(total):
        what = f"The provided 'x-amz-mp-object-size' header {expected[:32]} does not match what was computed: {total}"
        raise refuse("InvalidRequest", what)


def _completed(call: Call, upload: Upload, chosen: Sequence[Part], version: str) -> StoredObject:
    """The object that the parts make.

    Raises ApiError (BadDigest) where the request claims another checksum for the whole.
    """
    etag = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in chosen), usedforsecurity=False).hexdigest()
    size = sum(part.size for part in chosen)
    details = upload.details
    algorithm, kind = details.checksum_algorithm, details.checksum_type
    kept: dict[str, str] = {}
    if algorithm:
        kept[algorithm] = _whole_checksum(algorithm, kind, chosen)
        claimed = checksums.claimed(
            {n: v for n, v in call.headers.items() if checksums.algorithm_of_header(n) == algorithm}
        )
        if claimed.get(algorithm, kept[algorithm]) != kept[algorithm]:
            raise refuse("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
    details = Details(details.headers, details.metadata, details.tags, kept, kind if kept else "")
    return StoredObject(upload.bucket, upload.key, version, size, f"{etag}-{len(chosen)}", call.now_ms, details)


def _whole_checksum(algorithm: str, kind: str, chosen: Sequence[Part]) -> str:
    values = [part.checksums[algorithm] for part in chosen]
    if kind == FULL_OBJECT:
        return checksums.full_object(algorithm, [(part.checksums[algorithm], part.size) for part in chosen])
    return checksums.composite(algorithm, values)


async def abort_upload(call: Call) -> Response:
    """DELETE /BUCKET/KEY?uploadId=ID."""
    upload = _upload(call)

    def abort(change: Change) -> None:
        catalogue.drop_upload(change, upload.upload_id)

    await call.store.index.write(abort)
    return reply(204)


async def list_parts(call: Call) -> Response:
    """GET /BUCKET/KEY?uploadId=ID."""
    upload = _upload(call)
    after = call.integer("part-number-marker", 0, 0, PARTS_MAX)
    limit = call.integer("max-parts", _PAGE_MAX, 0, _PAGE_MAX)
    found = catalogue.parts(call.store.index.db, upload.upload_id, after, limit + 1)
    page = found[:limit]
    details = upload.details
    result = element(
        "ListPartsResult",
        Bucket=call.bucket,
        Key=call.key.decode(),
        UploadId=upload.upload_id,
        Initiator=owner(upload.account, "Initiator"),
        Owner=owner(upload.account),
        StorageClass="STANDARD",
        PartNumberMarker=after,
        NextPartNumberMarker=page[-1].number if page else 0,
        MaxParts=limit,
        IsTruncated=len(found) > limit,
        ChecksumAlgorithm=details.checksum_algorithm or None,
        ChecksumType=details.checksum_type or None,
    )
    for part in page:
        one = element(
            "Part",
            PartNumber=part.number,
            LastModified=iso_date(part.modified_ms),
            ETag=f'"{part.etag}"',
            Size=part.size,
        )
        for algorithm, value in part.checksums.items():
            one.add(f"Checksum{algorithm}", value)
        result.add("Part", one)
    return xml_reply(result)
