"""What dispatch tells control over its line (`adapters/control_line`): as a gateway worker does, and twice a second the
backlogs.

Nothing here is needed for requests to be accepted and brought to instances: while control is away the folder of route
tables is looked at all the time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eyrie.adapters.control_line import RECONNECT_S, ControlLine
from eyrie.dispatch.tables import Tables, Worker
from eyrie.http1.unix import connect_unix

NAME = "dispatch"
_PERIOD_S = 0.5  # twice a second: no second is without a measurement


class Feed:
    """Talks to control for as long as it runs."""

    def __init__(
        self, path: Path, tables: Tables, backlogs: Callable[[], dict[str, Any]], dropped: Callable[[], None]
    ) -> None:
        """`backlogs`: what is told each second. `dropped` hears of each line that control was too slow for."""
        self._tables, self._backlogs = tables, backlogs
        self._line = ControlLine(path, connect_unix, dropped)

    async def run(self) -> None:
        """Stay connected; never returns."""
        await self._line.run(self._begun, self._changed, self._alone)

    async def beat(self) -> None:
        """Tell the backlogs; never returns."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            self._line.tell({"backlog": self._backlogs()})
            self.tell_idle()

    async def _alone(self) -> None:
        self._tables.read_all()
        self._tables.take_idle()
        await asyncio.sleep(RECONNECT_S)

    def _begun(self) -> None:
        tell, tables = self._line.tell, self._tables
        tell({"hello": NAME, "pid": os.getpid()})
        tables.read_all()
        tell({"busy": tables.busy})
        tell({"ack": tables.generations, "gone": []})
        if tables.idle:
            tell({"idle": tables.idle})

    def _changed(self, slugs: list[str]) -> None:
        served, gone = self._tables.read(slugs)
        self._line.tell({"ack": served, "gone": gone})
        self.tell_idle()

    def tell_idle(self) -> None:
        """Tell of instances that left the tables and have answered all they had."""
        done = self._tables.take_idle()
        if done:
            self._line.tell({"idle": done})

    def tell_ejected(self, slug: str, worker: Worker, why: str) -> None:
        """Tell of an instance that was found dead."""
        self._line.tell({"eject": {"instance": worker.instance_id, "endpoint": slug, "why": why}})
