"""Objects: put, get, head, delete, delete many, and what a request says about an object's headers and metadata."""

from __future__ import annotations

from collections.abc import Mapping

from eyrie.http1.handlers import Response
from eyrie.objects import catalogue
from eyrie.objects.api_tagging import header_tags
from eyrie.objects.body import Body, read_document
from eyrie.objects.call import Call, object_headers, reply, xml_reply
from eyrie.objects.checksums import FULL_OBJECT, HEADER_PREFIX
from eyrie.objects.conditions import Verdict, byte_range, check_read, check_write, etag_matches, http_date
from eyrie.objects.errors import invalid_argument, no_such_bucket, precondition_failed, refuse
from eyrie.objects.index import Change
from eyrie.objects.names import checked_key
from eyrie.objects.records import Details, StoredObject
from eyrie.objects.xml import Element, element
from eyrie.wire.errors import ApiError

METADATA_BYTES_MAX = 2048
_WHOLE_BYTES_MAX = 1 << 20  # a reply up to this size is read at once
_DELETES_MAX = 1000
_META = "x-amz-meta-"
_KEPT_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)
_DEFAULT_TYPE = "binary/octet-stream"
_RESPONSE_OVERRIDES = {f"response-{name}": name for name in _KEPT_HEADERS}
# What a client may ask of storage that would be a promise we do not keep.
_UNKEPT_PROMISES = (
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
)
# The SageMaker SDK asks for aws:kms with every upload, naming no key. That is taken as a wish, not kept: no reply says
# that an object is encrypted; one that names a key is refused above.
_ENCRYPTIONS = (None, "AES256", "aws:kms", "aws:kms:dsse")


def requested_details(call: Call) -> Details:
    """The headers, metadata and tags that a request gives its object.

    Raises ApiError (MetadataTooLarge, NotImplemented, ...).
    """
    for name in _UNKEPT_PROMISES:
        if call.header(name) is not None:
            raise refuse("NotImplemented", Header=name)
    if call.header("x-amz-server-side-encryption") not in _ENCRYPTIONS:
        raise refuse("InvalidArgument", ArgumentName="x-amz-server-side-encryption")
    if (call.header("x-amz-storage-class") or "STANDARD") != "STANDARD":
        raise refuse("InvalidStorageClass", StorageClassRequested=call.headers["x-amz-storage-class"][:64])
    refuse_grants(call)
    headers = {name: value for name in _KEPT_HEADERS if (value := call.header(name))}
    if "content-encoding" in headers:
        encodings = [e.strip() for e in headers["content-encoding"].split(",") if e.strip().lower() != "aws-chunked"]
        headers["content-encoding"] = ",".join(encodings)
        if not encodings:
            del headers["content-encoding"]
    headers.setdefault("content-type", _DEFAULT_TYPE)
    metadata = {name[len(_META) :]: value for name, value in call.headers.items() if name.startswith(_META)}
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > METADATA_BYTES_MAX:
        raise refuse("MetadataTooLarge", Size=size, MaxSizeAllowed=METADATA_BYTES_MAX)
    return Details(headers, metadata, header_tags(call.header("x-amz-tagging")))


def refuse_grants(call: Call) -> None:
    """Access lists are off, as in every new bucket of the real service.

    Raises ApiError (AccessControlListNotSupported).
    """
    if (call.header("x-amz-acl") or "private") not in ("private", "bucket-owner-full-control"):
        raise refuse("AccessControlListNotSupported")
    if any(name.startswith("x-amz-grant-") for name in call.headers):
        raise refuse("AccessControlListNotSupported")


def write_guard(call: Call, change: Change) -> None:
    """Inside a write's transaction: the bucket is still there and the request's preconditions hold. Raises ApiError."""
    if catalogue.bucket(change.db, call.bucket) is None:
        raise no_such_bucket(call.bucket)
    if_match, if_none_match = call.header("if-match"), call.header("if-none-match")
    if if_match is not None or if_none_match is not None:
        found = catalogue.stored_object(change.db, call.bucket, call.key)
        check_write(if_match, if_none_match, None if found is None else found.etag)


async def put_object(call: Call) -> Response:
    """PUT /BUCKET/KEY."""
    call.owned_bucket()
    details = requested_details(call)
    body = Body(call)
    incoming = await call.store.receive(aiter(body))
    kept = body.checksum
    made = StoredObject(
        call.bucket,
        call.key,
        call.store.token(32),
        incoming.size,
        body.digests.etag,
        call.now_ms,
        Details(details.headers, details.metadata, details.tags, kept, FULL_OBJECT if kept else ""),
    )

    def put(change: Change) -> None:
        write_guard(call, change)
        catalogue.put_object(change, made, [incoming.segment()])

    await call.store.commit(incoming, put)
    return reply(200, {"etag": f'"{made.etag}"', **checksum_headers(made.details)})


def checksum_headers(details: Details) -> dict[str, str | int | None]:
    """The checksums of an object, as headers."""
    headers: dict[str, str | int | None] = {
        HEADER_PREFIX + algorithm.lower(): value for algorithm, value in details.checksums.items()
    }
    if headers:
        headers["x-amz-checksum-type"] = details.checksum_type
    return headers


