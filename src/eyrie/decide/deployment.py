"""How an endpoint's status moves: artifacts, then instances, then traffic, then the old fleet's end; or back.

Step of decide/reconcile between decide/fleet (what each instance is) and decide/capacity (which start and stop). One
phase a step: the loop looks again at once after each commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from eyrie.decide import canary, rollout
from eyrie.decide.capacity import artifacts_present
from eyrie.decide.draft import Draft
from eyrie.decide.fleet import REASON_CHARS_MAX
from eyrie.decide.policy import Policy
from eyrie.decide.publication import acknowledged
from eyrie.domain.alarms import AlarmState
from eyrie.domain.deployment import MAY_ROLL_BACK, PHASE_MOVES, Deployment, DeploymentPhase, Strategy
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.fleet import ContainerSpec, Fleet, InstanceState, Variant
from eyrie.domain.plan import Verb
from eyrie.domain.transition import moved

ALARMS_PERIOD_MS = 1_000  # how often a deployment looks at the alarms that it watches

_Phase = DeploymentPhase


def progress(draft: Draft, policy: Policy) -> None:
    """Take the endpoint one step further on its way to InService, Failed or gone."""
    status = draft.endpoint.status
    if status is EndpointStatus.CREATING:
        _create(draft, policy)
    elif status is EndpointStatus.UPDATING and draft.endpoint.deployment is not None:
        deployment = draft.endpoint.deployment
        if (why := _stopped(draft, policy, deployment)) is not None:
            _roll_back(draft, deployment, why)
        else:
            _PHASES[deployment.phase](draft, policy, deployment)
    elif status is EndpointStatus.UPDATING:
        _resize(draft, policy)
    elif status is EndpointStatus.DELETING:
        _delete(draft)


def whole(draft: Draft, policy: Policy, fleet: Fleet) -> bool:
    """Every instance of a fleet is READY and in the published table, and every live gateway acknowledged that."""
    return _complete(draft.endpoint, fleet) and acknowledged(draft, policy)


def _create(draft: Draft, policy: Policy) -> None:
    endpoint = draft.endpoint
    failure = _fetch(draft, endpoint.fleet) or _start_failure(endpoint, endpoint.fleet, policy)
    if failure is not None:
        draft.change(failure_reason=failure[:REASON_CHARS_MAX])
        draft.status(EndpointStatus.FAILED, failure)
    elif whole(draft, policy, endpoint.fleet):
        took_ms = draft.now_ms - endpoint.created_ms
        draft.status(
            EndpointStatus.IN_SERVICE, f"every instance is READY and in the route, {took_ms} ms after creation"
        )


def _fetch(draft: Draft, fleet: Fleet) -> str | None:
    """Owe or take in the fleet's model archives; the reason when one cannot be had."""
    failures = [
        _fetch_one(draft, fleet, variant, f"{fleet.generation}-{index}" + (f"-{place}" if place else ""), place)
        for index, variant in enumerate(fleet.variants)
        for place, container in enumerate(variant.spec.model.containers)
        if not container.complete
    ]
    return next((failure for failure in failures if failure is not None), None)


def _fetch_one(draft: Draft, fleet: Fleet, variant: Variant, subject: str, place: int) -> str | None:
    """The same for one container, the `place`th of its model."""
    container = variant.spec.model.containers[place]
    outcome = next((o for o in draft.seen.outcomes if (o.verb, o.subject) == (Verb.FETCH_ARTIFACT, subject)), None)
    if outcome is None:
        if not draft.owed(Verb.FETCH_ARTIFACT, subject):
            draft.owe(Verb.FETCH_ARTIFACT, subject, url=container.model_data_url, code_url=_code_url(container))
        return None
    if outcome.error is not None:
        return (
            f'Failed to download model data for container "{container.hostname}" of production variant '
            f'{variant.name} from URL: "{container.model_data_url}": {outcome.error}'
        )
    draft.note(f"artifact {outcome.value}", f"model data of variant {variant.name}: {container.model_data_url}")
    _set_artifact(draft, fleet.generation, variant.name, place, outcome.value)
    return None


