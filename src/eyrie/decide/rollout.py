"""The arithmetic of a deployment: how much of the traffic, and how many instances, each of the two fleets has.

decide/deployment moves the steps on, decide/capacity starts and ends instances by `wanted`, decide/publication makes
the route from `shares`, decide/check holds both to them. Blue/green starts the whole of green first and moves traffic;
a rolling update moves instances, and the traffic with them. Rolling back, blue gets what it is healthy enough to take.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor

from eyrie.domain.deployment import CapacitySize, Deployment, DeploymentPhase, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.errors import BadAmount
from eyrie.domain.fleet import Fleet, InstanceState, Variant

_Phase = DeploymentPhase
_DRAINING = InstanceState.DRAINING
ANALYSIS_TAG = "eyrie:CanaryAnalysis"  # of the EndpointConfig or the endpoint
_TINY = 1e-9  # of a share, lost in binary fractions
BOUNDS_PERCENT: Mapping[Strategy, tuple[int, int]] = {
    Strategy.CANARY: (1, 50),
    Strategy.LINEAR: (10, 50),
    Strategy.ROLLING: (5, 50),
}
MEMBERS: Mapping[Strategy, str] = {  # of DeploymentConfig, that tell the size
    Strategy.CANARY: "CanarySize",
    Strategy.LINEAR: "LinearStepSize",
    Strategy.ROLLING: "MaximumBatchSize",
}


def check(policy: TrafficPolicy, green: Fleet) -> None:
    """Raise BadAmount for a policy that a fleet of these counts cannot follow."""
    if policy.size is not None:
        low, high = BOUNDS_PERCENT[policy.strategy]
        _check_size(MEMBERS[policy.strategy], policy.size, green, low, high)
    if policy.rollback_size is not None:
        _check_size("RollbackMaximumBatchSize", policy.rollback_size, green, 1, 100)
    if policy.analysis is not None and steps(policy, green) < 2:
        raise BadAmount(
            f"{ANALYSIS_TAG} compares green with blue while both take traffic, which they never do in this deployment: "
            f"it is {policy.strategy} of {sum(v.desired_count for v in green.variants)} instances in one step."
        )
    if policy.analysis is not None and policy.analysis.warm_up_ms >= policy.bake_ms > 0:
        raise BadAmount(
            f"{ANALYSIS_TAG}: WarmUpInSeconds is {policy.analysis.warm_up_ms // 1000}; it must be less than "
            f"WaitIntervalInSeconds, which is {policy.bake_ms // 1000}."
        )
    waits_ms = steps(policy, green) * policy.bake_ms + policy.termination_wait_ms
    if policy.limit_ms and policy.limit_ms <= waits_ms:
        raise BadAmount(
            f"MaximumExecutionTimeoutInSeconds is {policy.limit_ms // 1000}; it must exceed the sum of all waits, "
            f"which is {waits_ms // 1000}."
        )


def _check_size(member: str, size: CapacitySize, green: Fleet, low: int, high: int) -> None:
    share = 100 * _ratio(size, green)
    count = sum(v.desired_count for v in green.production)
    if size.value < 1 or share > high + _TINY or (size.kind is SizeKind.CAPACITY_PERCENT and share < low - _TINY):
        raise BadAmount(
            f"{member} of {size.value} ({size.kind}) is {share:g} % of the {count} instances; "
            f"it must be from {low} to {high} %."
        )


def _ratio(size: CapacitySize, green: Fleet) -> float:
    if size.kind is SizeKind.CAPACITY_PERCENT:
        return size.value / 100
    return size.value / max(sum(v.desired_count for v in green.production), 1)


def steps(policy: TrafficPolicy, green: Fleet) -> int:
    """How many steps a deployment of this fleet has."""
    if policy.size is None or policy.strategy is Strategy.ALL_AT_ONCE:
        return 1
    if policy.strategy is Strategy.CANARY:
        return 2
    if policy.strategy is Strategy.LINEAR:
        return ceil(1 / _ratio(policy.size, green) - _TINY)
    return max(1, *(ceil(v.desired_count / _batch(policy.size, green, v)) for v in green.production))


def judged_steps(policy: TrafficPolicy, green: Fleet) -> int:
    """How many steps the analysis judges: those in which both fleets take traffic."""
    return steps(policy, green) - 1 if policy.analysis is not None else 0


def judged(deployment: Deployment) -> bool:
    """Whether green has to prove itself in the present step."""
    return deployment.judged and deployment.step <= judged_steps(deployment.policy, deployment.green)


def share(deployment: Deployment, variant: Variant, step: int) -> float:
    """Green's share of a variant's traffic after so many steps."""
    policy, green = deployment.policy, deployment.green
    if step <= 0:
        return 0.0
    if policy.size is None or step >= steps(policy, green):
        return 1.0
    if policy.strategy is Strategy.ROLLING and variant.desired_count:
        return active(deployment, variant, step) / variant.desired_count
    if policy.strategy is Strategy.ROLLING:  # without an instance it takes part in no batch
        return step / steps(policy, green)
    return min(1.0, step * _ratio(policy.size, green))  # a canary's only step below the last is the first


def active(deployment: Deployment, variant: Variant, step: int) -> int:
    """How many of a green variant's instances take traffic after so many steps."""
    policy = deployment.policy
    if step <= 0:
        return 0
    if policy.strategy is Strategy.ROLLING and policy.size is not None:
        return min(variant.desired_count, step * _batch(policy.size, deployment.green, variant))
    return ceil(share(deployment, variant, step) * variant.desired_count - _TINY)


