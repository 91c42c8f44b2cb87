"""Dispatch's line to control: as a gateway worker's (docs/concepts/processes.md), and twice a second the backlogs.

Nothing here is needed for requests to be accepted and brought to instances: while control is away the folder of route
tables is looked at every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eyrie.dispatch.tables import Tables, Worker
from eyrie.http1.unix import connect_unix

log = logging.getLogger(__name__)

NAME = "dispatch"
_LINE_BYTES_MAX = 4_194_304
_UNSENT_BYTES_MAX = 8_388_608
_PERIOD_S = 0.5  # twice a second: no second is without a measurement
_RECONNECT_S = 0.2


class Feed:
    """Talks to control for as long as it runs."""

    def __init__(self, path: Path, tables: Tables, backlogs: Callable[[], dict[str, Any]]) -> None:
        """`backlogs`: what is told each second."""
        self._path, self._tables, self._backlogs = path, tables, backlogs
        self._writer: asyncio.StreamWriter | None = None
        self.dropped = 0  # lines that control was too slow for

    @property
    def connected(self) -> bool:
        """Whether control hears us."""
        return self._writer is not None

    async def run(self) -> None:
        """Stay connected; never returns."""
        while True:
            try:
                sock = connect_unix(str(self._path))
            except OSError:
                self._tables.read_all()
                self._tables.take_idle()
                await asyncio.sleep(_RECONNECT_S)
                continue
            try:
                reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=_LINE_BYTES_MAX)
                await self._talk(reader)
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                log.warning("the line to control ended: %s", error or type(error).__name__)
            finally:
                await self._hang_up()
            await asyncio.sleep(_RECONNECT_S)

    async def beat(self) -> None:
        """Tell the backlogs; never returns."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            self._tell({"backlog": self._backlogs()})
            self.tell_idle()

    async def _talk(self, reader: asyncio.StreamReader) -> None:
        tables = self._tables
        self._tell({"hello": NAME, "pid": os.getpid()})
        tables.read_all()
        self._tell({"busy": tables.busy})
        self._tell({"ack": tables.generations, "gone": []})
        if tables.idle:
            self._tell({"idle": tables.idle})
        while True:
            line = await reader.readline()
            if not line.endswith(b"\n"):
                return
            message = json.loads(line)
            slugs = message.get("routes") if isinstance(message, dict) else None
            if isinstance(slugs, list):
                served, gone = tables.read([slug for slug in slugs if isinstance(slug, str)])
                self._tell({"ack": served, "gone": gone})
                self.tell_idle()

    async def _hang_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def tell_idle(self) -> None:
        """Tell of instances that left the tables and have answered all they had."""
        done = self._tables.take_idle()
        if done:
            self._tell({"idle": done})

    def tell_ejected(self, slug: str, worker: Worker, why: str) -> None:
        """Tell of an instance that was found dead."""
        self._tell({"eject": {"instance": worker.instance_id, "endpoint": slug, "why": why}})

    def _tell(self, message: dict[str, Any]) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() > _UNSENT_BYTES_MAX:
            self.dropped += 1
            return
        writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
