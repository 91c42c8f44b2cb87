"""Serverless endpoints in a gateway worker: how many of their requests may be under way at once, over all workers, and
the word to control that wakes an endpoint from zero.

A `Gate` stands before the dispatch of each request of a serverless endpoint. It lets MaxConcurrency in, counted in
byte-range locks of one file that all workers share: the kernel gives back what a worker held when it dies, and nobody
has to be asked. A request beyond it waits a moment for another to end and is then throttled. What is let in and finds
no instance is held by its endpoint as any other is; `Gates` tells control of it at once, and of every change of the
numbers otherwise with the sweep.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from eyrie.domain.routing import ServerlessRoute, VariantRoute
from eyrie.gateway import errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.meter import Meter
from eyrie.http1.sweep import Sweep

if TYPE_CHECKING:
    from eyrie.gateway.invocation import Invocation
    from eyrie.gateway.routes import Endpoint

WAITING_MAX = 1_024  # requests an endpoint that wait to be let in, a worker
PLACES = 1 << 10  # bytes of the file an endpoint; more than MaxConcurrency may be
_AGAIN_S = 0.02  # after every place was found taken, they are not tried again for so long
_TOLD_S = 0.25  # between two words about what did not grow

Told = dict[str, list[int]]


class Places:
    """The shared file: one byte a request that may be under way, locked while it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self, place: int) -> bool:
        """Whether the place was free, and is this process's now."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            return False
        return True

    def give(self, place: int) -> None:
        """The place is free again."""
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Give back every place."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Gate:
    """One serverless endpoint's."""

    def __init__(self, endpoint: Endpoint, gates: Gates) -> None:
        self._gates = gates
        self.endpoint = endpoint
        self._first = int.from_bytes(blake2b(endpoint.slug.encode(), digest_size=5).digest()) * PLACES
        self._places: dict[Invocation, int] = {}  # of those that were let in
        self._full_until_s = 0.0
        self._waiting: deque[Invocation] = deque()
        self.route = ServerlessRoute(1)
        self.variant = ""  # its name
        self.told: tuple[int, int] = (0, 0)
        self.peak = 0
        self.ready = 0  # requests that came while ProvisionedConcurrency covered them
        self.beyond = 0  # and those that came on top of it

    @property
    def inside(self) -> int:
        """Requests of this worker that were let in and have not ended."""
        return len(self._places)

    @property
    def waiting(self) -> int:
        """Requests that wait to be let in."""
        return len(self._waiting)

    def enter(self, invocation: Invocation) -> bool:
        """Let a request in; False: it waits, or was answered."""
        invocation.gate = self
        trouble = self.trouble()
        if trouble is not None:
            self.peak = max(self.peak, self.inside + 1)  # it is tried again as long as anyone asks
            invocation.refuse_in_time(trouble)
            return False
        if not self._waiting and self._let_in(invocation):
            return True
        if len(self._waiting) >= WAITING_MAX:
            self._gates.meter.count("throttled")
            invocation.refuse_in_time(self._throttled())
            return False
        self._gates.meter.count("waiting_for_concurrency")
        invocation.hold_until_s = self._gates.sweep.now + self.route.wait_ms / 1000
        self._waiting.append(invocation)
        return False

    def _let_in(self, invocation: Invocation) -> bool:
        place = self._place()
        if place is None:
            return False
        self._places[invocation] = place
        invocation.hold_until_s = float("inf")
        self.peak = max(self.peak, self.inside)
        if place - self._first < self.route.provisioned:
            self.ready += 1
        elif self.route.provisioned:
            self.beyond += 1
        return True

    def _place(self) -> int | None:
        """The first place that is free; it is taken now. The first ones are those that are provisioned for."""
        most = min(self.route.max_concurrency, PLACES)
        now = self._gates.sweep.now
        if self.inside >= most or now < self._full_until_s:
            return None
        mine = set(self._places.values())
        for place in range(self._first, self._first + most):
            if place not in mine and self._gates.places.take(place):
                return place
        self._full_until_s = now + _AGAIN_S
        return None

    def leave(self, invocation: Invocation) -> None:
        """A request has ended, or waits no more."""
        invocation.gate = None
        place = self._places.pop(invocation, None)
        if place is None:
            if invocation in self._waiting:
                self._waiting.remove(invocation)
            return
        self._gates.places.give(place)
        self._full_until_s = 0.0
        if self._waiting:
            self._gates.soon(self.advance)

    def advance(self) -> None:
        """Let in those for whom there is a place."""
        while self._waiting and self._let_in(self._waiting[0]):
            self._waiting.popleft().dispatch()

    def hold_s(self) -> float:
        """A request that was let in finds no instance: control is told at once. How long it may wait for one."""
        self._gates.tell_soon()
        return self.route.hold_ms / 1000

    def expired(self, invocation: Invocation) -> Reply:
        """What a request is told whose wait has ended."""
        if invocation not in self._places:
            self._gates.meter.count("throttled")
            return self._throttled()
        return errors.serverless_not_ready(self.endpoint.key.name)

    def _throttled(self) -> Reply:
        """Too many requests at once."""
        return errors.throttled(
            f"Rate exceeded: endpoint {self.endpoint.key.name} serves at most {self.route.max_concurrency} requests "
            "at once (MaxConcurrency)."
        )

    def trouble(self) -> Reply | None:
        """What a request is told where no instance can start; None: it may wait for one."""
        if not self.route.trouble or self.endpoint.routed:
            return None
        container = next((v.container for v in self.endpoint.variants.values()), "primary")
        return errors.model_error(self.endpoint.key, container, 0, self.route.trouble.encode())