def _code_url(container: ContainerSpec) -> str | None:
    """The archive of the user's code where it is apart from the model's, as SageMaker's SDK uploads it."""
    url = container.environment.get("SAGEMAKER_SUBMIT_DIRECTORY", "").strip('"')
    return url if url.startswith("s3://") else None


def _set_artifact(draft: Draft, fleet: int, variant: str, place: int, digest: str | None) -> None:
    def with_digest(f: Fleet) -> Fleet:
        if f.generation != fleet:
            return f
        return replace(
            f, variants=tuple(_with_artifact(v, place, digest) if v.name == variant else v for v in f.variants)
        )

    draft.change(fleet=with_digest(draft.endpoint.fleet))
    deployment = draft.endpoint.deployment
    if deployment is not None:
        draft.change(deployment=replace(deployment, green=with_digest(deployment.green)))


def _with_artifact(variant: Variant, place: int, digest: str | None) -> Variant:
    model = variant.spec.model
    containers = tuple(replace(c, artifact=digest) if n == place else c for n, c in enumerate(model.containers))
    return replace(variant, spec=replace(variant.spec, model=replace(model, containers=containers)))


def _start_failure(endpoint: Endpoint, fleet: Fleet, policy: Policy, since_ms: int = 0) -> str | None:
    """Why a fleet will not come up: a start that was refused or took too long, or too many crashes in a row."""
    for backoff in endpoint.backoffs:
        ours = backoff.fleet == fleet.generation and backoff.last_ms >= since_ms
        if ours and (backoff.fatal or backoff.crashes >= policy.crashes_max):
            return backoff.reason
    return None


def _complete(endpoint: Endpoint, fleet: Fleet) -> bool:
    return all(endpoint.ready_count(fleet, v.name) == v.desired_count for v in fleet.variants)


def _stopped(draft: Draft, policy: Policy, deployment: Deployment) -> str | None:
    """Why a deployment must not go on, of what is watched in every phase: alarms, the time limit, green's crashes."""
    if deployment.phase not in MAY_ROLL_BACK:
        return None
    if deployment.policy.alarms:
        draft.wake_at(draft.now_ms + ALARMS_PERIOD_MS)
    ringing = [name for name in deployment.policy.alarms if draft.seen.alarms.get(name) is AlarmState.ALARM]
    if ringing:
        return f"One or more of the alarms of AutoRollbackConfiguration are in ALARM: {', '.join(ringing)}."
    if deployment.aborted is not None:
        return deployment.aborted
    pause = deployment.pause
    if pause is not None and _waited(draft, pause.since_ms + pause.limit_ms):
        return f"It was paused ({pause.why}), and nobody decided within {pause.limit_ms // 1000} s."
    limit_ms = deployment.policy.limit_ms if deployment.phase is not _Phase.TERMINATION_WAIT else 0
    if limit_ms and _waited(draft, deployment.started_ms + limit_ms):
        return f"The update took longer than its MaximumExecutionTimeoutInSeconds of {limit_ms // 1000}."
    return _start_failure(draft.endpoint, deployment.green, policy) or canary.failure(draft, deployment)


def _enter(draft: Draft, deployment: Deployment, phase: DeploymentPhase, why: str, step: int | None = None) -> None:
    moved(PHASE_MOVES, f"deployment of {draft.endpoint.arn}", deployment.phase, phase)
    current = draft.endpoint.deployment or deployment
    now = replace(current, phase=phase, phase_ms=draft.now_ms, step=current.step if step is None else step)
    draft.change(deployment=now)
    draft.note(f"deployment {phase}", why)


