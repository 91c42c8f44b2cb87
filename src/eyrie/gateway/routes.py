"""The worker's snapshot of the route tables: endpoints, their variants, and the instances with what is outstanding on
each.

`RouteBook.read` takes `routes/*.json` in; a table of a lower generation than the one served is refused (law 3).
Instances
live on across tables, so what is outstanding and what was ejected stays known. The tables decide who belongs to an
endpoint; `health` decides who is in the route right now.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from eyrie.decide.gathering import first_is_enough
from eyrie.decide.routing import Wheel, assigned, at_random, least_outstanding
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import ContainerMode, EndpointRoute, Execution, RoutingStrategy, Target, VariantRoute
from eyrie.gateway.bundles import OFFERED, Gathering
from eyrie.gateway.meter import Rollup
from eyrie.gateway.serverless import Gate, Gates
from eyrie.gateway.taps import Tap, TapMaker, tap_of
from eyrie.http1.upstream import Pool, Sink

if TYPE_CHECKING:
    from eyrie.gateway.invocation import Invocation

log = logging.getLogger(__name__)

_TABLE_BYTES_MAX = 4_194_304
_LEAST = RoutingStrategy.LEAST_OUTSTANDING_REQUESTS
CONNECTIONS_MAX = 1_024  # to one instance, a worker
_HEADS_MAX = 64  # remembered request heads an instance
INVOCATIONS = b"POST /invocations HTTP/1.1\r\n"
_HEAD_BYTES_MAX = 1_024

VariantKey = tuple[str, int]  # its name and its fleet
Kinds = tuple[bytes | None, bytes | None]  # Content-Type and Accept of a request


class Outstanding(Protocol):
    """A request, or a shadow's copy of one, that was sent to an instance."""

    @property
    def instance(self) -> Instance | None:
        """Where it is."""

    @property
    def sent_at_s(self) -> float:
        """Since when, by the sweep's clock."""

    @property
    def movable(self) -> bool:
        """Whether it may go to another instance: its reply has not begun."""

    @property
    def moved(self) -> bool:
        """It has, once."""

    def move(self, why: str, dead: bool) -> None:
        """Its instance is lost to it."""


