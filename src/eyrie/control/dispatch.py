"""The dispatch table: (service, operation) -> the function that does it. Built once, when control starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyrie.control import (
    api_alarm_lists,
    api_alarms,
    api_anomaly,
    api_autoscaling,
    api_compilation,
    api_dashboards,
    api_destinations,
    api_ecr,
    api_endpoint_configs,
    api_endpoints,
    api_events,
    api_experiments,
    api_iam,
    api_inference_experiments,
    api_logs,
    api_metrics,
    api_models,
    api_quotas,
    api_recommendations,
    api_sns,
    api_sts,
    api_tags,
    api_transform,
    family,
)
from eyrie.control.context import Context, Operation, Params
from eyrie.control.coverage_lists import PAGE, REFUSED
from eyrie.control.family_table import FAMILY
from eyrie.domain import inference_experiments
from eyrie.settings import Settings
from eyrie.wire.errors import ApiError, validation
from eyrie.wire.model import Models, Service

TAGGABLE = {
    "model": (api_models.KIND, api_models.NOUN),
    "endpoint-config": (api_endpoint_configs.KIND, api_endpoint_configs.NOUN),
    "endpoint": ("Endpoint", api_endpoints.NOUN),
    api_compilation.ARN_TYPE: (api_compilation.KIND, api_compilation.NOUN),
    api_transform.ARN_TYPE: (api_transform.KIND, api_transform.NOUN),
    api_recommendations.ARN_TYPE: (api_recommendations.KIND, api_recommendations.NOUN),
    inference_experiments.ARN_TYPE: (inference_experiments.KIND, api_inference_experiments.NOUN),
    **{noun.arn_type: (noun.kind, noun.words) for noun in FAMILY},
}

Table = Mapping[tuple[str, str], Operation]


def table(models: Models, settings: Settings) -> Table:
    """Every operation that this Eyrie answers otherwise than "unknown"."""
    found: dict[tuple[str, str], Operation] = {}
    for service, operations in (
        ("sagemaker", sagemaker(models.service("sagemaker"))),
        ("sts", api_sts.operations()),
        ("iam", api_iam.operations()),
        ("logs", api_logs.operations()),
        ("cloudwatch", api_metrics.operations()),
        ("cloudwatch", api_dashboards.operations()),
        ("cloudwatch", api_alarms.operations()),
        ("cloudwatch", api_alarm_lists.operations()),
        ("cloudwatch", api_anomaly.operations()),
        ("events", api_events.operations()),
        ("events", api_destinations.operations()),
        ("sns", api_sns.operations()),
        ("application-autoscaling", api_autoscaling.operations()),
        ("ecr", api_ecr.operations()),
        ("service-quotas", api_quotas.operations(settings.quota_increases, settings.body_bytes_max)),
    ):
        found.update({(service, name): operation for name, operation in operations.items()})
    return found


def sagemaker(service: Service) -> Mapping[str, Operation]:
    """All operations of SageMaker: those that act, those that store, and those that are refused."""
    refused = {name: _refusal(name, area.why) for area in REFUSED for name in area.operations}
    return {
        **refused,
        **family.operations(service),
        **api_experiments.operations(service),
        **api_models.operations(),
        **api_endpoint_configs.operations(),
        **api_endpoints.operations(),
        **api_compilation.operations(),
        **api_transform.operations(),
        **api_recommendations.operations(),
        **api_inference_experiments.operations(),
        **api_tags.operations(TAGGABLE),
    }


def not_here(service: str, operation: str) -> ApiError:
    """The refusal of an operation that AWS has and this Eyrie has nothing for."""
    text = f"{operation} of {service} is not supported by this Eyrie. What it does is listed in {PAGE}."
    return ApiError("UnknownOperationException", text)


def _refusal(name: str, why: str) -> Operation:
    def refuse(context: Context, params: Params) -> dict[str, Any]:
        raise validation(f"{name} is not supported by this Eyrie: {why}. What it does is listed in {PAGE}.")

    return refuse
