"""ServerlessConfig in an EndpointConfig: what it may say and what it excludes, and the variant that comes of it.

On the path of CreateEndpointConfig (`check_config`, `check_variant`), of CreateEndpoint (`variant_spec`) and of
DescribeEndpoint (`shown`). What excludes what is SageMaker's; docs/guides/serverless.md lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyrie.control.api_models import containers_of
from eyrie.decide.serverless import first_count, vcpu_milli
from eyrie.domain.fleet import ModelSpec, VariantSpec
from eyrie.domain.routing import ContainerMode
from eyrie.domain.serverless import CONCURRENCY_MAX, MEMORY_MB, STARTUP_TIMEOUT_S, Serverless
from eyrie.ports import Document
from eyrie.wire.errors import ApiError, validation

MEMBER = "ServerlessConfig"
AT_ONCE = "EYRIE_REQUESTS_AT_ONCE"  # of a model's environment
TYPE = "serverless-{memory_mb}mb"  # where other variants have an instance type
NOT_BESIDE = (  # of the variant
    "InstanceType",
    "InitialInstanceCount",
    "AcceleratorType",
    "RoutingConfig",
    "ManagedInstanceScaling",
    "VolumeSizeInGB",
    "ModelDataDownloadTimeoutInSeconds",
    "ContainerStartupHealthCheckTimeoutInSeconds",
)


def is_serverless(variant: Mapping[str, Any]) -> bool:
    """Whether a variant of a config asks for it."""
    return MEMBER in variant


def check_config(params: Mapping[str, Any]) -> None:
    """A config with a serverless variant has nothing else. Raises ValidationException."""
    variants = params["ProductionVariants"]
    if not any(is_serverless(variant) for variant in variants):
        return
    if len(variants) > 1:
        raise validation(
            f"ProductionVariants has {len(variants)} members, and one of them has a {MEMBER}: "
            "a serverless endpoint has exactly one variant."
        )
    capture = params.get("DataCaptureConfig")
    if capture is not None and capture.get("EnableCapture", True):
        raise _excluded("DataCaptureConfig", "data capture")
    for member, what in (
        ("AsyncInferenceConfig", "asynchronous inference"),
        ("ShadowProductionVariants", "shadow variants"),
        ("ExplainerConfig", "explanations"),
        ("VpcConfig", "a VPC"),
    ):
        if params.get(member):
            raise _excluded(member, what)
    if params.get("EnableNetworkIsolation"):
        raise _excluded("EnableNetworkIsolation", "network isolation")


def check_variant(variant: Mapping[str, Any], model: Document) -> None:
    """The numbers, and a model that may be served so. Raises ValidationException."""
    name, given = variant["VariantName"], variant[MEMBER]
    for member in NOT_BESIDE:
        if member in variant:
            raise validation(f'Variant "{name}" has both {MEMBER} and {member}: it can have one of them.')
    _number(name, "MemorySizeInMB", given["MemorySizeInMB"], MEMORY_MB)
    most = given["MaxConcurrency"]
    _number(name, "MaxConcurrency", most, range(1, CONCURRENCY_MAX + 1))
    if "ProvisionedConcurrency" in given:
        kept = given["ProvisionedConcurrency"]
        _number(name, "ProvisionedConcurrency", kept, range(1, CONCURRENCY_MAX + 1))
        if kept > most:
            raise validation(
                f'Variant "{name}": ProvisionedConcurrency {kept} must not be above MaxConcurrency {most}.'
            )
    check_model(name, model)


def check_model(variant: str, model: Document) -> None:
    """Raise ValidationException for a model that cannot be served serverless."""
    containers = containers_of(model)
    where = f'Variant "{variant}": model {model.name}'
    if len(containers) > 1:
        raise validation(f"{where} is a pipeline of {len(containers)} containers: serverless endpoints have one.")
    if containers[0].get("Mode") == ContainerMode.MULTI_MODEL:
        raise validation(f"{where} has Mode MultiModel: serverless endpoints hold one model.")
    if model.body.get("VpcConfig"):
        raise validation(f"{where} has a VpcConfig: serverless endpoints are in no VPC.")


def _number(variant: str, member: str, value: int, allowed: tuple[int, ...] | range) -> None:
    if value in allowed:
        return
    told = f"from {allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else f"one of {_listed(allowed)}"
    raise validation(f'Variant "{variant}": {member} of {MEMBER} must be {told}, and is {value}.')


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))


def _excluded(member: str, what: str) -> ApiError:
    return validation(f"{member} is given, and a variant has a {MEMBER}: serverless endpoints do not have {what}.")


def allowed_of(given: Mapping[str, Any], at_once: int = 0) -> Serverless:
    """What a ServerlessConfig allows."""
    return Serverless(given["MemorySizeInMB"], given["MaxConcurrency"], given.get("ProvisionedConcurrency", 0), at_once)


def _at_once(variant: str, model: ModelSpec) -> int:
    """Requests at once that the model's environment says an instance serves; 0: nothing. Raises ValidationException."""
    said = model.containers[0].environment.get(AT_ONCE)
    if said is None:
        return 0
    if not (said.isascii() and said.isdigit() and 1 <= int(said[:9]) <= CONCURRENCY_MAX):
        where = f'Variant "{variant}": {AT_ONCE} in the environment of model {model.name}'
        raise validation(f"{where} must be from 1 to {CONCURRENCY_MAX}, and is {said[:32]!r}.")
    return int(said)


def variant_spec(given: Mapping[str, Any], model: ModelSpec) -> VariantSpec:
    """The variant of an endpoint. Its first fleet starts an instance: a model that cannot serve is found out then."""
    allowed = allowed_of(given[MEMBER], _at_once(given["VariantName"], model))
    foreign = any(container.foreign for container in model.containers)
    return VariantSpec(
        name=given["VariantName"],
        model=model,
        instance_type=TYPE.format(memory_mb=allowed.memory_mb),
        vcpu_milli=vcpu_milli(allowed.memory_mb),
        memory_mb=allowed.memory_mb,
        initial_count=first_count(allowed, foreign),
        initial_weight=given["InitialVariantWeight"],
        startup_timeout_s=STARTUP_TIMEOUT_S,
        foreign=foreign,
        may_be_empty=True,
        serverless=allowed,
    )


def shown(allowed: Serverless) -> dict[str, int]:
    """As DescribeEndpoint shows it."""
    given = {"MemorySizeInMB": allowed.memory_mb, "MaxConcurrency": allowed.max_concurrency}
    return {**given, "ProvisionedConcurrency": allowed.provisioned} if allowed.provisioned else given


def with_update(name: str, given: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """MaxConcurrency and ProvisionedConcurrency of a ServerlessUpdateConfig; None stays. Raises ValidationException."""
    for member in ("MaxConcurrency", "ProvisionedConcurrency"):
        if member in given:
            _number(name, member, given[member], range(1, CONCURRENCY_MAX + 1))
    return given.get("MaxConcurrency"), given.get("ProvisionedConcurrency")
