"""The async convenience over `server`: one coroutine a request, for everything that is not the hot path (control,
objects, console).

    async def handler(request: Request) -> Response: ...
    server = await serve(handler, sock, limits)
    await server.close(drain_ms)

Bodies of any size stream both ways in constant memory. A client that leaves cancels its handler. An exception in a
handler is answered
with 500 and a request id, logged under that id, and costs nobody else anything; BodyTooLarge is answered with 413.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from eyrie.http1.application import Application
from eyrie.http1.limits import Limits
from eyrie.http1.replies import header_block, refusal
from eyrie.http1.server import Connection, Server, listen
from eyrie.http1.sweep import Sweep

log = logging.getLogger(__name__)

_AHEAD_BYTES = 262_144  # of a body: read from the client before the handler asks


class BodyTooLarge(Exception):
    """The body is longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")
        self.limit = limit


class ClientGone(Exception):
    """The client left in the middle of its own request."""


@dataclass(slots=True)
class Response:
    """A reply. `body` as an iterator is sent as it comes, with content-length where `length` is given, else chunked."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""
    length: int | None = None


class Request:
    """A request, its body still to be read."""

    def __init__(self, connection: Connection) -> None:
        self.method = connection.method
        self.target = connection.target
        self.path, _, self.query = connection.target.partition(b"?")
        self.headers = connection.headers
        self.content_length = connection.content_length
        self.peer = connection.peer
        self.request_id = str(uuid.uuid4())
        self.fields = connection.fields
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._complete = False
        self._gone = False
        self._wake: asyncio.Future[None] | None = None

    def header(self, name: bytes) -> bytes | None:
        """A header by its lower-case name, repeated ones joined by ','; None where it is missing."""
        return self.fields.get(name)

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises BodyTooLarge, before reading it where its length was announced, and ClientGone."""
        if self.content_length is not None and self.content_length > limit:
            raise BodyTooLarge(limit)
        pieces: list[bytes] = []
        size = 0
        async for piece in self.stream():
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(limit)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces, read from the client only as fast as they are taken. Raises ClientGone."""
        self._connection.accept_body()
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._waiting_bytes -= len(piece)
                if self._waiting_bytes <= _AHEAD_BYTES // 2:
                    self._connection.resume_reading()
                yield piece
            if self._complete:
                return
            if self._gone:
                raise ClientGone
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def put(self, piece: bytes) -> None:
        """A piece came in from the client."""
        self._pieces.append(piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes > _AHEAD_BYTES:
            self._connection.pause_reading()
        self._rouse()

    def complete(self) -> None:
        """The body is complete."""
        self._complete = True
        self._rouse()

    def lost(self) -> None:
        """The client left."""
        self._gone = True
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


Handler = Callable[[Request], Awaitable[Response]]


class _Exchange:
    """One request being handled: its task, and the gate its reply waits at while the client is behind."""

    def __init__(self, handler: Handler, connection: Connection) -> None:
        self.request = Request(connection)
        self.writable = asyncio.Event()
        self.writable.set()
        self._connection = connection
        self.task = asyncio.get_running_loop().create_task(self._run(handler))

    async def _run(self, handler: Handler) -> None:
        try:
            response = await handler(self.request)
            await self._send(response)
        except BodyTooLarge as error:
            self._fail(413, str(error))
        except ClientGone:
            self._connection.abort()
        except Exception:  # the loop boundary: a handler's mistake is answered and logged
            log.exception("request %s failed: %r %r", self.request.request_id, self.request.method, self.request.path)
            self._fail(500, f"internal failure, request {self.request.request_id}")

    def _fail(self, status: int, message: str) -> None:
        connection = self._connection
        if connection.reply_started:
            connection.abort()
            return
        lines, body = refusal(status, message)
        connection.reply(status, b"%bx-amzn-requestid: %b\r\n" % (lines, self.request.request_id.encode()), body)

    async def _send(self, response: Response) -> None:
        connection = self._connection
        lines = header_block(response.headers)
        if isinstance(response.body, bytes):
            if connection.method == b"HEAD" and response.length is not None:
                connection.start(response.status, lines, response.length)
                connection.finish()
            else:
                connection.reply(response.status, lines, response.body)
            return
        connection.start(response.status, lines, response.length)
        try:
            if connection.method != b"HEAD":
                await self._pump(response.body)
        finally:
            close = getattr(response.body, "aclose", None)
            if close is not None:
                await close()
        connection.finish()

    async def _pump(self, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            self._connection.write(piece)
            if not self.writable.is_set():
                await self.writable.wait()


class HandlerApplication:
    """The `Application` that runs a handler a request."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def head(self, connection: Connection) -> None:
        """Start the handler."""
        connection.stream()
        connection.context = _Exchange(self._handler, connection)

    def body(self, connection: Connection, data: bytes) -> None:
        """Never called: bodies stream."""

    def data(self, connection: Connection, piece: bytes) -> None:
        """Pass a piece on."""
        connection.context.request.put(piece)

    def end(self, connection: Connection) -> None:
        """Pass the end on."""
        connection.context.request.complete()

    def too_large(self, connection: Connection) -> None:
        """Never called: bodies stream."""

    def gone(self, connection: Connection) -> None:
        """Cancel the handler."""
        exchange = connection.context
        exchange.request.lost()
        exchange.task.cancel()

    def paused(self, connection: Connection) -> None:
        """Hold the reply back."""
        connection.context.writable.clear()

    def resumed(self, connection: Connection) -> None:
        """Let the reply go on."""
        connection.context.writable.set()


async def serve(
    handler: Handler, sock: socket.socket, limits: Limits | None = None, sweep: Sweep | None = None
) -> Server:
    """Serve `handler` on a bound socket (TCP or Unix). Close it with `await server.close(drain_ms)`."""
    application: Application = HandlerApplication(handler)
    return await listen(application, sock, limits, sweep)


@contextlib.asynccontextmanager
async def serving(handler: Handler, sock: socket.socket, limits: Limits | None = None) -> AsyncIterator[Server]:
    """`serve`, closed at the end of the context."""
    server = await serve(handler, sock, limits)
    try:
        yield server
    finally:
        await server.close(drain_ms=1_000)
