"""The worker's line to control (docs/concepts/processes.md): hints to read route tables, acknowledgements, and what
it saw.

Serving does not depend on it: while control is away the folder is looked at every second, and what would have been
told is
either told at the next connection (what is served, what is idle) or dropped and counted (rollups, ejections).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from eyrie.gateway.meter import Meter
from eyrie.gateway.routes import Instance, RouteBook
from eyrie.http1.unix import connect_unix

log = logging.getLogger(__name__)

_LINE_BYTES_MAX = 4_194_304
_UNSENT_BYTES_MAX = 8_388_608  # control does not read: rollups are dropped beyond
_PERIOD_S = 1.0
_RECONNECT_S = 0.2


class Feed:
    """Talks to control for one worker."""

    def __init__(self, path: Path, worker: str, book: RouteBook, meter: Meter) -> None:
        self._path = path
        self._worker = worker
        self._book = book
        self._meter = meter
        self._writer: asyncio.StreamWriter | None = None

    @property
    def connected(self) -> bool:
        """Whether control hears us."""
        return self._writer is not None

    async def run(self) -> None:
        """Stay connected for as long as the worker lives; never returns."""
        while True:
            try:
                sock = connect_unix(str(self._path))
            except OSError:
                await self._alone()
                continue
            try:
                reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=_LINE_BYTES_MAX)
                await self._talk(reader)
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                log.warning("the line to control ended: %s", error or type(error).__name__)
            finally:
                await self._hang_up()
            await asyncio.sleep(_RECONNECT_S)

    async def _alone(self) -> None:
        """Control is away: look at the folder for a second, trying its socket in between."""
        self._book.read_all()
        self._book.take_idle()
        for _ in range(int(_PERIOD_S / _RECONNECT_S)):
            await asyncio.sleep(_RECONNECT_S)
            if os.path.exists(self._path):
                break

    async def _talk(self, reader: asyncio.StreamReader) -> None:
        self._tell({"hello": self._worker, "pid": os.getpid()})
        self._meter.tell_again()
        self._book.read_all()
        self._tell({"busy": self._book.busy})
        if self._book.gates is not None:
            self._book.gates.tell_again()
        self._acknowledge({e.slug: e.generation for e in self._book.endpoints.values()}, [])
        if self._book.idle:
            self._tell({"idle": list(self._book.idle)})
        while True:
            line = await reader.readline()
            if not line.endswith(b"\n"):
                return
            message = json.loads(line)
            slugs = message.get("routes") if isinstance(message, dict) else None
            if isinstance(slugs, list):
                served, gone = self._book.read([slug for slug in slugs if isinstance(slug, str)])
                self._acknowledge(served, gone)
                self.tell_idle()

    async def _hang_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _acknowledge(self, served: dict[str, int], gone: list[str]) -> None:
        self._tell({"ack": served, "gone": gone})

    def tell_idle(self) -> None:
        """Tell of instances that left the tables and have answered all they had."""
        done = self._book.take_idle()
        if done:
            self._tell({"idle": done})

    def tell_ejected(self, instance: Instance, why: str) -> None:
        """Tell of an instance that this worker found dead or silent."""
        self._tell({"eject": {"instance": instance.instance_id, "endpoint": instance.endpoint.slug, "why": why}})

    def tell_use(self, told: dict[str, list[int]]) -> bool:
        """Tell how many requests serverless endpoints have; False while control does not hear us."""
        self._tell({"use": told})
        return self._writer is not None

    def tell_meter(self) -> None:
        """Tell the second that ends."""
        rollup = self._meter.take(int(time.time()))
        if rollup is not None:
            self._tell({"meter": rollup})

    def _tell(self, message: dict[str, Any]) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() > _UNSENT_BYTES_MAX:
            self._meter.count("feed_lines_dropped")
            return
        writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
