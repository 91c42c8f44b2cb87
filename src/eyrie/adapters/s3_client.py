"""A small synchronous S3 client over the objects process's Unix socket, or over the one port from another machine,
signed: objects whole, in ranges, in parts and in lists.

`artifacts` reads models with it, a transform's run reads and writes objects of any size.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.adapters.unix_http import UnixConnection

_TIMEOUT_S = 60.0  # of the one port
_DOCUMENT_BYTES_MAX = 8 << 20
T = TypeVar("T")
OK, PARTIAL, NO_CONTENT, NOT_MODIFIED = 200, 206, 204, 304
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class S3Refused(Exception):
    """The server refused for good: `code` is S3's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class S3Unavailable(ConnectionError):
    """The server could not be reached or failed; trying again may help."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An access key."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


class PortConnection(HTTPConnection):
    """HTTP to a host and port; requests say `localhost`, as they are signed for."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._place = (host, port)

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock = socket.create_connection(self._place, _TIMEOUT_S)


class S3Client:
    """One connection, used by one thread; a context manager."""

    def __init__(self, place: Path | str, key: SigningKey, region: str) -> None:
        """`place`: the Unix socket, or http://HOST:PORT."""
        self._connection = _connection(place)
        credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token)
        self._auth = S3SigV4Auth(credentials, "s3", region)

    def __enter__(self) -> S3Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @contextmanager
    def get(self, bucket: str, key: str) -> Iterator[tuple[int, IO[bytes]]]:
        """An object: its size in bytes and its stream. Raises S3Refused, S3Unavailable."""
        response = self._ask(f"/{bucket}/{quote(key, safe='/-_.~')}")
        try:
            if response.length is None:
                raise S3Unavailable("a reply without a length")
            yield response.length, response
        finally:
            response.close()
            self._connection.close()  # what is left unread must not be taken for the next reply

    @contextmanager
    def get_newer(self, bucket: str, key: str, etag: str | None) -> Iterator[tuple[int, str, IO[bytes]] | None]:
        """An object unless it still has this ETag: its size in bytes, its ETag and its stream; None: it has.

        Raises S3Refused, S3Unavailable.
        """
        headers = {"If-None-Match": etag} if etag else {}
        response = self._ask(f"/{bucket}/{quote(key, safe='/-_.~')}", headers)
        try:
            if response.status == NOT_MODIFIED:
                yield None
                return
            if response.length is None:
                raise S3Unavailable("a reply without a length")
            yield response.length, response.getheader("ETag") or "", response
        finally:
            response.close()
            self._connection.close()

    def put(self, bucket: str, key: str, file: IO[bytes], size: int) -> None:
        """Store an object from a file of `size` bytes, read twice: for the signature first. Raises S3Refused,
        S3Unavailable.
        """
        target = f"/{bucket}/{quote(key, safe='/-_.~')}"
        headers = {"Content-Length": str(size)}
        request = AWSRequest("PUT", "http://localhost" + target, headers=headers, data=file)
        self._auth.add_auth(request)
        try:
            self._connection.request("PUT", target, body=file, headers=dict(request.headers.items()))
            response = self._connection.getresponse()
        except (HTTPException, OSError) as error:
            self._connection.close()
            raise S3Unavailable(f"the S3 API did not answer: {error}") from error
        with response:
            body = response.read(_DOCUMENT_BYTES_MAX)
        if response.status != OK:
            raise failure_of(response.status, body)

    @contextmanager
    def get_from(self, bucket: str, key: str, start: int, etag: str) -> Iterator[IO[bytes]]:
        """An object from a byte on, which is before its end, if it still has this ETag. Raises S3Refused (code
        PreconditionFailed where it was replaced), S3Unavailable.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        headers |= {"If-Match": etag} if etag else {}
        response = self._ask(target(bucket, key), headers)
        try:
            yield response
        finally:
            response.close()
            self._connection.close()

    def get_range(self, bucket: str, key: str, start: int, end: int, etag: str) -> bytes:
        """The bytes of an object from `start` to before `end`. Raises S3Refused, S3Unavailable."""
        headers = {"Range": f"bytes={start}-{end - 1}"} | ({"If-Match": etag} if etag else {})
        with self._ask(target(bucket, key), headers) as response:
            return response.read(end - start)

    def objects(self, bucket: str, prefix: str) -> Iterator[tuple[str, int, str]]:
        """Key, size and ETag of every object below a prefix, in order. Raises S3Refused, S3Unavailable."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        while True:
            page = ElementTree.fromstring(self.listing(bucket, query))
            for entry in page.iter(_NAMESPACE + "Contents"):
                key, size = unquote(entry.findtext(_NAMESPACE + "Key", "")), entry.findtext(_NAMESPACE + "Size", "0")
                yield key, int(size), entry.findtext(_NAMESPACE + "ETag", "")
            token = page.findtext(_NAMESPACE + "NextContinuationToken")
            if token is None:
                return
            query["continuation-token"] = token

    def head(self, bucket: str, key: str) -> tuple[int, str]:
        """Size and ETag of an object. Raises S3Refused (code 404), S3Unavailable."""
        return self._told("HEAD", target(bucket, key), _facts)

    def put_bytes(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        """Store an object. Raises S3Refused, S3Unavailable."""
        self._told("PUT", target(bucket, key), _nothing, body, {"Content-Type": content_type})

    def begin_upload(self, bucket: str, key: str, content_type: str) -> str:
        """Begin an object that comes in parts; the id of the upload. Raises S3Refused, S3Unavailable."""
        headers = {"Content-Type": content_type}
        return self._told("POST", target(bucket, key) + "?uploads=", _upload_id, b"", headers)

    def put_part(self, bucket: str, key: str, upload_id: str, number: int, body: bytes) -> str:
        """Store a part (numbers begin at 1); its ETag. Raises S3Refused, S3Unavailable."""
        query = urlencode({"partNumber": number, "uploadId": upload_id}, quote_via=quote, safe="-_.~")
        return self._told("PUT", f"{target(bucket, key)}?{query}", _etag, body)

    def complete_upload(self, bucket: str, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Make an object of its parts. Raises S3Refused (NoSuchUpload where that was done before), S3Unavailable."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        self._told("POST", f"{target(bucket, key)}?{urlencode({'uploadId': upload_id})}", _nothing, body)

    def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Forget an upload and its parts. Raises S3Refused, S3Unavailable."""
        self._told("DELETE", f"{target(bucket, key)}?{urlencode({'uploadId': upload_id})}", _nothing)

    def _told(
        self,
        method: str,
        where: str,
        read: Callable[[HTTPResponse, bytes], T],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """A request with a small reply; what `read` makes of it."""
        request = AWSRequest(method, "http://localhost" + where, headers=headers, data=body)
        self._auth.add_auth(request)
        try:
            self._connection.request(method, where, body=body, headers=dict(request.headers.items()))
            with self._connection.getresponse() as response:
                reply = response.read(_DOCUMENT_BYTES_MAX)
        except (HTTPException, OSError) as error:
            self._connection.close()
            raise S3Unavailable(f"the S3 API did not answer: {error}") from error
        if response.status not in (OK, NO_CONTENT):
            if method == "HEAD" and response.status < 500:
                raise S3Refused(str(response.status), f"there is no such object: {where}")
            raise failure_of(response.status, reply)
        return read(response, reply)

    def listing(self, bucket: str, query: Mapping[str, str]) -> bytes:
        """A page of ListObjectsV2, as XML. Raises S3Refused, S3Unavailable."""
        with self._ask(f"/{bucket}?{urlencode(query, quote_via=quote, safe='-_.~')}") as response:
            return response.read(_DOCUMENT_BYTES_MAX)

    def _ask(self, target: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
        request = AWSRequest("GET", "http://localhost" + target, headers=headers)
        self._auth.add_auth(request)
        try:
            self._connection.request("GET", target, headers=dict(request.headers.items()))
            response = self._connection.getresponse()
        except (HTTPException, OSError) as error:
            self._connection.close()
            raise S3Unavailable(f"the S3 API did not answer: {error}") from error
        if response.status in (OK, PARTIAL, NOT_MODIFIED):
            return response
        with response:
            body = response.read(_DOCUMENT_BYTES_MAX)
        raise failure_of(response.status, body)


def _connection(place: Path | str) -> HTTPConnection:
    if isinstance(place, Path):
        return UnixConnection(place)
    given = urlsplit(place)
    return PortConnection(given.hostname or "127.0.0.1", given.port or 80)


def target(bucket: str, key: str) -> str:
    """The path of an object."""
    return f"/{bucket}/{quote(key, safe='/-_.~')}"


def _facts(response: HTTPResponse, body: bytes) -> tuple[int, str]:
    return int(response.getheader("Content-Length") or 0), response.getheader("ETag") or ""


def _etag(response: HTTPResponse, body: bytes) -> str:
    return response.getheader("ETag") or ""


def _nothing(response: HTTPResponse, body: bytes) -> None:
    return None


def _upload_id(response: HTTPResponse, body: bytes) -> str:
    found = ElementTree.fromstring(body).findtext(_NAMESPACE + "UploadId", "")
    if not found:
        raise S3Unavailable("a reply without an upload id")
    return found


def failure_of(status: int, body: bytes) -> Exception:
    """S3Refused or S3Unavailable, by the status and the body of an error reply."""
    try:
        root = ElementTree.fromstring(body)
        code, message = root.findtext("Code", ""), root.findtext("Message", "")
    except ElementTree.ParseError:
        code, message = "", ""
    if status >= 500 or not code:
        return S3Unavailable(f"the S3 API answered {status} {code} {message}".rstrip())
    return S3Refused(code, message)
