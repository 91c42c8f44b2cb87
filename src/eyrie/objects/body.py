"""A request's body on its way in: decoded, bounded, and checked against all that the request claims about it.

`Body` is an async iterator of the object's bytes. It raises at its end when a digest, a signature or the length does
not hold, so whatever stores it on the way (`ObjectStore.receive`) stores nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from eyrie.objects import checksums
from eyrie.objects.call import Call
from eyrie.objects.checksums import Digests
from eyrie.objects.errors import refuse
from eyrie.objects.xml import Element, parse
from eyrie.wire.auth import STREAMING, UNSIGNED
from eyrie.wire.chunked import ChunkedBody

PUT_BYTES_MAX = 5 << 30  # one PUT or one part
DOCUMENT_BYTES_MAX = 4 << 20  # 10,000 parts with a checksum each are some 2 MB


class Body:
    """The bytes of one request. `digests` and `claimed` are complete when the iteration has ended."""

    def __init__(self, call: Call, limit: int = PUT_BYTES_MAX, also: Iterable[str] = ()) -> None:
        """`also`: checksums wanted besides those that the request claims.

        Raises ApiError for what the head already forbids.
        """
        self._call = call
        self._payload = call.claim.payload
        self._md5 = checksums.content_md5(call.header("content-md5"))
        self.claimed = checksums.claimed(call.headers)
        self._trailers = _trailer_algorithms(call) if self._is_chunked else []
        self.size = self._announced(limit)
        self._algorithms = {*self.claimed, *self._trailers, *also, *_wanted(call)}
        self.digests = Digests(self._algorithms)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._checked()

    async def whole(self) -> bytes:
        """All of it at once; for documents."""
        return b"".join([chunk async for chunk in self])

    @property
    def checksum(self) -> dict[str, str]:
        """The checksums to keep with the object: what was claimed or wanted, and now computed."""
        return self.digests.checksums()

    @property
    def _is_chunked(self) -> bool:
        return self._payload in STREAMING

    def _announced(self, limit: int) -> int:
        """How many bytes the head announces."""
        size = self._call.request.content_length
        if self._is_chunked:
            text = self._call.header("x-amz-decoded-content-length") or ""
            size = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
        if size is None:
            raise refuse("MissingContentLength")
        if size > limit:
            raise refuse("EntityTooLarge", ProposedSize=size, MaxSizeAllowed=limit)
        return size

    async def _checked(self) -> AsyncGenerator[bytes, None]:
        digests = self.digests
        sha256 = hashlib.sha256() if self._declares_sha256 else None
        async for chunk in self._decoded():
            if digests.size + len(chunk) > self.size:
                raise refuse("IncompleteBody")
            digests.update(chunk)
            if sha256 is not None:
                sha256.update(chunk)
            yield chunk
        if digests.size != self.size:
            raise refuse("IncompleteBody")
        if sha256 is not None and not hmac.compare_digest(sha256.hexdigest().encode(), self._payload.lower()):
            raise refuse("XAmzContentSHA256Mismatch", S3ComputedContentSHA256=sha256.hexdigest())
        self._check_digests()

    @property
    def _declares_sha256(self) -> bool:
        return bool(self._payload) and self._payload != UNSIGNED and not self._is_chunked

    async def _decoded(self) -> AsyncGenerator[bytes, None]:
        raw = self._call.request.stream()
        if not self._is_chunked:
            async for piece in raw:
                yield piece
            return
        decoder = ChunkedBody(self._call.claim)
        async for piece in raw:
            for chunk in decoder.feed(piece):
                yield chunk
        trailers = decoder.finish()
        self._claim_trailers({name.decode("latin-1"): value.decode("latin-1") for name, value in trailers.items()})

    def _claim_trailers(self, trailers: dict[str, str]) -> None:
        found = checksums.claimed(trailers)
        if set(self._trailers) - found.keys():
            raise refuse("InvalidRequest", "The trailer that x-amz-trailer announces is missing.")
        self.claimed = {**self.claimed, **{name: found[name] for name in self._trailers}}

    def _check_digests(self) -> None:
        digests = self.digests
        if self._md5 is not None and not hmac.compare_digest(self._md5, digests.md5):
            raise refuse("BadDigest", "The Content-MD5 you specified did not match what we received.")
        for algorithm, value in self.claimed.items():
            if not hmac.compare_digest(value, digests.checksum(algorithm)):
                raise refuse("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")


async def read_document(call: Call, root: str, *, optional: bool = False) -> Element | None:
    """The XML document in a request's body, None where there is none and none is needed. Raises ApiError."""
    body = await Body(call, DOCUMENT_BYTES_MAX).whole()
    if not body and optional:
        return None
    return parse(body, root)


def _trailer_algorithms(call: Call) -> list[str]:
    names = [name.strip().lower() for name in (call.header("x-amz-trailer") or "").split(",")]
    return [algorithm for name in names if (algorithm := checksums.algorithm_of_header(name)) is not None]


def _wanted(call: Call) -> list[str]:
    """The checksum that the client asks for by name alone (a client that has no means to compute it)."""
    named = call.header("x-amz-sdk-checksum-algorithm") or call.header("x-amz-checksum-algorithm")
    return [checksums.known(named)] if named else []