class Gates:
    """Those of a worker."""

    def __init__(self, path: Path, sweep: Sweep, meter: Meter, loop: asyncio.AbstractEventLoop) -> None:
        self.places = Places(path)
        self.sweep = sweep
        self.meter = meter
        self.tell: Callable[[Told], bool] = lambda told: False  # whether it could be told
        self._loop = loop
        self._gates: dict[str, Gate] = {}  # by slug; also of endpoints that are gone, while they have requests
        self._asked = False
        self._told_at_s = 0.0

    def of(self, endpoint: Endpoint, variants: Sequence[VariantRoute]) -> Gate | None:
        """The gate of an endpoint with these variants; None where it is not serverless."""
        variant = next((v for v in variants if v.serverless is not None), None)
        if variant is None or variant.serverless is None:
            return None
        gate = self._gates.get(endpoint.slug)
        if gate is None:
            gate = self._gates[endpoint.slug] = Gate(endpoint, self)
        gate.endpoint = endpoint  # another one of that name; requests of the one before may still hold places
        gate.route, gate.variant = variant.serverless, variant.name
        self.soon(gate.advance)
        return gate

    def soon(self, function: Callable[[], None]) -> None:
        """Call this in the loop's next turn."""
        self._loop.call_soon(function)

    def tell_soon(self) -> None:
        """Tell control in the loop's next turn, once for all that happens in this one."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._tell_now)

    def tell_again(self) -> None:
        """Whoever listens is new."""
        for gate in self._gates.values():
            gate.told = (0, 0)
        self.tell_soon()

    def turn(self, now: float) -> None:
        """Called by the sweep: places may have become free in other workers; numbers may have changed."""
        for gate in self._gates.values():
            if gate.waiting:
                gate.advance()
        if now - self._told_at_s >= _TOLD_S:
            self._tell_now()

    def stats(self) -> dict[str, dict[str, int]]:
        """Requests at once, and those that wait, by slug."""
        return {slug: {"inside": g.inside, "waiting": g.waiting} for slug, g in self._gates.items()}

    def close(self) -> None:
        """The worker ends."""
        self.places.close()

    def _tell_now(self) -> None:
        self._asked = False
        self._told_at_s = self.sweep.now
        told: Told = {}
        for slug, gate in list(self._gates.items()):
            state = (gate.inside, gate.peak)
            if state == gate.told and not gate.ready and not gate.beyond:
                if not gate.inside and not gate.waiting and gate.endpoint.gate is not gate:
                    del self._gates[slug]
                continue
            told[slug] = [gate.inside, gate.peak, gate.ready, gate.beyond]
        if not told or not self.tell(told):
            return
        for slug in told:
            gate = self._gates[slug]
            gate.peak, gate.ready, gate.beyond = gate.inside, 0, 0
            gate.told = (gate.inside, gate.inside)
