"""The async convenience over `upstream`: a request whose body may be streamed, a reply whose body is read in pieces, in
constant memory both ways.

    exchange = Exchange(pool)
    status = await exchange.ask(head, pieces=source)       # raises Broken, and what `source` raises
    async for piece in exchange.pieces(): ...              # raises Broken
    exchange.cancel()                                      # at the end, whatever happened
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from eyrie.http1.upstream import Channel, ConnectFailed, Failure, Pool, ReplyHead

_AHEAD_BYTES = 262_144  # of a reply: read before somebody takes it


class Broken(Exception):
    """There is no (whole) reply. `sent`: bytes of the request may have reached the other side."""

    def __init__(self, failure: Failure, sent: bool) -> None:
        super().__init__(failure.value)
        self.failure = failure
        self.sent = sent


class Exchange:
    """One request and its reply: a `Sink` of the upstream client."""

    def __init__(self, pool: Pool) -> None:
        self.channel: Channel | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # of the reply, names in lower case
        self._pool = pool
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._ended = False
        self._failure: Failure | None = None
        self._stirred = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()

    async def ask(
        self, head: bytes, body: bytes = b"", pieces: AsyncIterator[bytes] | None = None, bodiless: bool = False
    ) -> int:
        """Send a request; the status of its reply. A body in pieces goes over a connection of its own.

        Raises Broken, and what `pieces` raises: then the connection is cut before the request is whole.
        """
        streamed = pieces is not None
        try:
            self._pool.send(self, head, body, bodiless=bodiless, replay=not streamed, fresh=streamed)
        except ConnectFailed as error:
            raise Broken(error.failure, sent=False) from None
        if pieces is not None:
            await self._send(pieces)
        while not (self.status or self._failure):
            self._stirred.clear()
            await self._stirred.wait()
        if self._failure is not None and not self.status:
            raise Broken(self._failure, sent=self._failure is not Failure.REFUSED)
        return self.status

    async def _send(self, pieces: AsyncIterator[bytes]) -> None:
        """Send the body, no faster than it is taken; an early reply ends it."""
        async for piece in pieces:
            if not self._may_write.is_set():
                await self._may_write.wait()
            if self.status or self._failure or self.channel is None:
                return
            self.channel.write(piece)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The reply's body. Raises Broken where it is not whole."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._waiting_bytes -= len(piece)
                if self._paused and self._waiting_bytes <= _AHEAD_BYTES // 2 and self.channel is not None:
                    self._paused = False
                    self.channel.resume_reading()
                yield piece
            if self._failure is not None:
                raise Broken(self._failure, sent=True)
            if self._ended:
                return
            self._stirred.clear()
            await self._stirred.wait()

    async def read(self, most: int) -> tuple[bytes, bool]:
        """The reply's body up to `most` bytes, and whether that is all of it. Raises Broken."""
        found: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            found.append(piece)
            size += len(piece)
            if size > most:
                self.cancel()
                return b"".join(found)[:most], False
        return b"".join(found), True

    def cancel(self) -> None:
        """End it: what of it is under way is cut. After a whole reply nothing happens."""
        channel, self.channel = self.channel, None
        if channel is not None and not self._ended and self._failure is None:
            channel.cancel()

    # --- what the channel calls -------------------------------------------------------------------------------------

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The reply in one piece."""
        self._head(head.status, head.headers)
        if body:
            self._pieces.append(body)
            self._waiting_bytes += len(body)
        self.reply_end()

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The reply begins."""
        self._head(status, headers)
        self._rouse()

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = dict(headers)

    def reply_data(self, piece: bytes) -> None:
        """A piece of its body."""
        self._pieces.append(piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes > _AHEAD_BYTES and not self._paused and self.channel is not None:
            self._paused = True
            self.channel.pause_reading()
        self._rouse()

    def reply_end(self) -> None:
        """The reply is whole; its channel is another's."""
        self._ended = True
        self.channel = None
        self._rouse()

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """There is no more of it."""
        self._failure = failure
        self.channel = None
        self._rouse()

    def writable(self, writable: bool) -> None:
        """Whether the other side takes more of the request."""
        if writable:
            self._may_write.set()
        else:
            self._may_write.clear()

    def _rouse(self) -> None:
        self._may_write.set()
        self._stirred.set()
