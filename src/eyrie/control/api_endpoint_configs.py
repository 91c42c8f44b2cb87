"""SageMaker's EndpointConfig: the variants that an endpoint is to have. An immutable record; endpoints copy it whole.

A config in use may be deleted: an endpoint holds its whole specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.control import async_config, canary_tags, capture_config
from eyrie.control.api_models import containers_of, find_model
from eyrie.control.context import Context, Operation, Params, first_duplicate, seconds, without
from eyrie.control.listing import Row, page
from eyrie.control.records import delete_with_tags, put_new
from eyrie.control.serverless_config import check_config, check_variant, is_serverless
from eyrie.control.unsupported import CONFIG, VARIANT, refuse_unsupported, unsupported
from eyrie.domain.instance_types import UnknownInstanceType
from eyrie.domain.sticky import FORMS, TAG, is_rule
from eyrie.ports import Document
from eyrie.wire.errors import could_not_find, validation

KIND = "EndpointConfig"
NOUN = "endpoint configuration"
ARN_TYPE = "endpoint-config"
STRATEGIES = frozenset({"RANDOM", "LEAST_OUTSTANDING_REQUESTS"})


def operations() -> Mapping[str, Operation]:
    """The operations on endpoint configs."""
    return {
        "CreateEndpointConfig": create_endpoint_config,
        "DescribeEndpointConfig": describe_endpoint_config,
        "ListEndpointConfigs": list_endpoint_configs,
        "DeleteEndpointConfig": delete_endpoint_config,
    }


def config_arn(context: Context, name: str) -> str:
    """A config's ARN."""
    return context.arn(ARN_TYPE, name)


def find_config(context: Context, name: str) -> Document:
    """The config, or ValidationException `Could not find endpoint configuration "arn".`"""
    found = context.get(KIND, name)
    if found is None:
        raise could_not_find(NOUN, config_arn(context, name))
    return found


def create_endpoint_config(context: Context, params: Params) -> dict[str, Any]:
    """Store a config whose models exist and which asks for nothing that this Eyrie cannot do."""
    check_config(params)
    refuse_unsupported(params, CONFIG)
    capture_config.check(params.get("DataCaptureConfig"))
    canary_tags.check(params.get("Tags", []))
    body = without(params, "Tags")
    body["ProductionVariants"] = [checked_variant(context, variant) for variant in params["ProductionVariants"]]
    if params.get("ShadowProductionVariants"):
        shadows = params["ShadowProductionVariants"]
        body["ShadowProductionVariants"] = [checked_variant(context, variant) for variant in shadows]
        _check_shadows(context, body)
    _check_together(body["ProductionVariants"], body.get("ShadowProductionVariants", []))
    sticky_of(params.get("Tags", []))
    if async_config.MEMBER in body:
        async_config.check(context, body)
    document = context.new(KIND, params["EndpointConfigName"], body)
    return {"EndpointConfigArn": put_new(context, ARN_TYPE, NOUN, document, params)}


def sticky_of(tags: Sequence[Mapping[str, str]]) -> str:
    """What a config's tags say of sticky assignment; "" for nothing. Raises ValidationException for what is no rule."""
    said = next((tag["Value"] for tag in tags if tag["Key"] == TAG), "")
    if said and not is_rule(said):
        raise validation(f"Tag {TAG} must be one of {', '.join(FORMS)}, and is {said!r}.")
    return said


def describe_endpoint_config(context: Context, params: Params) -> dict[str, Any]:
    """A config as it was created."""
    found = find_config(context, params["EndpointConfigName"])
    return {
        "EnableNetworkIsolation": False,
        **found.body,
        "EndpointConfigArn": config_arn(context, found.name),
        "CreationTime": seconds(found.created_ms),
    }


def list_endpoint_configs(context: Context, params: Params) -> dict[str, Any]:
    """Configs, newest first."""
    rows = [_row(context, d) for d in context.store.scan(KIND, context.scope)]
    return page("ListEndpointConfigs", params, rows).reply("EndpointConfigs")


