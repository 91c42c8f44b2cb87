"""A toy world for control's decisions: compute, archives, gateways and pings in memory, on a clock that tests turn.

It outlives any control: `Rig` is one life of control (reconciler and hands on a store), and may be thrown away and
made anew, as after a crash. The world itself asserts what must never happen to it (a second start, an early stop).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from eyrie.control.act import Hands, NotYet, effect_of
from eyrie.control.endpoints import Endpoints
from eyrie.control.reconciler import Reconciler, Seen
from eyrie.decide.health import after_ping
from eyrie.decide.policy import Policy
from eyrie.domain.alarms import AlarmState
from eyrie.domain.analysis import Evidence
from eyrie.domain.endpoint import Endpoint, EndpointStatus, FleetSpec, ModelSpec, VariantSpec
from eyrie.domain.fleet import ContainerSpec, InstanceSpec, InstanceState, ObservedInstance
from eyrie.domain.names import EndpointKey, Scope
from eyrie.domain.observation import Health
from eyrie.domain.plan import Effect, Outcome
from eyrie.domain.routing import EndpointRoute
from eyrie.domain.serverless import Serverless
from eyrie.ports import Action, ArtifactError, Commit, Conflict, Document, Event, InsufficientCapacity, Store

KEY = EndpointKey("123456789012", "us-east-1", "birds")
POLICY = Policy(zones=("a", "b", "c"))
NOBODY = 1 << 62


def wish(
    *variants: tuple[str, int],
    config: str = "config-1",
    image: str = "eyrie/xgboost",
    url: str | None = "s3://b/m",
    may_be_empty: bool = False,
    serverless: Serverless | None = None,
) -> FleetSpec:
    """A fleet of (variant, count) pairs."""
    specs = tuple(
        VariantSpec(
            name=name,
            model=ModelSpec(f"model-{name}", f"arn:model/{name}", (ContainerSpec("primary", image, None, url),)),
            instance_type="ml.m5.large",
            vcpu_milli=2000,
            memory_mb=8192,
            initial_count=count,
            initial_weight=1.0,
            startup_timeout_s=60,
            may_be_empty=may_be_empty,
            serverless=serverless,
        )
        for name, count in variants
    )
    return FleetSpec(config, f"arn:endpoint-config/{config}", specs)


class MemoryStore:
    """The Store port in memory; bodies go through JSON, as on disk."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, Scope, str], Document] = {}
        self.story: list[Event] = []
        self.owed: dict[str, Action] = {}

    def get(self, kind: str, scope: Scope, name: str) -> Document | None:
        return self.documents.get((kind, scope, name))

    def scan(self, kind: str, scope: Scope | None = None) -> list[Document]:
        return [d for d in self.documents.values() if d.kind == kind and scope in (None, d.scope)]

    def commit(self, commit: Commit) -> None:
        for document in (*commit.puts, *commit.deletes):
            known = self.documents.get((document.kind, document.scope, document.name))
            if (known.version if known else 0) != document.version:
                raise Conflict(document.name)
        for document in commit.puts:
            body = json.loads(json.dumps(document.body))
            self.documents[document.kind, document.scope, document.name] = replace(
                document, version=document.version + 1, body=body
            )
        for document in commit.deletes:
            del self.documents[document.kind, document.scope, document.name]
        self.story.extend(commit.events)
        for action in commit.actions:
            self.owed.setdefault(action.action_id, action)
        for action_id in commit.finished:
            self.owed.pop(action_id, None)

    def outbox(self) -> list[Action]:
        return list(self.owed.values())

    def events(self, kind: str, scope: Scope, name: str, limit: int = 1000) -> list[Event]:
        return [e for e in self.story if (e.kind, e.scope, e.name) == (kind, scope, name)][-limit:]

    def lease(self, name: str, holder: str, now_ms: int, duration_ms: int) -> bool:
        return True


class ToyClock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


class SeededIdentity:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, digits: int) -> str:
        return f"{self._random.getrandbits(4 * digits):0{digits}x}"


@dataclass
class ToyInstance:
    """A process of the toy world."""

    spec: InstanceSpec
    started_ms: int
    ready_ms: int | None  # answers /ping from then on; None: never
    dies_ms: int | None = None
    alive: bool = True
    hung: bool = False
    exit_reason: str | None = None


@dataclass
class ToyGateway:
    """One gateway worker: the tables it serves, and on which instances it has requests outstanding."""

    tables: dict[EndpointKey, EndpointRoute] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    live: bool = True

    def serves(self, instance_id: str) -> bool:
        return any(t.instance_id == instance_id for r in self.tables.values() for v in r.everyone for t in v.targets)


