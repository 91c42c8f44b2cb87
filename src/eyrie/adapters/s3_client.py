"""A small synchronous S3 client over the objects process's Unix socket: get and list, signed.

`artifacts` reads models with it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_TIMEOUT_S = 60.0
_DOCUMENT_BYTES_MAX = 8 << 20
_UNIX_PATH_MAX = 100
OK, NOT_MODIFIED = 200, 304


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


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket; a path longer than the kernel takes goes by way of its folder's descriptor."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        if len(os.fsencode(self._path)) <= _UNIX_PATH_MAX:
            self.sock.connect(str(self._path))
            return
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


class S3Client:
    """One connection, used by one thread; a context manager."""

    def __init__(self, path: Path, key: SigningKey, region: str) -> None:
        self._connection = _UnixConnection(path)
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
            raise _failure(response.status, body)

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
        if response.status in (200, NOT_MODIFIED):
            return response
        with response:
            body = response.read(_DOCUMENT_BYTES_MAX)
        raise _failure(response.status, body)


def _failure(status: int, body: bytes) -> Exception:
    try:
        root = ElementTree.fromstring(body)
        code, message = root.findtext("Code", ""), root.findtext("Message", "")
    except ElementTree.ParseError:
        code, message = "", ""
    if status >= 500 or not code:
        return S3Unavailable(f"the S3 API answered {status} {code} {message}".rstrip())
    return S3Refused(code, message)
