"""What a CreateInferenceRecommendationsJob asks for, checked, as the order that its program works off."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from eyrie.control import images
from eyrie.control.context import Context, Params
from eyrie.control.unsupported import refuse_unsupported, unsupported
from eyrie.decide.recommendation import phases, stairs, usual_types
from eyrie.domain.fleet import ModelSpec
from eyrie.domain.instance_types import InstanceType, UnknownInstanceType
from eyrie.domain.recommendation import (
    BUDGET_MAX_S,
    TESTS_MAX,
    USERS_MAX,
    Candidate,
    Order,
    Pattern,
    Phase,
    ServerlessSize,
    Stopping,
    TypeFacts,
)
from eyrie.domain.routing import ContainerMode
from eyrie.wire.errors import ApiError, resource_limit_exceeded, validation

DEFAULT, ADVANCED = "Default", "Advanced"
BUDGET_S = {DEFAULT: 600, ADVANCED: 7_200}  # where JobDurationInSeconds does not say
CONTENT_TYPE = "text/csv"  # where SupportedContentTypes does not say
COMPILABLE = frozenset({"xgboost", "sklearn", "lightgbm"})
BATCHING = COMPILABLE  # a script of the user's own (inference.py) is handed each request alone
PERCENTILES = {"P50": 50.0, "P90": 90.0, "P95": 95.0, "P99": 99.0}
LEVELS_MAX = 10_000
UNSUPPORTED = {
    "InputConfig.ModelPackageVersionArn": "there is no model registry yet",
    "InputConfig.VolumeKmsKeyId": "there are no keys",
    "OutputConfig.KmsKeyId": "there are no keys",
    "OutputConfig.CompiledOutputConfig": "a model is compiled in its instance (EYRIE_COMPILE), and not stored",
}
ONLY_ADVANCED = ("TrafficPattern", "ResourceLimit")

ModelOf = Callable[[Context, str], ModelSpec]


def order_of(context: Context, params: Params, model_of: ModelOf) -> Order:
    """The order. Raises ValidationException for what cannot be done, naming the member and the reason."""
    refuse_unsupported(params, UNSUPPORTED)
    given, kind = params["InputConfig"], params["JobType"]
    if "ModelName" not in given:
        raise validation("InputConfig needs a ModelName: it says which model is to be hosted.")
    model = model_of(context, given["ModelName"])
    if any(container.mode is ContainerMode.MULTI_MODEL for container in model.containers):
        raise unsupported("a model with Mode MultiModel", "a request could not name its model")
    for member in ONLY_ADVANCED if kind == DEFAULT else ():
        if member in given:
            raise validation(f"InputConfig.{member} is for jobs of JobType {ADVANCED}; this one is {DEFAULT}.")
    container = given.get("ContainerConfig", {})
    payload = container.get("PayloadConfig", {})
    candidates = _candidates(context, given, container, kind)
    limit = given.get("ResourceLimit", {}).get("MaxNumberOfTests", TESTS_MAX)
    return Order(
        model=model.name,
        payload_url=_payload_url(payload),
        content_type=next(iter(payload.get("SupportedContentTypes", [])), CONTENT_TYPE),
        accept=next(iter(container.get("SupportedResponseMIMETypes", [])), ""),
        candidates=tuple(candidates),
        search=kind == DEFAULT and not given.get("Endpoints"),
        pattern=_pattern(given.get("TrafficPattern")),
        stopping=_stopping(params.get("StoppingConditions", {})),
        budget_s=_budget_s(given, kind),
        tests_max=min(limit, TESTS_MAX),
        types={name: _facts(context, name) for name in {one.instance_type for one in candidates} - {""}},
        host_cpus=context.instance_types.host_cpus,
        compilable=_served_by(model, COMPILABLE),
        batching=_served_by(model, BATCHING),
    )


def _payload_url(payload: Mapping[str, Any]) -> str:
    url: str = payload.get("SamplePayloadUrl", "")
    if not url:
        raise validation(
            "InputConfig.ContainerConfig.PayloadConfig.SamplePayloadUrl is needed: the s3:// URL of a tar.gz of bodies."
        )
    if not url.startswith("s3://") or not url.removeprefix("s3://").partition("/")[2]:
        raise validation(f'SamplePayloadUrl must be an s3:// URL of an object: "{url}" is none.')
    return url


def _budget_s(given: Mapping[str, Any], kind: str) -> int:
    asked: int = given.get("JobDurationInSeconds", BUDGET_S[kind])
    if asked > BUDGET_MAX_S:
        raise validation(f"InputConfig.JobDurationInSeconds must be at most {BUDGET_MAX_S}, not {asked}.")
    return asked


def _served_by(model: ModelSpec, frameworks: frozenset[str]) -> bool:
    """Whether the model is one container of these frameworks, in Eyrie's own model server."""
    if len(model.containers) != 1 or model.containers[0].foreign:
        return False
    image = images.resolve(model.containers[0].image)
    return image is not None and image.framework in frameworks


