"""The upstream client: requests as ready bytes over kept-alive Unix sockets, replies as callbacks, no task a request.

    pool = Pool(loop, path); channel = pool.send(sink, head, body)      # raises ConnectFailed

The sink hears reply_whole, or reply_head, reply_data ..., reply_end; or reply_failed(failure, began).
`channel.complete` is already
true when the piece of reply_data is the last one, so that a whole reply can go out in one write. `channel.cancel()`
ends an exchange whose client has left; nothing is heard of it afterwards. `channel.write(piece)` sends more of a
request's body (with `replay=False`); `sink.writable(False)` asks to wait.

A kept-alive connection that the server closed just as it was used again is stale, not a failure: when no byte of the
reply came, the request goes once to a fresh connection, and `sink.channel` is replaced. In raw mode reply_data brings
the reply as it is on the wire: head, framing and interim replies included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, cast

import httptools

from eyrie.http1.outbox import Outbox
from eyrie.http1.unix import connect_unix

EFFORT = b"x-eyrie-effort"  # of a worker for a message: a head that has it is unlike any other
_EMPTY_LINE = b"\r\n\r\n"
_KNOWN_MAX = 64  # heads that a pool remembers
_KNOWN_BYTES_MAX = 1_024


class Failure(Enum):
    """Why an exchange ended without a whole reply."""

    REFUSED = "refused"  # nobody listens
    FULL = "full"  # the listener's backlog, or this pool, is full
    LOST = "lost"  # the connection ended
    GARBAGE = "garbage"  # the reply is not HTTP/1, or its head is too large


class ConnectFailed(Exception):
    """No connection could be had."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


