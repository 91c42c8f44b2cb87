"""SageMaker's InferenceExperiment (shadow tests): checks what is asked for and stores it;
`control/inference_experiments` brings it to its end, changing the endpoint on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.control import capture_config
from eyrie.control.api_endpoint_configs import check_shadowing, checked_variant
from eyrie.control.api_endpoints import variant_of
from eyrie.control.context import Context, Operation, Params, first_duplicate, seconds, without
from eyrie.control.family import plain
from eyrie.control.inference_experiments import decode, encode, events
from eyrie.control.listing import Row, milliseconds, page
from eyrie.control.records import delete_with_tags, new_tags, refuse_beyond_quota
from eyrie.control.unsupported import unsupported
from eyrie.decide import inference_experiments as decide
from eyrie.decide.inference_experiments import DAY_MS, DURATION_MAX_MS, DURATION_MS, Step
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.fleet import VariantSpec
from eyrie.domain.inference_experiments import (
    ARN_TYPE,
    KIND,
    Ending,
    Experiment,
    ExperimentStatus,
    VariantAction,
)
from eyrie.domain.names import EndpointKey
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError, could_not_find, resource_in_use, resource_not_found, validation

NOUN = "inference experiment"
_S = ExperimentStatus
_CHANGEABLE = frozenset({_S.CREATED, _S.RUNNING})


def operations() -> Mapping[str, Operation]:
    """The operations on inference experiments."""
    return {
        "CreateInferenceExperiment": create_inference_experiment,
        "DescribeInferenceExperiment": describe_inference_experiment,
        "ListInferenceExperiments": list_inference_experiments,
        "UpdateInferenceExperiment": update_inference_experiment,
        "StartInferenceExperiment": start_inference_experiment,
        "StopInferenceExperiment": stop_inference_experiment,
        "DeleteInferenceExperiment": delete_inference_experiment,
    }


def create_inference_experiment(context: Context, params: Params) -> dict[str, Any]:
    """Store an experiment; it begins at its StartTime."""
    name = params["Name"]
    if "KmsKey" in params:
        raise unsupported("KmsKey", "volumes are not encrypted, and there are no keys")
    refuse_beyond_quota(context, KIND)
    arn = context.arn(ARN_TYPE, name)
    if context.get(KIND, name) is not None:
        raise resource_in_use(f"An inference experiment with the name {name} already exists: {arn}.")
    endpoint = _endpoint(context, params["EndpointName"])
    start_ms, end_ms = _schedule(params.get("Schedule", {}), context.now_ms, context.now_ms, None)
    experiment = _with_variants(
        context,
        Experiment(
            key=EndpointKey(context.scope.account, context.scope.region, name),
            uid=context.identity.token(8),
            endpoint=endpoint.key,
            endpoint_uid=endpoint.uid,
            status=_S.CREATING,
            reason="it was asked for",
            created_ms=context.now_ms,
            modified_ms=context.now_ms,
            start_ms=start_ms,
            end_ms=end_ms,
            source="",
            shadow=endpoint.fleet.variants[0].spec,
            percent=0,
            request=plain(without(params, "Tags")),
        ),
        endpoint,
    )
    _check_alone(context, experiment, endpoint)
    document = context.new(KIND, name, encode(experiment))
    context.store.commit(Commit(puts=[document, *new_tags(context, ARN_TYPE, name, params)]))
    context.wake_experiments()
    return {"InferenceExperimentArn": arn}


def describe_inference_experiment(context: Context, params: Params) -> dict[str, Any]:
    """An experiment as it is now."""
    experiment = decode(_find(context, params).body)
    endpoint = context.endpoints.get(experiment.endpoint)
    given = experiment.request
    shown: dict[str, Any] = {
        "Arn": context.arn(ARN_TYPE, experiment.key.name),
        **_summary(experiment),
        "EndpointMetadata": _endpoint_metadata(experiment, endpoint),
        "ModelVariants": [_variant(experiment, endpoint, each) for each in given["ModelVariants"]],
        "ShadowModeConfig": given["ShadowModeConfig"],
    }
    if "DataStorageConfig" in given:
        shown["DataStorageConfig"] = given["DataStorageConfig"]
    return shown


def list_inference_experiments(context: Context, params: Params) -> dict[str, Any]:
    """Experiments, newest first."""
    rows = [_row(decode(d.body)) for d in context.store.scan(KIND, context.scope)]
    return page("ListInferenceExperiments", params, rows).reply("InferenceExperiments")


def update_inference_experiment(context: Context, params: Params) -> dict[str, Any]:
    """Change an experiment before it begins, or while it runs."""
    document = _find(context, params)
    before = decode(document.body)
    _check_status(before, _CHANGEABLE, "be updated")
    asked = {**before.request, **plain(without(params, "Name", "Schedule"))}
    changed = replace(before, request=asked, modified_ms=context.now_ms)
    if "Schedule" in params:
        changed = _rescheduled(changed, params["Schedule"], context.now_ms)
    members = {name for name in ("ModelVariants", "ShadowModeConfig", "DataStorageConfig") if name in params}
    if not members:
        _put(context, document, Step(changed))
        return _arn(context, changed)
    endpoint = _endpoint(context, changed.endpoint.name)
    changed = _with_variants(context, changed, endpoint)
    if changed.started_ms and (changed.source, changed.shadow.name) != (before.source, before.shadow.name):
        raise validation("The variants of an experiment that runs keep their names.")
    _put(context, document, decide.update(changed, _only_counts(before, changed, endpoint), context.now_ms))
    return _arn(context, changed)


def start_inference_experiment(context: Context, params: Params) -> dict[str, Any]:
    """Begin now, before the StartTime."""
    document = _find(context, params)
    experiment = decode(document.body)
    _check_status(experiment, frozenset({_S.CREATED}), "be started")
    _put(context, document, decide.start(experiment, context.now_ms))
    return _arn(context, experiment)


def stop_inference_experiment(context: Context, params: Params) -> dict[str, Any]:
    """End it as ModelVariantActions say."""
    document = _find(context, params)
    experiment = decode(document.body)
    _check_status(experiment, _CHANGEABLE, "be stopped")
    ending = _ending(context, experiment, params)
    _put(context, document, decide.stop(experiment, ending, context.now_ms))
    return _arn(context, experiment)


def delete_inference_experiment(context: Context, params: Params) -> dict[str, Any]:
    """Forget an experiment that is over or has not begun; endpoint, variants and data stay."""
    document = _find(context, params)
    experiment = decode(document.body)
    _check_status(experiment, frozenset({_S.CREATED, _S.COMPLETED, _S.CANCELLED}), "be deleted: stop it first")
    delete_with_tags(context, ARN_TYPE, document)
    return _arn(context, experiment)


# ------------------------------------------------------------------------------------------------------------- checks
def _find(context: Context, params: Params) -> Document:
    found = context.get(KIND, params["Name"])
    if found is None:
        raise resource_not_found(f'Could not find {NOUN} "{context.arn(ARN_TYPE, params["Name"])}".')
    return found


def _check_status(experiment: Experiment, allowed: frozenset[ExperimentStatus], what: str) -> None:
    if experiment.status not in allowed:
        raise ApiError(
            "ConflictException",
            f"The inference experiment {experiment.key.name} is {experiment.status} and cannot {what}. "
            f"It would have to be {' or '.join(sorted(allowed))}.",
        )


def _endpoint(context: Context, name: str) -> Endpoint:
    endpoint = context.endpoints.get(EndpointKey(context.scope.account, context.scope.region, name))
    if endpoint is None:
        raise could_not_find("endpoint", context.arn("endpoint", name))
    return endpoint


def _check_alone(context: Context, experiment: Experiment, endpoint: Endpoint) -> None:
    """The endpoint is in service, and nothing shadows it already."""
    if endpoint.status is not EndpointStatus.IN_SERVICE:
        raise validation(f'The endpoint "{endpoint.arn}" is {endpoint.status}: it must be InService.')
    if endpoint.fleet.shadows:
        raise validation(f'The endpoint "{endpoint.arn}" has shadow variants already: update it to a config without.')
    every = (decode(document.body) for document in context.store.scan(KIND, context.scope))
    other = next((e for e in every if e.endpoint == experiment.endpoint and not e.over), None)
    if other is not None:
        raise resource_in_use(f"The endpoint {endpoint.key.name} is in the inference experiment {other.key.name}.")


def _schedule(given: Mapping[str, Any], created_ms: int, start_ms: int, end_ms: int | None) -> tuple[int, int]:
    """Start and end, where they are not given: as they are, or 7 days after the start."""
    start_ms = milliseconds(given["StartTime"]) if "StartTime" in given else start_ms
    end_ms = milliseconds(given["EndTime"]) if "EndTime" in given else end_ms
    end_ms = start_ms + DURATION_MS if end_ms is None else end_ms
    start_ms = max(start_ms, created_ms)
    if end_ms <= start_ms:
        raise validation("Schedule.EndTime must be after Schedule.StartTime, and in the future.")
    if end_ms - start_ms > DURATION_MAX_MS:
        raise validation(f"An inference experiment lasts at most {DURATION_MAX_MS // DAY_MS} days.")
    return start_ms, end_ms


def _rescheduled(experiment: Experiment, given: Mapping[str, Any], now_ms: int) -> Experiment:
    if experiment.started_ms:
        if "StartTime" in given and milliseconds(given["StartTime"]) != experiment.start_ms:
            raise validation("Schedule.StartTime of an experiment that runs cannot be changed.")
        if "EndTime" in given and milliseconds(given["EndTime"]) <= now_ms:
            raise validation("Schedule.EndTime must be in the future; StopInferenceExperiment ends it now.")
        start_ms, end_ms = _schedule(given, experiment.start_ms, experiment.start_ms, experiment.end_ms)
    else:
        start_ms, end_ms = _schedule(given, now_ms, experiment.start_ms, experiment.end_ms)
    return replace(experiment, start_ms=start_ms, end_ms=end_ms)


def _with_variants(context: Context, experiment: Experiment, endpoint: Endpoint) -> Experiment:
    """With what its ModelVariants, ShadowModeConfig and DataStorageConfig come to. Raises ApiError."""
    given, mode = experiment.request["ModelVariants"], experiment.request["ShadowModeConfig"]
    source, asked = mode["SourceModelVariantName"], mode["ShadowModelVariants"][0]
    shadow, percent = asked["ShadowModelVariantName"], asked["SamplingPercentage"]
    names = [each["VariantName"] for each in given]
    if (twice := first_duplicate(names)) is not None:
        raise validation(f'ModelVariants names the variant "{twice}" twice.')
    if shadow == source:
        raise validation(f'The variant "{shadow}" cannot be its own shadow.')
    if shadow not in names:
        raise validation(f'ModelVariants needs the variant "{shadow}", the shadow, with its model.')
    if strange := [name for name in names if name not in (source, shadow)]:
        raise validation(f'The variant "{strange[0]}" of ModelVariants is neither the source nor the shadow.')
    if not 0 <= percent <= 100:
        raise validation(f"SamplingPercentage must be from 0 to 100, and is {percent}.")
    specs = {spec.name: spec for spec in _specs(context, given)}
    changed = replace(
        experiment,
        source=source,
        shadow=replace(specs[shadow], shadow_of=source),
        percent=percent,
        production=_production(specs.get(source), endpoint, source),
        capture=_capture(experiment.request.get("DataStorageConfig")),
    )
    why = decide.obstacle(changed, endpoint)
    if why is not None:
        raise validation(f"{why[0].upper()}{why[1:]}.")
    return changed


def _production(spec: VariantSpec | None, endpoint: Endpoint, source: str) -> VariantSpec | None:
    """The production variant as ModelVariants want it; None where that is as it is."""
    now = endpoint.fleet.variant(source)
    if spec is None or now is None:
        return None
    wanted = replace(spec, initial_weight=now.desired_weight, strategy=now.spec.strategy)
    same = (spec.model.name, spec.instance_type, spec.initial_count)
    return None if same == (now.spec.model.name, now.spec.instance_type, now.desired_count) else wanted


def _specs(context: Context, given: Sequence[Mapping[str, Any]]) -> list[VariantSpec]:
    """ModelVariantConfigs with their whole models."""
    found = []
    for each in given:
        infrastructure = each["InfrastructureConfig"]["RealTimeInferenceConfig"]
        variant = {
            "VariantName": each["VariantName"],
            "ModelName": each["ModelName"],
            "InstanceType": infrastructure["InstanceType"],
            "InitialInstanceCount": infrastructure["InstanceCount"],
        }
        if variant["InitialInstanceCount"] < 1:
            raise validation(f'InstanceCount of variant "{variant["VariantName"]}" must be at least 1, and is 0.')
        checked = checked_variant(context, variant)
        check_shadowing(context, checked)
        found.append(variant_of(context, checked))
    return found


def _capture(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The DataCaptureConfig that a DataStorageConfig stands for: requests and replies, all of them."""
    if given is None:
        return None
    config: dict[str, Any] = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": given["Destination"],
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }
    if "KmsKey" in given:
        config["KmsKeyId"] = given["KmsKey"]
    if "ContentType" in given:
        config["CaptureContentTypeHeader"] = given["ContentType"]
    capture_config.check(config)
    return config