class Instance:
    """One target as a gateway worker sees it: an instance, or one worker of an instance that has several."""

    __slots__ = (
        "accompanied",
        "answers_s",
        "apart",
        "asked_at_s",
        "busy",
        "ejected",
        "endpoint",
        "full",
        "gathering",
        "heads",
        "heard_at_s",
        "holding",
        "instance_id",
        "invocations",
        "message_s",
        "name",
        "pool",
        "retired",
        "rollup",
        "socket",
        "target",
        "told_idle",
        "variant",
        "worker",
    )

    def __init__(self, target: Target, variant: Variant, pool: Pool, worker: int = 0) -> None:
        self.target = target
        self.worker = worker  # its number in the instance, from 0
        self.instance_id = target.instance_id
        self.name = name_of(target, worker)
        self.socket = socket_of(target, worker)
        self.variant = variant
        self.endpoint = variant.endpoint
        self.pool = pool
        self.invocations: set[Outstanding] = set()  # sent and not wholly answered
        self.accompanied = 0  # requests that are in the same message of copies as another, beyond one a message
        self.heard_at_s = 0.0  # when it last answered anything, by the loop's clock
        self.asked_at_s = 0.0  # when it was last asked for a pong
        self.ejected = ""  # why it is out of the route, by this worker's own judgement
        self.retired = False  # left the tables
        self.told_idle = False
        self.rollup = Rollup()
        self.rollup.taken = True
        self.holding: set[str] = set()  # keys of models that it was seen to hold, of a multi-model endpoint
        self.full = False  # one more model would push another one out, when it last loaded one
        self.answers_s = 0.0  # how long it took to answer, of late
        self.message_s = (
            0.0  # CPU time that a message of many requests cost it, of late, as it says; 0: it said nothing
        )
        self.busy = 0.0  # share of a core that it was at work, as it said last
        self.gathering: Gathering | None = None  # it takes many small requests as one message
        self.apart = False  # it does not, although it said so
        self.heads: dict[Kinds, bytes] = {}  # request heads that were sent before, up to what differs every time

    @property
    def outstanding(self) -> int:
        """Requests that it has not wholly answered."""
        return len(self.invocations) + self.accompanied

    def learn(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """What the head of a reply tells of the target itself."""
        if self.gathering is None and not self.apart and any(name == OFFERED for name, _ in headers):
            self.gathering = Gathering(self, asyncio.get_running_loop())

    def head(self, kinds: Kinds) -> bytes:
        """The head of a request with these Content-Type and Accept, but for its last lines."""
        head = INVOCATIONS + b"host: %b\r\n" % self.variant.container.encode()
        for name, value in zip((b"content-type", b"accept"), kinds, strict=True):
            if value is not None:
                head += b"%b: %b\r\n" % (name, value)
        if len(head) <= _HEAD_BYTES_MAX:
            if len(self.heads) >= _HEADS_MAX:
                self.heads.clear()
            self.heads[kinds] = head
        return head


def name_of(target: Target, worker: int) -> str:
    """What tells a target from all others: the instance's id, with the worker's number where that is not 0."""
    return f"{target.instance_id}.{worker}" if worker else target.instance_id


def socket_of(target: Target, worker: int) -> str:
    """Where a worker of an instance listens."""
    return f"{target.socket}.{worker}" if worker else target.socket


class Variant:
    """A production variant of one fleet: its instances, and those of them in the route. While a deployment shifts
    traffic there are two of one name, the old fleet's and the new one's.
    """

    __slots__ = (
        "answered",
        "container",
        "direct",
        "endpoint",
        "instances",
        "invoked_line",
        "key",
        "multi_model",
        "name",
        "of_one",
        "orders",
        "route",
        "routed",
        "slowest_s",
        "tap",
    )

    def __init__(self, endpoint: Endpoint, route: VariantRoute) -> None:
        self.endpoint = endpoint
        self.name = route.name
        self.key = (route.name, route.fleet)
        self.route = route
        self.container = route.container
        self.multi_model = route.mode is ContainerMode.MULTI_MODEL
        self.direct = route.execution is Execution.DIRECT and len(route.containers) > 1
        self.orders: dict[str, tuple[Instance, list[Instance]]] = {}  # of models, by key (`models`)
        self.instances: list[Instance] = []
        self.routed: list[Instance] = []
        self.of_one = False  # those are workers of one instance
        self.tap: Tap | None = None  # who wants to see what it answers
        self.slowest_s = 0.0  # slowest answer of late; decays
        self.answered = 0  # how many answers that stands on
        self.invoked_line = b"x-amzn-invoked-production-variant: %b\r\n" % route.name.encode()

    def choose(self, avoid: Instance | None, gathers: bool = False) -> Instance | None:
        """A target for a request, never `avoid`, and one of another instance than that where there is one. `gathers`:
        it is small, and had better go where others go too.
        """
        routed = self.routed
        if gathers and self.of_one and avoid is None and routed[0].gathering is not None:
            warm = routed[0]
            if first_is_enough(warm.answers_s, len(warm.invocations), warm.message_s, warm.busy):
                return warm
        if len(routed) == 2 and avoid is None and self.route.strategy is _LEAST:  # the usual case, without making lists
            first, second = len(routed[0].invocations), len(routed[1].invocations)
            if first != second:
                return routed[first > second]
            if routed[0].instance_id == routed[1].instance_id:  # two workers: one of them stays warm under light load
                return routed[0]
            return routed[random.random() < 0.5]
        if avoid is not None:
            elsewhere = [instance for instance in routed if instance.instance_id != avoid.instance_id]
            routed = elsewhere or [instance for instance in routed if instance is not avoid]
        if len(routed) < 2:
            return routed[0] if routed else None
        if self.route.strategy is RoutingStrategy.RANDOM:
            return routed[at_random(len(routed), random.random())]
        return routed[least_outstanding([len(i.invocations) for i in routed], random.random())]


class Endpoint:
    """One endpoint's table, as it is served."""

    __slots__ = (
        "_twins",
        "_variants",
        "_weights",
        "_wheel",
        "asynchronous",
        "body_bytes_max",
        "deadline_s",
        "gate",
        "generation",
        "held",
        "key",
        "of_models",
        "picky",
        "shadows",
        "slug",
        "sticky",
        "tapped",
        "timeout_s",
        "variants",
    )

    def __init__(self, key: EndpointKey) -> None:
        self.key = key
        self.slug = key.slug
        self.generation = -1
        self.timeout_s = 60.0
        self.body_bytes_max = 0
        self.asynchronous = False  # it takes InvokeEndpointAsync only
        self.picky = False  # a request must say which model or container it is for, or is refused
        self.of_models = False  # it is all that a request has to say: its TargetModel
        self.tapped = False  # a variant has a tap
        self.sticky = ""  # where the key is found that ties a client to a variant
        self.variants: dict[VariantKey, Variant] = {}
        self.shadows: dict[VariantKey, Variant] = {}  # by the variant whose requests they get copies of
        self.held: deque[Invocation] = deque()  # waiting for a target to appear
        self.gate: Gate | None = None  # of a serverless endpoint
        self._wheel: Wheel[VariantKey] = Wheel({})
        self._variants: list[Variant] = []
        self._twins: dict[str, Wheel[VariantKey]] = {}  # by name, of two fleets that share its traffic
        self._weights: dict[str, float] = {}  # of the names in the route, both fleets' together

    @property
    def routed(self) -> bool:
        """Whether any variant has an instance in the route."""
        return bool(self._variants)

    @property
    def everyone(self) -> list[Variant]:
        """The variants, and the shadows."""
        return [*self.variants.values(), *self.shadows.values()]

    @property
    def names(self) -> list[str]:
        """The names of the variants."""
        return list(dict.fromkeys(name for name, _ in self.variants))

    def reweigh(self) -> None:
        """Who is in the route has changed: variants without an instance are left out, the others keep their place."""
        for variant in self.everyone:
            variant.routed = [i for i in variant.instances if not i.ejected]
            least = variant.route.strategy is _LEAST
            variant.of_one = least and len({i.instance_id for i in variant.routed}) == 1
            variant.orders.clear()
        routed = [v for v in self.variants.values() if v.routed]
        self._wheel = Wheel({v.key: v.route.weight for v in routed}, self._wheel.place())
        self._variants = [self.variants[key] for key in self._wheel.names]
        self._weights = {name: sum(v.route.weight for v in routed if v.name == name) for name in self.names}
        twins = {name: [v for v in routed if v.name == name] for name in self.names}
        self._twins = {
            name: Wheel({v.key: v.route.weight for v in both}, self._twins[name].place() if name in self._twins else {})
            for name, both in twins.items()
            if len(both) > 1
        }

    def target(self, name: str) -> Instance | None:
        """The target of this name, in the route or out of it; None where the tables do not have it any more."""
        every = (instance for variant in self.variants.values() for instance in variant.instances)
        return next((instance for instance in every if instance.name == name), None)

    def named(self, name: str) -> Variant | None:
        """The variant that a request names; of two fleets that share its traffic, the one whose turn it is."""
        twins = self._twins.get(name)
        if twins is not None and twins.names:
            return self.variants[twins.names[twins.deal()]]
        both = [variant for variant in self.variants.values() if variant.name == name]
        return next((variant for variant in both if variant.routed), both[0] if both else None)

    def assigned(self, key: str) -> Variant | None:
        """The variant that a sticky key belongs to, of those in the route; None where there is none."""
        name = assigned(self._weights, f"{self.slug}\n{key}")
        return self.named(name) if name is not None else None

    def deal(self) -> Variant | None:
        """The variant whose turn it is, of those that have an instance."""
        if not self._variants:
            return None
        return self._variants[self._wheel.deal() if len(self._variants) > 1 else 0]

    def choose(self, variant: Variant | None, avoid: Instance | None, gathers: bool = False) -> Instance | None:
        """The instance for a request: of the named variant, else of the one whose turn it is. `avoid` is taken only by
        nobody: a request never goes back to where it failed. `gathers`: as for `Variant.choose`.
        """
        if variant is not None:
            return variant.choose(avoid, gathers)
        if not self._variants:
            return None
        chosen = self._variants[self._wheel.deal() if len(self._variants) > 1 else 0]
        instance = chosen.choose(avoid, gathers)
        if instance is None:  # its only instance is the one to avoid
            others = (other.choose(avoid) for other in self._variants if other is not chosen)
            instance = next((other for other in others if other is not None), None)
        return instance


class RouteBook:
    """Every endpoint that this worker serves."""

    def __init__(
        self, folder: Path, loop: asyncio.AbstractEventLoop, changed: Callable[[Endpoint], None] = lambda _: None
    ) -> None:
        self.folder = folder
        self.endpoints: dict[EndpointKey, Endpoint] = {}
        self._by_name: dict[tuple[str, str, str], Endpoint] = {}  # the same, without making a key a request
        self.retired: dict[str, Instance] = {}  # targets by name: left the tables, still answering
        self.idle: deque[str] = deque(maxlen=4_096)  # left the tables and answered all; told at each new connection
        self.on_change = changed
        self.on_replay: Callable[[Instance, Sink], None] = lambda instance, sink: None
        self.tap_makers: tuple[TapMaker, ...] = ()  # asked for every variant of every table
        self.gates: Gates | None = None  # of serverless endpoints, once the worker has them
        self._loop = loop
        self._seen: dict[str, tuple[int, int, int]] = {}

    def find(self, account: str, region: str, name: str) -> Endpoint | None:
        """The endpoint of an account and region, or None."""
        return self._by_name.get((account, region, name))

    def read_all(self) -> tuple[dict[str, int], list[str]]:
        """Read every table that is new or has changed; those whose file is gone are withdrawn.

        Returns what to acknowledge: generations by slug, and slugs withdrawn.
        """
        found: dict[str, tuple[int, int, int]] = {}
        for path in self._files():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found[path.stem] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        gone = [endpoint.slug for endpoint in self.endpoints.values() if endpoint.slug not in found]
        changed = [slug for slug, stamp in found.items() if self._seen.get(slug) != stamp]
        self._seen = found
        return self.read(changed + gone)

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.suffix == ".json"]
        except FileNotFoundError:
            return []

    def read(self, slugs: list[str]) -> tuple[dict[str, int], list[str]]:
        """Read these tables again; a missing file means that the endpoint is withdrawn."""
        served: dict[str, int] = {}
        gone: list[str] = []
        for slug in slugs:
            try:
                key = EndpointKey.from_slug(slug)
                route = self._load(self.folder / f"{slug}.json")
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                if not isinstance(error, FileNotFoundError):
                    log.error("the route table of %s cannot be read: %s", slug, error)
                    continue
                self._withdraw(key)
                gone.append(slug)
                continue
            if route.key != key:
                log.error("the route table of %s names another endpoint", slug)
                continue
            served[slug] = self._take(route)
        return served, gone

    def _load(self, path: Path) -> EndpointRoute:
        with open(path, "rb") as file:
            data = file.read(_TABLE_BYTES_MAX + 1)
        if len(data) > _TABLE_BYTES_MAX:
            raise ValueError(f"longer than {_TABLE_BYTES_MAX} bytes")
        return msgspec.json.decode(data, type=EndpointRoute)

    def _take(self, route: EndpointRoute) -> int:
        """Serve a table, unless it is older than the one served; the generation served now."""
        endpoint = self.endpoints.get(route.key)
        if endpoint is None:
            key = route.key
            endpoint = self.endpoints[key] = self._by_name[key.account, key.region, key.name] = Endpoint(key)
        if route.generation < endpoint.generation:
            log.warning("generation %d of %s is older than %d", route.generation, endpoint.slug, endpoint.generation)
            return endpoint.generation
        endpoint.generation = route.generation
        endpoint.timeout_s = route.timeout_ms / 1000
        endpoint.body_bytes_max = route.body_bytes_max
        known = {i.name: i for v in endpoint.everyone for i in v.instances}
        before = {v.key: v for v in endpoint.everyone}
        endpoint.variants = {(v.name, v.fleet): self._variant(endpoint, v, known, before) for v in route.variants}
        endpoint.shadows = {
            (s.source, s.variant.fleet): self._variant(endpoint, s.variant, known, before) for s in route.shadows
        }
        for variant in endpoint.everyone:
            variant.tap = tap_of(self.tap_makers, route, variant.route)
        newest = max(route.variants, key=lambda v: v.fleet, default=None)
        endpoint.sticky = newest.sticky if newest is not None else ""
        endpoint.asynchronous = route.asynchronous is not None
        endpoint.picky = endpoint.asynchronous or bool(endpoint.sticky)
        endpoint.picky = endpoint.picky or any(v.multi_model or v.direct for v in endpoint.variants.values())
        endpoint.of_models = _only_models(endpoint)
        endpoint.tapped = any(v.tap is not None for v in endpoint.variants.values())
        endpoint.gate = self.gates.of(endpoint, route.variants) if self.gates is not None else None
        for instance in known.values():  # what is left of them is in no variant any more
            self._retire(instance)
        endpoint.reweigh()
        self.on_change(endpoint)
        return endpoint.generation

    def _variant(
        self, endpoint: Endpoint, route: VariantRoute, known: dict[str, Instance], before: dict[VariantKey, Variant]
    ) -> Variant:
        old = before.get((route.name, route.fleet))
        variant = Variant(endpoint, route)
        if old is not None:
            variant.slowest_s, variant.answered = old.slowest_s, old.answered
        for target, worker in ((each, n) for each in route.targets for n in range(each.workers)):
            instance = known.get(name_of(target, worker))
            if instance is not None and instance.target.socket == target.socket:
                del known[instance.name]
                instance.variant = variant
                instance.heads.clear()
            else:
                instance = self._instance(target, variant, worker)
            variant.instances.append(instance)
        return variant

    def _instance(self, target: Target, variant: Variant, worker: int) -> Instance:
        back = self.retired.pop(name_of(target, worker), None)
        if back is not None and back.target.socket == target.socket:
            back.retired = back.told_idle = False
            back.variant, back.endpoint = variant, variant.endpoint
            return back
        pool = Pool(self._loop, socket_of(target, worker), channels_max=CONNECTIONS_MAX)
        instance = Instance(target, variant, pool, worker)
        pool.on_replay = lambda sink: self.on_replay(instance, sink)
        return instance

    def _withdraw(self, key: EndpointKey) -> None:
        endpoint = self.endpoints.pop(key, None)
        if endpoint is None:
            return
        del self._by_name[key.account, key.region, key.name]
        for variant in endpoint.everyone:
            for instance in variant.instances:
                self._retire(instance)
        endpoint.variants, endpoint.shadows = {}, {}
        endpoint.gate = None
        endpoint.reweigh()
        self.on_change(endpoint)

    def _retire(self, instance: Instance) -> None:
        instance.retired = True
        self.retired[instance.name] = instance

    @property
    def busy(self) -> list[str]:
        """Instances that left the tables and have requests outstanding still, on any of their workers."""
        return list(dict.fromkeys(instance.instance_id for instance in self.retired.values()))

    def take_idle(self) -> list[str]:
        """Instances that left the tables and have now answered all they had, every worker of them; each is told
        once.
        """
        if not self.retired:
            return []
        busy = {i.instance_id for i in self.retired.values() if i.invocations}
        done = [i for i in self.retired.values() if i.instance_id not in busy]
        for instance in done:
            del self.retired[instance.name]
            instance.pool.close()
        idle = list(dict.fromkeys(instance.instance_id for instance in done))
        self.idle.extend(idle)
        return idle

    def close(self) -> None:
        """Cut the idle connections to every instance."""
        for endpoint in self.endpoints.values():
            for variant in endpoint.everyone:
                for instance in variant.instances:
                    instance.pool.close()


def _only_models(endpoint: Endpoint) -> bool:
    """Whether every plain request to an endpoint is in order that names a valid TargetModel."""
    if endpoint.asynchronous or endpoint.sticky or not endpoint.variants:
        return False
    return all(variant.multi_model and not variant.direct for variant in endpoint.variants.values())
