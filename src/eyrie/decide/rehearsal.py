"""A deployment on paper: its steps, what runs in each, how long each takes, before anything is done.

The numbers are those of decide/rollout, which the real deployment asks too; only the times of starts are a guess,
handed in by whoever has measured some.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from eyrie.decide import rollout
from eyrie.domain.deployment import Deployment, DeploymentPhase, Strategy
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.fleet import Fleet, Instance, InstanceState

_Phase = DeploymentPhase


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the plan in which nothing changes but the time. Times in milliseconds since the start."""

    phase: DeploymentPhase
    step: int
    green_share: float  # of the traffic, at most
    blue: int  # instances that run or start
    green: int
    vcpu_milli: int  # of all of them
    memory_mb: int
    begins_ms: int
    takes_ms: int  # at least; a start, a bake, a wait
    judged: bool  # goes on only where the canary analysis passes


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The whole plan."""

    stages: tuple[Stage, ...]
    steps: int
    starts: int  # instances that are started in all

    @property
    def takes_ms(self) -> int:
        """From the start to the end of blue's wait."""
        return max(stage.begins_ms + stage.takes_ms for stage in self.stages)

    @property
    def peak(self) -> Stage:
        """The stage with the most instances; of equals the first."""
        return max(self.stages, key=lambda stage: (stage.blue + stage.green, stage.vcpu_milli))


def rehearse(endpoint: Endpoint, startup_ms: int) -> Rehearsal:
    """The plan of the deployment that the endpoint has just been given (PENDING). `startup_ms`: of one instance."""
    deployment = endpoint.deployment
    assert deployment is not None
    stages: list[Stage] = []
    now_ms = 0
    for phase, step, takes_ms in _phases(deployment, startup_ms):
        stages.append(_stage(endpoint, deployment, phase, step, now_ms, takes_ms))
        now_ms += takes_ms
    starts = sum(v.desired_count for v in deployment.green.variants)
    return Rehearsal(tuple(stages), rollout.steps(deployment.policy, deployment.green), starts)


def _phases(deployment: Deployment, startup_ms: int) -> Iterator[tuple[DeploymentPhase, int, int]]:
    """Phases in their order: which step they belong to, and how long they take at least."""
    policy, steps = deployment.policy, rollout.steps(deployment.policy, deployment.green)
    yield _Phase.PROVISIONING, 0, startup_ms
    for step in range(1, steps + 1):
        if step > 1 and policy.strategy is Strategy.ROLLING:
            yield _Phase.PROVISIONING, step - 1, startup_ms
        yield _Phase.BAKING, step, policy.bake_ms
    yield _Phase.TERMINATION_WAIT, steps, policy.termination_wait_ms
    yield _Phase.RETIRING, steps, 0


def _stage(
    endpoint: Endpoint, deployment: Deployment, phase: DeploymentPhase, step: int, begins_ms: int, takes_ms: int
) -> Stage:
    now = replace(deployment, phase=phase, step=step)
    there = _with_all_ready(replace(endpoint, status=EndpointStatus.UPDATING, deployment=now))
    blue, green = ([] if phase is _Phase.RETIRING else _counts(there, endpoint.fleet)), _counts(there, now.green)
    rows = [*zip(endpoint.fleet.variants, blue, strict=False), *zip(now.green.variants, green, strict=True)]
    return Stage(
        phase=phase,
        step=step,
        green_share=max(rollout.share(now, v, step) for v in now.green.variants),
        blue=sum(blue),
        green=sum(green),
        vcpu_milli=sum(v.spec.vcpu_milli * n for v, n in rows),
        memory_mb=sum(v.spec.memory_mb * n for v, n in rows),
        begins_ms=begins_ms,
        takes_ms=takes_ms,
        judged=rollout.judged(now),
    )


def _counts(endpoint: Endpoint, fleet: Fleet) -> list[int]:
    return [rollout.wanted(endpoint, fleet, variant) for variant in fleet.variants]


def _with_all_ready(endpoint: Endpoint) -> Endpoint:
    """As if every instance of blue were READY: the plan is that nothing goes wrong."""
    instances: tuple[Instance, ...] = tuple(
        replace(i, state=InstanceState.READY) for i in endpoint.instances if i.fleet == endpoint.fleet.generation
    )
    return replace(endpoint, instances=instances)
