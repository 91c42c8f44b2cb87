"""An asynchronous S3 client over the objects process's Unix socket: objects in pieces, in constant memory both ways.

Dispatch reads inputs and stores results with it; `s3_client` is the synchronous one. Signed with a key of the account
whose request it is, so that an account reaches its own buckets only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.adapters.artifacts import signing_key
from eyrie.adapters.s3_client import S3Refused, S3Unavailable, failure_of
from eyrie.domain.names import Scope
from eyrie.http1.client import Broken, Exchange
from eyrie.http1.upstream import Pool

_DOCUMENT_BYTES_MAX = 65_536


class _Unsigned(S3SigV4Auth):  # type: ignore[misc]  # botocore is untyped
    """The payload is not part of the signature: it is not read twice, and the socket is ours."""

    def _should_sha256_sign_payload(self, request: AWSRequest) -> bool:
        return False


class Keyring:
    """Credentials by account, for requests of Eyrie's own to its other processes."""

    def __init__(self, keys: Path | None) -> None:
        """`keys`: credentials.json; None while nothing is verified."""
        self._keys = keys
        self._known: dict[Scope, Credentials] = {}

    def of(self, scope: Scope) -> Credentials:
        """A key of the account. Raises ArtifactError where it has none."""
        found = self._known.get(scope)
        if found is None:
            key = signing_key(self._keys, scope)
            found = Credentials(key.access_key_id, key.secret_access_key, key.session_token)
            self._known[scope] = found
        return found

    def signed(self, scope: Scope, service: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """The head of a signed POST to `/`."""
        given = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
        request = AWSRequest("POST", "http://localhost/", headers=given, data=body)
        SigV4Auth(self.of(scope), service, scope.region).add_auth(request)
        return _head("POST", "/", dict(request.headers.items()))


@dataclass(frozen=True, slots=True)
class Reading:
    """An object being read. `close` at the end, whatever happened."""

    size: int
    content_type: str
    exchange: Exchange

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes. Raises S3Unavailable where they end early."""
        try:
            async for piece in self.exchange.pieces():
                yield piece
        except Broken as error:
            raise S3Unavailable(f"the S3 API broke off: {error}") from None

    def close(self) -> None:
        """Read no further."""
        self.exchange.cancel()


class S3Stream:
    """Reads and stores objects; made on an event loop."""

    def __init__(self, pool: Pool, keyring: Keyring) -> None:
        self._pool, self._keyring = pool, keyring

    async def get(self, scope: Scope, bucket: str, key: str) -> Reading:
        """Begin to read an object. Raises S3Refused, S3Unavailable; ArtifactError for an account without a key."""
        exchange = Exchange(self._pool)
        target = _target(bucket, key)
        status = await _ask(exchange, self._signed(scope, "GET", target, {}))
        if status != 200:
            raise await _failure(exchange, status)
        length = exchange.headers.get(b"content-length", b"")
        if not length.isdigit():
            exchange.cancel()
            raise S3Unavailable("a reply without a length")
        kind = exchange.headers.get(b"content-type", b"").decode("latin-1")
        return Reading(int(length), kind, exchange)

    async def put(
        self, scope: Scope, bucket: str, key: str, content_type: str, size: int, body: bytes | AsyncIterator[bytes]
    ) -> None:
        """Store an object of `size` bytes: it is there whole or not at all. Raises S3Refused, S3Unavailable, and what
        `body` raises.
        """
        exchange = Exchange(self._pool)
        headers = {"Content-Length": str(size)}
        if content_type:
            headers["Content-Type"] = content_type
        head = self._signed(scope, "PUT", _target(bucket, key), headers)
        try:
            if isinstance(body, bytes):
                status = await _ask(exchange, head, body)
            else:
                status = await _ask(exchange, head, pieces=body)
            if status != 200:
                raise await _failure(exchange, status)
            await exchange.read(_DOCUMENT_BYTES_MAX)
        except Broken as error:
            raise S3Unavailable(f"the S3 API broke off: {error}") from None
        finally:
            exchange.cancel()

    def _signed(self, scope: Scope, method: str, target: str, headers: dict[str, str]) -> bytes:
        request = AWSRequest(method, f"http://localhost{target}", headers={"Host": "localhost", **headers})
        _Unsigned(self._keyring.of(scope), "s3", scope.region).add_auth(request)
        return _head(method, target, dict(request.headers.items()))


def _target(bucket: str, key: str) -> str:
    return f"/{bucket}/{quote(key, safe='/-_.~')}"


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace")


async def _ask(exchange: Exchange, head: bytes, body: bytes = b"", pieces: AsyncIterator[bytes] | None = None) -> int:
    try:
        return await exchange.ask(head, body, pieces)
    except Broken as error:
        raise S3Unavailable(f"the S3 API did not answer: {error}") from None
    except BaseException:
        exchange.cancel()
        raise


async def _failure(exchange: Exchange, status: int) -> Exception:
    try:
        body, _ = await exchange.read(_DOCUMENT_BYTES_MAX)
    except Broken:
        body = b""
    finally:
        exchange.cancel()
    return failure_of(status, body)


__all__ = ["Keyring", "Reading", "S3Refused", "S3Stream", "S3Unavailable"]