def _only_counts(before: Experiment, after: Experiment, endpoint: Endpoint) -> bool:
    """Whether an update comes to weights and counts alone: the same models on the same machines."""
    now = endpoint.fleet.variant(after.source)
    return (
        _what(before.shadow) == _what(after.shadow)
        and before.capture == after.capture
        and (after.production is None or (now is not None and _what(after.production) == _what(now.spec)))
    )


def _what(spec: VariantSpec) -> tuple[str, str, str]:
    return spec.name, spec.model.name, spec.instance_type


def _ending(context: Context, experiment: Experiment, params: Params) -> Ending:
    """What StopInferenceExperiment asks for. Raises ApiError for actions that leave no production variant."""
    actions = {name: VariantAction(action) for name, action in params["ModelVariantActions"].items()}
    names = (experiment.source, experiment.shadow.name)
    if strange := [name for name in actions if name not in names]:
        raise validation(f'ModelVariantActions names "{strange[0]}"; the experiment has {" and ".join(names)}.')
    shadow = actions.get(experiment.shadow.name, VariantAction.REMOVE)
    promoted = shadow is VariantAction.PROMOTE
    default = VariantAction.REMOVE if promoted else VariantAction.RETAIN
    production = actions.get(experiment.source, default)
    if production is VariantAction.PROMOTE:
        raise validation(f'The variant "{experiment.source}" is the production variant already: Retain or Remove it.')
    if promoted is not (production is VariantAction.REMOVE):
        raise validation(
            f'One of both must be the production variant afterwards: Remove "{experiment.source}" where you Promote '
            f'"{experiment.shadow.name}", and Retain it where you do not.'
        )
    desired = tuple(_specs(context, params.get("DesiredModelVariants", [])))
    remain = {
        name for name, action in zip(names, (production, shadow), strict=True) if action is not VariantAction.REMOVE
    }
    if strange := [spec.name for spec in desired if spec.name not in remain]:
        raise validation(f'DesiredModelVariants names "{strange[0]}", which does not remain.')
    state = ExperimentStatus(params.get("DesiredState", _S.COMPLETED))
    return Ending(production, shadow, state, params.get("Reason", "it was stopped"), desired)