def _batch(size: CapacitySize, fleet: Fleet, variant: Variant) -> int:
    """Instances of a variant that one step may move: never more than the size says, but for the first."""
    return max(1, floor(_ratio(size, fleet) * variant.desired_count + _TINY))


def wanted(endpoint: Endpoint, fleet: Fleet, variant: Variant) -> int:
    """How many instances a variant of one of the endpoint's fleets is to have now. Shadows come and go as a whole."""
    deployment, count = endpoint.deployment, variant.desired_count
    if deployment is None or deployment.policy.strategy is not Strategy.ROLLING or variant.shadow:
        return count
    if fleet.generation == deployment.green.generation:
        return _green_wanted(endpoint, deployment, variant)
    if deployment.phase is _Phase.ROLLING_BACK:
        size = deployment.policy.rollback_size
        more = _batch(size, endpoint.fleet, variant) if size is not None else count
        return min(count, endpoint.ready_count(fleet, variant.name) + more)
    settled = deployment.step - 1 if deployment.phase in (_Phase.SHIFTING, _Phase.BAKING) else deployment.step
    return count - floor(count * _progress(deployment, variant.name, settled) + _TINY)


def _green_wanted(endpoint: Endpoint, deployment: Deployment, variant: Variant) -> int:
    """A batch starts when the one before it has ended on blue's side: what drains takes room, too."""
    draining = any(i.fleet == endpoint.fleet.generation and i.state is _DRAINING for i in endpoint.instances)
    starts = deployment.phase is _Phase.PROVISIONING and not draining
    step = deployment.step + 1 if starts else deployment.step
    if deployment.phase in (_Phase.TERMINATION_WAIT, _Phase.RETIRING):
        return variant.desired_count
    return active(deployment, variant, step)


def _progress(deployment: Deployment, name: str, step: int) -> float:
    """How much of a variant of blue green has taken over: as much as its own of that name has, else the least."""
    twin = deployment.green.variant(name)
    if twin is not None and not twin.shadow:
        return share(deployment, twin, step)
    return min(share(deployment, variant, step) for variant in deployment.green.production)


def ready_for(endpoint: Endpoint, deployment: Deployment, step: int) -> bool:
    """Whether green has the instances that serve after so many steps: in blue/green, all of them from the first on."""
    rolling = deployment.policy.strategy is Strategy.ROLLING
    return all(
        endpoint.ready_count(deployment.green, v.name)
        >= (active(deployment, v, step) if rolling and not v.shadow else v.desired_count)
        for v in deployment.green.variants
    )


def shares(endpoint: Endpoint) -> list[tuple[Fleet, dict[str, float]]]:
    """The fleets that hold traffic now, with each variant's part of what its fleet's weights would give it alone."""
    deployment, blue = endpoint.deployment, endpoint.fleet
    if deployment is None or deployment.step == 0:
        return [(blue, {v.name: 1.0 for v in blue.production})]
    green = deployment.green
    if deployment.phase in (_Phase.TERMINATION_WAIT, _Phase.RETIRING):
        return [(green, {v.name: 1.0 for v in green.production})]
    if deployment.phase in (_Phase.ROLLING_BACK, _Phase.ROLLBACK_FAILED):
        return _by_health(endpoint, deployment)
    ours = {v.name: share(deployment, v, deployment.step) for v in green.production}
    theirs = {v.name: 1.0 - _progress(deployment, v.name, deployment.step) for v in blue.production}
    return _held([(blue, theirs), (green, ours)])


def _by_health(endpoint: Endpoint, deployment: Deployment) -> list[tuple[Fleet, dict[str, float]]]:
    """Back to blue, as far as blue is able: half of its instances can hold all traffic for a moment in blue/green; in a
    rolling update most of them may be gone, and each takes its own part.
    """
    blue, green = endpoint.fleet, deployment.green
    able = {v.name: _able(endpoint, deployment, v) for v in blue.production}
    least = min(able.values())
    return _held([(blue, able), (green, {v.name: 1.0 - able.get(v.name, least) for v in green.production})])


def _able(endpoint: Endpoint, deployment: Deployment, variant: Variant) -> float:
    ready, count = endpoint.ready_count(endpoint.fleet, variant.name), variant.desired_count
    if deployment.policy.strategy is not Strategy.ROLLING and 2 * ready >= count:
        return 1.0
    return min(1.0, ready / count) if count else 1.0


def _held(parts: list[tuple[Fleet, dict[str, float]]]) -> list[tuple[Fleet, dict[str, float]]]:
    """Without what holds nothing."""
    held = [(fleet, {name: part for name, part in by.items() if part > _TINY}) for fleet, by in parts]
    return [(fleet, by) for fleet, by in held if by]


def restored(endpoint: Endpoint) -> bool:
    """Whether a roll-back has given all traffic back to blue."""
    return [fleet.generation for fleet, _ in shares(endpoint)] == [endpoint.fleet.generation]
