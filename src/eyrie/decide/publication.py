"""Which route table an endpoint has: the instances of the fleets that hold traffic, weights as desired, each fleet's
scaled to its share while a deployment shifts. Step of decide/reconcile.

A table is published when it differs from the last one, at a higher generation; whoever leaves it is remembered with
the generation of the first table without it, so that decide/retire can wait until every gateway has that one.
"""

from __future__ import annotations

from dataclasses import replace

from eyrie.decide import capture
from eyrie.decide.draft import Draft
from eyrie.decide.fleet import backoff_of, members, renewed, suspect
from eyrie.decide.policy import Policy
from eyrie.decide.rollout import active, judged_steps, shares
from eyrie.domain.analysis import AnalysisRoute
from eyrie.domain.deployment import DeploymentPhase
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.fleet import Fleet, Instance, InstanceState, Variant
from eyrie.domain.plan import Verb
from eyrie.domain.routing import EndpointRoute, ServerlessRoute, ShadowRoute, Target, VariantRoute
from eyrie.domain.serverless import BODY_BYTES_MAX

_SHARED = frozenset({DeploymentPhase.PROVISIONING, DeploymentPhase.SHIFTING, DeploymentPhase.BAKING})


def publish(draft: Draft, policy: Policy) -> None:
    """Publish a new table, or withdraw it, where what should be served has changed."""
    endpoint = draft.endpoint
    if endpoint.status in (EndpointStatus.FAILED, EndpointStatus.DELETING):
        if endpoint.route is not None:
            _withdraw(draft)
        return
    if (
        endpoint.status is EndpointStatus.CREATING
        and endpoint.route is None
        and not _complete(endpoint, endpoint.fleet)
    ):
        return
    if not _up_to_date(endpoint, policy):
        _renew(draft, policy, wished(endpoint, policy), wished_shadows(endpoint, policy))


def _up_to_date(endpoint: Endpoint, policy: Policy) -> bool:
    """Whether the newest table says what it should."""
    route = endpoint.route
    if route is None or route.asynchronous != endpoint.fleet.asynchronous:
        return False
    return (route.variants, route.shadows) == (wished(endpoint, policy), wished_shadows(endpoint, policy))


def wished(endpoint: Endpoint, policy: Policy) -> tuple[VariantRoute, ...]:
    """The variants of the table that the endpoint should have now."""
    held = shares(endpoint)
    if len(held) == 1:
        fleet, by = held[0]
        return tuple(
            _variant_route(endpoint, policy, fleet, v, v.desired_weight) for v in fleet.variants if v.name in by
        )
    return tuple(
        _variant_route(endpoint, policy, fleet, v, by[v.name] * v.desired_weight / _weight(fleet))
        for fleet, by in held
        for v in fleet.variants
        if v.name in by
    )


def wished_shadows(endpoint: Endpoint, policy: Policy) -> tuple[ShadowRoute, ...]:
    """The shadows of the table that the endpoint should have now: of each fleet that holds traffic."""
    return tuple(
        ShadowRoute(_variant_route(endpoint, policy, fleet, v, 0.0), v.spec.shadow_of, sampled(fleet, v))
        for fleet, by in shares(endpoint)
        for v in fleet.shadows
        if v.spec.shadow_of in by
    )


def sampled(fleet: Fleet, shadow: Variant) -> float:
    """The part of its source's requests that a shadow gets: its weight over the sum of the production weights."""
    return min(1.0, shadow.desired_weight / _weight(fleet))


def acknowledged(draft: Draft, policy: Policy) -> bool:
    """The table that the endpoint should have is published, and every live gateway serves it.

    A worker that lives and says nothing (stopped, say) is not waited for longer than the limit.
    """
    route = draft.endpoint.route
    if route is None or not _up_to_date(draft.endpoint, policy):
        return False
    if draft.owed(Verb.PUBLISH_ROUTE, str(route.generation)):
        return False
    if draft.seen.served >= route.generation:
        return True
    limit_ms = draft.endpoint.route_ms + policy.ack_limit_ms
    draft.wake_at(limit_ms)
    return draft.now_ms >= limit_ms


def _weight(fleet: Fleet) -> float:
    return sum(v.desired_weight for v in fleet.production) or 1.0


def in_route(endpoint: Endpoint) -> frozenset[str]:
    """Ids of the instances in the endpoint's newest table."""
    if endpoint.route is None:
        return frozenset()
    return frozenset(t.instance_id for v in endpoint.route.everyone for t in v.targets)


def _complete(endpoint: Endpoint, fleet: Fleet) -> bool:
    return all(endpoint.ready_count(fleet, v.name) >= v.desired_count for v in fleet.variants)


