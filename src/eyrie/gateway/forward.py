"""Everything that is not InvokeEndpoint: routed by its head alone to control, objects, dispatch or console, as
unchanged bytes.

Nothing is verified here; the process that receives a request verifies it. Buffers are bounded by pausing whichever
side is
ahead. While the other process restarts, a request waits for its socket, then gets 503 in its service's own shape.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from eyrie.gateway import errors
from eyrie.gateway.meter import Meter
from eyrie.http1.server import Connection
from eyrie.http1.sweep import Sweep
from eyrie.http1.upstream import Channel, ConnectFailed, Failure, Pool, ReplyHead
from eyrie.wire.dispatch import Destination, Kind

WAITING_MAX = 1_024  # requests that wait for a socket, a worker
CONSOLE_MAX = 512  # requests to the console at once, a worker: each open page holds one
_IDLE_S = 300.0  # without a byte in either direction
_SAFE = frozenset((b"GET", b"HEAD"))


class Forwarder:
    """Passes requests on to the processes behind this worker."""

    def __init__(self, run: Path, loop: asyncio.AbstractEventLoop, meter: Meter, sweep: Sweep, wait_ms: int) -> None:
        self._control = Pool(loop, str(run / "control.sock"), idle_max=16)
        self._objects = Pool(loop, str(run / "objects.sock"), idle_max=16)
        self._dispatch = Pool(loop, str(run / "dispatch.sock"), idle_max=64)
        self._console = Pool(loop, str(run / "console.sock"), idle_max=16, channels_max=CONSOLE_MAX)
        self._console_lock = run / "console.lock"  # there once a console was ever started here
        self._pools = {Kind.OBJECTS: self._objects, Kind.DISPATCH: self._dispatch, Kind.CONSOLE: self._console}
        self.meter = meter
        self.sweep = sweep
        self.wait_s = wait_ms / 1000
        self.waiting: set[Forward] = set()
        self.active: set[Forward] = set()

    def head(self, connection: Connection, destination: Destination) -> None:
        """A head was read that is not for this worker."""
        if destination.kind is Kind.CONSOLE and not self._console_lock.exists():
            self.meter.count("forwards_unavailable")
            connection.reply(*errors.console_missing())
            return
        pool = self._pools.get(destination.kind, self._control)
        connection.stream(raw=True)
        forward = Forward(self, connection, pool, destination.service)
        connection.listener = forward
        self.active.add(forward)
        forward.send()

    def close(self) -> None:
        """Cut the idle connections."""
        self._control.close()
        self._objects.close()
        self._dispatch.close()
        self._console.close()

    def turn(self, now: float) -> None:
        """Called by the sweep: try those again that wait for a socket; end what stands still."""
        for forward in tuple(self.waiting):
            forward.try_again(now)
        for forward in [f for f in self.active if f not in self.waiting and now - f.moved_at_s > _IDLE_S]:
            forward.stuck()


class Forward:
    """One request on its way through."""

    __slots__ = (
        "_connection",
        "_early",
        "_forwarder",
        "_pool",
        "_service",
        "_status",
        "_until_s",
        "channel",
        "moved_at_s",
    )

    def __init__(self, forwarder: Forwarder, connection: Connection, pool: Pool, service: str) -> None:
        self._forwarder = forwarder
        self._connection = connection
        self._pool = pool
        self._service = service
        self._status = 0
        self._early: list[bytes] = []  # what of the body came before there was a socket
        self._until_s = forwarder.sweep.now + forwarder.wait_s
        self.channel: Channel | None = None
        self.moved_at_s = forwarder.sweep.now

    # --- towards the other process ----------------------------------------------------------------------------------

    def send(self) -> None:
        """Send the head on, or wait for the socket."""
        connection = self._connection
        bodiless = connection.content_length == 0
        head = connection.method == b"HEAD"
        try:  # a request with a body takes a fresh connection: it could not be sent again on a stale one
            self._pool.send(self, connection.raw_head, raw=True, bodiless=head, replay=bodiless, fresh=not bodiless)
        except ConnectFailed as error:
            self._wait(error.failure)
            return
        for piece in self._early:
            self.data(connection, piece)
        self._early = []

    def _wait(self, failure: Failure) -> None:
        forwarder = self._forwarder
        if failure is Failure.FULL or len(forwarder.waiting) >= WAITING_MAX:
            forwarder.meter.count("forwards_limit")
            self._fail("ServiceUnavailable", "Eyrie is too busy for this request. Try again.", 503)
            return
        forwarder.meter.count("forwards_held")
        forwarder.waiting.add(self)
        self._connection.pause_reading()

    def try_again(self, now: float) -> None:
        """The socket may be back."""
        forwarder = self._forwarder
        forwarder.waiting.discard(self)
        if now >= self._until_s:
            forwarder.meter.count("forwards_unavailable")
            self._fail("ServiceUnavailable", "The process that answers this is not running. Try again.", 503)
            return
        self.send()
        if self not in forwarder.waiting:
            self.moved_at_s = now
            self._connection.resume_reading()

    def data(self, connection: Connection, piece: bytes) -> None:
        """A piece of the request's body, as it is on the wire."""
        self.moved_at_s = self._forwarder.sweep.now
        if self.channel is not None:
            self.channel.write(piece)
        else:
            self._early.append(piece)

    def end(self, connection: Connection) -> None:
        """The request is whole; its bytes say so themselves."""

    def writable(self, writable: bool) -> None:
        """The other process is behind, or has caught up."""
        if writable:
            self._connection.resume_reading()
        else:
            self._connection.pause_reading()

    # --- towards the client -----------------------------------------------------------------------------------------

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """Never called: raw replies come in pieces."""

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the reply; its bytes come as data."""
        self._status = status

    def reply_data(self, piece: bytes) -> None:
        """Bytes of the reply, interim replies included."""
        self.moved_at_s = self._forwarder.sweep.now
        self._connection.write_raw(piece)

    def reply_end(self) -> None:
        """The reply is whole."""
        keep = self.channel is not None and self.channel.keep_alive
        self.channel = None
        self._over()
        self._connection.finish_raw(keep)

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """The other process ended in the middle."""
        self.channel = None
        if began:
            self._over()
            self._connection.abort()
        elif self._connection.method in _SAFE and self._connection.content_length == 0:
            self._wait(failure)
        else:
            self._forwarder.meter.count("forwards_lost")
            self._fail("InternalFailure", "The process that works on this ended before it answered.", 500)

    def gone(self, connection: Connection) -> None:
        """The client left."""
        if self.channel is not None:
            self.channel.cancel()
            self.channel = None
        self._over()

    def stuck(self) -> None:
        """Nothing moved for long."""
        self._forwarder.meter.count("forwards_stuck")
        self.gone(self._connection)
        self._connection.abort()

    def paused(self, connection: Connection) -> None:
        """The client does not keep up."""
        if self.channel is not None:
            self.channel.pause_reading()

    def resumed(self, connection: Connection) -> None:
        """The client has caught up."""
        if self.channel is not None:
            self.channel.resume_reading()

    def body(self, connection: Connection, data: bytes) -> None:
        """Never called: bodies pass in pieces."""

    def too_large(self, connection: Connection) -> None:
        """Never called: bodies pass in pieces."""

    def _fail(self, code: str, message: str, status: int) -> None:
        self._over()
        status, lines, body = errors.for_service(self._service, code, message, status)
        self._connection.reply(status, lines, body)

    def _over(self) -> None:
        self._forwarder.active.discard(self)
        self._forwarder.waiting.discard(self)
