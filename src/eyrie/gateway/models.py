"""Multi-model endpoints in a gateway worker: which target a model's requests go to, and loads that they wait for.

A model has its order of targets (rendezvous hashing, the same in every worker), so that its requests meet the instance
that holds it; a hot one is spread over the next targets of that order. Of an instance with several workers, the first
one (its front) holds every model that it has room for, and has all requests while it is quick: a process that is asked
for all is awake and its caches are warm. When it is not quick, a model is loaded in its own worker of the order too;
when it is full, there alone.

A target is asked right away, whether it holds the model or not: one that does not says 404, and then, where neither the
front nor the model's own worker has it, control is asked on `run/models.sock` to load it. While that lasts, everybody
who needs the model there waits for the same load. With control dead, what is loaded goes on serving.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from json import dumps, loads
from typing import TYPE_CHECKING, Any, NamedTuple

from eyrie.decide.gathering import first_is_light
from eyrie.decide.routing import PoisonMemory, rendezvous, spread
from eyrie.domain import target_models
from eyrie.gateway import errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.meter import Meter, ModelCounts
from eyrie.gateway.routes import Instance, Variant
from eyrie.http1.sweep import Sweep
from eyrie.http1.upstream import Channel, ConnectFailed, Failure, Pool, ReplyHead

if TYPE_CHECKING:
    from eyrie.gateway.invocation import Invocation
    from eyrie.gateway.model_invocation import ModelInvocation

log = logging.getLogger(__name__)

AT_ONCE = 4  # requests for one model that a target may have from a worker, before another target shares them
LOADS_AT_ONCE = 64  # asked of control by a worker; more wait for their turn
LOADS_MAX = 4_096
WAITING_MAX = 1_024  # requests that wait for one load
NAMES_MAX = 65_536  # remembered TargetModels
ORDERS_MAX = 65_536  # remembered orders of targets, a variant
HOLDING_MAX = 65_536
AGAIN_S = 0.5  # before control is asked again, when it could not be or said so


class TargetModel(NamedTuple):
    """A model as a request names it, and as instances know it."""

    name: str
    key: str
    first: bytes  # lines of a request for it to an instance


class Load:
    """One model on its way into one target; a sink for control's answer."""

    __slots__ = ("_models", "_pieces", "_status", "again_s", "channel", "instance", "model", "waiting")

    def __init__(self, models: Models, instance: Instance, model: TargetModel) -> None:
        self._models = models
        self._pieces: list[bytes] = []
        self._status = 0
        self.instance = instance
        self.model = model
        self.channel: Channel | None = None
        self.waiting: dict[ModelInvocation, None] = {}  # in the order in which they came
        self.again_s = 0.0  # when control may be asked (again)

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """Control's answer."""
        self.channel = None
        self._models.answered(self, head.status, body)

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the same, where it comes in parts."""
        self._status = status
        self._pieces = []

    def reply_data(self, piece: bytes) -> None:
        """A part."""
        self._pieces.append(piece)

    def reply_end(self) -> None:
        """It is whole."""
        self.channel = None
        self._models.answered(self, self._status, b"".join(self._pieces))

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """Control ended, or restarts: it is asked again."""
        self.channel = None
        self._models.answered(self, 503, b"")

    def writable(self, writable: bool) -> None:
        """The request is small."""


class _Unload:
    """A sink for an answer that nobody needs."""

    channel: Channel | None = None

    def __init__(self, models: Models, instance: Instance) -> None:
        self._models = models
        self._instance = instance

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The model is unloaded, or the next request finds it still there."""
        if head.status == 200:
            self._models.counts(self._instance).add_unloads([int(loads(body)["unload_us"])])

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """As `reply_whole`."""

    def reply_data(self, piece: bytes) -> None:
        """As `reply_whole`."""

    def reply_end(self) -> None:
        """As `reply_whole`."""

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """Control is away: the model stays loaded until it has to make room."""

    def writable(self, writable: bool) -> None:
        """The request is small."""


