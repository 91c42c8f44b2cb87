"""HTTP to one worker of an instance over its Unix socket, and many small requests in one message.

`POST /eyrie/batch` of our own model server takes requests one after the other, each with its length before it, and
answers all of them so: the model is called with many at once, in process, and says what it would have said to each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

from eyrie.adapters.unix_http import UnixConnection

BATCH = "/eyrie/batch"
REPLY_BYTES_MAX = 512 << 20  # of a request: an answer may be larger than what was asked
_SIZE = struct.Struct("<I")
_HEAD = struct.Struct("<HI")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    body: bytes


class ReplyTooLong(Exception):
    """An answer that is longer than any may be."""


class Wire:
    """One connection, kept while it works; used by one thread."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.path = path
        self._connection = UnixConnection(path, timeout_s)

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """A request and its whole answer. Raises OSError, http.client.HTTPException, ReplyTooLong."""
        try:
            self._connection.request(method, target, body=body, headers=dict(headers or {}))
            with self._connection.getresponse() as response:
                return Reply(response.status, _whole(response))
        except BaseException:
            self.close()
            raise

    def batch(self, bodies: Sequence[bytes], headers: Mapping[str, str]) -> list[Reply]:
        """Many requests at once. Raises OSError, http.client.HTTPException, ReplyTooLong."""
        body = b"".join(part for one in bodies for part in (_SIZE.pack(len(one)), one))
        reply = self.ask("POST", BATCH, body, headers)
        if reply.status != 200:
            return [reply] * len(bodies)
        return list(_taken_apart(reply.body))

    @contextmanager
    def stream(self, pieces: Iterator[bytes], headers: Mapping[str, str]) -> Iterator[HTTPResponse]:
        """A request of any length, in chunks, and its answer. Raises OSError, http.client.HTTPException."""
        try:
            told = {**headers, "Transfer-Encoding": "chunked"}
            self._connection.request("POST", "/invocations", body=pieces, headers=told, encode_chunked=True)
            with self._connection.getresponse() as response:
                yield response
        finally:
            self.close()

    def close(self) -> None:
        """Let the connection go; the next request makes another."""
        self._connection.close()


def socket_of(first: str, worker: int) -> Path:
    """A worker's socket, by that of its instance's first worker."""
    return Path(f"{first}.{worker}" if worker else first)


def _whole(response: HTTPResponse) -> bytes:
    body = response.read(REPLY_BYTES_MAX + 1) if response.length is None else response.read()
    if len(body) > REPLY_BYTES_MAX:
        raise ReplyTooLong
    return body


def _taken_apart(body: bytes) -> Iterator[Reply]:
    at = 0
    while at < len(body):
        status, size = _HEAD.unpack_from(body, at)
        at += _HEAD.size
        yield Reply(status, body[at : at + size])
        at += size