def _variant_route(endpoint: Endpoint, policy: Policy, fleet: Fleet, variant: Variant, weight: float) -> VariantRoute:
    ready = members(endpoint, fleet, variant.name, InstanceState.READY)
    silent = members(endpoint, fleet, variant.name, InstanceState.UNKNOWN)
    routed = [*ready, *silent] if suspect(len(ready), len(silent)) else ready
    routed.sort(key=lambda i: (i.requested_ms, i.instance_id))
    captured, deployment = endpoint.data_capture, endpoint.deployment
    if deployment is not None and fleet.generation == deployment.green.generation:
        routed = routed if variant.shadow else routed[: active(deployment, variant, deployment.step)]
        captured = deployment.data_capture
    model = variant.spec.model
    return VariantRoute(
        name=variant.name,
        weight=weight,
        strategy=variant.spec.strategy,
        container=model.hostname,
        targets=tuple(Target(i.instance_id, i.socket, i.zone, variant.spec.workers) for i in routed),
        mode=model.containers[0].mode,
        execution=model.execution,
        containers=tuple(c.hostname for c in model.containers),
        model_cache=model.containers[0].model_cache,
        fleet=fleet.generation,
        config=fleet.config_name if endpoint.deployment is not None else "",
        capture=capture.route_of(captured),
        sticky=fleet.sticky,
        serverless=_serverless(endpoint, policy, fleet, variant),
        analysis=_analysed(endpoint),
    )


def _serverless(endpoint: Endpoint, policy: Policy, fleet: Fleet, variant: Variant) -> ServerlessRoute | None:
    """What gateways must know of a serverless variant; with the reason where its instances do not start."""
    allowed = variant.serverless
    if allowed is None:
        return None
    backoff = backoff_of(endpoint, fleet.generation, variant.name)
    return ServerlessRoute(
        max_concurrency=allowed.max_concurrency,
        provisioned=allowed.provisioned,
        hold_ms=policy.serverless_hold_ms,
        wait_ms=policy.serverless_wait_ms,
        trouble=backoff.reason if backoff is not None and (backoff.fatal or backoff.crashes > 1) else "",
    )


def _analysed(endpoint: Endpoint) -> AnalysisRoute | None:
    """Whether predictions are counted: while a canary's are compared, of both fleets."""
    deployment = endpoint.deployment
    policy = deployment.policy.analysis if deployment is not None else None
    if deployment is None or policy is None or policy.predictions is None or deployment.phase not in _SHARED:
        return None
    judged = 1 <= deployment.step <= judged_steps(deployment.policy, deployment.green)
    return AnalysisRoute(policy.sampling) if judged else None


def _renew(draft: Draft, policy: Policy, variants: tuple[VariantRoute, ...], shadows: tuple[ShadowRoute, ...]) -> None:
    before = in_route(draft.endpoint)
    route = EndpointRoute(
        key=draft.endpoint.key,
        generation=draft.endpoint.route_generation + 1,
        variants=variants,
        timeout_ms=policy.invoke_timeout_ms,
        body_bytes_max=min(policy.body_bytes_max, BODY_BYTES_MAX)
        if _any_serverless(variants)
        else policy.body_bytes_max,
        asynchronous=draft.endpoint.fleet.asynchronous,
        shadows=shadows,
    )
    draft.change(route=route, route_generation=route.generation, route_ms=draft.now_ms)
    _remember(draft, before)
    parts = [f"{v.name} weight {v.weight:g} x {len(v.targets)}" for v in variants]
    parts += [f"{s.variant.name} shadows {s.share:.0%} of {s.source} x {len(s.variant.targets)}" for s in shadows]
    draft.note(f"route {route.generation}", ", ".join(parts))
    draft.owe(Verb.PUBLISH_ROUTE, str(route.generation), generation=route.generation)


def _any_serverless(variants: tuple[VariantRoute, ...]) -> bool:
    return any(variant.serverless is not None for variant in variants)


def _withdraw(draft: Draft) -> None:
    before = in_route(draft.endpoint)
    generation = draft.endpoint.route_generation + 1
    draft.change(route=None, route_generation=generation, route_ms=draft.now_ms)
    _remember(draft, before)
    draft.note("route withdrawn", f"endpoint {draft.endpoint.status}")
    draft.owe(Verb.WITHDRAW_ROUTE, str(generation), generation=generation)


def _remember(draft: Draft, before: frozenset[str]) -> None:
    """Note who left the table with it, and who is back."""
    now = in_route(draft.endpoint)
    for instance in draft.endpoint.instances:
        if instance.instance_id in before - now:
            draft.put(_left(instance, draft.endpoint.route_generation, draft.now_ms))
        elif instance.instance_id in now and instance.left_generation:
            draft.put(renewed(instance))


def _left(instance: Instance, generation: int, now_ms: int) -> Instance:
    return replace(instance, left_generation=generation, left_ms=now_ms, acked_ms=0)
