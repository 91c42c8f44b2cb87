"""A process's line to control (docs/concepts/processes.md): JSON lines over a Unix socket, connected anew whenever it
ends.

On no request's path, and nothing waits for it: while control is away or does not read, what is told is dropped, and the
owner of the line says what that means.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

RECONNECT_S = 0.2
_LINE_BYTES_MAX = 4_194_304
_UNSENT_BYTES_MAX = 8_388_608  # control does not read: lines are dropped beyond


class ControlLine:
    """Tells control, and hears which route tables have changed."""

    def __init__(self, path: Path, connect: Callable[[str], socket.socket], dropped: Callable[[], None]) -> None:
        """`connect` gives a connected non-blocking socket, or raises OSError. `dropped` hears of each line that control
        was too slow for.
        """
        self._path, self._connect, self._dropped = path, connect, dropped
        self._writer: asyncio.StreamWriter | None = None

    @property
    def connected(self) -> bool:
        """Whether control hears us."""
        return self._writer is not None

    async def run(
        self, begun: Callable[[], None], changed: Callable[[list[str]], None], alone: Callable[[], Awaitable[None]]
    ) -> None:
        """Stay connected; never returns. `begun` is called on each connection, `changed` with the slugs whose tables
        are to be read; `alone` is awaited before another try while nobody listens.
        """
        while True:
            try:
                sock = self._connect(str(self._path))
            except OSError:
                await alone()
                continue
            try:
                reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=_LINE_BYTES_MAX)
                begun()
                await _listen(reader, changed)
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                log.warning("the line to control ended: %s", error or type(error).__name__)
            finally:
                await self._hang_up()
            await asyncio.sleep(RECONNECT_S)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a line, where there is somebody to hear it."""
        writer = self._writer
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() > _UNSENT_BYTES_MAX:
            self._dropped()
            return
        writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def _hang_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _listen(reader: asyncio.StreamReader, changed: Callable[[list[str]], None]) -> None:
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            return
        message = json.loads(line)
        slugs = message.get("routes") if isinstance(message, dict) else None
        if isinstance(slugs, list):
            changed([slug for slug in slugs if isinstance(slug, str)])
