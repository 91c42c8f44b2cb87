"""The hardened HTTP/1 server under every process of Eyrie: a listening socket, its connections and their limits.

    server = await listen(application, sock, limits); ...; await server.close(drain_ms)

`connection` says what the application hears and what it may do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from eyrie.http1.application import Application
from eyrie.http1.connection import Connection
from eyrie.http1.limits import Limits
from eyrie.http1.outbox import Outbox
from eyrie.http1.replies import date_line
from eyrie.http1.shapes import LENGTH_ONLY, Shapes, Varying
from eyrie.http1.sweep import Sweep

__all__ = ["Connection", "Server", "listen"]


class Server:
    """A listening socket, its connections and their limits."""

    def __init__(
        self, application: Application, limits: Limits, sweep: Sweep, varying: Mapping[bytes, Varying] = LENGTH_ONLY
    ) -> None:
        """`varying`: headers whose values differ between a client's requests; the length always does."""
        self.application = application
        self.shapes = Shapes({**LENGTH_ONLY, **varying})
        self.limits = limits
        self.sweep = sweep
        self.outbox = Outbox(asyncio.get_running_loop())
        self.draining = False
        self.date = date_line(time.time())
        self.connections: set[Connection] = set()
        self.refused_connections = 0
        self._quiet_s = 0.0
        self._empty: asyncio.Event = asyncio.Event()
        self._listener: asyncio.AbstractServer | None = None

    async def open(self, sock: socket.socket) -> None:
        """Accept on a bound socket (TCP or Unix)."""
        loop = asyncio.get_running_loop()
        factory: Callable[[], Connection] = lambda: Connection(self)  # noqa: E731
        create: Callable[..., Awaitable[Any]]
        create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        self.sweep.add(self._turn)
        self._listener = await create(factory, sock=sock, backlog=4096)

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, unless there are too many."""
        self.connections.add(connection)
        if len(self.connections) > self.limits.connections:
            self.refused_connections += 1
            return False
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def _turn(self, now: float) -> None:
        self.date = date_line(time.time())
        for connection in tuple(self.connections):
            connection.overdue(now)
            if self.draining:
                connection.shut(self._quiet_s)

    def stop_accepting(self, quiet_ms: int = 0) -> None:
        """Take no new connection; replies from now on close theirs, idle connections end after `quiet_ms` of idleness:
        a client that was about to use one gets an answer that tells of the end, instead of a reset.
        """
        self.draining = True
        self._quiet_s = quiet_ms / 1000
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in tuple(self.connections):
            connection.shut(self._quiet_s)

    async def close(self, drain_ms: int, quiet_ms: int = 0) -> None:
        """Stop accepting, let what was begun end within `drain_ms`, then cut the rest."""
        self.stop_accepting(quiet_ms)
        self._empty.clear()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_ms / 1000):  # wait_for may swallow a cancellation on Python 3.11
                    await self._empty.wait()
        for connection in tuple(self.connections):
            connection.abort()
        self.sweep.remove(self._turn)
        await asyncio.sleep(0)  # lets the cut connections say goodbye to the loop


async def listen(
    application: Application,
    sock: socket.socket,
    limits: Limits | None = None,
    sweep: Sweep | None = None,
    varying: Mapping[bytes, Varying] = LENGTH_ONLY,
) -> Server:
    """Serve `application` on a bound socket. `sweep` is the process's own where it has one."""
    server = Server(application, limits or Limits(), sweep or Sweep(asyncio.get_running_loop()), varying)
    await server.open(sock)
    return server
