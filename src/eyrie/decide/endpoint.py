"""Commands on an endpoint: what CreateEndpoint, UpdateEndpoint, UpdateEndpointWeightsAndCapacities and DeleteEndpoint
decide, before anything is done. Pure: the endpoint and the wish in, a Decision out, a typed refusal raised.

The path goes on in decide/deployment (how a change proceeds) and decide/fleet (which instances start and stop)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eyrie.decide import rollout, serverless
from eyrie.domain.deployment import Deployment, DeploymentPhase, Resize, Strategy, TrafficPolicy
from eyrie.domain.endpoint import (
    STATUS_MOVES,
    CapacityChange,
    Endpoint,
    EndpointStatus,
    Fleet,
    FleetSpec,
    Variant,
    VariantSpec,
)
from eyrie.domain.errors import (
    BadAmount,
    EndpointBusy,
    EndpointUnusable,
    KindChanged,
    NotServerless,
    VariantMissing,
    VariantTwice,
)
from eyrie.domain.names import EndpointKey
from eyrie.domain.plan import Decision, Note
from eyrie.domain.serverless import Serverless
from eyrie.domain.transition import moved

BUSY = frozenset({EndpointStatus.CREATING, EndpointStatus.UPDATING, EndpointStatus.DELETING})
DESIRED_COUNT = "DesiredInstanceCount"  # spellings of RetainAllVariantProperties' exceptions
DESIRED_WEIGHT = "DesiredWeight"
DATA_CAPTURE = "DataCaptureConfig"


def create(
    key: EndpointKey,
    uid: str,
    wish: FleetSpec,
    now_ms: int,
    data_capture: dict[str, Any] | None = None,
    deployment_config: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> Decision:
    """A new endpoint, Creating. `uid` must be unique in time. Raises BadAmount for a fleet without variants."""
    _check_wish(wish)
    endpoint = Endpoint(
        key=key,
        uid=uid,
        arn=key.scope.arn("endpoint", key.name),
        config_name=wish.config_name,
        config_arn=wish.config_arn,
        status=EndpointStatus.CREATING,
        created_ms=now_ms,
        modified_ms=now_ms,
        generation=1,
        fleet=_fleet(wish, 1, now_ms, [_initial(v) for v in wish.variants]),
        route_generation=now_ms,  # above that of an earlier endpoint of this name
        data_capture=data_capture,
        last_deployment_config=deployment_config,
        options=options or {},
    )
    return Decision(endpoint, (Note("endpoint Creating", f"CreateEndpoint with {_describe(endpoint.fleet)}"),))


@dataclass(frozen=True, slots=True)
class Update:
    """What UpdateEndpoint asks for: a fleet, and how to get there."""

    wish: FleetSpec
    retain_all: bool = False  # carry counts, weights and data capture of variants that both fleets have over
    exclude_retained: Collection[str] = ()  # but for these, in SageMaker's spellings
    data_capture: dict[str, Any] | None = None
    deployment_config: dict[str, Any] | None = None  # as it was given, for Describe and for a later update to retain
    retain_deployment_config: bool = False
    policy: TrafficPolicy = field(default_factory=TrafficPolicy)


def update(endpoint: Endpoint, asked: Update, now_ms: int) -> Decision:
    """Start a deployment from the present (blue) fleet to the wish (green), all at once where no policy says otherwise.

    Raises EndpointBusy, EndpointUnusable, or BadAmount for a policy that this fleet cannot follow.
    """
    wish, policy = asked.wish, asked.policy
    _check_idle(endpoint)
    _check_wish(wish)
    if (endpoint.fleet.asynchronous is None) != (wish.asynchronous is None):
        raise KindChanged(endpoint.arn, wish.config_name, wish.asynchronous is not None)
    kept = {DESIRED_COUNT, DESIRED_WEIGHT, DATA_CAPTURE} - set(asked.exclude_retained) if asked.retain_all else set()
    config = endpoint.last_deployment_config if asked.retain_deployment_config else asked.deployment_config
    green = _fleet(wish, endpoint.generation + 1, now_ms, [_retained(endpoint, v, kept) for v in wish.variants])
    rollout.check(policy, green)
    _check_serverless(endpoint.fleet, green, policy)
    if policy.analysis is not None and wish.config_name == endpoint.config_name:
        raise BadAmount(
            f"{rollout.ANALYSIS_TAG} tells the fleets apart by their configs, and both are {wish.config_name}."
        )
    deployment = Deployment(
        phase=DeploymentPhase.PENDING,
        green=green,
        started_ms=now_ms,
        phase_ms=now_ms,
        policy=policy,
        config=config or {},
        data_capture=endpoint.data_capture if DATA_CAPTURE in kept else asked.data_capture,
    )
    changed = replace(
        endpoint,
        status=moved(STATUS_MOVES, endpoint.arn, endpoint.status, EndpointStatus.UPDATING),
        generation=endpoint.generation + 1,
        modified_ms=now_ms,
        deployment=deployment,
        last_deployment_config=config,
        failure_reason=None,
    )
    how = f"{policy.strategy} in {rollout.steps(policy, green)} steps"
    note = Note("endpoint Updating", f"UpdateEndpoint from {endpoint.config_name} to {_describe(green)}, {how}")
    return Decision(changed, (note,))


def update_weights_and_capacities(
    endpoint: Endpoint,
    changes: Sequence[CapacityChange],
    now_ms: int,
    why: str = "UpdateEndpointWeightsAndCapacities",
    overtake: bool = False,
) -> Decision:
    """Set weights (live at once) and counts (reached by starting and draining instances) of some variants. `why` is
    for the story: who asked, and for what reason. `overtake`: a growth that is on its way may grow further.

    Raises EndpointBusy, EndpointUnusable, VariantMissing, VariantTwice or BadAmount.
    """
    overtaken = endpoint.resize if overtake and _only_grows(endpoint, changes) else None
    if overtaken is None:
        _check_idle(endpoint)
    wanted = {c.variant: c for c in changes}
    for change in changes:
        _check_change(endpoint, change, sum(1 for c in changes if c.variant == change.variant))
    variants = tuple(_changed(v, wanted.get(v.name)) for v in endpoint.fleet.variants)
    resize = overtaken or _resize(endpoint.fleet, now_ms)
    if overtaken is None:
        endpoint = replace(endpoint, status=moved(STATUS_MOVES, endpoint.arn, endpoint.status, EndpointStatus.UPDATING))
    changed = replace(
        endpoint,
        generation=endpoint.generation + 1,
        modified_ms=now_ms,
        fleet=replace(endpoint.fleet, variants=variants),
        resize=resize,
        failure_reason=None,
    )
    told = ", ".join(_told(v) for v in variants)
    return Decision(changed, (Note("endpoint Updating", f"{why}: {told}"),))


def _resize(fleet: Fleet, now_ms: int) -> Resize:
    counts = {v.name: v.desired_count for v in fleet.variants}
    return Resize(now_ms, counts, {v.name: v.serverless for v in fleet.variants if v.serverless is not None})


def _told(variant: Variant) -> str:
    what = f"{variant.name}: count {variant.desired_count}, weight {variant.desired_weight:g}"
    allowed = variant.serverless
    if allowed is None:
        return what
    return f"{what}, MaxConcurrency {allowed.max_concurrency}, ProvisionedConcurrency {allowed.provisioned}"


def growing(endpoint: Endpoint) -> bool:
    """Whether all that is on its way is more instances: no deployment, no variant that shrinks."""
    resize = endpoint.resize
    if endpoint.status is not EndpointStatus.UPDATING or resize is None or endpoint.deployment is not None:
        return False
    return all(v.desired_count >= resize.counts_before.get(v.name, v.desired_count) for v in endpoint.fleet.variants)


def _only_grows(endpoint: Endpoint, changes: Sequence[CapacityChange]) -> bool:
    """Whether changes to an endpoint that grows are more instances still."""
    now = {v.name: v.desired_count for v in endpoint.fleet.variants}
    return growing(endpoint) and all(
        c.weight is None and c.count is not None and c.count >= now.get(c.variant, c.count) for c in changes
    )


def delete(endpoint: Endpoint, now_ms: int) -> Decision:
    """Start to delete: out of the route, drained, stopped, then gone. Raises EndpointBusy while it is changing."""
    if endpoint.status in BUSY:
        raise EndpointBusy(endpoint.arn, endpoint.status)
    changed = replace(
        endpoint,
        status=moved(STATUS_MOVES, endpoint.arn, endpoint.status, EndpointStatus.DELETING),
        generation=endpoint.generation + 1,
        modified_ms=now_ms,
    )
    return Decision(changed, (Note("endpoint Deleting", "DeleteEndpoint"),))


def _check_idle(endpoint: Endpoint) -> None:
    if endpoint.status in BUSY:
        raise EndpointBusy(endpoint.arn, endpoint.status)
    if endpoint.status is not EndpointStatus.IN_SERVICE:
        raise EndpointUnusable(endpoint.arn, endpoint.status)


def _check_wish(wish: FleetSpec) -> None:
    if all(variant.shadow_of for variant in wish.variants):
        raise BadAmount("An endpoint needs at least one production variant.")
    for variant in wish.variants:
        _check_count(variant, variant.initial_count)
        _check_weight(variant.name, variant.initial_weight)


def _check_change(endpoint: Endpoint, change: CapacityChange, times: int) -> None:
    if times > 1:
        raise VariantTwice(change.variant)
    variant = endpoint.fleet.variant(change.variant)
    if variant is None:
        raise VariantMissing(endpoint.arn, change.variant)
    if change.count is not None:
        _check_count(variant.spec, change.count)
    _check_concurrency(variant, change)
    if change.weight is not None:
        _check_weight(change.variant, change.weight)


def _check_count(variant: VariantSpec, count: int) -> None:
    if count < variant.least:
        raise BadAmount(
            f"DesiredInstanceCount of variant {variant.name} must be at least {variant.least}, and is {count}."
        )


def _check_concurrency(variant: Variant, change: CapacityChange) -> None:
    """Of a serverless variant the concurrency is changed, of any other the count."""
    if variant.serverless is None:
        if change.max_concurrency is not None or change.provisioned is not None:
            raise BadAmount(f"ServerlessUpdateConfig is given for variant {variant.name}, which is not serverless.")
        return
    if change.count is not None:
        raise BadAmount(
            f"DesiredInstanceCount is given for variant {variant.name}, which is serverless: "
            "use ServerlessUpdateConfig."
        )
    allowed = _allowed(variant.serverless, change)
    if allowed.provisioned > allowed.max_concurrency:
        raise BadAmount(
            f"ProvisionedConcurrency {allowed.provisioned} of variant {variant.name} must not be above its "
            f"MaxConcurrency {allowed.max_concurrency}."
        )


def _allowed(now: Serverless, change: CapacityChange) -> Serverless:
    return replace(
        now,
        max_concurrency=now.max_concurrency if change.max_concurrency is None else change.max_concurrency,
        provisioned=now.provisioned if change.provisioned is None else change.provisioned,
    )


def _check_serverless(blue: Fleet, green: Fleet, policy: TrafficPolicy) -> None:
    """Instances do not become serverless; the other way there is. Serverless traffic moves all at once."""
    before, after = (any(v.serverless is not None for v in fleet.variants) for fleet in (blue, green))
    if after and not before:
        raise NotServerless(
            f"Endpoint configuration {green.config_name} is serverless: an endpoint with instances cannot be updated "
            "to it. Create another endpoint."
        )
    if (before or after) and policy.strategy is not Strategy.ALL_AT_ONCE:
        raise NotServerless(
            f"DeploymentConfig with {policy.strategy} is not for serverless endpoints: their traffic moves all at once."
        )


def _check_weight(variant: str, weight: float) -> None:
    if not 0 <= weight < float("inf"):
        raise BadAmount(f"DesiredWeight of variant {variant} must be a number from 0 on, and is {weight}.")


def _fleet(wish: FleetSpec, generation: int, now_ms: int, variants: Sequence[Variant]) -> Fleet:
    return Fleet(
        *(generation, wish.config_name, wish.config_arn, tuple(variants), now_ms, wish.sticky),
        asynchronous=wish.asynchronous,
    )


def _initial(spec: VariantSpec) -> Variant:
    return Variant(spec, spec.initial_count, spec.initial_weight, spec.serverless)


def _retained(endpoint: Endpoint, spec: VariantSpec, kept: Collection[str]) -> Variant:
    now = endpoint.fleet.variant(spec.name)
    if now is None or now.shadow is not bool(spec.shadow_of):  # a promoted shadow's weight was a sampling rate
        return _initial(spec)
    counted = spec.serverless is None and now.serverless is None  # else the count is not the user's
    count = max(now.desired_count, spec.least) if counted and DESIRED_COUNT in kept else spec.initial_count
    weight = now.desired_weight if DESIRED_WEIGHT in kept else spec.initial_weight
    return Variant(spec, count, weight, spec.serverless)


def _changed(variant: Variant, change: CapacityChange | None) -> Variant:
    if change is None:
        return variant
    allowed, count = variant.serverless, change.count
    if allowed is not None:
        allowed = _allowed(allowed, change)
        count = max(variant.desired_count, serverless.kept_ready(allowed, variant.spec.foreign))
    return replace(
        variant,
        desired_count=variant.desired_count if count is None else count,
        desired_weight=variant.desired_weight if change.weight is None else change.weight,
        serverless=allowed,
    )


def _describe(fleet: Fleet) -> str:
    counts = ", ".join(f"{v.name} x {v.desired_count} {v.spec.instance_type}" for v in fleet.variants)
    return f"config {fleet.config_name} ({counts})"
