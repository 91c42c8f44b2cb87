"""The HTTP/1 parsers without sockets: a connection on a transport that only notes what it is told to do.

For tests that feed the same bytes in many ways: whatever a stream of bytes means must not depend on how it was cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from eyrie.http1.limits import Limits
from eyrie.http1.server import Connection, Server
from eyrie.http1.sweep import Sweep
from eyrie.http1.upstream import Channel, Failure, Pool, ReplyHead


class NotedTransport(asyncio.Transport):
    """Takes everything at once and never sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.ended = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """The server has said all it will say."""
        self.ended = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        return 0


@dataclass
class Heard:
    """What an application heard of one request."""

    method: bytes
    target: bytes
    fields: dict[bytes, bytes]
    body: bytes = b""
    whole: bool = False


class Ear:
    """An application that answers every request with 200 once it is whole; targets under /s stream, under /raw
    unparsed, others collect."""

    def __init__(self, limit: int = 1_000_000, remember: bool = False) -> None:
        self.heard: list[Heard] = []
        self._limit = limit
        self._remember = remember

    def head(self, connection: Connection) -> None:
        fields = {name: value.rstrip(b" \t") for name, value in connection.fields.items()}
        connection.context = Heard(connection.method, connection.target, fields)
        self.heard.append(connection.context)
        if connection.target.startswith(b"/raw"):
            connection.context.body = connection.raw_head  # all that somebody else would get
            connection.stream(raw=True)
        elif connection.target.startswith(b"/s"):
            connection.stream()
        else:
            connection.collect(self._limit)

    def body(self, connection: Connection, data: bytes) -> None:
        connection.context.body = data
        self._over(connection)

    def data(self, connection: Connection, piece: bytes) -> None:
        connection.context.body += piece

    def end(self, connection: Connection) -> None:
        self._over(connection)

    def too_large(self, connection: Connection) -> None:
        connection.reply(413, b"", b"")

    def gone(self, connection: Connection) -> None:
        """Nothing to cancel."""

    def paused(self, connection: Connection) -> None:
        """Never: the transport takes everything."""

    def resumed(self, connection: Connection) -> None:
        """Never."""

    def _over(self, connection: Connection) -> None:
        connection.context.whole = True
        if self._remember:
            connection.remember()
        connection.reply(200, b"", b"ok\r\n")


@dataclass
class Meaning:
    """What a stream of bytes meant to the server: the whole requests, the statuses it answered, whether it closed."""

    requests: list[Heard] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    closed: bool = False


def meaning(pieces: Iterable[bytes], limits: Limits | None = None, remember: bool = False) -> Meaning:
    """Feed a server connection; needs a running event loop."""
    loop = asyncio.get_running_loop()
    ear = Ear(remember=remember)
    server = Server(ear, limits or Limits(), Sweep(loop))
    transport = NotedTransport()
    connection = Connection(server)
    connection.connection_made(transport)
    for piece in pieces:
        if piece and not transport.ended:
            connection.data_received(piece)
            server.outbox.flush()
    statuses = [int(line.split(b" ")[1]) for line in transport.sent.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    found = Meaning([heard for heard in ear.heard if heard.whole], [s for s in statuses if s >= 200], transport.ended)
    connection.connection_lost(None)
    return found


@dataclass
class Told:
    """What an upstream channel told its sink of one reply."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    failure: Failure | None = None
    kept: bool = False  # the connection went back to the pool
    channel: Channel | None = None

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        self.status, self.headers, self.body, self.whole = head.status, head.headers, body, True

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.headers = status, headers

    def reply_data(self, piece: bytes) -> None:
        self.body += piece

    def reply_end(self) -> None:
        self.whole = True

    def reply_failed(self, failure: Failure, began: bool) -> None:
        self.failure = failure

    def writable(self, writable: bool) -> None:
        """The request is nothing."""


def told(pieces: Iterable[bytes], eof: bool = True, pool: Pool | None = None) -> Told:
    """Feed an upstream channel that has asked one question; needs a running event loop."""
    loop = asyncio.get_running_loop()
    pool = pool or Pool(loop, "/nowhere")
    sink, transport = Told(), NotedTransport()
    channel = Channel(pool)
    channel.connection_made(transport)
    channel.begin(sink, b"GET / HTTP/1.1\r\n\r\n", b"", False, False, False, False)
    pool.outbox.flush()
    for piece in pieces:
        if piece and not transport.ended:
            channel.data_received(piece)
    sink.kept = channel in pool.idle and not transport.ended
    if eof:
        channel.connection_lost(None)
    return sink