class World:
    """Compute, Artifacts and Routes at once. `fault` is called with a name before every effect that reaches it."""

    def __init__(self, clock: ToyClock, gateways: int = 2, policy: Policy = POLICY) -> None:
        self.clock = clock
        self.policy = policy
        self.instances: dict[str, ToyInstance] = {}
        self.starts: Counter[str] = Counter()
        self.tables: dict[EndpointKey, EndpointRoute] = {}
        self.withdrawn: dict[EndpointKey, int] = {}
        self.gateways = [ToyGateway() for _ in range(gateways)]
        self.alarms: dict[str, AlarmState] = {}
        self.evidence: Evidence | None = None  # what both fleets of a deployment that is analysed answered
        self.offered_ms: dict[str, int] = {}  # instance -> when the table without it was published
        self.left_ms: dict[str, int] = {}  # instance -> when the last gateway took that table up
        self.archives: dict[str, str] = {}
        self.missing_urls: set[str] = set()
        self.crashing_images: set[str] = set()
        self.silent_images: set[str] = set()
        self.start_ms = 300
        self.capacity = 10_000
        self.fault: Callable[[str], None] = lambda _name: None
        self.lazy_gateways = False  # gateways read their tables only when a test says so
        self.wrongs: list[str] = []

    # compute
    def ensure(self, spec: InstanceSpec) -> None:
        self.fault(f"ensure {spec.instance_id}")
        if self.starts[spec.instance_id]:
            return
        if sum(1 for i in self.instances.values() if i.alive) >= self.capacity:
            raise InsufficientCapacity(f"the limit of {self.capacity} instances on this host is reached")
        self.starts[spec.instance_id] += 1
        image, now_ms = spec.containers[0].image, self.clock.ms
        crashes = image in self.crashing_images
        ready_ms = None if crashes or image in self.silent_images else now_ms + self.start_ms
        dies_ms = now_ms + 200 if crashes else None
        self.instances[spec.instance_id] = ToyInstance(spec, now_ms, ready_ms, dies_ms)
        self.fault(f"ensured {spec.instance_id}")

    def stop(self, instance_id: str, grace_ms: int) -> None:
        self.fault(f"stop {instance_id}")
        instance = self.instances.get(instance_id)
        if instance is None or not instance.alive:
            return
        self._judge_stop(instance_id)
        instance.dies_ms = self.clock.ms + (grace_ms if instance.hung else min(grace_ms, 100))
        self.settle()
        self.fault(f"stopped {instance_id}")

    def forget(self, instance_id: str) -> None:
        self.fault(f"forget {instance_id}")
        instance = self.instances.get(instance_id)
        if instance is not None and not instance.alive:
            del self.instances[instance_id]
        self.fault(f"forgotten {instance_id}")

    def inventory(self) -> list[ObservedInstance]:
        self.settle()
        return [
            ObservedInstance(
                instance_id=instance_id,
                spec_digest="",
                generation=i.spec.generation,
                alive=i.alive,
                pid=1,
                socket=f"/slots/{instance_id}/box/s",
                zone=i.spec.zone,
                started_ms=i.started_ms,
                isolation="process",
                exit_reason=i.exit_reason,
            )
            for instance_id, i in self.instances.items()
        ]

    def tail(self, instance_id: str, lines: int) -> list[str]:
        return ["Traceback (most recent call last):", "ValueError: this model does not load"][-lines:]

    def cpu_us(self, instance_id: str) -> int | None:
        return None

    # artifacts
    def fetch(self, scope: Scope, url: str, code_url: str | None = None) -> str:
        self.fault(f"fetch {url}")
        if url in self.missing_urls:
            raise ArtifactError("there is no object at that URL")
        digest = self.archives.setdefault(url, f"{len(self.archives):064x}")
        self.fault(f"fetched {url}")
        return digest

    def path(self, digest: str) -> Path:
        return Path("/artifacts") / digest

    def keep(self, digests: set[str]) -> None:
        self.fault("keep")
        self.archives = {u: d for u, d in self.archives.items() if d in digests}

    # routes
    def publish(self, route: EndpointRoute) -> None:
        self.fault(f"publish {route.generation}")
        if route.generation < max(self.withdrawn.get(route.key, 0), self._generation(route.key)):
            return
        before = self.tables.get(route.key)
        self.tables[route.key] = route
        self._note_left(before, route)
        if not self.lazy_gateways:
            self.read_tables(self.gateways)
        self.fault(f"published {route.generation}")

    def withdraw(self, key: EndpointKey, generation: int) -> None:
        self.fault(f"withdraw {generation}")
        if generation < self._generation(key):
            return
        self._note_left(self.tables.pop(key, None), None)
        self.withdrawn[key] = generation
        if not self.lazy_gateways:
            self.read_tables(self.gateways)
        self.fault(f"withdrawn {generation}")

    def served(self, key: EndpointKey) -> int:
        missing = 0 if key in self.tables else NOBODY
        live = [g for g in self.gateways if g.live]
        return min((g.tables[key].generation if key in g.tables else missing for g in live), default=NOBODY)

    def idle(self, instance_id: str) -> bool:
        return not any(instance_id in g.busy or g.serves(instance_id) for g in self.gateways if g.live)

    def published(self) -> dict[EndpointKey, int]:
        return {key: route.generation for key, route in self.tables.items()}

    # what happens by itself
    def settle(self) -> None:
        for instance in self.instances.values():
            if instance.alive and instance.dies_ms is not None and instance.dies_ms <= self.clock.ms:
                instance.alive = False
                instance.exit_reason = instance.exit_reason or "exit status 1"

    def kill(self, instance_id: str) -> None:
        self.instances[instance_id].alive = False
        self.instances[instance_id].exit_reason = "signal 9"

    def read_tables(self, gateways: Iterable[ToyGateway]) -> None:
        for gateway in gateways:
            before = {i for i in self.instances if gateway.serves(i)}
            gateway.tables = dict(self.tables)
            for instance_id in before:
                if not gateway.serves(instance_id):
                    self.left_ms[instance_id] = self.clock.ms

    def answers(self, instance_id: str) -> bool:
        i = self.instances.get(instance_id)
        return i is not None and i.alive and not i.hung and i.ready_ms is not None and i.ready_ms <= self.clock.ms

    def alive(self) -> list[str]:
        self.settle()
        return [instance_id for instance_id, i in self.instances.items() if i.alive]

    def _note_left(self, before: EndpointRoute | None, after: EndpointRoute | None) -> None:
        for instance_id in _targets(before) - _targets(after):
            self.offered_ms[instance_id] = self.clock.ms

    def _generation(self, key: EndpointKey) -> int:
        return self.tables[key].generation if key in self.tables else 0

    def alarms_of(self, scope: Scope, names: Iterable[str]) -> dict[str, AlarmState]:
        """The states of those alarms that there are."""
        return {name: self.alarms[name] for name in names if name in self.alarms}

    def evidence_of(self, endpoint: Endpoint, now_ms: int) -> Evidence | None:
        """What both fleets answered in this step."""
        return self.evidence

    def _judge_stop(self, instance_id: str) -> None:
        """Law 14: no live gateway serves it, and its requests are answered, unless the limits have passed."""
        out_ms = self.clock.ms - self.left_ms.get(instance_id, -(10**9))
        offered_ms = self.clock.ms - self.offered_ms.get(instance_id, -(10**9))
        for gateway in self.gateways:
            if gateway.live and gateway.serves(instance_id) and offered_ms < self.policy.ack_limit_ms:
                self.wrongs.append(f"{instance_id} stopped while a gateway serves it")
            # with one that never takes the table up; the decision came some time before the publication
            patience_ms = self.policy.ack_limit_ms + self.policy.drain_ms - 20_000
            drained = out_ms >= self.policy.drain_ms or offered_ms >= patience_ms
            if gateway.live and instance_id in gateway.busy and not drained:
                self.wrongs.append(f"{instance_id} stopped after {out_ms} ms with a request outstanding")


