"""Pings every instance over its own Unix socket: `GET /ping`, answered with 200 in time or missed. It counts, no more;
what a miss means is decide/fleet's to say. The results are one part of what the reconciler observes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eyrie.decide.health import Effort, after_ejection, after_ping
from eyrie.domain.names import EndpointKey
from eyrie.domain.observation import Health
from eyrie.http1.unix import connect_unix
from eyrie.ports import Clock
from eyrie.settings import Settings

LOG = logging.getLogger(__name__)
STARTING_PERIOD_S = 0.02  # until the first 200: what a fleet waits for
FOREIGN_STARTING_PERIOD_S = 0.05  # of a container of the user's own, where each ping is a request
HEAD_BYTES_MAX = 65_536
LATE_S = 0.5  # a ping that took this much longer than its limit says more about us than about the instance
WAIT_SHARE = 0.5  # of a ping's limit: how long our own model server, while it loads, may wait for a 200 to tell
AGAIN_S = 0.01  # after such a ping: it is asked again at once
EFFORT_S = 0.25  # before a ping is given up: since then CPU time is measured
_REQUEST = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


@dataclass(frozen=True, slots=True)
class Probed:
    """An instance to ping."""

    key: EndpointKey
    socket: str
    foreign: bool
    starting: bool


class Prober:
    """One task an instance. `changed` is called, on the event loop, when an instance's health became another."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        changed: Callable[[EndpointKey], None],
        cpu_us: Callable[[str], int | None] = lambda instance_id: None,
    ) -> None:
        """`cpu_us`: CPU time that an instance's processes have used, None where that cannot be told or one is stopped;
        called from a thread.
        """
        self._settings = settings
        self._cpu_us = cpu_us
        self._clock = clock
        self._changed = changed
        self._probed: dict[str, Probed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._health: dict[str, Health] = {}
        self._now: dict[str, asyncio.Event] = {}

    def watch(self, key: EndpointKey, probed: Mapping[str, Probed]) -> None:
        """Ping exactly these instances of an endpoint from now on."""
        for instance_id in [i for i, p in self._probed.items() if p.key == key and i not in probed]:
            self._forget(instance_id)
        for instance_id, p in probed.items():
            self._probed[instance_id] = p
            if instance_id not in self._tasks:
                self._now[instance_id] = asyncio.Event()
                self._tasks[instance_id] = asyncio.get_running_loop().create_task(self._probe(instance_id))

    def health(self) -> Mapping[str, Health]:
        """The health of every instance that has been pinged."""
        return dict(self._health)

    def ejected(self, instance_id: str, why: str) -> None:
        """A gateway worker found the instance dead or silent: one miss, and a ping at once."""
        if instance_id in self._probed:
            self._note(instance_id, after_ejection(self._health.get(instance_id, Health()), why, self._clock.now_ms()))
            self._now[instance_id].set()

    def hurry(self, instance_id: str) -> None:
        """Ping an instance at once, if it is pinged at all."""
        if instance_id in self._now:
            self._now[instance_id].set()

    async def close(self) -> None:
        """Stop pinging."""
        tasks = list(self._tasks.values())
        for instance_id in list(self._probed):
            self._forget(instance_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, instance_id: str) -> None:
        self._tasks.pop(instance_id).cancel()
        del self._probed[instance_id]
        del self._now[instance_id]
        self._health.pop(instance_id, None)

    async def _probe(self, instance_id: str) -> None:
        while True:
            pause_s = self._settings.ping_period_ms / 1000
            try:
                pause_s = await self._turn(instance_id)
            except Exception:  # the loop boundary: says nothing about the instance, and the next turn asks again
                LOG.exception("a turn of pinging %s failed", instance_id)
            await self._rest(instance_id, pause_s)

    async def _turn(self, instance_id: str) -> float:
        """Ping once and count it; how long to rest then."""
        loop = asyncio.get_running_loop()
        probed, started = self._probed[instance_id], loop.time()
        timeout_s, period_s = self._timings(probed)
        waits_s = timeout_s * WAIT_SHARE if probed.starting and not probed.foreign else 0.0
        late = loop.create_task(self._look_late(instance_id, timeout_s - EFFORT_S))
        try:
            detail = await ping(probed.socket, timeout_s, waits_s)
            effort = await self._effort(instance_id, late) if detail is not None else None
        finally:
            late.cancel()
        took_s = loop.time() - started
        if detail is not None and took_s > timeout_s + LATE_S:
            LOG.warning("a ping of %s ended %.1f s late: not counted", instance_id, took_s - timeout_s)
        else:
            before, limit_ms = self._health.get(instance_id, Health()), self._settings.busy_limit_ms
            self._note(instance_id, after_ping(before, detail, self._clock.now_ms(), effort, limit_ms))
        return max(AGAIN_S, period_s - took_s)

    async def _look_late(self, instance_id: str, after_s: float) -> tuple[int | None, float]:
        """CPU time of an instance shortly before its ping is given up, and when that was looked at."""
        await asyncio.sleep(max(0.0, after_s))
        return await asyncio.to_thread(self._cpu_us, instance_id), asyncio.get_running_loop().time()

    async def _effort(self, instance_id: str, late: asyncio.Task[tuple[int | None, float]]) -> Effort | None:
        """What an instance did while its ping waited; None where that cannot be told, or its ping failed at once."""
        if not late.done():
            return None
        first_us, at_s = late.result()
        if first_us is None:
            return None
        second_us = await asyncio.to_thread(self._cpu_us, instance_id)
        elapsed_us = int((asyncio.get_running_loop().time() - at_s) * 1_000_000)
        return Effort(second_us - first_us, elapsed_us) if second_us is not None else None

    async def _rest(self, instance_id: str, pause_s: float) -> None:
        """Wait for the next turn, or for someone who wants to know now."""
        asked = self._now[instance_id]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await asked.wait()
        asked.clear()

    def _timings(self, probed: Probed) -> tuple[float, float]:
        s = self._settings
        if probed.foreign:
            timeout_ms, period_ms, starting_s = (
                s.foreign_ping_timeout_ms,
                s.foreign_ping_period_ms,
                FOREIGN_STARTING_PERIOD_S,
            )
        else:
            timeout_ms, period_ms, starting_s = s.ping_timeout_ms, s.ping_period_ms, STARTING_PERIOD_S
        return timeout_ms / 1000, starting_s if probed.starting else period_ms / 1000

    def _note(self, instance_id: str, health: Health) -> None:
        before = self._health.get(instance_id, Health())
        self._health[instance_id] = health
        probed = self._probed[instance_id]
        if health.answers is not before.answers or (health.misses != before.misses and not probed.starting):
            self._changed(probed.key)


async def ping(socket: str, timeout_s: float, waits_s: float = 0.0) -> str | None:
    """Ping once: None for a 200 within the time, else what happened instead. `waits_s`: how long an instance that
    still loads its model may wait with its answer, so that a 200 is told when there is one.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(socket, int(waits_s * 1000))
    except TimeoutError:
        return f"no answer in {timeout_s * 1000:.0f} ms"
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return f"{type(error).__name__}: {error}"


async def _exchange(socket: str, waits_ms: int) -> str | None:
    client = connect_unix(socket)
    reader, writer = await asyncio.open_unix_connection(sock=client, limit=HEAD_BYTES_MAX)
    try:
        writer.write(_REQUEST + (b"x-eyrie-wait-ms: %d\r\n\r\n" % waits_ms if waits_ms else b"\r\n"))
        line = await reader.readuntil(b"\r\n")
    finally:
        writer.transport.abort()
    parts = line.split(b" ", 2)
    if len(parts) < 2 or not line.startswith(b"HTTP/1."):
        return f"not an HTTP answer: {line[:40]!r}"
    return None if parts[1].strip() == b"200" else f"status {parts[1].strip().decode('latin-1')[:8]}"
