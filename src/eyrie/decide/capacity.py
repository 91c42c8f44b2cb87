"""How many instances a variant gets: what to start, what to give up, in which zone (laws 13 and 14).

Step of decide/reconcile, after decide/fleet has said what each instance is. The bound: a variant never counts on more
than its desired number, and one more while it has a silent one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from eyrie.decide.draft import Draft
from eyrie.decide.fleet import backoff_of, give_up_silent, members
from eyrie.decide.placement import zone_for
from eyrie.decide.policy import Policy
from eyrie.decide.rollout import wanted
from eyrie.domain.deployment import DeploymentPhase
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.fleet import COUNTED, Fleet, Instance, InstanceState, Variant
from eyrie.domain.plan import Verb

Chance = Callable[[int], str]  # so many random hex digits

_READY, _UNKNOWN = InstanceState.READY, InstanceState.UNKNOWN
_COMING = (InstanceState.REQUESTED, InstanceState.STARTING)


def active_fleets(endpoint: Endpoint) -> tuple[Fleet, ...]:
    """The fleets that are to have their instances now; every other instance drains."""
    if endpoint.status in (EndpointStatus.FAILED, EndpointStatus.DELETING):
        return ()
    deployment = endpoint.deployment
    if deployment is None:
        return (endpoint.fleet,)
    if deployment.phase is DeploymentPhase.RETIRING:
        return (deployment.green,)
    if deployment.phase is DeploymentPhase.PENDING:
        return (endpoint.fleet,)
    if deployment.phase is DeploymentPhase.ROLLING_BACK and deployment.step == 0:  # blue holds all traffic again
        return (endpoint.fleet,)
    return (endpoint.fleet, deployment.green)


def fill(draft: Draft, policy: Policy, chance: Chance) -> None:
    """Start what is missing, drain what is too much, everywhere."""
    active = active_fleets(draft.endpoint)
    for instance in draft.endpoint.instances:
        if instance.state in COUNTED and not any(instance.fleet == f.generation for f in active):
            draft.move(instance, InstanceState.DRAINING, _why_retired(draft.endpoint))
    for fleet in active:
        for variant in fleet.variants:
            give_up_silent(draft, policy, fleet, variant.name)
            count = wanted(draft.endpoint, fleet, variant)
            _shrink(draft, fleet, variant, count)
            if artifacts_present(variant):
                _grow(draft, policy, chance, fleet, variant, count)


def artifacts_present(variant: Variant) -> bool:
    """True when every archive of the variant's model is known by digest, or there is none."""
    return variant.spec.model.complete


def _why_retired(endpoint: Endpoint) -> str:
    if endpoint.deployment is not None:
        return f"its fleet is retired: deployment {endpoint.deployment.phase}"
    return f"endpoint {endpoint.status}"


def _shrink(draft: Draft, fleet: Fleet, variant: Variant, count: int) -> None:
    """Give up silent ones that have been replaced, starts that are needed no more, and READY ones beyond the number."""
    ready = members(draft.endpoint, fleet, variant.name, _READY)
    coming = members(draft.endpoint, fleet, variant.name, *_COMING)
    unknown = sorted(members(draft.endpoint, fleet, variant.name, _UNKNOWN), key=lambda i: i.since_ms)
    while unknown and len(ready) + len(unknown) > count:
        silent = unknown.pop(0)
        served_by = f"{len(ready)} of {count} serve without it"
        draft.move(silent, InstanceState.LOST, f"silent for {draft.now_ms - silent.since_ms} ms, and {served_by}")
    while coming and len(ready) + len(coming) + len(unknown) > count + bool(unknown):
        draft.move(coming.pop(), InstanceState.DRAINING, f"not needed: {count} are wanted")
    while len(ready) > count:
        surplus = _most_crowded(ready)
        ready.remove(surplus)
        draft.move(surplus, InstanceState.DRAINING, f"{len(ready) + 1} serve, {count} are wanted")


def _most_crowded(ready: list[Instance]) -> Instance:
    """The newest instance of the zone with the most of them."""
    crowd = Counter(i.zone for i in ready)
    return max(ready, key=lambda i: (crowd[i.zone], i.requested_ms, i.instance_id))


def _grow(draft: Draft, policy: Policy, chance: Chance, fleet: Fleet, variant: Variant, count: int) -> None:
    """Start what is missing at once; beside silent ones a single replacement; nothing before the back-off has ended."""
    counted = members(draft.endpoint, fleet, variant.name)
    silent = sum(1 for i in counted if i.state is _UNKNOWN)
    most = count + (1 if silent else 0)
    if len(counted) >= most:
        return
    backoff = backoff_of(draft.endpoint, fleet.generation, variant.name)
    if backoff is not None and draft.now_ms < backoff.next_ms:
        draft.wake_at(backoff.next_ms)
        return
    why = f"{len(counted) - silent} of {count}" + (f", {silent} silent" if silent else "")
    for _ in range(most - len(counted)):
        _request(draft, policy, chance, fleet, variant, why)


def _request(draft: Draft, policy: Policy, chance: Chance, fleet: Fleet, variant: Variant, why: str) -> None:
    instance = Instance(
        instance_id="i-" + chance(17),
        variant=variant.name,
        fleet=fleet.generation,
        generation=draft.endpoint.generation,
        zone=_zone(draft, policy, fleet, variant),
        state=InstanceState.REQUESTED,
        reason=f"variant {variant.name} has {why}",
        requested_ms=draft.now_ms,
        since_ms=draft.now_ms,
    )
    draft.add(instance)
    draft.owe(Verb.ENSURE_INSTANCE, instance.instance_id)


def _zone(draft: Draft, policy: Policy, fleet: Fleet, variant: Variant) -> str:
    """A zone without one of the variant, if there is one; a silent one's zone only rather than a serving one's."""
    counted = members(draft.endpoint, fleet, variant.name)
    silent = [i.zone for i in counted if i.state is _UNKNOWN]
    settled = [i.zone for i in counted if i.state is not _UNKNOWN]
    everywhere = [i.zone for i in draft.endpoint.instances if i.state in COUNTED]
    return zone_for(policy.zones, silent + settled * (len(silent) + 1), everywhere)