# ---------------------------------------------------------------------------------------------------------- candidates
def _candidates(context: Context, given: Mapping[str, Any], container: Mapping[str, Any], kind: str) -> list[Candidate]:
    """What is to be tested: endpoints that there are, what is configured, the types that the container supports, or,
    for a Default job, the usual ones.
    """
    found = [Candidate(endpoint=_endpoint(context, one)) for one in given.get("Endpoints", [])]
    for n, config in enumerate(given.get("EndpointConfigurations", []), 1):
        found += _configured(context, f"InputConfig.EndpointConfigurations.{n}.member", config, kind)
    if len(found) > TESTS_MAX:
        raise resource_limit_exceeded("configurations of an inference recommendations job", TESTS_MAX, 0, len(found))
    if not found:
        names = container.get("SupportedInstanceTypes", [])
        if container.get("SupportedEndpointType") == "Serverless":
            raise validation("SupportedEndpointType Serverless needs an EndpointConfiguration with a ServerlessConfig.")
        found = [Candidate(instance_type=_type(context, name).name) for name in names]
    if not found and kind == ADVANCED:
        raise validation(f"A job of JobType {ADVANCED} needs InputConfig.EndpointConfigurations: what is to be tested.")
    if not found:
        rows = {name: _row_facts(row) for name, row in context.instance_types.rows.items() if not row.accelerators}
        found = [Candidate(instance_type=name) for name in usual_types(rows, context.instance_types.host_cpus)]
    return [one for n, one in enumerate(found) if one not in found[:n]]


def _endpoint(context: Context, given: Mapping[str, Any]) -> str:
    name: str = given.get("EndpointName", "")
    known = {endpoint.key.name for endpoint in context.endpoints.list(context.scope)}
    if name not in known:
        raise validation(f'Could not find endpoint "{context.arn("endpoint", name)}".')
    return name


def _configured(context: Context, where: str, given: Mapping[str, Any], kind: str) -> Iterator[Candidate]:
    """The candidates of one EndpointConfiguration: each combination of the values of its variables."""
    if "InferenceSpecificationName" in given:
        raise unsupported(f"{where}.InferenceSpecificationName", "there is no model registry yet")
    if ("InstanceType" in given) is ("ServerlessConfig" in given):
        raise validation(f"{where} needs either an InstanceType or a ServerlessConfig.")
    ranges = given.get("EnvironmentParameterRanges", {}).get("CategoricalParameterRanges", [])
    if ranges and kind == DEFAULT:
        raise validation(
            f"{where}.EnvironmentParameterRanges is for jobs of JobType {ADVANCED}; this one is {DEFAULT}."
        )
    names = [one["Name"] for one in ranges]
    if len(set(names)) < len(names):
        raise validation(f"{where}.EnvironmentParameterRanges names a variable twice.")
    size = _serverless(given["ServerlessConfig"]) if "ServerlessConfig" in given else None
    instance_type = "" if size is not None else _type(context, given["InstanceType"]).name
    for values in itertools.product(*(one["Value"] for one in ranges)):
        yield Candidate(instance_type, size, dict(zip(names, values, strict=True)))


def _serverless(given: Mapping[str, Any]) -> ServerlessSize:
    return ServerlessSize(given["MemorySizeInMB"], given["MaxConcurrency"], given.get("ProvisionedConcurrency", 0))


