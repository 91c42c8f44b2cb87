"""`run/gateway-N.sock`: hands the shared listening socket to the next `eyrie up` (SCM_RIGHTS), and answers `stats`.

One line a request: `listener` is answered with `{"listener": true}` and the descriptor, `stats` with one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eyrie.http1.unix import listen_unix

_LINE_BYTES_MAX = 64
_PATIENCE_S = 2.0
_CALLERS_MAX = 16


class Door:
    """Answers whoever asks this worker for its listener or its counts."""

    def __init__(self, path: Path, listener: socket.socket, stats: Callable[[], dict[str, Any]]) -> None:
        self._path = path
        self._listener = listener
        self._stats = stats
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._callers: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Answer from now on: whoever finds the socket may take the worker for ready."""
        self._socket = listen_unix(str(self._path), backlog=16, mode=0o600)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(self._socket))

    async def close(self) -> None:
        """Stop answering and remove the socket."""
        tasks = [task for task in (self._accepting, *self._callers) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._path.unlink(missing_ok=True)

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            caller, _ = await loop.sock_accept(sock)
            caller.setblocking(False)
            if len(self._callers) >= _CALLERS_MAX:
                caller.close()
                continue
            task = loop.create_task(self._answer(caller))
            self._callers.add(task)
            task.add_done_callback(self._callers.discard)

    async def _answer(self, caller: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with caller, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                line = b""
                while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
                    more = await loop.sock_recv(caller, _LINE_BYTES_MAX)
                    if not more:
                        return
                    line += more
                if line == b"listener\n":
                    socket.send_fds(caller, [b'{"listener": true}\n'], [self._listener.fileno()])
                elif line == b"stats\n":
                    await loop.sock_sendall(caller, json.dumps(self._stats()).encode() + b"\n")
                else:
                    await loop.sock_sendall(caller, b'{"error": "ask for listener or stats"}\n')
