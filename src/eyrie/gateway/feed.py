"""What a worker tells control over its line (`adapters/control_line`): what it serves, what is idle, and what it saw;
and the route tables that it reads at control's hint.

Serving does not depend on it: while control is away the folder is looked at every second, and what would have been
told is either told at the next connection (what is served, what is idle) or dropped and counted (rollups, ejections).
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

from eyrie.adapters.control_line import RECONNECT_S, ControlLine
from eyrie.gateway.meter import Meter
from eyrie.gateway.routes import Instance, RouteBook
from eyrie.http1.unix import connect_unix

_PERIOD_S = 1.0


class Feed:
    """Talks to control for one worker."""

    def __init__(self, path: Path, worker: str, book: RouteBook, meter: Meter) -> None:
        self._path = path
        self._worker = worker
        self._book = book
        self._meter = meter
        self._line = ControlLine(path, connect_unix, partial(meter.count, "feed_lines_dropped"))

    @property
    def connected(self) -> bool:
        """Whether control hears us."""
        return self._line.connected

    async def run(self) -> None:
        """Stay connected for as long as the worker lives; never returns."""
        await self._line.run(self._begun, self._changed, self._alone)

    async def _alone(self) -> None:
        """Control is away: look at the folder for a second, trying its socket in between."""
        self._book.read_all()
        self._book.take_idle()
        for _ in range(int(_PERIOD_S / RECONNECT_S)):
            await asyncio.sleep(RECONNECT_S)
            if os.path.exists(self._path):
                break

    def _begun(self) -> None:
        tell, book = self._line.tell, self._book
        tell({"hello": self._worker, "pid": os.getpid()})
        self._meter.tell_again()
        book.read_all()
        tell({"busy": book.busy})
        if book.gates is not None:
            book.gates.tell_again()
        tell({"ack": {e.slug: e.generation for e in book.endpoints.values()}, "gone": []})
        if book.idle:
            tell({"idle": list(book.idle)})

    def _changed(self, slugs: list[str]) -> None:
        served, gone = self._book.read(slugs)
        self._line.tell({"ack": served, "gone": gone})
        self.tell_idle()

    def tell_idle(self) -> None:
        """Tell of instances that left the tables and have answered all they had."""
        done = self._book.take_idle()
        if done:
            self._line.tell({"idle": done})

    def tell_ejected(self, instance: Instance, why: str) -> None:
        """Tell of an instance that this worker found dead or silent."""
        told = {"instance": instance.instance_id, "endpoint": instance.endpoint.slug, "why": why}
        self._line.tell({"eject": told})

    def tell_use(self, told: dict[str, list[int]]) -> bool:
        """Tell how many requests serverless endpoints have; False while control does not hear us."""
        self._line.tell({"use": told})
        return self._line.connected

    def tell_meter(self) -> None:
        """Tell the second that ends."""
        rollup = self._meter.take(int(time.time()))
        if rollup is not None:
            self._line.tell({"meter": rollup})
