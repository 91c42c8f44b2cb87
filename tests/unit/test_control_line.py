"""A line to control that does not read: what is told beyond the bound is dropped and counted, and nothing waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

from eyrie.adapters.control_line import ControlLine
from eyrie.http1.unix import connect_unix, listen_unix

LINE = {"meter": "x" * 1_000_000}
BOUND = 10  # of such lines, and what the kernel takes


def test_lines_beyond_the_bound_are_dropped_and_counted(tmp_path: Path) -> None:
    path, dropped = tmp_path / "feed.sock", []

    async def alone() -> None:
        raise AssertionError("control listens")

    async def main() -> None:
        listener = listen_unix(str(path))
        line = ControlLine(path, connect_unix, lambda: dropped.append(1))
        line.tell(LINE)  # before there is a connection: said to nobody
        begun = asyncio.Event()
        running = asyncio.ensure_future(line.run(begun.set, lambda slugs: None, alone))
        await asyncio.wait_for(begun.wait(), 30)
        assert (line.connected, dropped) == (True, [])
        for _ in range(3 * BOUND):
            line.tell(LINE)
        assert 2 * BOUND <= len(dropped) < 3 * BOUND
        running.cancel()
        listener.close()  # what it had not accepted is reset: hanging up waits for nobody
        await asyncio.gather(running, return_exceptions=True)
        assert not line.connected

    asyncio.run(main())