class Models:
    """What one worker knows of target models."""

    def __init__(
        self, pool: Pool, meter: Meter, sweep: Sweep, kinds: Mapping[type[Invocation], type[ModelInvocation]]
    ) -> None:
        """`pool`: connections to control's `run/models.sock`; `kinds`: what takes the place of which invocation."""
        self._kinds = kinds
        self._pool = pool
        self._meter = meter
        self._sweep = sweep
        self._names: dict[bytes, TargetModel] = {}
        self._loads: dict[tuple[Instance, str], Load] = {}
        self._queue: deque[Load] = deque()  # not asked for yet
        self._asked = 0
        self._poison = PoisonMemory()

    # --- the request's side -----------------------------------------------------------------------------------------

    def take(self, plain: Invocation) -> ModelInvocation:
        """The request for its TargetModel, which is valid, that takes the place of a checked one."""
        value = plain.target_model
        model = self._names.get(value)
        if model is None:
            if len(self._names) >= NAMES_MAX:
                self._names.clear()
            name = value.decode()
            model = self._names[value] = _model(name)
        return self._kinds[type(plain)](plain, self, model)

    def take_known(self, plain: Invocation, value: bytes) -> ModelInvocation | None:
        """The same for the TargetModel of a head that is known to be in order otherwise; None for one that has to be
        looked at first.
        """
        model = self._names.get(value)
        return self._kinds[type(plain)](plain, self, model) if model is not None else None

    def choose(self, variant: Variant, model: TargetModel, avoid: Instance | None) -> Instance | None:
        """The target for a request: the front while it is light, else the first in the model's order, the least busy of
        the first few for a hot model; one that holds it already where those do not, who load it meanwhile.
        """
        if not variant.routed:
            return None
        front, order = self._order(variant, model.key)
        if avoid is not None:
            elsewhere = [i for i in order if i.instance_id != avoid.instance_id]
            order = elsewhere or [i for i in order if i is not avoid]
            if not order:
                return None
            front = _front(order[0], order)
        if model.key in front.holding and first_is_light(front.answers_s, len(front.invocations)):
            return front
        first = order[0]
        if len(order) == 1 or (len(first.invocations) < AT_ONCE and model.key in first.holding):
            return first
        busy = [self._outstanding(target, model) for target in order]
        wide = order[: spread(sum(busy), AT_ONCE, len(order))]
        able = [n for n, target in enumerate(wide) if model.key in target.holding]
        if not able:
            able = [n for n, target in enumerate(order) if model.key in target.holding][:1]
            if not able:
                return first if front.full else front
        for target in wide:
            if model.key not in target.holding and (len(wide) > 1 or not self._loading(target)):
                self._begin(target, model)
        self._ask_next()
        return order[min(able, key=busy.__getitem__)]

    def join(self, invocation: ModelInvocation, instance: Instance) -> bool:
        """Wait for a load that is under way there; False where there is none."""
        load = self._loads.get((instance, invocation.model.key))
        if load is None:
            return False
        self._wait(invocation, load)
        return True

    def absent(self, invocation: ModelInvocation, instance: Instance) -> None:
        """The target does not hold the model: ask the other one that may, else have it loaded, and wait."""
        model = invocation.model
        instance.holding.discard(model.key)
        goal, other = self._places(instance, model)
        if other is not None and other not in invocation.asked:
            invocation.asked = (instance, other)
            invocation.ask(other)
            return
        instance = goal
        if not self._poison.empty and self._poison.refused(_hash(instance, model), self._sweep.now):
            invocation.refuse(_poisoned(instance))
            return
        load = self._begin(instance, model)
        if load is None:
            self._meter.count("model_loads_limit")
            invocation.refuse(errors.unavailable("Too many models are being loaded. Try again."))
            return
        self._wait(invocation, load)
        self._ask_next()

    def present(self, instance: Instance, model: TargetModel) -> None:
        """The target answered for the model: it holds it. Unless its models are to be kept, have it unloaded."""
        if len(instance.holding) >= HOLDING_MAX:
            instance.holding.clear()
        instance.holding.add(model.key)
        if not instance.variant.route.model_cache and not self._outstanding(instance, model):
            instance.holding.discard(model.key)
            self._send(_Unload(self, instance), b"unload", instance, model)

    def leave(self, invocation: ModelInvocation) -> None:
        """It waits no more. The load goes on: the next request will find the model there."""
        load = invocation.load
        if load is not None:
            load.waiting.pop(invocation, None)
            invocation.load = None

    def counts(self, instance: Instance) -> ModelCounts:
        """The current second of a target's counts."""
        return self._meter.rollup(instance.endpoint.slug, instance.variant.name, instance.instance_id).of_models()

    def stats(self) -> dict[str, int]:
        """Loads under way, and requests that wait for one."""
        return {"loads": len(self._loads), "waiting": sum(len(load.waiting) for load in self._loads.values())}

    def _order(self, variant: Variant, key: str) -> tuple[Instance, list[Instance]]:
        """A model's targets, the one first that is to hold it, and the front of that one's instance."""
        known = variant.orders.get(key)
        if known is None:
            if len(variant.orders) >= ORDERS_MAX:
                variant.orders.clear()
            routed = variant.routed
            order = [routed[n] for n in rendezvous([i.name for i in routed], key)]
            known = variant.orders[key] = _front(order[0], routed), order
        return known

    def _places(self, instance: Instance, model: TargetModel) -> tuple[Instance, Instance | None]:
        """Where a model is to be loaded that a target does not hold, and who else of the same instance may hold it."""
        routed = instance.variant.routed
        if instance not in routed:
            return instance, None
        _, order = self._order(instance.variant, model.key)
        front = _front(instance, routed)
        own = next(i for i in order if i.instance_id == instance.instance_id)
        if front is own or instance not in (front, own):
            return instance, None
        return own if front.full else front, own if instance is front else front

    def _loading(self, instance: Instance) -> bool:
        return any(where is instance for where, _ in self._loads)

    @staticmethod
    def _outstanding(instance: Instance, model: TargetModel) -> int:
        models = (getattr(invocation, "model", None) for invocation in instance.invocations)
        return sum(1 for other in models if other is not None and other.key == model.key)

    # --- loads ------------------------------------------------------------------------------------------------------

    def _begin(self, instance: Instance, model: TargetModel) -> Load | None:
        """A load, unless there is one under way; None: there are too many."""
        place = instance, model.key
        load = self._loads.get(place)
        if load is None:
            if len(self._loads) >= LOADS_MAX:
                return None
            load = self._loads[place] = Load(self, instance, model)
            self._queue.append(load)
        return load

    def _wait(self, invocation: ModelInvocation, load: Load) -> None:
        if len(load.waiting) >= WAITING_MAX:
            self._meter.count("model_waiting_limit")
            invocation.refuse(errors.unavailable(f"Too many requests wait for model {load.model.name}."))
            return
        load.waiting[invocation] = None
        invocation.wait(load)

    def _ask_next(self) -> None:
        """Ask control for those whose turn it is."""
        for _ in range(len(self._queue)):
            if self._asked >= LOADS_AT_ONCE:
                return
            load = self._queue.popleft()
            if load.again_s > self._sweep.now:
                self._queue.append(load)
                continue
            if self._send(load, b"load", load.instance, load.model):
                self._asked += 1
            else:
                self._postpone(load)

    def _send(self, sink: Load | _Unload, what: bytes, instance: Instance, model: TargetModel) -> bool:
        told = {
            "endpoint": instance.endpoint.slug,
            "instance": instance.instance_id,
            "worker": instance.worker,
            "model": model.name,
        }
        body = dumps(told).encode()
        head = b"POST /eyrie/models/%b HTTP/1.1\r\nhost: control\r\ncontent-length: %d\r\n\r\n" % (what, len(body))
        try:
            self._pool.send(sink, head + body)
        except ConnectFailed:
            return False
        return True

    def answered(self, load: Load, status: int, body: bytes) -> None:
        """Control said how a load ended, or (503) could not do it now."""
        self._asked -= 1
        if self._loads.get((load.instance, load.model.key)) is load:  # else its target has gone meanwhile
            if status == 503:
                self._postpone(load)
            elif status == 410:
                self._lost(load)
            else:
                self._end(load, status, _read(body))
        self._ask_next()

    def _postpone(self, load: Load) -> None:
        """Control is away or busy: ask again soon, while somebody waits."""
        load.again_s = self._sweep.now + AGAIN_S
        if load.waiting:
            self._queue.append(load)
        else:
            del self._loads[load.instance, load.model.key]

    def _lost(self, load: Load) -> None:
        """The target ended: who waited goes elsewhere. A model that ended two is loaded nowhere for a while."""
        del self._loads[load.instance, load.model.key]
        instance = load.instance
        deadly = not instance.retired and self._poison.died(
            _hash(instance, load.model), instance.instance_id, self._sweep.now
        )
        for invocation in list(load.waiting):
            invocation.load = None
            if deadly:
                invocation.refuse(_poisoned(instance))
            else:
                invocation.elsewhere(instance)

    def _end(self, load: Load, status: int, told: dict[str, Any]) -> None:
        """It is loaded, or cannot be."""
        del self._loads[load.instance, load.model.key]
        instance = load.instance
        if status == 200:
            instance.holding.add(load.model.key)
            if isinstance(told.get("room"), bool):
                instance.full = not told["room"]
            self.counts(instance).add_load(told)
        self._meter.count("model_loads" if status == 200 else "model_loads_refused")
        for invocation in list(load.waiting):
            invocation.load = None
            if status == 200:
                invocation.loaded(instance)
            else:
                invocation.refuse(_refusal(load, told))

    def turn(self, now: float) -> None:
        """Called by the sweep: ask again for what could not be loaded; nobody waits for a target that is gone."""
        for load in [one for one in self._loads.values() if one.instance.ejected or one.instance.retired]:
            if load in self._queue:
                self._queue.remove(load)
            self._lost(load)
        if not self._poison.empty:
            self._poison.forget(now)
        self._ask_next()

    def close(self) -> None:
        """Cut the idle connections to control."""
        self._pool.close()


