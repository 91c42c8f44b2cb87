"""Small whole messages of one turn of the event loop, sent together at its end.

A write wakes whoever reads the other end, and waking a sleeping process is the dearest part of a small write. Sent one
after the other, the first wakes it and the rest find it awake: a fifth of a busy gateway's time. No turn is added: the
loop comes here before it waits again. Anything that is no small whole message is written directly, after `flush`.
"""

from __future__ import annotations

import asyncio


class Outbox:
    """What one server, or one pool of connections, sends at the end of the turn."""

    __slots__ = ("_loop", "pending")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.pending: list[tuple[asyncio.Transport, bytes]] = []

    def put(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send `data` at the end of the turn."""
        if not self.pending:
            self._loop.call_soon(self.flush)
        self.pending.append((transport, data))

    def flush(self) -> None:
        """Send everything now; what is written directly, or closes a connection, must come after it."""
        pending, self.pending = self.pending, []
        for transport, data in pending:
            if not transport.is_closing():
                transport.write(data)
