"""An endpoint as DescribeEndpoint shows it: the noun of `domain/endpoint` in SageMaker's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyrie.control import async_config, capture_config, image_table, images
from eyrie.control.context import seconds
from eyrie.control.serverless_config import shown as shown_serverless
from eyrie.decide.analysis import told
from eyrie.decide.rollout import shares
from eyrie.domain.deployment import Deployment, DeploymentPhase
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.fleet import ContainerSpec, Fleet, Variant

REASON_CHARS_MAX = 1024

_P = DeploymentPhase
STATUS_OF_GREEN: Mapping[DeploymentPhase, str] = {
    _P.PENDING: "Creating",
    _P.PROVISIONING: "Creating",
    _P.SHIFTING: "ActivatingTraffic",
    _P.BAKING: "Baking",
    _P.TERMINATION_WAIT: "Baking",
    _P.ROLLING_BACK: "Deleting",
    _P.ROLLBACK_FAILED: "Deleting",
}
STATUS_OF_FLEET: Mapping[EndpointStatus, str] = {
    EndpointStatus.CREATING: "Creating",
    EndpointStatus.UPDATING: "Updating",
    EndpointStatus.DELETING: "Deleting",
}


def describe(endpoint: Endpoint) -> dict[str, Any]:
    """The reply of DescribeEndpoint."""
    status = STATUS_OF_FLEET.get(endpoint.status)
    if endpoint.deployment is not None:
        status = "Deleting" if endpoint.deployment.phase in (_P.RETIRING, _P.ROLLBACK_FAILED) else None
    shown: dict[str, Any] = {
        "EndpointName": endpoint.key.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.config_name,
        **_variants(endpoint, endpoint.fleet, status),
        "EndpointStatus": str(endpoint.status),
        "CreationTime": seconds(endpoint.created_ms),
        "LastModifiedTime": seconds(endpoint.modified_ms),
    }
    if endpoint.trouble:
        shown["FailureReason"] = endpoint.trouble[:REASON_CHARS_MAX]
    if endpoint.deployment is not None:
        shown["PendingDeploymentSummary"] = _pending(endpoint, endpoint.deployment.green)
    if endpoint.last_deployment_config:
        shown["LastDeploymentConfig"] = endpoint.last_deployment_config
    if endpoint.fleet.asynchronous is not None:
        shown[async_config.MEMBER] = async_config.shown(endpoint.fleet.asynchronous)
    if (captured := capture_config.shown(endpoint)) is not None:
        shown["DataCaptureConfig"] = captured
    return shown


def _variants(endpoint: Endpoint, fleet: Fleet, status: str | None, types: bool = False) -> dict[str, Any]:
    """The variants of a fleet, with their instance types where the shape has these."""

    def shown(variant: Variant) -> dict[str, Any]:
        return {**_variant(endpoint, fleet, variant, status), **(_type(variant) if types else {})}

    found: dict[str, Any] = {"ProductionVariants": [shown(v) for v in fleet.production]}
    if fleet.shadows:
        found["ShadowProductionVariants"] = [shown(v) for v in fleet.shadows]
    return found


def _variant(endpoint: Endpoint, fleet: Fleet, variant: Variant, status: str | None) -> dict[str, Any]:
    held = {f.generation: by for f, by in shares(endpoint)} if endpoint.route is not None else {}
    part = held.get(fleet.generation, {}).get(variant.spec.shadow_of or variant.name, 0.0)
    shown: dict[str, Any] = {
        "VariantName": variant.name,
        "DeployedImages": [_image(fleet, container) for container in variant.spec.model.containers],
        "CurrentWeight": variant.desired_weight * part,
        "DesiredWeight": variant.desired_weight,
        "CurrentInstanceCount": endpoint.ready_count(fleet, variant.name),
        "DesiredInstanceCount": variant.desired_count,
        "RoutingConfig": {"RoutingStrategy": str(variant.spec.strategy)},
    }
    if variant.serverless is not None:
        now = endpoint.resize.serverless_before.get(variant.name) if endpoint.resize else None
        shown["CurrentServerlessConfig"] = shown_serverless(now or variant.serverless)
        shown["DesiredServerlessConfig"] = shown_serverless(variant.serverless)
    if status is not None:
        since_ms = endpoint.deployment.phase_ms if endpoint.deployment else endpoint.modified_ms
        standing = {"Status": status, "StartTime": seconds(since_ms)}
        message = message_of(endpoint.deployment) if endpoint.deployment and fleet is endpoint.deployment.green else ""
        shown["VariantStatus"] = [{**standing, "StatusMessage": message} if message else standing]
    return shown


def message_of(deployment: Deployment) -> str:
    """Why green stands where it does, for people: a pause, or the verdict that let it pass."""
    if deployment.pause is not None:
        return f"Paused by {deployment.pause.by}: {deployment.pause.why}"[:REASON_CHARS_MAX]
    found = deployment.analysis
    return f"Analysis of step {found.step} {found.verdict}: {told(found)}"[:REASON_CHARS_MAX] if found else ""


def _image(fleet: Fleet, container: ContainerSpec) -> dict[str, Any]:
    name = container.image
    return {
        "SpecifiedImage": name,
        "ResolvedImage": _resolved(container),
        "ResolutionTime": seconds(fleet.created_ms),
    }


def _resolved(container: ContainerSpec) -> str:
    if container.image_digest is not None:
        return image_table.by_digest(container.image, container.image_digest)
    image = images.resolve(container.image)
    return image.resolved if image else container.image


def _pending(endpoint: Endpoint, green: Fleet) -> dict[str, Any]:
    assert endpoint.deployment is not None
    status = STATUS_OF_GREEN.get(endpoint.deployment.phase)
    return {
        "EndpointConfigName": green.config_name,
        **_variants(endpoint, green, status, types=True),
        "StartTime": seconds(endpoint.deployment.started_ms),
    }


def _type(variant: Variant) -> dict[str, str]:
    return {} if variant.serverless is not None else {"InstanceType": variant.spec.instance_type}
