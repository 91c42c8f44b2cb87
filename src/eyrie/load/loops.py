"""The two loops of a load test: an open one, where requests begin by the clock whatever became of those before, and a
closed one, where each user waits for his reply.

Both are callbacks on one event loop; no task a request. A request that finds no free connection waits in line, and its
response time counts from the moment when it was meant to begin.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Iterator
from time import monotonic

from eyrie.decide.load import arrivals, even_gaps
from eyrie.load.pacer import Pacer
from eyrie.load.plan import Plan
from eyrie.load.recorder import Recorder
from eyrie.load.requests import Requests
from eyrie.load.wire import Wire

AGAIN_S = 0.1  # after a connection could not be had
BACKLOG = "not sent: too many waiting"
TIMEOUT = "timeout"
UNANSWERED = "not answered when the load ended"
FIRST_CONNECTIONS = 8


class Loop:
    """What both have in common: connections, and what becomes of requests."""

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        self.plan, self.recorder = plan, recorder
        self.loop = asyncio.get_running_loop()
        self.requests = Requests(plan)
        self.wires: set[Wire] = set()
        self.connecting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._tls = ssl.create_default_context() if plan.target.tls else None

    def begin(self) -> None:
        """Begin at the plan's moment."""
        raise TypeError("either an open or a closed loop")

    @property
    def over(self) -> bool:
        """Whether nothing is left to begin, nor to wait for."""
        raise TypeError("either an open or a closed loop")

    def stop(self) -> None:
        """Begin nothing more; what was begun is waited for."""

    def free(self, wire: Wire) -> None:
        """A connection has nothing to do."""

    def unreachable(self, why: str) -> None:
        """A connection could not be had."""

    def connect(self) -> None:
        """Open one more connection; `free` or `unreachable` follows."""
        self.connecting += 1
        task = self.loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        target = self.plan.target
        try:
            opening = self.loop.create_connection(
                lambda: Wire(self),
                target.host,
                target.port,
                ssl=self._tls,
                server_hostname=target.host if target.tls else None,
            )
            _, wire = await asyncio.wait_for(opening, self.plan.timeout_s)
        except (OSError, TimeoutError) as error:
            self.connecting -= 1
            self.unreachable("connection refused" if isinstance(error, ConnectionError) else "no connection")
            return
        self.connecting -= 1
        self.wires.add(wire)
        self.free(wire)

    # ---- what a Wire tells
    def answered(self, wire: Wire, status: int, kind: str) -> None:
        """A whole reply."""
        now = monotonic()
        if 200 <= status < 300:
            self.recorder.answered(wire.intended, wire.sent, now)
        else:
            self.recorder.failed(now, f"{status} {kind}".strip())
        if wire.closing:
            self.wires.discard(wire)
            self.lost()
        else:
            self.free(wire)

    def failed(self, wire: Wire, why: str) -> None:
        """A request without a reply."""
        self.wires.discard(wire)
        self.recorder.failed(monotonic(), why)
        self.lost()

    def idle_lost(self, wire: Wire) -> None:
        """The other side closed an idle connection."""
        self.wires.discard(wire)
        self.lost()

    def lost(self) -> None:
        """A connection is gone; a loop may open another."""

    def sweep(self) -> None:
        """Give up what waits too long; called several times a second."""
        now = monotonic()
        late = [wire for wire in self.wires if wire.busy and now - wire.sent > self.plan.timeout_s]
        for wire in late:
            wire.close()
            self.failed(wire, TIMEOUT)

    def close(self) -> None:
        """End every connection; what is on them failed."""
        for wire in list(self.wires):
            if wire.busy:
                self.recorder.failed(monotonic(), UNANSWERED)
            wire.close()
        self.wires.clear()
        for task in self._tasks:
            task.cancel()


