"""One look at one endpoint: observe -> decide -> persist. Plain and synchronous (law 11), without memory of its own.

control/loop drives it and hands it what was seen; what the commit owes the world goes to control/act.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from eyrie.control.endpoints import Endpoints
from eyrie.control.evidence import EvidenceOf, no_evidence
from eyrie.decide import check
from eyrie.decide.policy import Policy
from eyrie.decide.reconcile import plan
from eyrie.domain.alarms import AlarmState
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import COUNTED, Instance, InstanceState, ObservedInstance
from eyrie.domain.names import EndpointKey, Scope
from eyrie.domain.observation import Health, Observation
from eyrie.domain.plan import Decision, Outcome
from eyrie.domain.serverless import Use
from eyrie.ports import Clock, Compute, Identity, Routes

LOG = logging.getLogger(__name__)
TAIL_LINES = 12

AlarmsOf = Callable[[Scope, Collection[str]], Mapping[str, AlarmState]]  # states of those alarms that there are


class UnsafePlan(Exception):
    """The lint refused a decision, a defect of ours. Nothing was stored or done; the loop looks again later."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the driver has seen beforehand, for all endpoints at once."""

    inventory: Mapping[str, ObservedInstance]
    inventory_ms: int  # when it was begun
    health: Mapping[str, Health]
    use: Use | None = None  # of the requests of the endpoint that is looked at


@dataclass(frozen=True, slots=True)
class Look:
    """What one look came to."""

    decision: Decision
    changed: bool  # something was committed
    endpoint: Endpoint | None  # as it is stored now
    exists: bool


class Reconciler:
    """The root kind Endpoint, and all beneath it."""

    def __init__(
        self,
        endpoints: Endpoints,
        compute: Compute,
        routes: Routes,
        clock: Clock,
        identity: Identity,
        policy: Policy,
        alarms_of: AlarmsOf,
        evidence_of: EvidenceOf = no_evidence,
    ) -> None:
        self._endpoints = endpoints
        self._compute = compute
        self._routes = routes
        self._clock = clock
        self._identity = identity
        self._policy = policy
        self._alarms_of = alarms_of
        self._evidence_of = evidence_of

    def look(self, key: EndpointKey, seen: Seen, outcomes: Sequence[Outcome], pending: frozenset[str]) -> Look:
        """Look at an endpoint once. `outcomes` are taken in by the same commit that finishes their effects.

        Raises Conflict when the endpoint changed meanwhile (look again), UnsafePlan when the lint refuses.
        """
        endpoint, document = self._endpoints.read(key)
        if endpoint is None:
            return self._finish(key, outcomes)
        now_ms = self._clock.now_ms()
        observation = self._observe(endpoint, seen, outcomes, pending, now_ms)
        decision = plan(endpoint, observation, now_ms, self._identity.token, self._policy)
        alive = {i for i, o in observation.seen.items() if o.alive}
        if wrong := check.problems(endpoint, decision, self._policy, alive):
            raise UnsafePlan(f"{key.slug}: " + "; ".join(wrong))
        changed = decision.endpoint != endpoint or bool(decision.effects) or bool(decision.finished)
        if changed:
            self._endpoints.store(key, document, decision, now_ms)
        return Look(decision, changed, decision.endpoint, True)

    def _finish(self, key: EndpointKey, outcomes: Sequence[Outcome]) -> Look:
        """Effects of an endpoint that is gone: nothing is left to decide."""
        decision = Decision(None, finished=tuple(o.effect_id for o in outcomes))
        if decision.finished:
            self._endpoints.store(key, None, decision, self._clock.now_ms())
        return Look(decision, bool(decision.finished), None, False)

    def _observe(
        self, endpoint: Endpoint, seen: Seen, outcomes: Sequence[Outcome], pending: frozenset[str], now_ms: int
    ) -> Observation:
        mine = {
            i.instance_id: seen.inventory[i.instance_id] for i in endpoint.instances if i.instance_id in seen.inventory
        }
        leaving = [i.instance_id for i in endpoint.instances if i.left_generation]
        return Observation(
            seen=mine,
            seen_ms=seen.inventory_ms,
            health={i: seen.health[i] for i in mine if i in seen.health},
            served=self._routes.served(endpoint.key),
            idle=frozenset(i for i in leaving if self._routes.idle(i)),
            outcomes=tuple(outcomes),
            pending=pending - {o.effect_id for o in outcomes},
            tails=self._tails(endpoint, mine, now_ms),
            alarms=self._alarms(endpoint),
            use=seen.use,
            evidence=self._evidence_of(endpoint, now_ms),
        )

    def _alarms(self, endpoint: Endpoint) -> Mapping[str, AlarmState]:
        """The states of the alarms that a deployment watches."""
        deployment = endpoint.deployment
        return self._alarms_of(endpoint.key.scope, deployment.policy.alarms) if deployment else {}

    def _tails(
        self, endpoint: Endpoint, mine: Mapping[str, ObservedInstance], now_ms: int
    ) -> dict[str, tuple[str, ...]]:
        """Last log lines of instances that may be about to fail, for the reason."""
        return {
            i.instance_id: tuple(self._compute.tail(i.instance_id, TAIL_LINES))
            for i in endpoint.instances
            if i.instance_id in mine and _may_fail(endpoint, i, mine[i.instance_id], now_ms)
        }


def _may_fail(endpoint: Endpoint, instance: Instance, seen: ObservedInstance, now_ms: int) -> bool:
    if instance.state not in COUNTED:
        return False
    if not seen.alive:
        return True
    limits_s = [v.spec.startup_timeout_s for f in endpoint.fleets for v in f.variants if v.name == instance.variant]
    late = bool(limits_s) and now_ms - instance.started_ms >= min(limits_s) * 1000
    return instance.state is InstanceState.STARTING and late
