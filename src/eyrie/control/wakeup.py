"""What the loops of control wait on between two rounds: time, or a word that there is something to do now."""

from __future__ import annotations

import asyncio
import contextlib


class Wakeup:
    """Cuts a loop's wait short. A word that comes during a round is not lost: it ends the wait after it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # of the one who waits, once it runs
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something to do. From any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    def begin_round(self) -> None:
        """What was told until now is seen to by the round that begins."""
        self._loop = asyncio.get_running_loop()
        self._woken.clear()

    async def wait(self, most_s: float) -> None:
        """Return once somebody has called `wake` since the round began, or after `most_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._woken.wait()
