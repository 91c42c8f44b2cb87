"""The way into a container of the user's own: bytes between the instance's Unix socket and a port on its loopback.

On the path of a request: gateway -> BOX/s -> here -> 127.0.0.1:8080 in the network namespace of the container, and
back. Nothing is parsed. Each connection of the gateway's becomes one of the container's, so keep-alive, chunks and
errors are what the container makes of them; whoever is slow holds up the other side after 64 KiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

CONNECTIONS_MAX = 1024
BUFFER_BYTES_MAX = 65_536
CONNECT_TIMEOUT_S = 2.0
LOOPBACK = "127.0.0.1"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _End(asyncio.Protocol):
    """One of the two connections that are joined. What arrives here leaves there."""

    __slots__ = ("_early", "_gone", "other", "transport")

    def __init__(self, gone: Callable[[_End], None]) -> None:
        self._gone = gone
        self._early = b""  # what came before there was somebody to tell: one read at the most
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES_MAX)

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other is not None and other.transport is not None:
            other.transport.write(data)
        elif self.transport is not None:
            self._early += data
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()  # after what it has still to write
        self._gone(self)

    def join(self, other: _End) -> None:
        """Let bytes flow both ways."""
        self.other, other.other = other, self
        if self.transport is None or other.transport is None:
            return
        if self._early:
            other.transport.write(self._early)
            self._early = b""
        if not self.transport.is_closing():
            self.transport.resume_reading()


class Bridge:
    """Joins every connection to `listener` with one to the port. `close` ends them all."""

    def __init__(self, port: int, connections_max: int = CONNECTIONS_MAX) -> None:
        self.port = port
        self.refused = 0  # connections beyond the bound, answered with 503
        self.failed = 0  # connections that the container did not take
        self._max = connections_max
        self._inner: set[_End] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._inner)

    async def start(self, listener: socket.socket) -> None:
        """Begin to accept."""
        self._server = await asyncio.get_running_loop().create_unix_server(self._accepted, sock=listener)

    async def close(self) -> None:
        """Accept no more, and cut what is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for end in list(self._inner):
            if end.transport is not None:
                end.transport.abort()

    def _accepted(self) -> asyncio.Protocol:
        return _Accepted(self._inner.discard, self._opened)

    def _opened(self, end: _End) -> None:
        transport = end.transport
        assert transport is not None  # connection_made has just set it
        if len(self._inner) >= self._max:
            self.refused += 1
            transport.write(_FULL)
            transport.close()
            return
        self._inner.add(end)
        task = asyncio.get_running_loop().create_task(self._connect(end))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, inner: _End) -> None:
        outer = _Container(lambda end: None)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(lambda: outer, LOOPBACK, self.port)
        except (OSError, TimeoutError):
            self.failed += 1
            if inner.transport is not None:
                inner.transport.abort()
            return
        if inner not in self._inner and outer.transport is not None:
            outer.transport.abort()  # who had asked has left meanwhile
            return
        inner.join(outer)


class _Accepted(_End):
    """The side of the gateway."""

    __slots__ = ("_opened",)

    def __init__(self, gone: Callable[[_End], None], opened: Callable[[_End], None]) -> None:
        super().__init__(gone)
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opened(self)


class _Container(_End):
    """The side of the container. What it sends is acknowledged at once: a server that writes head and body apart, and
    has left Nagle's algorithm on, would wait 40 ms for that before each body.
    """

    __slots__ = ("_socket",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket: socket.socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


async def accepts(port: int) -> bool:
    """Whether somebody listens on the port of this loopback now."""
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(client, (LOOPBACK, port))
    except (OSError, TimeoutError):
        return False
    finally:
        client.close()
    return True