def delete_endpoint_config(context: Context, params: Params) -> dict[str, Any]:
    """Forget a config; endpoints made from it go on."""
    delete_with_tags(context, ARN_TYPE, find_config(context, params["EndpointConfigName"]))
    return {}


def _row(context: Context, d: Document) -> Row:
    arn = config_arn(context, d.name)
    summary = {"EndpointConfigName": d.name, "EndpointConfigArn": arn, "CreationTime": seconds(d.created_ms)}
    return Row(d.name, d.created_ms, d.modified_ms, summary)


def checked_variant(context: Context, variant: Mapping[str, Any]) -> dict[str, Any]:
    """The variant with its defaults, once everything in it is known to be possible."""
    name = variant["VariantName"]
    if is_serverless(variant):
        return _checked_serverless(context, name, variant)
    refuse_unsupported(variant, VARIANT, f'variant "{name}": ')
    strategy = variant.get("RoutingConfig", {}).get("RoutingStrategy")
    if strategy is not None and strategy not in STRATEGIES:
        raise unsupported(f'variant "{name}": RoutingStrategy {strategy}', "it is not there yet")
    for needed in ("ModelName", "InstanceType", "InitialInstanceCount"):
        if needed not in variant:
            raise validation(f'The production variant "{name}" needs {_article(needed)} {needed}.')
    _check_instance_type(context, name, variant["InstanceType"])
    find_model(context, variant["ModelName"])
    return {"InitialVariantWeight": 1.0, **variant}


def _checked_serverless(context: Context, name: str, variant: Mapping[str, Any]) -> dict[str, Any]:
    if "ModelName" not in variant:
        raise validation(f'The production variant "{name}" needs a ModelName.')
    check_variant(variant, find_model(context, variant["ModelName"]))
    refuse_unsupported(variant, VARIANT, f'variant "{name}": ')
    return {"InitialVariantWeight": 1.0, **variant}


def _check_instance_type(context: Context, variant: str, name: str) -> None:
    try:
        why = context.instance_types.get(name).refusal()
    except UnknownInstanceType as error:
        why = str(error)
    if why is not None:
        raise unsupported(f'variant "{variant}": InstanceType {name}', why)


def _article(member: str) -> str:
    return "an" if member[0] in "AEIOU" else "a"


def _check_shadows(context: Context, body: Mapping[str, Any]) -> None:
    """One shadow of one production variant, and nothing that copies of requests could not be sent to."""
    production, shadows = body["ProductionVariants"], body["ShadowProductionVariants"]
    if len(production) != 1 or len(shadows) != 1:
        raise validation(
            "With ShadowProductionVariants you can only specify one variant for ProductionVariants and one variant for "
            f"ShadowProductionVariants: there are {len(production)} and {len(shadows)}."
        )
    if "AsyncInferenceConfig" in body:
        raise validation("ShadowProductionVariants are not for asynchronous endpoints (AsyncInferenceConfig).")
    for variant in (*production, *shadows):
        check_shadowing(context, variant)


def check_shadowing(context: Context, variant: Mapping[str, Any]) -> None:
    """Raise ValidationException for a variant that neither has shadows nor is one."""
    name = variant["VariantName"]
    if "ServerlessConfig" in variant:
        raise validation(f'Variant "{name}" is serverless: a shadow and what it shadows need instances.')
    containers = containers_of(find_model(context, variant["ModelName"]))
    if len(containers) > 1 or containers[0].get("Mode") == "MultiModel":
        raise validation(f'Variant "{name}" has several containers or models: a shadow and what it shadows have one.')


def _check_together(variants: list[dict[str, Any]], shadows: list[dict[str, Any]]) -> None:
    twice = first_duplicate([variant["VariantName"] for variant in (*variants, *shadows)])
    if twice is not None:
        raise validation(f'Variant names must be unique within an endpoint configuration: "{twice}" occurs twice.')
    if sum(variant["InitialVariantWeight"] for variant in variants) <= 0:
        raise validation("The weights of the production variants add up to 0: no request could be routed.")