def _front(one: Instance, targets: list[Instance]) -> Instance:
    """The first worker of an instance, of those in the route."""
    return min((i for i in targets if i.instance_id == one.instance_id), key=lambda i: i.worker)


def _model(name: str) -> TargetModel:
    key = target_models.key_of(name)
    first = f"POST /models/{key}/invoke HTTP/1.1\r\nx-amzn-sagemaker-target-model: {name}\r\n"
    return TargetModel(name, key, first.encode())


def _hash(instance: Instance, model: TargetModel) -> int:
    return hash((instance.endpoint.slug, model.key))


def _poisoned(instance: Instance) -> Reply:
    said = b"Two instances ended while they loaded this model; it is loaded nowhere for a while."
    return errors.model_error(instance.endpoint.key, instance.variant.container, 0, said)


def _refusal(load: Load, told: dict[str, Any]) -> Reply:
    """What control said of a model, as InvokeEndpoint says it."""
    message = str(told.get("message") or "The model could not be loaded.")
    code = told.get("code")
    if code == "ModelError":
        instance, status = load.instance, int(told.get("status") or 0)
        return errors.model_error(instance.endpoint.key, instance.variant.container, status, message.encode())
    if code == "ValidationError":
        return errors.validation(message)
    return errors.unavailable(message)


def _read(body: bytes) -> dict[str, Any]:
    try:
        told = loads(body or b"{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