class OpenLoop(Loop):
    """Requests by the clock."""

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        super().__init__(plan, recorder)
        self._moments = self._schedule()
        self._next: float | None = next(self._moments, None)
        self._idle: list[Wire] = []
        self._waiting: deque[float] = deque()
        self._pacer = Pacer(self.loop, self._tick)

    def begin(self) -> None:
        """The first requests find open connections."""
        for _ in range(min(FIRST_CONNECTIONS, self.plan.connections)):
            self.connect()
        if self._next is not None:
            self._pacer.wake_at(self._next)

    @property
    def over(self) -> bool:
        """All were sent, and nothing is waited for."""
        return self._next is None and not self._waiting and not any(wire.busy for wire in self.wires)

    def stop(self) -> None:
        """No more moments."""
        self._next, self._moments = None, iter(())

    def _schedule(self) -> Iterator[float]:
        plan = self.plan
        chance = random.Random(plan.seed * 1_000 + plan.share)
        gaps = even_gaps(plan.share, plan.shares)
        if plan.poisson:
            gaps = iter(lambda: chance.expovariate(1.0 / plan.shares), None)
        return (plan.begin_s + moment for moment in arrivals(plan.stages, gaps))

    def _tick(self) -> None:
        due, now = self._next, monotonic()
        while due is not None and due <= now:
            self._due(due)
            due = next(self._moments, None)
        self._next = due
        if due is not None:
            self._pacer.wake_at(due)

    def _due(self, intended: float) -> None:
        self.recorder.meant(intended)
        if self._idle:
            wire = self._idle.pop()
            wire.send(self.requests.next(), intended)
            self.recorder.sent(intended, wire.sent, free=True)
            return
        if len(self._waiting) >= self.plan.waiting_max:
            self.recorder.failed(monotonic(), BACKLOG)
            return
        self._waiting.append(intended)
        if len(self.wires) + self.connecting < self.plan.connections and self.connecting <= len(self._waiting):
            self.connect()

    def free(self, wire: Wire) -> None:
        """The next in line, or none."""
        if wire not in self.wires:
            return
        if self._waiting:
            intended = self._waiting.popleft()
            wire.send(self.requests.next(), intended)
            self.recorder.sent(intended, wire.sent, free=False)
        else:
            self._idle.append(wire)

    def unreachable(self, why: str) -> None:
        """Where there is no connection at all, the first in line fails; else the others take it."""
        if not self.wires and self._waiting:
            self._waiting.popleft()
            self.recorder.failed(monotonic(), why)
            self.lost()

    def lost(self) -> None:
        """Open another for those in line."""
        if self._waiting and len(self.wires) + self.connecting < self.plan.connections:
            self.connect()

    def idle_lost(self, wire: Wire) -> None:
        """An idle connection is gone."""
        if wire in self._idle:
            self._idle.remove(wire)
        super().idle_lost(wire)

    def close(self) -> None:
        """What still waits was never sent."""
        self._pacer.close()
        if self._waiting:
            self.recorder.failed(monotonic(), "not sent: the test was over", len(self._waiting))
            self._waiting.clear()
        super().close()


class ClosedLoop(Loop):
    """Users who wait for their reply, think, and ask again."""

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        super().__init__(plan, recorder)
        self._end = plan.begin_s + plan.seconds
        self._users = plan.users

    def begin(self) -> None:
        """A connection a user; more of them, or fewer, when their moments come."""
        self._become(self.plan.users)
        for at_s, users in self.plan.levels:
            self.loop.call_later(max(0.0, self.plan.begin_s + at_s - monotonic()), self._become, users)

    def _become(self, users: int) -> None:
        """There are so many users from now on; who is too many leaves with his next reply."""
        self._users = users
        if monotonic() < self._end:
            for _ in range(users - len(self.wires) - self.connecting):
                self.connect()

    @property
    def over(self) -> bool:
        """Time is up, and nothing is waited for."""
        return monotonic() >= self._end and not any(wire.busy for wire in self.wires)

    def stop(self) -> None:
        """Nobody asks again."""
        self._end = monotonic()

    def free(self, wire: Wire) -> None:
        """The user thinks, then asks; one too many leaves."""
        if len(self.wires) > self._users:
            self.wires.discard(wire)
            wire.close()
            return
        now = monotonic()
        begin = max(now + (self.plan.think_s if wire.sent else 0.0), self.plan.begin_s)
        if begin > now:
            self.loop.call_later(begin - now, self._ask, wire, begin)
        else:
            self._ask(wire, now)

    def _ask(self, wire: Wire, intended: float) -> None:
        if wire not in self.wires or intended >= self._end:
            return
        self.recorder.meant(intended)
        wire.send(self.requests.next(), intended)
        self.recorder.sent(intended, wire.sent, free=True)

    def unreachable(self, why: str) -> None:
        """The user tries again in a moment."""
        self.recorder.failed(max(monotonic(), self.plan.begin_s), why)
        self.loop.call_later(AGAIN_S, self.lost)

    def lost(self) -> None:
        """He opens another connection."""
        if monotonic() < self._end and len(self.wires) + self.connecting < self._users:
            self.connect()