class ReplyHead:
    """The head of a reply. One that repeats byte for byte is parsed once and handed out again, with what was derived
    of it.
    """

    __slots__ = ("derived", "headers", "length", "status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], length: int) -> None:
        self.status = status
        self.headers = headers  # names in lower case
        self.length = length  # of the body
        self.derived: bytes | None = None  # the asker's own, of the same head


class Sink(Protocol):
    """Who asked, and hears the reply."""

    channel: Channel | None

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The reply, whole; the channel is another's. Where it comes in several reads (and always in raw mode):"""

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the reply, names in lower case."""

    def reply_data(self, piece: bytes) -> None:
        """A piece of its body."""

    def reply_end(self) -> None:
        """The reply is whole, and the channel is another's."""

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """There will be no (further) reply; `began`: at least one byte of it came."""

    def writable(self, writable: bool) -> None:
        """Whether the instance takes more of the request's body."""


class Channel(asyncio.Protocol):
    """One connection to an upstream, and the exchange that is on it."""

    __slots__ = (
        "_bodiless",
        "_cancelled",
        "_framing_bytes",
        "_head_bytes",
        "_head_done",
        "_head_told",
        "_headers",
        "_parser",
        "_pieces",
        "_pool",
        "_raw",
        "_request",
        "_reused",
        "_sink",
        "_status",
        "_unsent",
        "began",
        "complete",
        "keep_alive",
        "own",
        "transport",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser: Any = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self._cancelled = False
        self._unsent: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self._request: tuple[bytes, bytes] | None = None
        self._reused = False
        self._raw = False
        self._bodiless = False
        self._status = 0
        self._head_bytes = 0
        self._framing_bytes = 0  # of a chunked body, since its last byte that was no framing
        self.keep_alive = False
        self.own = False  # asked for afresh, and not to be kept
        self._reset()

    def _reset(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._head_done = False
        self._head_told = False
        self.began = False
        self.complete = False

    # --- what the pool and the asker call ---------------------------------------------------------------------------

    def begin(
        self, sink: Sink, head: bytes, body: bytes, reused: bool, raw: bool, bodiless: bool, replay: bool
    ) -> None:
        """Send a request and hear its reply."""
        if self._head_done:
            self._reset()
        self.began = False
        self._sink = sink
        self._reused = reused
        self._raw = raw
        self._bodiless = bodiless
        self._request = (head, body) if replay else None
        sink.channel = self
        transport = self.transport
        if transport is None:
            self._unsent = [head, body] if body else [head]
        else:
            self._pool.outbox.put(transport, head)
            if body:
                self._pool.outbox.flush()
                transport.write(body)

    def write(self, piece: bytes) -> None:
        """More of the request's body."""
        if self.transport is None:
            self._unsent.append(piece)
        else:
            self._pool.outbox.flush()
            self.transport.write(piece)

    def cancel(self) -> None:
        """Give the exchange up: the connection is cut, since its reply would come later."""
        self._sink = None
        self._request = None
        self._cancelled = True
        if self.transport is not None:
            self.transport.abort()

    def pause_reading(self) -> None:
        """Stop taking the reply: its client is slow."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take the reply again."""
        if self.transport is not None:
            self.transport.resume_reading()

    # --- what the event loop calls ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up."""
        self.transport = cast(asyncio.Transport, transport)
        if self._cancelled:
            self.transport.abort()
            return
        unsent, self._unsent = self._unsent, []
        for piece in unsent:
            self.transport.write(piece)

    def data_received(self, data: bytes) -> None:
        """Bytes of a reply."""
        sink = self._sink
        if sink is None:
            self._drop()
            return
        size = 0
        if not self.began:
            self.began = True
            self._head_bytes = self._framing_bytes = 0
            size = data.find(_EMPTY_LINE) + 4
            known = self._pool.heads.get(data[:size])
            if known is not None and len(data) - size == known.length and not self._raw and not self._bodiless:
                self._sink = self._request = None
                self.keep_alive = True
                self._give_back()
                sink.reply_whole(known, data[size:])
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.complete:
                self._fail(Failure.GARBAGE)
                return
            self.keep_alive = False
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > self._pool.head_bytes_max:
                self._fail(Failure.GARBAGE)
                return
        elif not self._raw and not self.complete:
            self._framing_bytes = 0 if self._pieces else self._framing_bytes + len(data)
            if self._framing_bytes > self._pool.head_bytes_max:
                self._fail(Failure.GARBAGE)
                return
        if self.complete and not self._head_told and not self._raw:
            body = b"".join(self._pieces)
            head = ReplyHead(self._status, self._headers, len(body))
            self._remember(head, data, size)
            self._sink = self._request = None
            self._give_back()
            sink.reply_whole(head, body)
        else:
            self._tell(sink, data)

    def _remember(self, head: ReplyHead, data: bytes, size: int) -> None:
        """A head that says all by itself (no chunks, no close, no interim reply before it) need not be parsed again."""
        names = [name for name, _ in head.headers]
        if len(data) - size != head.length or not self.keep_alive or not 3 < size <= _KNOWN_BYTES_MAX or self._bodiless:
            return
        if b"content-length" in names and EFFORT not in names and data[9:12] == b"%d" % head.status:
            heads = self._pool.heads
            if len(heads) >= _KNOWN_MAX:
                heads.clear()
            heads[data[:size]] = head

    def _tell(self, sink: Sink, data: bytes) -> None:
        if self._head_done and not self._head_told:
            self._head_told = True
            sink.reply_head(self._status, self._headers)
        if self._raw:
            sink.reply_data(data)
        elif self._pieces:
            pieces, self._pieces = self._pieces, []
            sink.reply_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self.complete and self._sink is sink:
            self._end(sink)

    def eof_received(self) -> bool:
        """The server will send no more; `connection_lost` follows."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: a reply without a length ends here, any other is cut."""
        self.transport = None
        self._pool.forget(self)
        sink = self._sink
        if sink is None:
            return
        if exc is None and self._until_eof():
            self.complete = True
            self.keep_alive = False
            self._end(sink)
        elif self._reused and not self.began and self._request is not None:
            self._sink = None
            self._pool.replay(sink, self._request, self._raw, self._bodiless)
        else:
            self._fail(Failure.LOST)

    def pause_writing(self) -> None:
        """The instance is behind with the request."""
        if self._sink is not None:
            self._sink.writable(False)

    def resume_writing(self) -> None:
        """The instance has caught up."""
        if self._sink is not None:
            self._sink.writable(True)

    # --- what the parser calls --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A reply begins; one that nobody asked for spoils the connection."""
        if self.complete:
            self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line; trailers are dropped."""
        if not self._head_done:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete; one after a whole reply is the server's mistake."""
        if self.complete:
            self.keep_alive = False
            return
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            self._head_done = True
            if self._bodiless:
                self.keep_alive = self._parser.should_keep_alive()
                self.complete = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body; a raw reply is passed on as it is on the wire, and nothing of it is kept."""
        if not self.complete and not self._raw:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The reply is complete, unless it was an interim one. Whether the connection stays must be asked here."""
        if self._status < 200:
            self._headers = []
            return
        if not self.complete:
            self.keep_alive = self._parser.should_keep_alive()
            self.complete = True

    # --- endings ----------------------------------------------------------------------------------------------------

    def _until_eof(self) -> bool:
        if not self._head_done or self.complete:
            return False
        return not any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def _end(self, sink: Sink) -> None:
        self._sink = None
        self._request = None
        self._give_back()
        sink.reply_end()

    def _give_back(self) -> None:
        if self._bodiless:
            self._parser = httptools.HttpResponseParser(self)
        pool = self._pool
        if self.keep_alive and not self.own and self.transport is not None and len(pool.idle) < pool.idle_max:
            if not self.transport.is_reading():  # its last client was slow to the end; the next one must hear its reply
                self.transport.resume_reading()
            pool.idle.append(self)
        else:
            self._drop()

    def _fail(self, failure: Failure) -> None:
        sink, self._sink = self._sink, None
        self._request = None
        self._drop()
        if sink is not None:
            sink.reply_failed(failure, self.began)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Pool:
    """The connections to one Unix socket: idle ones are used again, newest first."""

    __slots__ = (
        "_connecting",
        "_loop",
        "channels",
        "channels_max",
        "head_bytes_max",
        "heads",
        "idle",
        "idle_max",
        "on_replay",
        "outbox",
        "path",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        idle_max: int = 256,
        channels_max: int = 4096,
        head_bytes_max: int = 65_536,
    ) -> None:
        self._loop = loop
        self.path = path
        self.idle_max = idle_max
        self.channels_max = channels_max
        self.head_bytes_max = head_bytes_max
        self.channels: set[Channel] = set()
        self.idle: list[Channel] = []
        self.heads: dict[bytes, ReplyHead] = {}
        self.outbox = Outbox(loop)
        self.on_replay: Callable[[Sink], None] = lambda sink: None  # hears whose request goes a second time
        self._connecting: set[asyncio.Task[Any]] = set()

    def send(
        self,
        sink: Sink,
        head: bytes,
        body: bytes = b"",
        *,
        raw: bool = False,
        bodiless: bool = False,
        replay: bool = True,
        fresh: bool = False,
    ) -> Channel:
        """Send a request on an idle connection, else on a new one (`fresh`: always, and it is not kept). `bodiless`:
        the reply has no
        body whatever its
        head says (HEAD); `replay`: head and body are the whole request, and it may go again where the connection was
        stale.

        Raises ConnectFailed.
        """
        if self.idle and not fresh:
            channel = self.idle.pop()
            channel.begin(sink, head, body, True, raw, bodiless, replay)
            return channel
        channel = self._connect()
        channel.own = fresh
        channel.begin(sink, head, body, False, raw, bodiless, replay)
        return channel

    def _connect(self) -> Channel:
        if len(self.channels) >= self.channels_max:
            raise ConnectFailed(Failure.FULL)
        try:
            sock = connect_unix(self.path)
        except BlockingIOError:
            raise ConnectFailed(Failure.FULL) from None
        except OSError:
            raise ConnectFailed(Failure.REFUSED) from None
        channel = Channel(self)
        self.channels.add(channel)
        task = self._loop.create_task(self._loop.create_unix_connection(lambda: channel, sock=sock))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return channel

    def replay(self, sink: Sink, request: tuple[bytes, bytes], raw: bool, bodiless: bool) -> None:
        """A stale connection's request goes to a fresh one, once."""
        self.on_replay(sink)
        try:
            channel = self._connect()
        except ConnectFailed as error:
            failure = Failure.LOST if error.failure is Failure.REFUSED else error.failure
            sink.reply_failed(failure, False)
            return
        channel.begin(sink, request[0], request[1], False, raw, bodiless, True)

    def forget(self, channel: Channel) -> None:
        """A connection is gone."""
        self.channels.discard(channel)
        if channel in self.idle:
            self.idle.remove(channel)

    def close(self) -> None:
        """Cut the idle connections; those in use end with their exchange."""
        idle, self.idle = self.idle, []
        self.idle_max = 0
        for channel in idle:
            if channel.transport is not None:
                channel.transport.abort()