async def get_object(call: Call) -> Response:
    """GET /BUCKET/KEY, whole, a range, or one part of a multipart object."""
    return await _read(call, with_body=True)


async def head_object(call: Call) -> Response:
    """HEAD /BUCKET/KEY."""
    return await _read(call, with_body=False)


async def _read(call: Call, with_body: bool) -> Response:
    found = call.object()
    headers = object_headers(found)
    if check_read(call.header, found.etag, found.modified_ms) is Verdict.NOT_MODIFIED:
        return reply(304, {name: headers.get(name) for name in ("etag", "last-modified", "cache-control", "expires")})
    span = _span(call, found, headers)
    start, end = span or (0, found.size)
    if span is None and (call.header("x-amz-checksum-mode") or "").upper() == "ENABLED":
        headers.update(checksum_headers(found.details))
    headers.update(_overrides(call.query))
    if span is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{found.size}"
    status = 200 if span is None else 206
    if not with_body:
        return reply(status, headers, length=end - start)
    reading = call.store.read(found.version, start, end)
    if end - start <= _WHOLE_BYTES_MAX:
        return reply(status, headers, body=await reading.whole())
    return reply(status, headers, body=reading, length=end - start)


def _span(call: Call, found: StoredObject, headers: dict[str, str | int | None]) -> tuple[int, int] | None:
    """The range to answer, by Range or by partNumber; None for the whole.

    Raises ApiError (InvalidRange, InvalidPartNumber).
    """
    wanted = call.header("range")
    if "partNumber" not in call.query:
        if wanted is not None and (condition := call.header("if-range")) is not None:
            fresh = etag_matches(condition, found.etag) or condition == http_date(found.modified_ms)
            wanted = wanted if fresh else None
        return byte_range(wanted, found.size)
    if wanted is not None:
        raise refuse("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    number = call.integer("partNumber", 1, 1, 10_000)
    db = call.store.index.db
    if "-" in found.etag:
        headers["x-amz-mp-parts-count"] = catalogue.count_parts(db, found.version)
    if found.size == 0 and number == 1:
        return None
    extent = catalogue.part_extent(db, found.version, number)
    if extent is None:
        raise refuse(
            "InvalidPartNumber", ActualPartCount=catalogue.count_parts(db, found.version), PartNumberRequested=number
        )
    return extent


def _overrides(query: Mapping[str, str]) -> dict[str, str | int | None]:
    """Headers of the reply that the query sets: response-content-type and its kin."""
    found: dict[str, str | int | None] = {}
    for parameter, name in _RESPONSE_OVERRIDES.items():
        if parameter in query:
            value = query[parameter]
            if "\r" in value or "\n" in value or "\0" in value:
                raise invalid_argument(parameter, value)
            found[name] = value
    return found


async def delete_object(call: Call) -> Response:
    """DELETE /BUCKET/KEY; deleting what is not there succeeds."""
    call.owned_bucket()
    if call.query.get("versionId", "null") != "null":
        raise refuse("NoSuchVersion", Key=call.key.decode(), VersionId=call.query["versionId"][:1024])
    if_match = call.header("if-match")

    def delete(change: Change) -> None:
        _delete_if(change, call.bucket, call.key, if_match)

    await call.store.index.write(delete)
    return reply(204)


def _delete_if(change: Change, bucket: str, key: bytes, if_match: str | None) -> None:
    if if_match is not None:
        found = catalogue.stored_object(change.db, bucket, key)
        if found is None:
            raise refuse("NoSuchKey", Key=key.decode())
        if not etag_matches(if_match, found.etag):
            raise precondition_failed("If-Match")
    catalogue.delete_object(change, bucket, key)


async def delete_objects(call: Call) -> Response:
    """POST /BUCKET?delete: up to 1,000 at once; each answers for itself."""
    call.owned_bucket()
    document = await read_document(call, "Delete")
    assert document is not None
    if not {"content-md5", "x-amz-sdk-checksum-algorithm", "x-amz-content-sha256"} & call.headers.keys():
        raise refuse("InvalidRequest", "Missing required header for this request: Content-MD5")
    wanted = list(document.all("Object"))
    if not 1 <= len(wanted) <= _DELETES_MAX:
        raise refuse("MalformedXML")
    quiet = document.get("Quiet").strip().lower() == "true"

    def delete_all(change: Change) -> Element:
        result = Element("DeleteResult")
        for one in wanted:
            _delete_one(change, call.bucket, one, quiet, result)
        return result

    return xml_reply(await call.store.index.write(delete_all))


def _delete_one(change: Change, bucket: str, wanted: Element, quiet: bool, result: Element) -> None:
    key, version, etag = wanted.get("Key"), wanted.get("VersionId"), wanted.get("ETag")
    try:
        if not key:
            raise refuse("MalformedXML")
        if version not in ("", "null"):
            raise refuse("NoSuchVersion")
        _delete_if(change, bucket, checked_key(key.encode()), etag or None)
    except ApiError as error:
        result.add(
            "Error", element("Error", Key=key, VersionId=version or None, Code=error.code, Message=error.message)
        )
        return
    if not quiet:
        result.add("Deleted", element("Deleted", Key=key))