def _pending(draft: Draft, policy: Policy, deployment: Deployment) -> None:
    failure = _fetch(draft, deployment.green)
    if failure is not None:
        _roll_back(draft, deployment, failure)
        return
    now = draft.endpoint.deployment
    if now is not None and all(artifacts_present(v) for v in now.green.variants):
        _enter(draft, now, _Phase.PROVISIONING, "model data is here: green's instances start")


def _provisioning(draft: Draft, policy: Policy, deployment: Deployment) -> None:
    if deployment.pause is None and rollout.ready_for(draft.endpoint, deployment, deployment.step + 1):
        _shift(draft, deployment, "its instances are READY")


def _shift(draft: Draft, deployment: Deployment, why: str) -> None:
    """One step more: the route that comes of it is published by the same decision."""
    step, count = deployment.step + 1, rollout.steps(deployment.policy, deployment.green)
    parts = ", ".join(f"{v.name} {rollout.share(deployment, v, step):.0%}" for v in deployment.green.production)
    _enter(draft, deployment, _Phase.SHIFTING, f"step {step} of {count}: green gets {parts}; {why}", step)


def _shifting(draft: Draft, policy: Policy, deployment: Deployment) -> None:
    if acknowledged(draft, policy):
        _enter(draft, deployment, _Phase.BAKING, f"every gateway serves it; bake {deployment.policy.bake_ms} ms")


def _baking(draft: Draft, policy: Policy, deployment: Deployment) -> None:
    plan = deployment.policy
    blue_green = plan.strategy is not Strategy.ROLLING
    last = deployment.step >= rollout.steps(plan, deployment.green)
    if not rollout.ready_for(draft.endpoint, deployment, deployment.step):  # blue goes by what green can take: it heals
        return
    baked = _baked(draft, deployment)
    if baked is None:
        return
    if last:
        _enter(draft, deployment, _Phase.TERMINATION_WAIT, f"{baked}; blue waits {plan.termination_wait_ms} ms")
    elif blue_green:
        _shift(draft, deployment, baked)
    else:
        _enter(draft, deployment, _Phase.PROVISIONING, f"{baked}; the next batch starts")


def _baked(draft: Draft, deployment: Deployment) -> str | None:
    """Why a step is over: its time is, its analysis passed, a person says so; None while it is not."""
    if rollout.judged(deployment):
        return canary.allows(draft, deployment)
    if deployment.promoted == deployment.step:
        return "promoted by a person"
    if deployment.pause is None and _waited(draft, deployment.phase_ms + deployment.policy.bake_ms):
        return f"baked {deployment.policy.bake_ms} ms"
    return None


def _termination_wait(draft: Draft, policy: Policy, deployment: Deployment) -> None:
    whole = _complete(draft.endpoint, deployment.green)  # else blue may be all that serves: green heals first
    if _waited(draft, deployment.phase_ms + deployment.policy.termination_wait_ms) and whole:
        _enter(draft, deployment, _Phase.RETIRING, "blue drains")


def _retiring(draft: Draft, policy: Policy, deployment: Deployment) -> None:
    if any(i.fleet != deployment.green.generation for i in draft.endpoint.instances):
        return
    green = deployment.green
    _enter(draft, deployment, _Phase.SUCCEEDED, f"blue is gone after {draft.now_ms - deployment.started_ms} ms")
    draft.change(
        fleet=green,
        deployment=None,
        config_name=green.config_name,
        config_arn=green.config_arn,
        data_capture=deployment.data_capture,
        backoffs=tuple(b for b in draft.endpoint.backoffs if b.fleet == green.generation),
    )
    draft.status(EndpointStatus.IN_SERVICE, f"deployment of config {green.config_name} succeeded")
    draft.owe(Verb.KEEP_ARTIFACTS, str(green.generation))


def _roll_back(draft: Draft, deployment: Deployment, failure: str) -> None:
    reason = failure[:REASON_CHARS_MAX]
    current = draft.endpoint.deployment or deployment
    current = replace(current, failure=reason, pause=None)
    draft.change(deployment=current, failure_reason=reason)
    _enter(draft, current, _Phase.ROLLING_BACK, failure)