def _type(context: Context, name: str) -> InstanceType:
    """The row of a type that this host can run. Raises ValidationException."""
    try:
        row = context.instance_types.get(name)
    except UnknownInstanceType as error:
        raise validation(str(error)) from None
    if refusal := row.refusal():
        raise validation(refusal)
    return row


def _facts(context: Context, name: str) -> TypeFacts:
    return _row_facts(_type(context, name))


def _row_facts(row: InstanceType) -> TypeFacts:
    return TypeFacts(row.vcpu, row.memory_mb, row.usd_per_hour)


# ------------------------------------------------------------------------------------------------------------- traffic
def _pattern(given: Mapping[str, Any] | None) -> Pattern | None:
    """The traffic that is asked for. Raises ValidationException."""
    if given is None:
        return None
    kind = given.get("TrafficType") or ("STAIRS" if "Stairs" in given else "PHASES")
    if kind == "STAIRS":
        return _stairs(given)
    if "Stairs" in given or not given.get("Phases"):
        raise validation("TrafficPattern with TrafficType PHASES needs Phases, and no Stairs.")
    found = [_phase(n, one) for n, one in enumerate(given["Phases"], 1)]
    most = max(phase.users + phase.joining_a_minute * phase.seconds // 60 for phase in found)
    joining = sum(1 + phase.joining_a_minute * phase.seconds // 60 for phase in found)
    _check_size(sum(phase.seconds for phase in found), most, joining)
    return phases(found)


def _stairs(given: Mapping[str, Any]) -> Pattern:
    if "Phases" in given or "Stairs" not in given:
        raise validation("TrafficPattern with TrafficType STAIRS needs Stairs, and no Phases.")
    told = given["Stairs"]
    length, steps, users = (_needed("Stairs", told, m) for m in ("DurationInSeconds", "NumberOfSteps", "UsersPerStep"))
    _check_size(length * steps, steps * users, steps)
    return stairs(length, steps, users)


def _phase(number: int, given: Mapping[str, Any]) -> Phase:
    where = f"Phases.{number}.member"
    return Phase(
        _needed(where, given, "InitialNumberOfUsers"),
        given.get("SpawnRate", 0),
        _needed(where, given, "DurationInSeconds"),
    )


def _needed(where: str, given: Mapping[str, Any], member: str) -> int:
    if member not in given:
        raise validation(f"TrafficPattern.{where}.{member} is needed.")
    value: int = given[member]
    return value


def _check_size(length_s: int, users: int, levels: int) -> None:
    if length_s > BUDGET_MAX_S:
        raise validation(f"TrafficPattern lasts {length_s} s: at most {BUDGET_MAX_S} s are possible.")
    if users > USERS_MAX or levels > LEVELS_MAX:
        raise validation(f"TrafficPattern comes to {users} users: at most {USERS_MAX} are possible.")


def _stopping(given: Mapping[str, Any]) -> Stopping:
    """StoppingConditions. Raises ValidationException."""
    threshold: Mapping[str, Any] = next(iter(given.get("ModelLatencyThresholds", [])), {})
    percentile = threshold.get("Percentile", "P95")
    if percentile.upper() not in PERCENTILES:
        raise _bad("ModelLatencyThresholds.1.member.Percentile", percentile, f"one of {', '.join(PERCENTILES)}")
    latency, most = threshold.get("ValueInMilliseconds"), given.get("MaxInvocations")
    if threshold and latency is None:
        raise validation("StoppingConditions.ModelLatencyThresholds.1.member.ValueInMilliseconds is needed.")
    for member, value in (("ModelLatencyThresholds.1.member.ValueInMilliseconds", latency), ("MaxInvocations", most)):
        if value is not None and value < 1:
            raise _bad(member, value, "at least 1")
    return Stopping(
        max_invocations=most,
        percentile=PERCENTILES[percentile.upper()],
        latency_ms=None if latency is None else float(latency),
        flat=given.get("FlatInvocations", "Stop") == "Stop",
    )


def _bad(member: str, value: object, wanted: str) -> ApiError:
    return validation(f"StoppingConditions.{member} must be {wanted}, not {value}.")
