"""One S3 request from its head to its reply: verify, find the handler by method and subresource, answer errors in S3's
XML.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from urllib.parse import unquote_plus

from eyrie.http1.handlers import BodyTooLarge, ClientGone, Request, Response
from eyrie.objects import api_buckets, api_copy, api_listing, api_multipart, api_objects, api_settings, api_tagging
from eyrie.objects.api_settings import BUCKET_SETTINGS, OBJECT_SETTINGS, Handler
from eyrie.objects.call import Call
from eyrie.objects.errors import refuse
from eyrie.objects.names import place
from eyrie.objects.store import ObjectStore
from eyrie.objects.xml import Element, document
from eyrie.wire.auth import Verifier
from eyrie.wire.errors import ApiError

log = logging.getLogger(__name__)

# (method, subresource) -> handler. The subresource is a name in the query that turns a request into another one.
_BUCKET: Mapping[tuple[str, str], Handler] = {
    **api_settings.bucket_settings(),
    ("PUT", ""): api_buckets.create_bucket,
    ("HEAD", ""): api_buckets.head_bucket,
    ("DELETE", ""): api_buckets.delete_bucket,
    ("GET", ""): api_listing.list_objects_v1,
    ("GET", "list-type"): api_listing.list_objects_v2,
    ("GET", "versions"): api_listing.list_versions,
    ("GET", "uploads"): api_listing.list_multipart_uploads,
    ("GET", "location"): api_buckets.get_bucket_location,
    ("GET", "tagging"): api_buckets.get_bucket_tagging,
    ("PUT", "tagging"): api_buckets.put_bucket_tagging,
    ("DELETE", "tagging"): api_buckets.delete_bucket_tagging,
    ("POST", "delete"): api_objects.delete_objects,
}
_OBJECT: Mapping[tuple[str, str], Handler] = {
    ("PUT", ""): api_objects.put_object,
    ("GET", ""): api_objects.get_object,
    ("HEAD", ""): api_objects.head_object,
    ("DELETE", ""): api_objects.delete_object,
    ("GET", "acl"): api_settings.get_object_acl,
    ("PUT", "acl"): api_settings.put_acl,
    ("GET", "attributes"): api_settings.get_object_attributes,
    ("GET", "tagging"): api_tagging.get_object_tagging,
    ("PUT", "tagging"): api_tagging.put_object_tagging,
    ("DELETE", "tagging"): api_tagging.delete_object_tagging,
    ("POST", "uploads"): api_multipart.create_upload,
    ("PUT", "uploadId"): api_multipart.upload_part,
    ("POST", "uploadId"): api_multipart.complete_upload,
    ("DELETE", "uploadId"): api_multipart.abort_upload,
    ("GET", "uploadId"): api_multipart.list_parts,
}
_BUCKET_SUBRESOURCES = BUCKET_SETTINGS | {"list-type", "versions", "uploads", "location", "tagging", "delete"}
_OBJECT_SUBRESOURCES = OBJECT_SETTINGS | {"tagging", "uploads", "uploadId"}
_COPIES: Mapping[Handler, Handler] = {
    api_objects.put_object: api_copy.copy_object,
    api_multipart.upload_part: api_multipart.upload_part_copy,
}
_QUERY_FIELDS_MAX = 64


class Router:
    """The handler of the objects process."""

    def __init__(self, store: ObjectStore, verifier: Verifier, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._verifier = verifier
        self._now_ms = now_ms

    async def __call__(self, request: Request) -> Response:
        """Answer one request; every refusal of ours is S3's XML, also to what went wrong here."""
        request_id = request.request_id.replace("-", "")[:16].upper()
        try:
            call = self._call(request, request_id)
            response = await _handler(call)(call)
        except ApiError as error:
            response = _refusal(error, request, request_id)
        except BodyTooLarge as error:
            response = _refusal(refuse("EntityTooLarge", MaxSizeAllowed=error.limit), request, request_id)
        except (
            OSError,
            sqlite3.OperationalError,
        ):  # the disk is full, or the blob store away: the client may come back
            log.exception("request %s failed: %r %r", request_id, request.method, request.path)
            response = _refusal(refuse("ServiceUnavailable"), request, request_id)
        except ClientGone:
            raise
        except Exception:  # the boundary of a request: a mistake of ours costs nobody else anything
            log.exception("request %s failed: %r %r", request_id, request.method, request.path)
            response = _refusal(refuse("InternalError"), request, request_id)
        response.headers += [(b"x-amz-request-id", request_id.encode()), (b"x-amz-id-2", request_id.encode() * 2)]
        return response

    def _call(self, request: Request, request_id: str) -> Call:
        """The request, its head verified. Raises ApiError."""
        now_ms = self._now_ms()
        headers = dict(_fields(request))
        claim = self._verifier.check_head(request.method, request.path, request.query, headers, "s3", now_ms)
        if not claim.trusted:
            claim.check_signature()
        text = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        bucket, key = place(text.get("host", ""), request.path.decode("latin-1"))
        query = _query(request.query.decode("latin-1"))
        return Call(request, self._store, claim, bucket, key, query, text, request_id, now_ms)


def _fields(request: Request) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in request.headers}
    return [(name, request.header(name) or b"") for name in names]


def _query(text: str) -> dict[str, str]:
    """The query's parameters, the first of each name. Raises ApiError (InvalidURI)."""
    pairs = [pair for pair in text.split("&") if pair]
    if len(pairs) > _QUERY_FIELDS_MAX:
        raise refuse("InvalidURI", "Too many parameters.")
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found.setdefault(unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict"))
        except UnicodeDecodeError:
            raise refuse("InvalidURI", "The query is not UTF-8.") from None
    return found


def _handler(call: Call) -> Handler:
    """Who answers. Raises ApiError (MethodNotAllowed, NotImplemented)."""
    if not call.bucket:
        if call.method == "GET" and not call.key:
            return api_buckets.list_buckets
        raise refuse("MethodNotAllowed", Method=call.method)
    table, names = (_OBJECT, _OBJECT_SUBRESOURCES) if call.key else (_BUCKET, _BUCKET_SUBRESOURCES)
    subresource = next((name for name in call.query if name in names), "")
    handler = table.get((call.method, subresource))
    if handler is None:
        if subresource:
            return api_settings.not_implemented
        raise refuse("MethodNotAllowed", Method=call.method, ResourceType="OBJECT" if call.key else "BUCKET")
    if call.header("x-amz-copy-source") is not None:
        return _COPIES.get(handler, handler)
    return handler


def _refusal(error: ApiError, request: Request, request_id: str) -> Response:
    """An error as S3 writes it."""
    root = Element("Error")
    root.add("Code", error.code)
    root.add("Message", error.message)
    for name, value in error.fields.items():
        root.add(name, value)
    if request.method != b"HEAD":
        root.add("Resource", request.path.decode("latin-1"))
    root.add("RequestId", request_id)
    root.add("HostId", request_id * 2)
    headers = [(b"content-type", b"application/xml")]
    if error.code == "InvalidRange":
        headers.append((b"content-range", b"bytes */%d" % int(error.fields["ActualObjectSize"])))
    if request.method == b"HEAD":
        return Response(error.status, headers)
    return Response(error.status, headers, document(root, namespace=""))
