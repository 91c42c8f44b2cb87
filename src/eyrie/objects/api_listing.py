"""Listings of a bucket: objects (v1 and v2), versions, and uploads in progress."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote

from eyrie.http1.handlers import Response
from eyrie.objects.api_buckets import owner
from eyrie.objects.call import Call, xml_reply
from eyrie.objects.conditions import iso_date
from eyrie.objects.errors import invalid_argument
from eyrie.objects.listing import PAGE_MAX, Page, Question, list_objects, list_uploads
from eyrie.objects.records import StoredObject, Upload
from eyrie.objects.xml import Element, element


class _Writer:
    """Writes keys as the request's encoding-type asks. Raises ApiError (InvalidArgument) for an unknown one."""

    def __init__(self, call: Call) -> None:
        self.encoding = call.query.get("encoding-type") or None
        if self.encoding not in (None, "url"):
            raise invalid_argument("encoding-type", self.encoding or "", "Invalid Encoding Method specified in Request")

    def text(self, key: bytes) -> str:
        """A key, a prefix or a marker."""
        return quote(key, safe="/*-._~") if self.encoding else key.decode()

    def some(self, key: bytes) -> str | None:
        """The same, None for an empty one."""
        return self.text(key) if key else None


def _question(call: Call, after: bytes, limit_name: str = "max-keys") -> Question:
    limit = call.integer(limit_name, PAGE_MAX, 0, PAGE_MAX)
    prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter", "")
    return Question(call.bucket, prefix.encode(), delimiter.encode(), after, limit)


async def list_objects_v1(call: Call) -> Response:
    """GET /BUCKET."""
    call.owned_bucket()
    writer, marker = _Writer(call), call.query.get("marker", "").encode()
    question = _question(call, marker)
    page = list_objects(call.store.index.db, question)
    result = element(
        "ListBucketResult", Name=call.bucket, Prefix=writer.text(question.prefix), Marker=writer.text(marker)
    )
    if page.truncated and question.delimiter:
        result.add("NextMarker", writer.text(page.last))
    _add_frame(result, question, page, writer)
    _add_entries(result, page, writer, owner(call.identity.account))
    return xml_reply(result)


async def list_objects_v2(call: Call) -> Response:
    """GET /BUCKET?list-type=2."""
    call.owned_bucket()
    writer = _Writer(call)
    token, start_after = call.query.get("continuation-token"), call.query.get("start-after", "").encode()
    if call.query.get("list-type") != "2":
        raise invalid_argument("list-type", call.query.get("list-type", ""), "Invalid List Type specified in Request")
    question = _question(call, start_after if token is None else _after(token))
    page = list_objects(call.store.index.db, question)
    result = element("ListBucketResult", Name=call.bucket, Prefix=writer.text(question.prefix))
    _add_frame(result, question, page, writer)
    result.add("KeyCount", len(page.objects) + len(page.prefixes))
    result.add("StartAfter", writer.some(start_after))
    result.add("ContinuationToken", token)
    if page.truncated:
        result.add("NextContinuationToken", _token(page.last))
    shown = owner(call.identity.account) if call.query.get("fetch-owner", "").lower() == "true" else None
    _add_entries(result, page, writer, shown)
    return xml_reply(result)


async def list_versions(call: Call) -> Response:
    """GET /BUCKET?versions: no bucket keeps versions, so each object is its only one, "null"."""
    call.owned_bucket()
    writer, marker = _Writer(call), call.query.get("key-marker", "").encode()
    question = _question(call, marker)
    page = list_objects(call.store.index.db, question)
    result = element(
        "ListVersionsResult",
        Name=call.bucket,
        Prefix=writer.text(question.prefix),
        KeyMarker=writer.text(marker),
        VersionIdMarker="",
    )
    if page.truncated:
        result.add("NextKeyMarker", writer.text(page.last))
        result.add("NextVersionIdMarker", "null")
    _add_frame(result, question, page, writer)
    for found in page.objects:
        entry = _entry("Version", found, writer, owner(call.identity.account))
        entry.children[1:1] = element("", VersionId="null", IsLatest=True).children
        result.add("Version", entry)
    _add_prefixes(result, page.prefixes, writer)
    return xml_reply(result)


def _after(token: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(token.encode("ascii"))
    except (binascii.Error, ValueError):
        raise invalid_argument("continuation-token", token, "The continuation token provided is incorrect") from None


def _token(last: bytes) -> str:
    return base64.urlsafe_b64encode(last).decode()


def _add_frame(result: Element, question: Question, page: Page, writer: _Writer) -> None:
    result.add("MaxKeys", question.limit)
    result.add("Delimiter", writer.some(question.delimiter))
    result.add("EncodingType", writer.encoding)
    result.add("IsTruncated", page.truncated)


def _add_entries(result: Element, page: Page, writer: _Writer, shown_owner: Element | None) -> None:
    for found in page.objects:
        result.add("Contents", _entry("Contents", found, writer, shown_owner))
    _add_prefixes(result, page.prefixes, writer)


def _entry(name: str, found: StoredObject, writer: _Writer, shown_owner: Element | None) -> Element:
    entry = element(name, Key=writer.text(found.key), LastModified=iso_date(found.modified_ms), ETag=f'"{found.etag}"')
    for algorithm in found.details.checksums:
        entry.add("ChecksumAlgorithm", algorithm)
    entry.add("ChecksumType", found.details.checksum_type or None)
    entry.add("Size", found.size)
    entry.add("Owner", shown_owner)
    entry.add("StorageClass", "STANDARD")
    return entry


def _add_prefixes(result: Element, prefixes: list[bytes], writer: _Writer) -> None:
    for prefix in prefixes:
        result.add("CommonPrefixes", element("CommonPrefixes", Prefix=writer.text(prefix)))


async def list_multipart_uploads(call: Call) -> Response:
    """GET /BUCKET?uploads."""
    call.owned_bucket()
    writer = _Writer(call)
    key_marker, id_marker = call.query.get("key-marker", "").encode(), call.query.get("upload-id-marker", "")
    question = _question(call, key_marker, "max-uploads")
    page = list_uploads(call.store.index.db, question, id_marker)
    result = element(
        "ListMultipartUploadsResult",
        Bucket=call.bucket,
        KeyMarker=writer.text(key_marker),
        UploadIdMarker=id_marker if key_marker else "",
        NextKeyMarker=writer.text(page.last_key) if page.truncated else None,
        NextUploadIdMarker=page.last_id if page.truncated else None,
        Prefix=writer.text(question.prefix),
        Delimiter=writer.some(question.delimiter),
        EncodingType=writer.encoding,
        MaxUploads=question.limit,
        IsTruncated=page.truncated,
    )
    for upload in page.uploads:
        result.add("Upload", _upload_entry(upload, writer))
    _add_prefixes(result, page.prefixes, writer)
    return xml_reply(result)


def _upload_entry(upload: Upload, writer: _Writer) -> Element:
    return element(
        "Upload",
        Key=writer.text(upload.key),
        UploadId=upload.upload_id,
        Initiator=owner(upload.account, "Initiator"),
        Owner=owner(upload.account),
        StorageClass="STANDARD",
        Initiated=iso_date(upload.started_ms),
        ChecksumAlgorithm=upload.details.checksum_algorithm or None,
        ChecksumType=upload.details.checksum_type or None,
    )