# -------------------------------------------------------------------------------------------------------------- views
def _put(context: Context, document: Document, step: Step) -> None:
    put = replace(document, body=encode(step.experiment), modified_ms=context.now_ms)
    context.store.commit(Commit(puts=[put], events=events(step, context.now_ms)))
    context.wake_experiments()


def _arn(context: Context, experiment: Experiment) -> dict[str, Any]:
    return {"InferenceExperimentArn": context.arn(ARN_TYPE, experiment.key.name)}


def _summary(experiment: Experiment) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "Name": experiment.key.name,
        "Type": "ShadowMode",
        "Schedule": {"StartTime": seconds(experiment.start_ms), "EndTime": seconds(experiment.end_ms)},
        "Status": str(experiment.status),
        "StatusReason": experiment.reason,
        "CreationTime": seconds(experiment.created_ms),
        "LastModifiedTime": seconds(experiment.modified_ms),
        "RoleArn": experiment.request["RoleArn"],
    }
    if experiment.ended_ms:
        summary["CompletionTime"] = seconds(experiment.ended_ms)
    if "Description" in experiment.request:
        summary["Description"] = experiment.request["Description"]
    return summary


def _row(experiment: Experiment) -> Row:
    status = str(experiment.status)
    return Row(experiment.key.name, experiment.created_ms, experiment.modified_ms, _summary(experiment), status)


def _endpoint_metadata(experiment: Experiment, endpoint: Endpoint | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"EndpointName": experiment.endpoint.name}
    if endpoint is not None:
        shown |= {"EndpointConfigName": endpoint.config_name, "EndpointStatus": str(endpoint.status)}
        if endpoint.trouble:
            shown["FailureReason"] = endpoint.trouble
    return shown


def _variant(experiment: Experiment, endpoint: Endpoint | None, given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "Status": variant_status(experiment, endpoint, given["VariantName"])}


def variant_status(experiment: Experiment, endpoint: Endpoint | None, name: str) -> str:
    """SageMaker's word for what a variant of an experiment is: by what the endpoint has, and what is on its way."""
    there = endpoint is not None and endpoint.fleet.variant(name) is not None
    ending = experiment.ending
    if experiment.status is _S.STOPPING and ending is not None:
        action = ending.shadow if name == experiment.shadow.name else ending.production
        if action is VariantAction.REMOVE:
            return "Deleting" if there else "Deleted"
        return "Updating"
    if experiment.over:
        return "InService" if there else "Deleted"
    if experiment.status is _S.UPDATING and there:
        return "Updating"
    return "InService" if there else "Creating"
