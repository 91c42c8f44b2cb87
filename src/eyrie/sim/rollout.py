"""A deployment in virtual time: blue serves, green is made up, every decision is production's own (law 12).

Requests are dealt one by one by the wheels of several gateway workers, which take new tables up at their own pace; what
each fleet answers becomes the evidence of the canary's analysis. Control may crash: what was done and not yet stored is
done again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from eyrie.decide import endpoint as commands
from eyrie.decide import rollout as arithmetic
from eyrie.decide.routing import Wheel
from eyrie.decide.steering import Steer, steer
from eyrie.domain.analysis import Evidence, FleetSample
from eyrie.domain.deployment import Deployment, DeploymentPhase, TrafficPolicy
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.fleet import InstanceState
from eyrie.domain.plan import Decision, Effect, Note
from eyrie.domain.routing import EndpointRoute
from eyrie.sim.fleet import VirtualFleet, wish_of
from eyrie.sim.profile import InstanceProfile, lognormal
from eyrie.sim.run import EPOCH_MS, KEY
from eyrie.sim.traffic import Traffic, arrivals

LABEL_CELLS = (1, 2)  # the model answers one of two labels
CONFIG = "simulated-green"
SETTLE_S = 8 * 3600 + 3600  # how long a deployment is followed beyond its traffic


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a fleet answers."""

    latency: float = 1.0  # times the profile's service time
    errors: float = 0.0  # of its requests
    shift: float = 0.0  # of its predictions, that are the second label instead of the first


@dataclass(frozen=True, slots=True)
class Rollout:
    """Everything that one run is made of."""

    traffic: Traffic
    policy: TrafficPolicy
    count: int = 4
    profile: InstanceProfile = field(default_factory=InstanceProfile)
    blue: Behaviour = field(default_factory=Behaviour)
    green: Behaviour = field(default_factory=Behaviour)
    workers: int = 2
    seed: int = 1
    again: bool = False  # the traffic begins anew when it is over; else its last second goes on


@dataclass(slots=True)
class RolloutRun:
    """What came of it. Seconds count from the UpdateEndpoint."""

    outcome: str = "UNFINISHED"
    took_s: int = 0
    reason: str = ""
    requests: int = 0
    to_green: int = 0
    failed: int = 0
    failed_by_green: int = 0
    unserved: int = 0  # where no instance that answers was in a worker's table
    peak: int = 0  # instances that existed at once
    paused_s: int = 0
    story: list[tuple[int, Note]] = field(default_factory=list)  # milliseconds, what, why


@dataclass(slots=True)
class _Answers:
    """What one fleet answered since a step began to bake."""

    sample: FleetSample = field(default_factory=FleetSample)
    requests: int = 0
    errors: int = 0

    def add(self, chance: random.Random, profile: InstanceProfile, how: Behaviour) -> bool:
        """A request; False where it failed."""
        self.requests += 1
        ok = chance.random() >= how.errors
        self.errors += not ok
        us = 1000 * lognormal(chance, profile.service_ms * how.latency, profile.service_spread)
        self.sample.latency.add(us)
        cell = LABEL_CELLS[chance.random() < 0.5 + how.shift]
        self.sample.labels[cell] = self.sample.labels.get(cell, 0.0) + 1
        return ok

    def told(self) -> FleetSample:
        """As evidence."""
        return FleetSample(self.sample.latency, float(self.requests), float(self.errors), self.sample.labels)


@dataclass(slots=True)
class Worker:
    """A gateway worker: the table that it serves, and whose turn it is."""

    route: EndpointRoute | None = None
    wheel: Wheel[int] = field(default_factory=lambda: Wheel({}))

    def take(self, route: EndpointRoute | None) -> None:
        """Serve this table, unless it is older."""
        if route is None or (self.route is not None and route.generation < self.route.generation):
            return
        self.route = route
        weights = {v.fleet: v.weight for v in route.variants if v.targets}
        self.wheel = Wheel(weights, self.wheel.place())

    def deal(self) -> int | None:
        """The fleet whose turn it is; None where there is none."""
        return self.wheel.names[self.wheel.deal()] if self.wheel.names else None


