"""What becomes of an inference experiment now: its status, and the change of the endpoint that is due. Pure.

`control/inference_experiments` looks, asks `plan`, and commits the step together with the endpoint's change: one
commit, so that a control that dies between them does neither or both. What a change came to is seen at the endpoint: it
is InService by the config that was asked for, or it is not, and then the change was rolled back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from eyrie.domain.endpoint import CapacityChange, Endpoint, EndpointStatus, FleetSpec
from eyrie.domain.fleet import Variant, VariantSpec
from eyrie.domain.inference_experiments import (
    EXPERIMENT_MOVES,
    Ending,
    Experiment,
    ExperimentStatus,
    VariantAction,
)
from eyrie.domain.plan import Note
from eyrie.domain.transition import moved

REASON_CHARS_MAX = 1_024
CONFIG_CHARS_MAX = 63
DAY_MS = 86_400_000
DURATION_MS = 7 * DAY_MS  # where no EndTime is given
DURATION_MAX_MS = 30 * DAY_MS
_S = ExperimentStatus
_CHANGING = frozenset({EndpointStatus.CREATING, EndpointStatus.UPDATING})
_LOST = frozenset({EndpointStatus.DELETING, EndpointStatus.FAILED, EndpointStatus.UPDATE_ROLLBACK_FAILED})


@dataclass(frozen=True, slots=True)
class Step:
    """The experiment as it is to be stored, why, and what the endpoint is to become in the same commit."""

    experiment: Experiment
    notes: tuple[Note, ...] = ()
    wish: FleetSpec | None = None
    changes: tuple[CapacityChange, ...] = ()  # of weights and counts, where that is all
    guarded: bool = False  # the change goes by the endpoint's last DeploymentConfig: canary, bake, alarms
    wake_ms: int | None = None  # when to look again though nothing happens


def plan(experiment: Experiment, endpoint: Endpoint | None, now_ms: int) -> Step:
    """One step; deciding again after it is stored goes on where it stopped."""
    if experiment.over:
        return Step(experiment)
    if endpoint is None or endpoint.uid != experiment.endpoint_uid or endpoint.status in _LOST:
        status = endpoint.status if endpoint is not None and endpoint.uid == experiment.endpoint_uid else "gone"
        return _over(experiment, _S.CANCELLED, f"endpoint {experiment.endpoint.name} is {status}", now_ms)
    match experiment.status:
        case _S.CREATING:
            return _move(experiment, _S.CREATED, "it begins at its StartTime", now_ms)
        case _S.CREATED:
            return _created(experiment, now_ms)
        case _S.RUNNING:
            return _running(experiment, endpoint, now_ms)
        case _:
            return _changing(experiment, endpoint, now_ms)


def _created(experiment: Experiment, now_ms: int) -> Step:
    if now_ms < experiment.start_ms:
        return Step(experiment, wake_ms=experiment.start_ms)
    return _begin(experiment, _S.STARTING, "its StartTime has come: the endpoint gets the shadow", now_ms)


def _running(experiment: Experiment, endpoint: Endpoint, now_ms: int) -> Step:
    shadow = endpoint.fleet.variant(experiment.shadow.name)
    if endpoint.deployment is None and (shadow is None or not shadow.shadow):
        why = f"the endpoint was updated to config {endpoint.config_name}, which has no shadow {experiment.shadow.name}"
        return _over(experiment, _S.CANCELLED, why, now_ms)
    if now_ms < experiment.end_ms:
        return Step(experiment, wake_ms=experiment.end_ms)
    ending = Ending(VariantAction.RETAIN, VariantAction.REMOVE, _S.COMPLETED, "its EndTime has come")
    return _begin(replace(experiment, ending=ending), _S.STOPPING, ending.reason, now_ms)


def _begin(experiment: Experiment, status: ExperimentStatus, why: str, now_ms: int) -> Step:
    """A change of the endpoint is due. What it leads to has a name from now on."""
    return _move(named(experiment), status, why, now_ms)


def named(experiment: Experiment) -> Experiment:
    """With the name of its next endpoint config, and nothing asked for yet."""
    count = experiment.configs + 1
    ending = f"-{experiment.uid}-{count}"
    name = experiment.key.name[: CONFIG_CHARS_MAX - len(ending)].rstrip("-") + ending
    return replace(experiment, configs=count, config=name, asked=False)


def _changing(experiment: Experiment, endpoint: Endpoint, now_ms: int) -> Step:
    """STARTING, UPDATING or STOPPING: ask, wait, and see what it came to."""
    if not experiment.asked:
        if not _needed(experiment):
            return _changed(experiment, endpoint, now_ms)
        if endpoint.status in _CHANGING:
            return Step(experiment)
        if (why := obstacle(experiment, endpoint)) is not None:
            return _over(experiment, _S.CANCELLED, why, now_ms)
        if experiment.live:
            return _change_live(experiment, endpoint, now_ms)
        wish = wished(experiment, endpoint)
        told = ", ".join(v.name + (" as a shadow" if v.shadow_of else "") for v in wish.variants)
        note = Note(f"experiment {experiment.status}", f"UpdateEndpoint to {wish.config_name} ({told})")
        return Step(replace(experiment, asked=True, modified_ms=now_ms), (note,), wish, guarded=promotes(experiment))
    if endpoint.status in _CHANGING:
        return Step(experiment)
    if endpoint.config_name == experiment.config:
        return _changed(experiment, endpoint, now_ms)
    why = endpoint.failure_reason or f"it was updated to {endpoint.config_name} meanwhile"
    return _over(experiment, _S.CANCELLED, f"The change of the endpoint did not come about: {why}", now_ms)


def _change_live(experiment: Experiment, endpoint: Endpoint, now_ms: int) -> Step:
    """Weights and counts of the fleet that serves, without another fleet beside it."""
    source, shadow = endpoint.fleet.production[0], experiment.shadow
    count = experiment.production.initial_count if experiment.production is not None else None
    changes = (
        CapacityChange(shadow.name, experiment.percent / 100 * source.desired_weight, shadow.initial_count),
        *((CapacityChange(source.name, count=count),) if count is not None else ()),
    )
    why = f"{experiment.percent} % of {source.name} is copied to {shadow.initial_count} of {shadow.name}"
    note = Note(f"experiment {experiment.status}", why)
    return Step(replace(experiment, asked=True, modified_ms=now_ms), (note,), changes=changes)


def _needed(experiment: Experiment) -> bool:
    """Whether the endpoint must change at all: not where all is retained, nor before the experiment has begun."""
    if experiment.status is _S.UPDATING:
        return bool(experiment.started_ms)
    if experiment.status is _S.STOPPING and experiment.ending is not None:
        if experiment.ending.shadow is VariantAction.RETAIN:
            return bool(experiment.ending.desired)
        return bool(experiment.started_ms) or promotes(experiment)
    return True


def _changed(experiment: Experiment, endpoint: Endpoint, now_ms: int) -> Step:
    """The endpoint is what it was to become."""
    if experiment.status is _S.STOPPING and experiment.ending is not None:
        return _over(experiment, experiment.ending.state, experiment.ending.reason, now_ms)
    if experiment.status is _S.UPDATING and not experiment.started_ms:
        return _move(experiment, _S.CREATED, "it was updated before its start", now_ms)
    if experiment.status is _S.UPDATING:
        return _move(replace(experiment, fleet=endpoint.fleet.generation), _S.RUNNING, "it was updated", now_ms)
    began = replace(experiment, started_ms=now_ms, fleet=endpoint.fleet.generation)
    return _move(began, _S.RUNNING, f"{experiment.percent} % of {experiment.source} is copied", now_ms)


def promotes(experiment: Experiment) -> bool:
    """Whether the shadow is about to become the production variant."""
    ending = experiment.ending
    return ending is not None and ending.shadow is VariantAction.PROMOTE


def obstacle(experiment: Experiment, endpoint: Endpoint) -> str | None:
    """Why an experiment cannot have its way with an endpoint as it is now."""
    production = endpoint.fleet.production
    if [v.name for v in production] != [experiment.source]:
        return (
            f"endpoint {endpoint.key.name} has the production variants {', '.join(v.name for v in production)}, and "
            f"the experiment shadows {experiment.source} alone"
        )
    if production[0].serverless is not None:
        return f"endpoint {endpoint.key.name} is serverless, and a shadow needs a variant with instances beside it"
    if endpoint.fleet.asynchronous is not None:
        return f"endpoint {endpoint.key.name} is asynchronous: its requests are not copied"
    others = [v.name for v in endpoint.fleet.shadows if v.name != experiment.shadow.name]
    if others:
        return f"endpoint {endpoint.key.name} has another shadow, {others[0]}"
    return None


def wished(experiment: Experiment, endpoint: Endpoint) -> FleetSpec:
    """What the endpoint is to become: while the experiment runs, and after it."""
    arn, sticky = experiment.scope.arn("endpoint-config", experiment.config), endpoint.fleet.sticky
    return FleetSpec(experiment.config, arn, _variants(experiment, endpoint), sticky)


def _variants(experiment: Experiment, endpoint: Endpoint) -> tuple[VariantSpec, ...]:
    source, ending = endpoint.fleet.production[0], experiment.ending
    if ending is None:
        production = experiment.production or _as_it_is(source)
        return production, _shadow(experiment, production)
    desired = {spec.name: spec for spec in ending.desired}
    now = endpoint.fleet.variant(experiment.shadow.name)
    shadow = desired.get(experiment.shadow.name) or (_as_it_is(now) if now is not None else experiment.shadow)
    if ending.shadow is VariantAction.PROMOTE:
        return (replace(shadow, shadow_of="", initial_weight=1.0),)
    production = desired.get(source.name) or _as_it_is(source)
    if ending.shadow is VariantAction.RETAIN:
        return production, _shadow(replace(experiment, shadow=shadow), production)
    return (production,)


def _as_it_is(variant: Variant) -> VariantSpec:
    """A variant with the count and the weight that it has by now."""
    return replace(variant.spec, initial_count=variant.desired_count, initial_weight=variant.desired_weight)


def _shadow(experiment: Experiment, production: VariantSpec) -> VariantSpec:
    """The shadow, weighted so that its share of the production variant's requests is the experiment's."""
    weight = experiment.percent / 100 * production.initial_weight
    return replace(experiment.shadow, shadow_of=production.name, initial_weight=weight)


def start(experiment: Experiment, now_ms: int) -> Step:
    """StartInferenceExperiment: now, and not at its StartTime. Its end stays, as far as it may last so long."""
    until_ms = min(experiment.end_ms, now_ms + DURATION_MAX_MS)
    began = replace(experiment, start_ms=now_ms, end_ms=until_ms)
    return _begin(began, _S.STARTING, "StartInferenceExperiment: the endpoint gets the shadow", now_ms)


def stop(experiment: Experiment, ending: Ending, now_ms: int) -> Step:
    """StopInferenceExperiment."""
    actions = f"{experiment.source}: {ending.production}, {experiment.shadow.name}: {ending.shadow}"
    asked = replace(experiment, ending=ending, live=False)
    return _begin(asked, _S.STOPPING, f"StopInferenceExperiment ({actions}): {ending.reason}", now_ms)


def update(experiment: Experiment, live: bool, now_ms: int) -> Step:
    """UpdateInferenceExperiment of an experiment that has its new values already. `live`: weights and counts alone."""
    changed = replace(experiment, live=live and bool(experiment.started_ms))
    if changed.live:
        return _move(replace(changed, asked=False), _S.UPDATING, "UpdateInferenceExperiment", now_ms)
    return _begin(changed, _S.UPDATING, "UpdateInferenceExperiment", now_ms)


def failed(experiment: Experiment, why: str, now_ms: int) -> Step:
    """The endpoint refuses the change that is due, and always will."""
    return _over(experiment, _S.CANCELLED, f"The endpoint could not be changed: {why}", now_ms)


def _move(experiment: Experiment, status: ExperimentStatus, why: str, now_ms: int) -> Step:
    moved(EXPERIMENT_MOVES, f"experiment {experiment.key.name}", experiment.status, status)
    reason = why[:REASON_CHARS_MAX]
    changed = replace(experiment, status=status, reason=reason, modified_ms=now_ms)
    return Step(changed, (Note(f"experiment {status}", reason),))


def _over(experiment: Experiment, status: ExperimentStatus, why: str, now_ms: int) -> Step:
    step = _move(experiment, status, why, now_ms)
    return replace(step, experiment=replace(step.experiment, ended_ms=now_ms))
