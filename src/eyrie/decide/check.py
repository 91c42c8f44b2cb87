"""The lint of plans: invariants that any decision about an endpoint must keep, checked independently of what made it.

Used on every decision before it is committed, on every effect before it is done, and in tests after every step. It
returns sentences; none means that all is well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from eyrie.decide import rollout
from eyrie.decide.policy import Policy
from eyrie.domain.analysis import Verdict
from eyrie.domain.deployment import MAY_ROLL_BACK, PHASE_MOVES, DeploymentPhase
from eyrie.domain.endpoint import STATUS_MOVES, Endpoint, EndpointStatus
from eyrie.domain.fleet import COUNTED, GIVEN_UP, INSTANCE_MOVES, Instance, InstanceState
from eyrie.domain.plan import Decision, Effect, Verb
from eyrie.domain.routing import Target

_SHARED = MAY_ROLL_BACK - {DeploymentPhase.TERMINATION_WAIT}
_ROUTABLE = frozenset({InstanceState.READY, InstanceState.UNKNOWN})
_ONWARDS = frozenset({DeploymentPhase.SHIFTING, DeploymentPhase.PROVISIONING, DeploymentPhase.TERMINATION_WAIT})
_STOPPABLE = GIVEN_UP | {InstanceState.DRAINING, InstanceState.STOPPED}


def problems(before: Endpoint, decision: Decision, policy: Policy, alive: Collection[str] = ()) -> list[str]:
    """Everything wrong with a decision that was made from `before` while the instances of `alive` ran."""
    after = decision.endpoint
    found = list(_removal(before)) if after is None else [*state_problems(after), *_step(before, after, policy)]
    kept = {i.instance_id for i in after.instances} if after is not None else frozenset[str]()
    for instance in before.instances:
        if instance.instance_id in alive and instance.instance_id not in kept:
            found.append(f"{instance.instance_id} is dropped while it runs")
    ids = [e.effect_id for e in decision.effects]
    if len(ids) != len(set(ids)):
        found.append("an effect is owed twice")
    if after is not None:
        found += [why for e in decision.effects if (why := refusal(after, e)) is not None]
    return found


def state_problems(endpoint: Endpoint) -> Iterator[str]:
    """What is wrong with an endpoint by itself, however it came about."""
    ids = [i.instance_id for i in endpoint.instances]
    if len(ids) != len(set(ids)):
        yield "an instance id occurs twice"
    generations = [f.generation for f in endpoint.fleets]
    if generations != sorted(set(generations)) or generations[-1] > endpoint.generation:
        yield f"fleet generations {generations} do not rise below the endpoint's {endpoint.generation}"
    for instance in endpoint.instances:
        fleet = next((f for f in endpoint.fleets if f.generation == instance.fleet), None)
        if instance.state in COUNTED and (fleet is None or fleet.variant(instance.variant) is None):
            yield f"{instance.instance_id} is counted, but its fleet or variant is no more"
    yield from _route_problems(endpoint)


def _route_problems(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.route is None:
        return
    if endpoint.route.generation != endpoint.route_generation:
        yield "the route's generation is not the endpoint's"
    targets = [(v.name, t) for v in endpoint.route.everyone for t in v.targets]
    if len({t.instance_id for _, t in targets}) != len(targets):
        yield "an instance is in the route twice"
    known = {i.instance_id: i for i in endpoint.instances}
    for variant, target in targets:
        instance = known.get(target.instance_id)
        if instance is None:
            yield f"{target.instance_id} is in the route and unknown"
        elif instance.variant != variant or instance.zone != target.zone or not target.socket:
            yield f"{target.instance_id} is in the route as something else than it is"
    shadows = {v.name for f in endpoint.fleets for v in f.shadows}
    if shadows & {v.name for v in endpoint.route.variants} - {v.name for f in endpoint.fleets for v in f.production}:
        yield "a shadow shares the traffic"
    yield from _split_problems(endpoint)


def _split_problems(endpoint: Endpoint) -> Iterator[str]:
    """Green never has more of the traffic than its policy allows at this step."""
    deployment, route = endpoint.deployment, endpoint.route
    if deployment is None or route is None or deployment.phase not in _SHARED:
        return
    total = sum(v.weight for v in route.variants)
    green = [v for v in route.variants if v.fleet == deployment.green.generation]
    most = max(rollout.share(deployment, v, deployment.step) for v in deployment.green.production)
    if total and sum(v.weight for v in green) > most * total * (1 + 1e-9):
        yield f"green has {sum(v.weight for v in green) / total:.3f} of the traffic where {most:.3f} is allowed"
    for variant in green:
        spec = deployment.green.variant(variant.name)
        if spec is not None and len(variant.targets) > rollout.active(deployment, spec, deployment.step):
            yield f"{len(variant.targets)} green instances of {variant.name} take traffic, more than its share"


def _step(before: Endpoint, after: Endpoint, policy: Policy) -> Iterator[str]:
    if after.status is not before.status and after.status not in STATUS_MOVES[before.status]:
        yield f"status {before.status} -> {after.status}"
    if after.generation < before.generation or after.route_generation < before.route_generation:
        yield "a generation falls"
    if after.route != before.route and after.route_generation == before.route_generation:
        yield "the route changes without a new generation"
    yield from _phase_step(before, after)
    yield from _instance_steps(before, after)
    yield from _starts(before, after, policy)
    yield from _route_step(before, after)


def _phase_step(before: Endpoint, after: Endpoint) -> Iterator[str]:
    old, new = before.pending_phase, after.pending_phase
    if old is not None and new is not None and new is not old and new not in PHASE_MOVES[old]:
        yield f"deployment {old} -> {new}"
    yield from _unproven(before, after)


def _unproven(before: Endpoint, after: Endpoint) -> Iterator[str]:
    """A step whose green has to prove itself is left forwards only with a verdict that it passed (law 6)."""
    was, now = before.deployment, after.deployment
    if was is None or now is None or now.phase not in _ONWARDS or not rollout.judged(was):
        return
    if now.analysis is None or now.analysis.step != was.step or now.analysis.verdict is not Verdict.PASS:
        yield f"green goes on from step {was.step} and has not passed its analysis"


def _instance_steps(before: Endpoint, after: Endpoint) -> Iterator[str]:
    now = {i.instance_id: i for i in after.instances}
    for old in before.instances:
        new = now.get(old.instance_id)
        if new is None:
            continue
        if new.state is not old.state and not _reachable(old.state, new.state):
            yield f"{old.instance_id} {old.state} -> {new.state}"
        elif new.generation < old.generation or new.zone != old.zone or new.fleet != old.fleet:
            yield f"{old.instance_id} became another"


def _reachable(source: InstanceState, destination: InstanceState) -> bool:
    """One decision may make several moves of one instance."""
    ways = INSTANCE_MOVES[source]
    return destination in ways or any(_reachable(step, destination) for step in ways if step is not InstanceState.READY)


def _starts(before: Endpoint, after: Endpoint, policy: Policy) -> Iterator[str]:
    """Bounds and zones of what is started by this step."""
    old = {i.instance_id for i in before.instances}
    for fleet in after.fleets:
        for variant in fleet.variants:
            counted = list(after.members(fleet, variant.name))
            new = [i for i in counted if i.instance_id not in old]
            silent = [i for i in counted if i.state is InstanceState.UNKNOWN]
            if new and len(counted) > variant.desired_count + bool(silent):
                yield f"{len(counted)} of {variant.name} where {variant.desired_count} are wanted, {len(silent)} silent"
            yield from _zone_problems(counted, new, policy)


def _zone_problems(counted: list[Instance], new: list[Instance], policy: Policy) -> Iterator[str]:
    crowd = Counter(i.zone for i in counted)
    free = [z for z in policy.zones if not crowd[z]]
    for instance in new:
        if crowd[instance.zone] > 1 and free:
            yield f"{instance.instance_id} shares zone {instance.zone} while {free} are free"


def _route_step(before: Endpoint, after: Endpoint) -> Iterator[str]:
    """A decision may not empty a variant's route of instances that still serve (law 13)."""
    if before.route is None or after.status in (EndpointStatus.FAILED, EndpointStatus.DELETING):
        return
    known = {i.instance_id: i for i in after.instances}
    if after.route is None:
        yield "the route is withdrawn from an endpoint that serves"
        return
    kept: dict[str, tuple[Target, ...]] = {}
    for variant in after.route.variants:  # while traffic shifts, one name stands for two
        kept[variant.name] = kept.get(variant.name, ()) + variant.targets
    for variant in before.route.variants:
        serving = [t for t in variant.targets if (i := known.get(t.instance_id)) and i.state in _ROUTABLE]
        if serving and variant.name in kept and not kept[variant.name]:
            yield f"variant {variant.name} loses its last serving instance"