class RolloutFleet(VirtualFleet):
    """The endpoint of a rollout."""

    def __init__(self, rollout: Rollout) -> None:
        self.workers = [Worker() for _ in range(rollout.workers)]
        self.result = RolloutRun()
        self.lag_ms: Callable[[], int] = lambda: 0  # how long a worker takes to read a new table
        self._of = rollout
        self._requests = random.Random(f"requests {rollout.seed}")
        self._away_until_ms = 0
        self._given_up: dict[str, bool] = {}  # instances that drain: whether others served when that was decided
        self._performed: dict[str, Effect] = {}
        self._bake: tuple[int, int] = (0, 0)
        self._answers = {"blue": _Answers(), "green": _Answers()}
        super().__init__(KEY, rollout.profile, rollout.count, EPOCH_MS, rollout.seed)
        self._begun_ms = self.now_ms

    # what is asked of it
    def begin(self) -> None:
        """UpdateEndpoint. Raises the domain's Refused."""
        wish = wish_of(self._of.profile, self._of.count, CONFIG)
        self._command(commands.update(self.endpoint, commands.Update(wish, policy=self._of.policy), self.now_ms))

    def steer(self, how: Steer) -> None:
        """What a person does. Raises the domain's Refused."""
        self._command(steer(self.endpoint, how, self.now_ms))

    def _command(self, decision: Decision) -> None:
        assert decision.endpoint is not None
        self._told(decision)
        self.endpoint = decision.endpoint
        self._look()

    def crash(self, for_ms: int) -> None:
        """Control is gone for a while. What it did and had not stored yet is owed still, and done again."""
        self._away_until_ms = max(self._away_until_ms, self.now_ms + for_ms)
        for outcome in self._outcomes:
            effect = self._performed[outcome.effect_id]
            self._pending[effect.effect_id] = effect
            self._at(self._away_until_ms, lambda e=effect: self._do(e))  # type: ignore[misc]
        self._outcomes = []
        self._at(self._away_until_ms, self._look)

    # what comes of it
    def second(self, arrived: int) -> None:
        """So many requests, dealt out now."""
        now, deployment, result = self.now_ms, self.endpoint.deployment, self.result
        warm = deployment is None or now >= self._warm_ms(deployment)
        answering = {self._fleet_of(i) for i in self.routed() if i in self.instances and self.instances[i].answers(now)}
        green = deployment.green.generation if deployment is not None else 0
        self._renew_bake()
        for number in range(arrived):
            fleet = self.workers[number % len(self.workers)].deal()
            result.requests += 1
            if fleet is None or fleet not in answering:
                result.unserved += 1
                continue
            name = "green" if fleet == green or (deployment is None and fleet > 1) else "blue"
            answers = self._answers[name] if warm else _Answers()
            ok = answers.add(self._requests, self._of.profile, getattr(self._of, name))
            result.to_green += name == "green"
            result.failed += not ok
            result.failed_by_green += name == "green" and not ok
        result.peak = max(result.peak, self.existing())
        result.paused_s += deployment is not None and deployment.pause is not None

    def _fleet_of(self, instance_id: str) -> int:
        return next(i.fleet for i in self.endpoint.instances if i.instance_id == instance_id)

    @staticmethod
    def _warm_ms(deployment: Deployment) -> int:
        policy = deployment.policy.analysis
        return deployment.phase_ms + (policy.warm_up_ms if policy is not None else 0)

    def _renew_bake(self) -> None:
        """Evidence is of one step: it begins anew with each bake."""
        deployment = self.endpoint.deployment
        now = (deployment.step, deployment.phase_ms) if deployment is not None else (0, 0)
        if now != self._bake:
            self._bake = now
            self._answers = {"blue": _Answers(), "green": _Answers()}

    def _evidence(self) -> Evidence | None:
        deployment = self.endpoint.deployment
        if deployment is None or not arithmetic.judged(deployment):
            return None
        self._renew_bake()
        blue, green = self._answers["blue"], self._answers["green"]
        return Evidence(blue.told(), green.told(), deployment.phase_ms, {1: "first", 2: "second"})

    # the world, as it is here
    def _told(self, decision: Decision) -> None:
        if self.endpoint_exists:
            self.result.story += [(self.now_ms - EPOCH_MS, note) for note in decision.notes]

    @property
    def endpoint_exists(self) -> bool:
        """It is serving: what is told from here on is the deployment's story."""
        return hasattr(self, "_begun_ms")

    def _look(self) -> None:
        if self.now_ms >= self._away_until_ms:
            super()._look()
            for instance in self.endpoint.instances:
                if instance.state is InstanceState.DRAINING and instance.instance_id not in self._given_up:
                    self._given_up[instance.instance_id] = self._known_to_serve(instance.instance_id)

    def _do(self, effect: Effect) -> None:
        if self.now_ms < self._away_until_ms:
            self._at(self._away_until_ms, lambda: self._do(effect))
            return
        self._performed[effect.effect_id] = effect
        super()._do(effect)

    def _ensure(self, instance_id: str) -> str | None:
        return None if instance_id in self.instances else super()._ensure(instance_id)

    def _others_serve(self, instance_id: str) -> bool:
        """Judged when it was taken out of the route: what strikes the others while it drains is healed, and it stays
        out.
        """
        return self._given_up.get(instance_id, self._known_to_serve(instance_id))

    def _known_to_serve(self, instance_id: str) -> bool:
        """Whether another does, as far as control can know: what fell silent is READY until it missed two pings."""
        ready = {i.instance_id for i in self.endpoint.instances if i.state is InstanceState.READY}
        return any(i.alive and name in ready for name, i in self.instances.items() if name != instance_id)

    def _publish(self) -> None:
        route = self.endpoint.route
        for worker in self.workers:
            self._after(self.lag_ms(), lambda w=worker: self._read(w, route))  # type: ignore[misc]

    def _read(self, worker: Worker, route: EndpointRoute | None) -> None:
        worker.take(route)
        self._served = min(w.route.generation if w.route is not None else 0 for w in self.workers)
        self._look()