def _rolling_back(draft: Draft, policy: Policy, deployment: Deployment) -> None:
    """Blue is made whole and takes all traffic, then green drains; where blue cannot be, both stay as they are."""
    green = deployment.green.generation
    if deployment.step:
        _give_back(draft, policy, deployment)
    elif not any(i.fleet == green for i in draft.endpoint.instances):
        _enter(draft, deployment, _Phase.ROLLED_BACK, "green is gone, blue serves")
        draft.change(deployment=None, backoffs=tuple(b for b in draft.endpoint.backoffs if b.fleet != green))
        draft.status(EndpointStatus.IN_SERVICE, f"back on config {draft.endpoint.config_name}: {deployment.failure}")
        draft.owe(Verb.KEEP_ARTIFACTS, str(green))


def _give_back(draft: Draft, policy: Policy, deployment: Deployment) -> None:
    blue = draft.endpoint.fleet
    failure = _start_failure(draft.endpoint, blue, policy, deployment.phase_ms)
    if failure is not None:
        reason = f"{deployment.failure} And the old fleet could not be made whole again: {failure}"[:REASON_CHARS_MAX]
        _enter(draft, deployment, _Phase.ROLLBACK_FAILED, reason)
        draft.change(failure_reason=reason)
        draft.status(EndpointStatus.UPDATE_ROLLBACK_FAILED, reason)
    elif rollout.restored(draft.endpoint) and acknowledged(draft, policy):
        draft.change(deployment=replace(deployment, step=0))
        draft.note("deployment ROLLING_BACK", "blue holds all traffic, in every gateway: green drains")


_PHASES: Mapping[DeploymentPhase, Callable[[Draft, Policy, Deployment], None]] = {
    _Phase.PENDING: _pending,
    _Phase.PROVISIONING: _provisioning,
    _Phase.SHIFTING: _shifting,
    _Phase.BAKING: _baking,
    _Phase.TERMINATION_WAIT: _termination_wait,
    _Phase.RETIRING: _retiring,
    _Phase.ROLLING_BACK: _rolling_back,
}


def _waited(draft: Draft, until_ms: int) -> bool:
    if draft.now_ms < until_ms:
        draft.wake_at(until_ms)
        return False
    return True


def _resize(draft: Draft, policy: Policy) -> None:
    """Counts and weights as wanted: InService. A start that fails: the counts before, InService, and the reason."""
    endpoint, resize = draft.endpoint, draft.endpoint.resize
    if resize is None:
        return
    failure = _start_failure(endpoint, endpoint.fleet, policy, resize.started_ms)
    if failure is not None:
        variants = tuple(
            replace(
                v,
                desired_count=resize.counts_before.get(v.name, v.desired_count),
                serverless=resize.serverless_before.get(v.name, v.serverless),
            )
            for v in endpoint.fleet.variants
        )
        draft.change(
            fleet=replace(endpoint.fleet, variants=variants), resize=None, failure_reason=failure[:REASON_CHARS_MAX]
        )
        draft.status(EndpointStatus.IN_SERVICE, f"back to the counts before: {failure}")
    elif whole(draft, policy, endpoint.fleet) and not any(
        i.state is InstanceState.DRAINING for i in endpoint.instances
    ):
        draft.change(resize=None)
        draft.status(EndpointStatus.IN_SERVICE, "counts and weights are as wanted")


def _delete(draft: Draft) -> None:
    if draft.endpoint.instances or draft.endpoint.route is not None:
        return
    generation = str(draft.endpoint.route_generation)
    if draft.owed(Verb.WITHDRAW_ROUTE, generation):
        return
    draft.note("endpoint gone", "every instance has stopped and is forgotten")
    draft.owe(Verb.KEEP_ARTIFACTS, "all")
    draft.gone = True