def _removal(before: Endpoint) -> Iterator[str]:
    if before.status is not EndpointStatus.DELETING:
        yield f"an endpoint is removed while {before.status}"
    for instance in before.instances:
        if instance.state in COUNTED or instance.state is InstanceState.DRAINING:
            yield f"{instance.instance_id} is left behind by the removal"


def refusal(endpoint: Endpoint | None, effect: Effect) -> str | None:
    """Why an effect must not be done to the endpoint as it is now: it is of an older generation, or unsafe."""
    if effect.verb is Verb.KEEP_ARTIFACTS:
        return None
    if endpoint is None or not effect.effect_id.startswith(endpoint.uid + "/"):
        return "the endpoint that owed it is gone"
    if effect.verb in (Verb.PUBLISH_ROUTE, Verb.WITHDRAW_ROUTE):
        return _route_refusal(endpoint, effect)
    if effect.verb is Verb.FETCH_ARTIFACT:
        fleet = effect.subject.partition("-")[0]
        return None if any(str(f.generation) == fleet for f in endpoint.fleets) else f"fleet {fleet} is no more"
    return _instance_refusal(endpoint, effect)


def _route_refusal(endpoint: Endpoint, effect: Effect) -> str | None:
    generation = int(effect.arguments["generation"])
    if generation > endpoint.route_generation:
        return f"generation {generation} is not the endpoint's yet, which is at {endpoint.route_generation}"
    if (endpoint.route is None) is not (effect.verb is Verb.WITHDRAW_ROUTE):
        return f"generation {generation} is overtaken by {endpoint.route_generation}"
    return None


def _instance_refusal(endpoint: Endpoint, effect: Effect) -> str | None:
    instance = next((i for i in endpoint.instances if i.instance_id == effect.subject), None)
    if instance is None:
        return "the instance is no longer the endpoint's"
    if effect.verb is Verb.ENSURE_INSTANCE:
        return None if instance.state is InstanceState.REQUESTED else f"it is {instance.state}: not to be started"
    if instance.state not in _STOPPABLE:
        return f"it is {instance.state}: not to be ended"
    routed = endpoint.route is not None and any(
        t.instance_id == instance.instance_id for v in endpoint.route.everyone for t in v.targets
    )
    return "it is still in the route" if routed else None
