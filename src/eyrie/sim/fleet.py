"""One endpoint in virtual time: instances, compute, gateways and pings made up, every decision production's own.

What decide/reconcile plans is checked by decide/check, as control does before each commit, and then happens here:
starts take their time, tables are published, stops drain. sim/run lets seconds pass on it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from eyrie.decide import check, health
from eyrie.decide import endpoint as commands
from eyrie.decide.policy import Policy
from eyrie.decide.reconcile import plan
from eyrie.domain.alarms import AlarmState
from eyrie.domain.analysis import Evidence
from eyrie.domain.endpoint import CapacityChange, Endpoint, EndpointStatus, FleetSpec, VariantSpec
from eyrie.domain.fleet import COUNTED, ContainerSpec, InstanceState, ModelSpec, ObservedInstance
from eyrie.domain.names import EndpointKey
from eyrie.domain.observation import Health, Observation
from eyrie.domain.plan import Decision, Effect, Outcome, Verb
from eyrie.sim.profile import InstanceProfile

VARIANT = "AllTraffic"
EFFECT_MS = 20  # from a decision to what it does
PING_MS = 1000
LOOKS_MAX = 50  # without rest, and the decisions go round in circles
WARM_UP_MS = 10_000


class Unsafe(AssertionError):
    """A decision broke one of the invariants, or the world saw what must never happen. A defect of ours."""


@dataclass(slots=True)
class VirtualInstance:
    """One made-up process."""

    spec_generation: int
    zone: str
    started_ms: int
    ready_ms: int
    alive: bool = True
    hung_until_ms: int = 0
    ended_ms: int = 0
    reason: str = ""

    def answers(self, now_ms: int) -> bool:
        """Whether it answers /ping and requests now."""
        return self.alive and self.ready_ms <= now_ms and not now_ms < self.hung_until_ms


@dataclass(slots=True)
class Trouble:
    """What goes wrong with starts for now."""

    refused_until_ms: int = 0  # no capacity
    crash_until_ms: int = 0  # starts end by themselves
    slow_until_ms: int = 0
    slow_factor: float = 1.0


class VirtualFleet:
    """An endpoint with one variant. Times are milliseconds; `now_ms` only rises."""

    def __init__(
        self,
        key: EndpointKey,
        profile: InstanceProfile,
        count: int,
        now_ms: int,
        seed: int,
        policy: Policy | None = None,
    ) -> None:
        self._chance = random.Random(f"fleet {seed}")
        self._profile = profile
        self._policy = policy or Policy()
        self.now_ms = now_ms - WARM_UP_MS
        self.trouble = Trouble()
        self.instances: dict[str, VirtualInstance] = {}
        self.alarms: dict[str, AlarmState] = {}  # that a deployment watches
        self.starts = 0
        self._health: dict[str, Health] = {}
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._pending: dict[str, Effect] = {}
        self._outcomes: list[Outcome] = []
        self._served = 0
        self._cold = False
        self._wake_ms = 0  # when it is going to look again
        wish = wish_of(profile, count, "simulated")
        self.endpoint: Endpoint = _made(commands.create(key, "e-simulated", wish, self.now_ms))
        self._look()
        self.advance(now_ms)
        self._cold = True
        if self.endpoint.status is not EndpointStatus.IN_SERVICE:
            raise Unsafe(f"the endpoint is {self.endpoint.status} after {WARM_UP_MS} ms of warm starts")

    # what is asked of it
    def want(self, count: int, overtake: bool = False) -> None:
        """Set the desired count, as UpdateEndpointWeightsAndCapacities does. Raises the domain's Refused.

        A growth may grow further. `overtake`: also while any other count is still on its way, as a Deployment of
        Kubernetes may be scaled.
        """
        if overtake and self.busy_changing and not self.growing:
            fleet = self.endpoint.fleet
            variants = (replace(fleet.variants[0], desired_count=count),)
            self.endpoint = replace(self.endpoint, fleet=replace(fleet, variants=variants))
        else:
            change = CapacityChange(VARIANT, count=count)
            self.endpoint = _made(
                commands.update_weights_and_capacities(self.endpoint, [change], self.now_ms, overtake=True)
            )
        self._look()

    def advance(self, to_ms: int) -> None:
        """Let time pass; everything that is due happens in its order."""
        while self._due and self._due[0][0] <= to_ms:
            at_ms, _, happen = heapq.heappop(self._due)
            self.now_ms = max(self.now_ms, at_ms)
            happen()
        self.now_ms = max(self.now_ms, to_ms)

    # what is seen of it
    @property
    def busy_changing(self) -> bool:
        """Updating: it takes no new count."""
        return self.endpoint.status is not EndpointStatus.IN_SERVICE

    @property
    def growing(self) -> bool:
        """More instances, and nothing else, are on their way."""
        return commands.growing(self.endpoint)

    @property
    def desired(self) -> int:
        """The count that is wanted now."""
        return self.endpoint.fleet.variants[0].desired_count

    def serving(self) -> int:
        """Instances in the published table that answer."""
        return sum(1 for i in self.routed() if i in self.instances and self.instances[i].answers(self.now_ms))

    def routed(self) -> list[str]:
        """Ids of the instances in the table."""
        route = self.endpoint.route
        return [t.instance_id for v in route.variants for t in v.targets] if route else []

    def ready(self) -> int:
        """Instances that control counts as READY."""
        return sum(1 for i in self.endpoint.instances if i.state is InstanceState.READY)

    def counted(self) -> tuple[int, int]:
        """Instances that control counts on, and how many of them are silent."""
        states = [i.state for i in self.endpoint.instances if i.state in COUNTED]
        return len(states), states.count(InstanceState.UNKNOWN)

    def existing(self) -> int:
        """Processes that exist: what is paid for."""
        return sum(1 for i in self.instances.values() if i.alive)

    # what goes wrong
    def kill(self, instance_id: str, reason: str = "signal 9") -> None:
        """A process ends by itself."""
        instance = self.instances.get(instance_id)
        if instance is not None and instance.alive:
            instance.alive = False
            instance.ended_ms = self.now_ms
            instance.reason = reason
            self._look()

    def hang(self, instance_id: str, for_ms: int) -> None:
        """A process answers nothing for a while."""
        if instance_id in self.instances:
            self.instances[instance_id].hung_until_ms = self.now_ms + for_ms
            self._after(PING_MS, self._ping)

    # decisions
    def _look(self) -> None:
        for _ in range(LOOKS_MAX):
            before = self.endpoint
            decision = plan(before, self._seen(), self.now_ms, self._token, self._policy)
            alive = [i for i, v in self.instances.items() if v.alive]
            if wrong := check.problems(before, decision, self._policy, alive):
                raise Unsafe("; ".join(wrong))
            self._told(decision)
            self._outcomes = [o for o in self._outcomes if o.effect_id not in decision.finished]
            self.endpoint = _made(decision)
            for effect in decision.effects:
                self._pending[effect.effect_id] = effect
                self._after(EFFECT_MS, lambda e=effect: self._do(e))  # type: ignore[misc]
            if decision.wake_ms is not None:
                self._wake_at(decision.wake_ms)
            if self.endpoint == before and not decision.effects and not decision.finished:
                return
        raise Unsafe(f"no rest after {LOOKS_MAX} looks")

    def _wake_at(self, at_ms: int) -> None:
        """Look again then; of several such times the earliest is enough, for each look names the next."""
        if self.now_ms < self._wake_ms <= at_ms:
            return
        self._wake_ms = at_ms
        self._at(at_ms, lambda: self._look() if self._wake_ms == at_ms else None)

    def _seen(self) -> Observation:
        seen = {
            i.instance_id: self._observed(i.instance_id)
            for i in self.endpoint.instances
            if i.instance_id in self.instances
        }
        return Observation(
            seen=seen,
            seen_ms=self.now_ms,
            health={i: self._health_of(i) for i in seen},
            served=self._served,
            idle=frozenset(
                i.instance_id for i in self.endpoint.instances if i.left_generation and self._drained(i.left_ms)
            ),
            outcomes=tuple(self._outcomes),
            pending=frozenset(self._pending) - {o.effect_id for o in self._outcomes},
            alarms=self.alarms,
            evidence=self._evidence(),
        )

    def _told(self, decision: Decision) -> None:
        """A decision was made: for whoever keeps its reasons."""

    def _evidence(self) -> Evidence | None:
        """What a canary's analysis rests on."""
        return None

    def _observed(self, instance_id: str) -> ObservedInstance:
        i = self.instances[instance_id]
        socket = f"/{instance_id}.sock"
        return ObservedInstance(
            instance_id, "", i.spec_generation, i.alive, None, socket, i.zone, i.started_ms, "virtual", i.reason or None
        )

    def _health_of(self, instance_id: str) -> Health:
        known = self._health.get(instance_id)
        if known is not None:
            return known
        return Health(answers=self.instances[instance_id].answers(self.now_ms), at_ms=self.now_ms)

    def _drained(self, left_ms: int) -> bool:
        return self.now_ms - left_ms >= self._profile.drain_s * 1000

    def _token(self, digits: int) -> str:
        return f"{self._chance.getrandbits(4 * digits):0{digits}x}"

    # effects
    def _do(self, effect: Effect) -> None:
        error: str | None = None
        if check.refusal(self.endpoint, effect) is None:
            if effect.verb is Verb.ENSURE_INSTANCE:
                error = self._ensure(effect.subject)
            elif effect.verb is Verb.STOP_INSTANCE:
                self._after(EFFECT_MS, lambda: self._stopped(effect.subject))
            elif effect.verb is Verb.FORGET_INSTANCE:
                self.instances.pop(effect.subject, None)
                self._health.pop(effect.subject, None)
            elif effect.verb is Verb.PUBLISH_ROUTE:
                self._publish()
                self._after(round(self._profile.drain_s * 1000), self._look)
        self._pending.pop(effect.effect_id, None)
        self._outcomes.append(Outcome(effect.effect_id, effect.verb, effect.subject, error))
        self._look()

    def _publish(self) -> None:
        """Every gateway takes the new table up, at once."""
        self._served = self.endpoint.route_generation

    def _ensure(self, instance_id: str) -> str | None:
        if instance_id in self.instances:
            raise Unsafe(f"{instance_id} is started twice")
        if self.now_ms < self.trouble.refused_until_ms:
            return "no capacity is left on any host"
        self.starts += 1
        wait_ms = self._profile.startup_ms(self._chance) if self._cold else 1
        if self.now_ms < self.trouble.slow_until_ms:
            wait_ms = round(wait_ms * self.trouble.slow_factor)
        spec = next(i for i in self.endpoint.instances if i.instance_id == instance_id)
        self.instances[instance_id] = VirtualInstance(spec.generation, spec.zone, self.now_ms, self.now_ms + wait_ms)
        if self.now_ms < self.trouble.crash_until_ms:
            self._after(max(1, wait_ms // 2), lambda: self.kill(instance_id, "exit status 1"))
        self._after(wait_ms, self._look)
        return None

    def _stopped(self, instance_id: str) -> None:
        """SIGTERM was obeyed. The world judges: nobody may be stopped while it is routed."""
        if instance_id in self.routed():
            raise Unsafe(f"{instance_id} is stopped while it is in the route")
        instance = self.instances.get(instance_id)
        if instance is not None and instance.answers(self.now_ms) and not self._others_serve(instance_id):
            raise Unsafe(f"{instance_id} is stopped, and it is the last one that answers")
        self.kill(instance_id, "exit status 0")

    def _others_serve(self, instance_id: str) -> bool:
        """Whether another instance answers."""
        return any(i.answers(self.now_ms) for name, i in self.instances.items() if name != instance_id)

    def _ping(self) -> None:
        """Ping those that hang, or did: the healthy answer whenever they are looked at."""
        hung = [
            i for i, v in self.instances.items() if v.alive and (v.hung_until_ms > self.now_ms or i in self._health)
        ]
        for instance_id in hung:
            answers = self.instances[instance_id].answers(self.now_ms)
            before = self._health.get(instance_id, Health())
            self._health[instance_id] = health.after_ping(before, None if answers else "no answer", self.now_ms)
        self._look()
        for instance_id in hung:
            if instance_id in self._health and self._health[instance_id].answers:
                del self._health[instance_id]
        if hung:
            self._after(PING_MS, self._ping)

    # time
    def _after(self, wait_ms: int, happen: Callable[[], None]) -> None:
        self._at(self.now_ms + wait_ms, happen)

    def _at(self, at_ms: int, happen: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (max(at_ms, self.now_ms), self._order, happen))


def wish_of(profile: InstanceProfile, count: int, config: str) -> FleetSpec:
    """A fleet of so many instances."""
    return FleetSpec(config, config, (_variant(profile, count),))


def _variant(profile: InstanceProfile, count: int) -> VariantSpec:
    model = ModelSpec("simulated", "simulated", (ContainerSpec("primary", "eyrie/simulated", None, None),))
    return VariantSpec(
        name=VARIANT,
        model=model,
        instance_type=profile.instance_type,
        vcpu_milli=1000 * profile.slots,
        memory_mb=8192,
        initial_count=count,
        initial_weight=1.0,
        startup_timeout_s=max(240, round(profile.startup_s * 10)),
        workers=profile.slots,
    )


def _made(decision: Decision) -> Endpoint:
    assert decision.endpoint is not None  # nobody deletes it
    return decision.endpoint
