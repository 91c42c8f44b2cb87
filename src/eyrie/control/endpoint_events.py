"""What the change of an endpoint's document is announced as: SageMaker's endpoint and deployment state changes.

Pure: documents in, details of events out. SageMaker writes statuses in capitals there: IN_SERVICE, UPDATING.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from eyrie.control.endpoint_view import REASON_CHARS_MAX, STATUS_OF_GREEN
from eyrie.domain.deployment import DeploymentPhase

STATE_CHANGE = "SageMaker Endpoint State Change"
DEPLOYMENT_CHANGE = "SageMaker Endpoint Deployment State Change"
_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])")
Body = Mapping[str, Any]


Change = tuple[str, dict[str, Any], Body]  # detail type, detail, the endpoint's document


def endpoint_changes(before: Body | None, after: Body | None, tags: Mapping[str, str]) -> Iterator[Change]:
    """Detail type, detail and the endpoint's document, of each change that is announced."""
    body = after or before
    if body is None:
        return
    if after is None:
        yield STATE_CHANGE, _detail(body, "DELETED", tags), body
        return
    if before is None or before["status"] != after["status"]:
        yield STATE_CHANGE, _detail(after, _capitals(str(after["status"])), tags), after
    if _phase(before) != _phase(after) and (before is not None or _phase(after)):
        detail = _detail(after, _capitals(str(after["status"])), tags)
        pending = after.get("deployment")
        if pending:
            detail["PendingDeploymentSummary"] = _pending(after, pending)
        yield DEPLOYMENT_CHANGE, detail, after


def _phase(body: Body | None) -> str:
    """What of a deployment is announced when it changes: its phase, and whether it is paused."""
    deployment = body.get("deployment") if body else None
    if not deployment:
        return ""
    return str(deployment["phase"]) + (" paused" if deployment.get("pause") else "")


def _detail(body: Body, status: str, tags: Mapping[str, str]) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "EndpointName": body["key"]["name"],
        "EndpointArn": body["arn"],
        "EndpointConfigName": body["config_name"],
        "ProductionVariants": _variants(body, body["fleet"]),
        "EndpointStatus": status,
        "CreationTime": body["created_ms"],
        "LastModifiedTime": body["modified_ms"],
        "Tags": dict(tags),
    }
    if body.get("failure_reason"):
        detail["FailureReason"] = body["failure_reason"]
    return detail


def _variants(body: Body, fleet: Body) -> list[dict[str, Any]]:
    return [_variant(body, fleet, variant) for variant in _production(fleet)]


def _production(fleet: Body) -> list[Body]:
    return [variant for variant in fleet["variants"] if not variant["spec"].get("shadow_of")]


def _variant(body: Body, fleet: Body, variant: Body) -> dict[str, Any]:
    ready = sum(
        i["fleet"] == fleet["generation"] and i["variant"] == variant["spec"]["name"] and i["state"] == "READY"
        for i in body["instances"]
    )
    return {
        "VariantName": variant["spec"]["name"],
        "CurrentWeight": variant["desired_weight"],
        "DesiredWeight": variant["desired_weight"],
        "CurrentInstanceCount": ready,
        "DesiredInstanceCount": variant["desired_count"],
    }


def _pending(body: Body, deployment: Body) -> dict[str, Any]:
    green = deployment["green"]
    words = STATUS_OF_GREEN.get(DeploymentPhase(deployment["phase"]), "Updating")
    status = {"Status": words, "StartTime": body["modified_ms"]}
    if pause := deployment.get("pause"):
        status["StatusMessage"] = f"Paused by {pause['by']}: {pause['why']}"[:REASON_CHARS_MAX]
    variants = [{**_variant(body, green, variant), "VariantStatus": [status]} for variant in _production(green)]
    return {
        "EndpointConfigName": green["config_name"],
        "StartTime": green["created_ms"],
        "ProductionVariants": variants,
    }


def _capitals(status: str) -> str:
    """InService -> IN_SERVICE."""
    return _BOUNDARY.sub("_", status).upper()
