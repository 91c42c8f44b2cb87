"""AsyncInferenceConfig: what can be kept of it, checked when a config is created, and the noun that it becomes.

A step of CreateEndpointConfig and of everything that makes a fleet of a config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eyrie.control.api_models import containers_of, find_model
from eyrie.control.context import Context
from eyrie.control.unsupported import unsupported
from eyrie.decide import capture
from eyrie.domain.async_inference import INPUT_BYTES_MAX, AsyncRoute
from eyrie.domain.routing import ContainerMode, Execution
from eyrie.wire.errors import validation

MEMBER = "AsyncInferenceConfig"
MAX_PAYLOAD = "SAGEMAKER_MAX_PAYLOAD_IN_MB"
PAYLOAD_MB = INPUT_BYTES_MAX >> 20
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")


def check(context: Context, body: Mapping[str, Any]) -> None:
    """Raise ValidationException for what cannot be done. `body`: the whole endpoint config."""
    output = body[MEMBER]["OutputConfig"]
    if body.get("ShadowProductionVariants"):
        raise unsupported(f"ShadowProductionVariants beside {MEMBER}", "asynchronous requests are not shadowed")
    if capture.route_of(body.get("DataCaptureConfig")) is not None:
        raise unsupported(f"DataCaptureConfig beside {MEMBER}", "asynchronous requests are not captured")
    if output.get("KmsKeyId"):
        raise unsupported(f"{MEMBER}.OutputConfig.KmsKeyId", "results are not encrypted, and there are no keys")
    for name in ("S3OutputPath", "S3FailurePath"):
        path = output.get(name)
        if path and not _BUCKET.fullmatch(path):
            raise validation(f"{MEMBER}.OutputConfig.{name} must be an s3:// address, and {path!r} is none.")
    told = output.get("NotificationConfig", {})
    if not output.get("S3OutputPath") and not told.get("SuccessTopic"):
        raise validation(f"{MEMBER}.OutputConfig needs an S3OutputPath, or a SuccessTopic that is told the results.")
    for name in ("SuccessTopic", "ErrorTopic"):
        _check_topic(context, name, told.get(name))
    for variant in body["ProductionVariants"]:
        _check_variant(context, variant)


def _check_topic(context: Context, name: str, arn: str | None) -> None:
    if arn and arn.split(":")[4] != context.scope.account:
        raise validation(f"{name} {arn!r} is not a topic of account {context.scope.account}.")


def _check_variant(context: Context, variant: Mapping[str, Any]) -> None:
    """Nothing in InvokeEndpointAsync says which model or which container is meant."""
    if "ServerlessConfig" in variant:
        raise validation(f'The variant "{variant["VariantName"]}" is serverless: it cannot be asynchronous as well.')
    model = find_model(context, variant["ModelName"])
    where = f'variant "{variant["VariantName"]}": '
    if any(c.get("Mode") == ContainerMode.MULTI_MODEL for c in containers_of(model)):
        raise validation(f"{where}a multi-model container cannot be asynchronous: a call names no target model.")
    if model.body.get("InferenceExecutionConfig", {}).get("Mode") == Execution.DIRECT:
        raise validation(f"{where}direct invocation cannot be asynchronous: a call names no target container.")


def route_of(config: Mapping[str, Any] | None) -> AsyncRoute | None:
    """The noun of a config; None where there is none."""
    if config is None:
        return None
    output = config["OutputConfig"]
    told = output.get("NotificationConfig", {})
    return AsyncRoute(
        output_path=output.get("S3OutputPath", ""),
        failure_path=output.get("S3FailurePath", ""),
        success_topic=told.get("SuccessTopic", ""),
        error_topic=told.get("ErrorTopic", ""),
        responses_in=tuple(told.get("IncludeInferenceResponseIn", ())),
        concurrency=config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", 0),
    )


def shown(route: AsyncRoute) -> dict[str, Any]:
    """AsyncInferenceConfig as DescribeEndpoint shows it."""
    told = {
        "SuccessTopic": route.success_topic,
        "ErrorTopic": route.error_topic,
        "IncludeInferenceResponseIn": list(route.responses_in),
    }
    told = {name: value for name, value in told.items() if value}
    paths = {"S3OutputPath": route.output_path, "S3FailurePath": route.failure_path}
    output: dict[str, Any] = {name: path for name, path in paths.items() if path}
    if told:
        output["NotificationConfig"] = told
    found: dict[str, Any] = {"OutputConfig": output}
    if route.concurrency:
        found["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": route.concurrency}
    return found


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """A container's variables: it must take an input of any size that may be sent, unless it says otherwise."""
    return {MAX_PAYLOAD: str(PAYLOAD_MB), **given}