def _targets(route: EndpointRoute | None) -> set[str]:
    return {t.instance_id for v in route.everyone for t in v.targets} if route else set()


class Rig:
    """One life of control on a store and a world. Everything in it dies with a crash; `Rig` again is the restart."""

    def __init__(self, store: Store, world: World, clock: ToyClock, seed: int = 0, policy: Policy = POLICY) -> None:
        identity = SeededIdentity(seed)
        self.store = store
        self.world = world
        self.clock = clock
        self.woken: set[EndpointKey] = set()
        self.endpoints = Endpoints(store, clock, identity, self.woken.add)
        eyes = (world.alarms_of, world.evidence_of)
        self.reconciler = Reconciler(self.endpoints, world, world, clock, identity, policy, *eyes)
        self.hands = Hands(self.endpoints, world, world, world)
        self.health: dict[str, Health] = {}
        self.queue: list[tuple[EndpointKey, Effect]] = []
        self.outcomes: dict[EndpointKey, list[Outcome]] = {}
        self.see()
        for action in store.outbox():
            key = EndpointKey(action.scope.account, action.scope.region, action.name)
            self.queue.append((key, effect_of(action)))

    def endpoint(self, key: EndpointKey = KEY) -> Endpoint:
        found = self.endpoints.get(key)
        assert found is not None
        return found

    def ping(self) -> None:
        """Ping every instance that is probed, once."""
        for endpoint in self.endpoints.list():
            for i in endpoint.instances:
                if i.state in (InstanceState.STARTING, InstanceState.READY, InstanceState.UNKNOWN):
                    detail = None if self.world.answers(i.instance_id) else "no answer"
                    before = self.health.get(i.instance_id, Health())
                    self.health[i.instance_id] = after_ping(before, detail, self.clock.ms)

    def see(self) -> None:
        """Take the inventory that looks rest on from now on."""
        self.inventory_ms = self.clock.ms
        self.inventory = {o.instance_id: o for o in self.world.inventory()}

    def look(self, key: EndpointKey = KEY) -> bool:
        """One look; True when it changed something."""
        outcomes = self.outcomes.pop(key, [])
        pending = frozenset(e.effect_id for k, e in self.queue if k == key)
        seen = Seen(self.inventory, self.inventory_ms, self.health)
        look = self.reconciler.look(key, seen, outcomes, pending)
        self.queue.extend((key, e) for e in look.decision.effects)
        return look.changed

    def act(self, index: int = 0) -> None:
        """Do one owed effect; the first one, or another that is first of its subject."""
        key, effect = self.queue.pop(self._ready()[index])
        try:
            outcome = self.hands.perform(key, effect)
        except NotYet:
            self.queue.append((key, effect))
            return
        self.outcomes.setdefault(key, []).append(outcome)

    def _ready(self) -> list[int]:
        firsts: dict[tuple[EndpointKey, str], int] = {}
        for index, (key, effect) in enumerate(self.queue):
            subject = "route" if effect.verb.endswith("route") else effect.subject
            firsts.setdefault((key, subject), index)
        return list(firsts.values())

    def choices(self) -> int:
        """How many owed effects may be done next."""
        return len(self._ready())

    def keys(self) -> set[EndpointKey]:
        """Every endpoint there is, and every one that something is owed to."""
        return {e.key for e in self.endpoints.list()} | {k for k, _ in self.queue} | set(self.outcomes)

    def settle(self) -> None:
        """Look and act until nothing changes at this moment."""
        for _ in range(1000):
            self.see()
            changed = sum(self.look(key) for key in sorted(self.keys()))
            if self.queue:
                self.act()
            elif not changed:
                return
            self.clock.ms += 1  # effects and looks take time
        raise AssertionError(f"no rest: {self.queue[:5]}")

    def run(self, for_ms: int, step_ms: int = 200) -> None:
        """Let time pass: pings, looks and effects at every step."""
        until_ms = self.clock.ms + for_ms
        while self.clock.ms < until_ms:
            self.clock.ms += step_ms
            self.ping()
            self.settle()

    def run_until(self, true: Callable[[], bool], limit_ms: int = 120_000, step_ms: int = 200) -> int:
        """Let time pass until a condition holds; how long it took. Raises AssertionError at the limit."""
        began_ms = self.clock.ms
        while not true():
            assert self.clock.ms - began_ms < limit_ms, f"not in {limit_ms} ms: {self.told()}"
            self.clock.ms += step_ms
            self.ping()
            self.settle()
        return self.clock.ms - began_ms

    def in_status(self, status: EndpointStatus, key: EndpointKey = KEY) -> Callable[[], bool]:
        return lambda: (e := self.endpoints.get(key)) is not None and e.status is status

    def gone(self, key: EndpointKey = KEY) -> bool:
        return self.endpoints.get(key) is None

    def whole(self, key: EndpointKey = KEY) -> bool:
        """Exactly the wanted instances, all READY, routed and answering."""
        endpoint = self.endpoint(key)
        table = self.world.tables.get(key)
        if endpoint.status is not EndpointStatus.IN_SERVICE or table is None:
            return False
        targets = {t.instance_id for v in table.everyone for t in v.targets}
        wanted = sum(v.desired_count for v in endpoint.fleet.variants)
        return (
            len(endpoint.instances) == wanted == len(targets)
            and targets == {i.instance_id for i in endpoint.instances if i.state is InstanceState.READY}
            and all(self.world.answers(t) for t in targets)
            and set(self.world.alive()) >= targets
        )

    def told(self, key: EndpointKey = KEY) -> list[str]:
        """The story, for assertions and their messages."""
        return [f"{e.what}: {e.why}" for e in self.store.events("Endpoint", key.scope, key.name)]


def fresh(seed: int = 0, policy: Policy = POLICY, gateways: int = 2) -> Rig:
    """A new world with a control in it."""
    clock = ToyClock()
    return Rig(MemoryStore(), World(clock, gateways, policy), clock, seed, policy)


def serving(*variants: tuple[str, int], seed: int = 0) -> Rig:
    """A rig whose endpoint is InService."""
    rig = fresh(seed)
    rig.endpoints.create(KEY, wish(*(variants or (("A", 2),))))
    rig.run_until(rig.in_status(EndpointStatus.IN_SERVICE))
    return rig
