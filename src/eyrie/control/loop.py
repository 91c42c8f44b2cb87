"""The one driver with concurrency (law 11): looks at endpoints when something may have changed and when time says so,
and lets control/act do what the looks owe the world.

What wakes it: a commit of the API, an outcome, a ping, a gateway's word, a change in compute's inventory (looked at
five times a second), a deadline that a decision named, and a slow round over everything (law 5). Looks run one after
the other on one thread of their own; nothing here decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, TypeVarTuple

from eyrie.control import alarm_table
from eyrie.control.act import Executor, Hands, effect_of
from eyrie.control.endpoints import KIND, Endpoints
from eyrie.control.evidence import EvidenceOf, no_evidence
from eyrie.control.prober import Probed, Prober
from eyrie.control.reconciler import Look, Reconciler, Seen
from eyrie.control.routes import PacedRoutes
from eyrie.control.use_book import Told, UseBook
from eyrie.decide.policy import Policy
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import InstanceState, ObservedInstance
from eyrie.domain.names import EndpointKey
from eyrie.domain.plan import Outcome, Verb
from eyrie.ports import Artifacts, Clock, Compute, Conflict, Identity, Routes, Store
from eyrie.settings import Settings

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LOG = logging.getLogger(__name__)
INVENTORY_PERIOD_S = 0.2
ROUND_PERIOD_S = 5.0
LOOKS_MAX = 50  # of one endpoint in a row, before others get their turn
UNSAFE_PAUSE_S = 5.0
TAKEN_IN_S = 0.1  # how long an outcome that nothing waits for may lie, so that the next commit finishes its effect too
# One that is only asked for is pinged as soon as it is there: what it answers is known when its start is taken in.
_PROBED = frozenset({InstanceState.REQUESTED, InstanceState.STARTING, InstanceState.READY, InstanceState.UNKNOWN})
_TIDYING = frozenset({Verb.PUBLISH_ROUTE, Verb.FORGET_INSTANCE})
_COMING = frozenset({InstanceState.REQUESTED, InstanceState.STARTING})


def policy_of(settings: Settings) -> Policy:
    """The numbers of decisions, as set."""
    return Policy(
        zones=settings.zones,
        ping_misses=settings.ping_misses,
        foreign_ping_misses=settings.foreign_ping_misses,
        unknown_grace_ms=settings.unknown_grace_ms,
        drain_ms=settings.drain_ms,
        ack_limit_ms=2 * settings.drain_ms,
        invoke_timeout_ms=settings.invoke_timeout_ms,
        body_bytes_max=settings.body_bytes_max,
        serverless_idle_ms=settings.serverless_idle_ms,
        serverless_hold_ms=settings.serverless_hold_ms,
        serverless_wait_ms=settings.serverless_wait_ms,
    )


class Loop:
    """Brings what runs to what is wanted, for ever. `endpoints` is what the API calls."""

    def __init__(
        self,
        store: Store,
        compute: Compute,
        artifacts: Artifacts,
        routes: Routes,
        clock: Clock,
        identity: Identity,
        settings: Settings,
        evidence_of: EvidenceOf = no_evidence,
    ) -> None:
        self._store = store
        self._compute = compute
        self._routes = routes
        paced = PacedRoutes(routes)
        self._clock = clock
        self._scale = settings.time_scale
        self.endpoints = Endpoints(store, clock, identity, self.wake)
        alarms_of = partial(alarm_table.states, store)
        decided = (clock, identity, policy_of(settings), alarms_of, evidence_of)
        self._reconciler = Reconciler(self.endpoints, compute, paced, *decided)
        self._executor = Executor(Hands(self.endpoints, compute, artifacts, paced), self._heard)
        self._prober = Prober(settings, clock, self.wake, compute.cpu_us)
        self.uses = UseBook(clock)
        self.serverless: dict[EndpointKey, Endpoint] = {}  # those that there are, as they were last looked at
        self._known: dict[EndpointKey, Endpoint] = {}  # likewise, of every kind
        self._taken_up = False
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._eyes = ThreadPoolExecutor(1, thread_name_prefix="inventory")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # guards the three below, which API threads reach through `wake`
        self._woken: dict[EndpointKey, None] = {}
        self._stirred = asyncio.Event()
        self._look_now = asyncio.Event()
        self._due_s: dict[EndpointKey, float] = {}
        self._outcomes: dict[EndpointKey, list[Outcome]] = {}
        self._pending: dict[EndpointKey, set[str]] = {}
        self._inventory: Mapping[str, ObservedInstance] = {}
        self._inventory_ms = 0
        self._unsettled: set[EndpointKey] = set()
        self._holders: dict[str, EndpointKey] = {}
        self._held: dict[EndpointKey, set[str]] = {}
        self._coming: dict[EndpointKey, Endpoint] = {}  # with instances that are asked for or start
        self._orphans: set[str] = set()

    async def run(self) -> None:
        """Drive until cancelled. First adopts what runs and takes up what is owed."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._take_up()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch())
                tasks.create_task(self._rounds())
                tasks.create_task(self._drive())
        finally:
            await self._prober.close()
            await self._executor.close()
            self._looks.shutdown(wait=True, cancel_futures=True)
            self._eyes.shutdown(wait=False, cancel_futures=True)

    def wake(self, key: EndpointKey) -> None:
        """Look at this endpoint soon. From any thread; before `run` it is remembered."""
        with self._lock:
            self._woken[key] = None
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stirred.set)

    def look_around(self) -> None:
        """Something may have happened to an instance: take compute's inventory now. From any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._look_now.set)

    def acknowledged(self, keys: set[EndpointKey]) -> None:
        """A gateway worker serves other tables than before; of all endpoints where `keys` is empty."""
        for key in keys or set(self._unsettled):
            if key in self._unsettled:
                self.wake(key)

    def emptied(self, instance_ids: list[str]) -> None:
        """The last request on these instances was answered, as far as one worker is concerned."""
        for key in {self._holders[i] for i in instance_ids if i in self._holders}:
            self.wake(key)

    def ejected(self, key: EndpointKey, instance_id: str, why: str) -> None:
        """A gateway worker found an instance dead or silent: look at the inventory now, and ping it."""
        self._prober.ejected(instance_id, why)
        self._look_now.set()

    def standing(self) -> list[tuple[Endpoint, frozenset[str]]] | None:
        """Every endpoint as it was last looked at, and which of its instances are alive; None before the first look
        around. On the event loop.
        """
        if not self._taken_up:
            return None
        alive = {i for i, seen in self._inventory.items() if seen.alive}
        known = self._known.values()
        return [(e, frozenset(i.instance_id for i in e.instances if i.instance_id in alive)) for e in known]

    def joined(self, worker: int) -> None:
        """A gateway worker is connected."""
        self.uses.joined(worker)

    def left(self, worker: int) -> None:
        """A gateway worker is not connected any more."""
        self.uses.left(worker)

    def used(self, worker: int, told: dict[EndpointKey, list[int]]) -> None:
        """How many requests a gateway worker has of serverless endpoints: look at those that have more than before."""
        for key in self.uses.hear(worker, {key: Told(*counts[:4]) for key, counts in told.items()}):
            self.wake(key)

    async def _take_up(self) -> None:
        """After a start: publish what is published again, withdraw what belongs to nobody, do what is owed."""
        await self._take_inventory()
        endpoints = await self._aside(self.endpoints.list)
        await self._aside(self._mend_tables, endpoints)
        for endpoint in endpoints:
            self._settle(endpoint.key, endpoint)
            self.wake(endpoint.key)
        for action in await self._aside(self._store.outbox):
            if action.kind == KIND:
                key = EndpointKey(action.scope.account, action.scope.region, action.name)
                self._pending.setdefault(key, set()).add(action.action_id)
                self._executor.submit(key, [effect_of(action)])
        self._taken_up = True

    def _mend_tables(self, endpoints: list[Endpoint]) -> None:
        keys = {e.key for e in endpoints}
        for key, generation in self._routes.published().items():
            if key not in keys:
                LOG.warning("route table of %s belongs to no endpoint: withdrawn", key.slug)
                self._routes.withdraw(key, generation)
        for endpoint in endpoints:
            if endpoint.route is not None:
                self._routes.publish(endpoint.route)

    async def _watch(self) -> None:
        """Look at compute's inventory; wake whom a change concerns, and whoever waits for a newer one."""
        while True:
            changed = await self._take_inventory()
            concerned = {self._holders[i] for i in changed if i in self._holders}
            for key in concerned & self._coming.keys():
                self._probe(key, self._coming[key])
            for key in self._unsettled | concerned:
                self.wake(key)
            await _set_or_late(self._look_now, INVENTORY_PERIOD_S)
            self._look_now.clear()

    async def _take_inventory(self) -> set[str]:
        """Ids of the instances that changed since the last inventory."""
        began_ms = self._clock.now_ms()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._eyes, self._compute.inventory)
        except Exception:  # the boundary of an eye: nothing was seen; what was seen before stands, at its old time
            LOG.exception("the inventory could not be taken")
            return set()
        before, self._inventory = self._inventory, {o.instance_id: o for o in found}
        self._inventory_ms = began_ms
        return {i for i in before.keys() | self._inventory.keys() if before.get(i) != self._inventory.get(i)}

    async def _rounds(self) -> None:
        """Once in a while look at everything, and at what belongs to nobody."""
        while True:
            await asyncio.sleep(ROUND_PERIOD_S)
            try:
                await self._round()
            except Exception:  # the boundary of a round: the next one may go better
                LOG.exception("a round over all endpoints failed")

    async def _round(self) -> None:
        inventory = dict(self._inventory)
        endpoints = await self._aside(self.endpoints.list)
        for endpoint in endpoints:
            self.wake(endpoint.key)
        known = {i.instance_id for e in endpoints for i in e.instances}
        await self._end_orphans({i for i in inventory if i not in known})

    async def _end_orphans(self, orphans: set[str]) -> None:
        """Stop and forget instances that no endpoint has, seen in two rounds: nobody else will ever end them."""
        for instance_id in orphans & self._orphans:
            LOG.warning("instance %s belongs to no endpoint: stopped", instance_id)
            await self._aside(self._compute.stop, instance_id, 0)
            await self._aside(self._compute.forget, instance_id)
        self._orphans = orphans

    async def _drive(self) -> None:
        while True:
            for key in self._due():
                await self._reconcile(key)
            self._stirred.clear()
            if self._woken:
                continue
            await _set_or_late(self._stirred, self._next_due_s())

    def _due(self) -> list[EndpointKey]:
        now_s = asyncio.get_running_loop().time()
        late = [key for key, due_s in self._due_s.items() if due_s <= now_s]
        with self._lock:
            woken, self._woken = self._woken, {}
        return list(dict.fromkeys([*woken, *late]))

    def _next_due_s(self) -> float | None:
        if not self._due_s:
            return None
        return max(0.0, min(self._due_s.values()) - asyncio.get_running_loop().time())

    async def _reconcile(self, key: EndpointKey) -> None:
        """Look until nothing changes any more. Whatever goes wrong concerns this endpoint only."""
        self._due_s.pop(key, None)
        try:
            for _ in range(LOOKS_MAX):
                if not await self._look(key):
                    return
            self.wake(key)
        except Exception:  # the boundary of one endpoint: the others are looked at nevertheless
            LOG.exception("looking at %s failed", key.slug)
            self._due_s[key] = asyncio.get_running_loop().time() + UNSAFE_PAUSE_S

    async def _look(self, key: EndpointKey) -> bool:
        """One look; True when it changed something."""
        outcomes = self._outcomes.pop(key, [])
        seen = Seen(self._inventory, self._inventory_ms, self._prober.health(), self.uses.use(key))
        pending = frozenset(self._pending.get(key, ()))
        try:
            look = await self._aside(self._reconciler.look, key, seen, outcomes, pending)
        except BaseException as error:
            self._outcomes[key] = outcomes + self._outcomes.get(key, [])
            if isinstance(error, Conflict):
                return True
            raise
        self._take_in(key, look)
        return look.changed

    def _take_in(self, key: EndpointKey, look: Look) -> None:
        """Remember what a look said: effects that are owed now, whom to ping, when to look again."""
        owed = self._pending.setdefault(key, set())
        owed.difference_update(look.decision.finished)
        owed.update(e.effect_id for e in look.decision.effects)
        if not owed:
            del self._pending[key]
        self._executor.submit(key, look.decision.effects)
        self._settle(key, look.endpoint)
        if look.decision.wake_ms is not None:
            in_s = (look.decision.wake_ms - self._clock.now_ms()) / 1000 / self._scale
            self._due_s[key] = asyncio.get_running_loop().time() + max(0.001, in_s)

    def _settle(self, key: EndpointKey, endpoint: Endpoint | None) -> None:
        """Keep the indices of what is looked at how often."""
        instances = endpoint.instances if endpoint is not None else ()
        held = {i.instance_id for i in instances}
        for instance_id in self._held.pop(key, set()) - held:
            self._holders.pop(instance_id, None)
        if held:
            self._held[key] = held
            self._holders.update(dict.fromkeys(held, key))
        if endpoint is not None:
            self._known[key] = endpoint
        else:
            self._known.pop(key, None)
        if endpoint is not None and any(v.serverless for f in endpoint.fleets for v in f.variants):
            self.serverless[key] = endpoint
        elif self.serverless.pop(key, None) is not None:
            self.uses.forget(key)
        if endpoint is not None and not _settled(endpoint):
            self._unsettled.add(key)
        else:
            self._unsettled.discard(key)
        if endpoint is not None and any(i.state in _COMING for i in instances):
            self._coming[key] = endpoint
        else:
            self._coming.pop(key, None)
        self._probe(key, endpoint)

    def _probe(self, key: EndpointKey, endpoint: Endpoint | None) -> None:
        """Ping those of an endpoint's instances that are there."""
        probed = {}
        for i in endpoint.instances if endpoint is not None else ():
            seen = self._inventory.get(i.instance_id)
            if i.state in _PROBED and seen is not None and endpoint is not None:
                probed[i.instance_id] = Probed(key, seen.socket, _foreign(endpoint, i.variant), i.state in _COMING)
        self._prober.watch(key, probed)

    def _heard(self, key: EndpointKey, outcome: Outcome) -> None:
        self._outcomes.setdefault(key, []).append(outcome)
        if outcome.error is not None:
            LOG.warning("%s: %s", outcome.effect_id, outcome.error)
        if outcome.verb is Verb.ENSURE_INSTANCE:
            self._prober.hurry(outcome.subject)
        elif outcome.verb in _TIDYING and key in self._coming:  # the start is what the endpoint waits for
            due_s = asyncio.get_running_loop().time() + TAKEN_IN_S
            self._due_s[key] = min(due_s, self._due_s.get(key, due_s))
            self._stirred.set()
            return
        self._look_now.set()
        self.wake(key)

    async def _aside(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Run on the thread of looks, in turn."""
        return await asyncio.get_running_loop().run_in_executor(self._looks, function, *arguments)


async def _set_or_late(event: asyncio.Event, wait_s: float | None) -> None:
    """Wait for an event, so long at the most. (`wait_for` of Python 3.11 may swallow a cancellation.)"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await event.wait()


def _settled(endpoint: Endpoint) -> bool:
    """Nothing is on its way: no newer inventory and no acknowledgement is waited for."""
    return (
        endpoint.status.value in ("InService", "Failed")
        and endpoint.deployment is None
        and all(i.state is InstanceState.READY for i in endpoint.instances)
    )


def _foreign(endpoint: Endpoint, variant: str) -> bool:
    return any(v.spec.foreign for f in endpoint.fleets for v in f.variants if v.name == variant)