def run(rollout: Rollout, then: Callable[[RolloutFleet, int], None] = lambda fleet, second: None) -> RolloutRun:
    """One deployment from its beginning to its end. `then` is called after each second: faults, alarms, a person."""
    fleet = RolloutFleet(rollout)
    fleet.begin()
    arriving, carried, traffic = random.Random(f"arrivals {rollout.seed}"), 0.0, rollout.traffic
    for second in range(traffic.seconds + SETTLE_S):
        rate = traffic.rates[second % traffic.seconds if rollout.again else min(second, traffic.seconds - 1)]
        arrived, carried = arrivals(arriving, rate, traffic.even, carried)
        fleet.second(arrived)
        fleet.advance(EPOCH_MS + 1000 * (second + 1))
        then(fleet, second)
        if over(fleet):
            break
    return _ended(fleet)


def over(fleet: RolloutFleet) -> bool:
    """Whether the deployment has ended, one way or the other."""
    return fleet.endpoint.status is not EndpointStatus.UPDATING


def _ended(fleet: RolloutFleet) -> RolloutRun:
    result, endpoint = fleet.result, fleet.endpoint
    result.took_s = (fleet.now_ms - EPOCH_MS) // 1000
    result.reason = endpoint.failure_reason or ""
    if endpoint.status is EndpointStatus.UPDATE_ROLLBACK_FAILED:
        result.outcome = str(DeploymentPhase.ROLLBACK_FAILED)
    elif over(fleet):
        green = endpoint.config_name == CONFIG
        result.outcome = str(DeploymentPhase.SUCCEEDED if green else DeploymentPhase.ROLLED_BACK)
    return result
