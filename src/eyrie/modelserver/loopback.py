"""Requests to a container of the user's own that shares the instance: HTTP/1.1 over the loopback.

On the path of a request: a stage of a `pipeline`, or a `Choice` -> here -> 127.0.0.1:PORT -> the replier. Whole answers
go on whole, others as they come and as fast as their client reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from eyrie.http1.replies import header_block
from eyrie.http1.server import Connection
from eyrie.http1.upstream import Channel, ConnectFailed, Failure, Pool, ReplyHead
from eyrie.modelserver.replier import TEXT_LINES, Fields, Replier, speaking

log = logging.getLogger("eyrie.container")

LOOPBACK = "127.0.0.1"
CONNECTIONS_MAX = 1024
PING_LINE_BYTES_MAX = 8_192
# What is between two neighbours, or said anew.
_NOT_SENT = frozenset(
    (b"host", b"content-length", b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"expect")
)
_NOT_ANSWERED = frozenset((b"content-length", b"connection", b"keep-alive", b"transfer-encoding", b"date", b"trailer"))


class LoopbackPool(Pool):
    """The connections to one port of the loopback."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        super().__init__(loop, f"{LOOPBACK}:{port}", channels_max=CONNECTIONS_MAX)
        self._port = port

    def _connect(self) -> Channel:
        if len(self.channels) >= self.channels_max:
            raise ConnectFailed(Failure.FULL)
        channel = Channel(self)
        self.channels.add(channel)
        task = self._loop.create_task(self._reach(channel))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return channel

    async def _reach(self, channel: Channel) -> None:
        try:
            await self._loop.create_connection(lambda: channel, LOOPBACK, self._port)
        except OSError as fault:
            channel.connection_lost(fault)


class LoopbackServable:
    """A container of the user's own, as one that answers invocations."""

    parallel = 1  # what it does at once is its own matter; it tells nobody here

    def __init__(self, hostname: str, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self._hostname = hostname
        self._pool = LoopbackPool(loop, port)

    @property
    def busy(self) -> bool:
        """Whether a request is in it."""
        return len(self._pool.channels) > len(self._pool.idle)

    def invoke(self, replier: Replier, body: bytes, fields: Fields) -> None:
        """Send a request to it."""
        lines = [(name, value) for name, value in fields.items() if name not in _NOT_SENT]
        head = b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n%b\r\n"
        exchange = _Exchange(replier, self._hostname)
        try:
            self._pool.send(exchange, head % (len(body), header_block(lines)), body)
        except ConnectFailed as error:
            exchange.reply_failed(error.failure, False)


class _Exchange:
    """One request on its way to a container and back."""

    __slots__ = ("_begun", "_hostname", "_over", "_replier", "channel")

    def __init__(self, replier: Replier, hostname: str) -> None:
        self.channel: Channel | None = None
        self._replier = replier
        self._hostname = hostname
        self._begun = False
        self._over = False

    # --- what the container says ------------------------------------------------------------------------------------
    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The whole answer."""
        self._over = True
        self._replier.reply(head.status, _lines(head.headers), body)

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The beginning of an answer that comes in pieces."""
        if not self._replier.alive:
            self._cancel()
            return
        self._begun = True
        self._replier.listener = self
        length = next((int(value) for name, value in headers if name == b"content-length" and value.isdigit()), None)
        self._replier.start(status, _lines(headers), length)

    def reply_data(self, piece: bytes) -> None:
        """A piece of it."""
        self._replier.write(piece)
        if self._replier.writing_paused and self.channel is not None and not self._over:
            self.channel.pause_reading()

    def reply_end(self) -> None:
        """It is whole."""
        self._over = True
        self._replier.finish()

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """There will be no answer, or no more of it."""
        self._over = True
        if self._begun:
            self._replier.abort()
            return
        full = failure is Failure.FULL
        why = "takes no more connections" if full else f"gave no answer ({failure.value})"
        with speaking(self._hostname):
            log.error("the container %s", why)
        self._replier.reply(503 if full else 502, TEXT_LINES, f"the container {self._hostname} {why}".encode())

    def writable(self, writable: bool) -> None:
        """Bodies are whole: there is nothing to hold back."""

    # --- what the client does ---------------------------------------------------------------------------------------
    def gone(self, connection: Connection) -> None:
        """The client left."""
        self._cancel()

    def paused(self, connection: Connection) -> None:
        """The client is behind: `reply_data` sees it."""

    def resumed(self, connection: Connection) -> None:
        """The client has caught up."""
        if self.channel is not None and not self._over:
            self.channel.resume_reading()

    def body(self, connection: Connection, data: bytes) -> None:
        """Never called: the request was whole."""

    def data(self, connection: Connection, piece: bytes) -> None:
        """Never called: the request was whole."""

    def end(self, connection: Connection) -> None:
        """Never called: the request was whole."""

    def too_large(self, connection: Connection) -> None:
        """Never called: the request was whole."""

    def _cancel(self) -> None:
        if self.channel is not None and not self._over:
            self._over = True
            self.channel.cancel()


def _lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The headers of an answer that go on; one that cannot be sent is left out."""
    lines = []
    for name, value in headers:
        if name not in _NOT_ANSWERED:
            with contextlib.suppress(ValueError):
                lines.append(header_block([(name, value)]))
    return b"".join(lines)


async def ping(port: int, timeout_s: float) -> bool:
    """Whether a container answers GET /ping with 200 in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=PING_LINE_BYTES_MAX)
            try:
                writer.write(b"GET /ping HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                line = await reader.readline()
                return line.split(b" ")[1:2] == [b"200"]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, ValueError, TimeoutError):
        return False
