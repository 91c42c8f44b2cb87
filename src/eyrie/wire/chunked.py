"""The aws-chunked body of S3 uploads, decoded and verified as it streams by: chunk signatures, and the trailer with
its own.

The body of a PUT whose claim's payload is one of `auth.STREAMING`. What is decoded is handed on at once and judged at
each chunk's end, so memory stays constant; whoever stores it must store nothing when `feed` or `finish` raises.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum

from eyrie.wire.auth import Claim
from eyrie.wire.auth_errors import Fault, auth_error
from eyrie.wire.errors import ApiError

LINE_BYTES_MAX = 1024
TRAILER_BYTES_MAX = 8192
_SIZE_DIGITS_MAX = 12
_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")
_EMPTY_HASH = hashlib.sha256(b"").hexdigest().encode()
_SIGNATURE_NAME = b"x-amz-trailer-signature"


class _At(Enum):
    SIZE = "size"
    DATA = "data"
    DATA_END = "data end"
    TRAILER = "trailer"
    DONE = "done"


class ChunkedBody:
    """One aws-chunked body. Feed it bytes as they come; `finish` at the end gives the trailer."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._signed = claim.payload.startswith(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD") and not claim.trusted
        self._has_trailer = claim.payload.endswith(b"-TRAILER")
        self._previous = claim.signature
        self._at = _At.SIZE
        self._line = bytearray()  # of a size or of the trailer, not yet complete
        self._left = 0  # bytes still to come of the chunk's data, or of its line end
        self._hash = hashlib.sha256()
        self._expected = b""
        self._trailer: dict[bytes, bytes] = {}
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The decoded pieces that `data` brings. Raises ApiError for a malformed body or a wrong signature."""
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            if self._at is _At.DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                self._take(piece, pieces)
            elif self._at is _At.DATA_END:
                at = self._skip_line_end(data, at)
            elif self._at is _At.DONE:
                raise _malformed("Bytes after the last chunk")
            else:
                at = self._read_line(data, at)
        return pieces

    def finish(self) -> dict[bytes, bytes]:
        """The trailer (names lower case), after the last byte was fed. Raises ApiError for a body that ended early."""
        if self._at is not _At.DONE:
            raise ApiError("IncompleteBody", "The request body terminated unexpectedly.")
        return self._trailer

    def _take(self, piece: bytes, pieces: list[bytes]) -> None:
        self._left -= len(piece)
        if self._signed:
            self._hash.update(piece)
        pieces.append(piece)
        if not self._left:
            self._check_chunk()
            self._at, self._left = _At.DATA_END, 2

    def _skip_line_end(self, data: bytes, at: int) -> int:
        if data[at] != (b"\r" if self._left == 2 else b"\n")[0]:
            raise _malformed("A chunk is longer than its size")
        self._left -= 1
        if not self._left:
            self._at = _At.SIZE
        return at + 1

    def _read_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end
        if len(self._line) + stop - at > LINE_BYTES_MAX:
            raise _malformed("A chunk header is too long")
        self._line += data[at:stop]
        if end < 0:
            return stop
        line = bytes(self._line)
        self._line.clear()
        if self._at is _At.SIZE:
            self._start_chunk(line)
        else:
            self._take_trailer(line)
        return end + 1

    def _start_chunk(self, line: bytes) -> None:
        if not line.endswith(b"\r"):
            raise _malformed("A chunk header does not end with CR LF")
        size, _, extension = line[:-1].partition(b";")
        if not size or len(size) > _SIZE_DIGITS_MAX or not _HEX_DIGITS.issuperset(size):
            raise _malformed("A chunk size is not a hexadecimal number")
        if self._signed:
            name, _, signature = extension.partition(b"=")
            if name != b"chunk-signature":
                raise _malformed("A chunk has no signature")
            self._expected = signature
            self._hash = hashlib.sha256()
        self._left = int(size, 16)
        if self._left:
            self._at = _At.DATA
            return
        self._check_chunk()
        self._at = _At.TRAILER

    def _check_chunk(self) -> None:
        if self._signed:
            digests = _EMPTY_HASH + b"\n" + self._hash.hexdigest().encode()
            self._check_signature(b"PAYLOAD", digests, self._expected)

    def _check_signature(self, kind: bytes, digests: bytes, given: bytes) -> None:
        expected = self._claim.chunk_signature(self._previous, kind, digests)
        if not hmac.compare_digest(expected, given):
            raise auth_error(Fault.MISMATCH, "s3")
        self._previous = given

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > TRAILER_BYTES_MAX:
            raise _malformed("The trailer is too long")
        line = line.removesuffix(b"\r")
        if line:
            name, colon, value = line.partition(b":")
            if not colon or not self._has_trailer:
                raise _malformed("The trailer is malformed or was not announced")
            self._trailer[name.lower()] = value.strip(b" \t")
            return
        signature = self._trailer.pop(_SIGNATURE_NAME, b"")
        if self._signed and self._has_trailer:
            lines = b"".join(name + b":" + value + b"\n" for name, value in self._trailer.items())
            self._check_signature(b"TRAILER", hashlib.sha256(lines).hexdigest().encode(), signature)
        self._at = _At.DONE


def _malformed(what: str) -> ApiError:
    return ApiError("InvalidRequest", f"The aws-chunked body is malformed: {what}.")
