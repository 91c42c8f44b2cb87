"""SageMaker's Endpoint: resolves what a call names (config, models, images, instance types) into a whole specification
and hands it to `control/endpoints`; what comes back is shown as DescribeEndpoint shows it (`endpoint_view`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.control import async_config, canary_tags, image_table, images, quotas
from eyrie.control.api_endpoint_configs import ARN_TYPE, config_arn, find_config, sticky_of
from eyrie.control.api_models import containers_of, find_model, model_arn, model_data_url
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.deployment_config import check_alarms, traffic_policy
from eyrie.control.endpoint_view import describe
from eyrie.control.endpoints import KIND
from eyrie.control.listing import Row, page
from eyrie.control.records import new_tags, refuse_beyond_quota, tags_document
from eyrie.control.serverless_config import check_model, is_serverless, variant_spec, with_update
from eyrie.decide.endpoint import Update
from eyrie.decide.workers import workers
from eyrie.domain.endpoint import CapacityChange, Endpoint, FleetSpec
from eyrie.domain.errors import Refused
from eyrie.domain.fleet import ContainerSpec, ModelSpec, VariantSpec
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import ContainerMode, Execution, RoutingStrategy
from eyrie.ports import Commit, Document
from eyrie.wire.errors import already_exists, could_not_find, resource_limit_exceeded, validation

NOUN = "endpoint"
STARTUP_TIMEOUT_S = 240


def operations() -> Mapping[str, Operation]:
    """The operations on endpoints."""
    return {
        "CreateEndpoint": create_endpoint,
        "DescribeEndpoint": describe_endpoint,
        "ListEndpoints": list_endpoints,
        "UpdateEndpoint": update_endpoint,
        "UpdateEndpointWeightsAndCapacities": update_endpoint_weights_and_capacities,
        "DeleteEndpoint": delete_endpoint,
    }


def create_endpoint(context: Context, params: Params) -> dict[str, Any]:
    """Start an endpoint from a config."""
    name = params["EndpointName"]
    config = find_config(context, params["EndpointConfigName"])
    traffic_policy(params.get("DeploymentConfig"))  # only kept, for an update that retains it
    every = context.endpoints.list(context.scope)
    twin = next((e for e in every if e.key.name.lower() == name.lower()), None)
    if twin is not None:
        raise already_exists(NOUN, twin.arn)
    wish = fleet_of(context, config)
    refuse_beyond_quota(context, KIND)
    _check_quota(context, every, quotas.of_wish(wish.variants))
    try:
        made = context.endpoints.create(
            _key(context, name),
            wish,
            data_capture=config.body.get("DataCaptureConfig"),
            deployment_config=params.get("DeploymentConfig"),
            also=new_tags(context, "endpoint", name, params),
        )
    except Refused as error:
        raise validation(str(error)) from None
    return {"EndpointArn": made.arn}


def describe_endpoint(context: Context, params: Params) -> dict[str, Any]:
    """An endpoint as it is now."""
    return describe(_find(context, params["EndpointName"]))


def list_endpoints(context: Context, params: Params) -> dict[str, Any]:
    """Endpoints, newest first."""
    return page("ListEndpoints", params, [_row(e) for e in context.endpoints.list(context.scope)]).reply("Endpoints")


def update_of(context: Context, now: Endpoint, params: Params) -> Update:
    """An UpdateEndpoint, checked as far as it can be without the endpoint's state. Raises ApiError."""
    config = find_config(context, params["EndpointConfigName"])
    given = params.get("DeploymentConfig")
    retain = bool(params.get("RetainDeploymentConfig"))
    if retain and given is not None:
        raise validation("You can either give a DeploymentConfig or set RetainDeploymentConfig, not both.")
    policy = traffic_policy(now.last_deployment_config if retain else given)
    policy = replace(policy, analysis=canary_tags.asked(context, config.name, now.key.name))
    check_alarms(context, policy)
    wish = fleet_of(context, config)
    others = [e for e in context.endpoints.list(context.scope) if e.key != now.key]
    _check_quota(context, others, quotas.of_wish(wish.variants))
    return Update(
        wish,
        retain_all=bool(params.get("RetainAllVariantProperties")),
        exclude_retained=[p["VariantPropertyType"] for p in params.get("ExcludeRetainedVariantProperties", [])],
        data_capture=config.body.get("DataCaptureConfig"),
        deployment_config=given,
        retain_deployment_config=retain,
        policy=policy,
    )


def update_endpoint(context: Context, params: Params) -> dict[str, Any]:
    """Start a deployment of another config."""
    now = _find(context, params["EndpointName"])
    try:
        changed = context.endpoints.update(now.key, update_of(context, now, params))
    except Refused as error:
        raise validation(str(error)) from None
    return {"EndpointArn": changed.arn}


def update_endpoint_weights_and_capacities(context: Context, params: Params) -> dict[str, Any]:
    """Change weights and instance counts of the fleet that serves."""
    now = _find(context, params["EndpointName"])
    changes = [_change(given) for given in params["DesiredWeightsAndCapacities"]]
    _check_changes(context, now, changes)
    try:
        changed = context.endpoints.update_weights(now.key, changes)
    except Refused as error:
        raise validation(str(error)) from None
    return {"EndpointArn": changed.arn}


def delete_endpoint(context: Context, params: Params) -> dict[str, Any]:
    """Start to delete; its tags go at once."""
    now = _find(context, params["EndpointName"])
    try:
        context.endpoints.delete(now.key)
    except Refused as error:
        raise validation(str(error)) from None
    tags = tags_document(context, "endpoint", now.key.name)
    if tags is not None:
        context.store.commit(Commit(deletes=[tags]))
    return {}


def fleet_of(context: Context, config: Document) -> FleetSpec:
    """What a config resolves to: every variant with its whole model. Raises ValidationException for what is missing."""
    route = async_config.route_of(config.body.get(async_config.MEMBER))
    production = tuple(variant_of(context, given) for given in config.body["ProductionVariants"])
    if route is not None:
        production = tuple(_asynchronous(variant) for variant in production)
    source = config.body["ProductionVariants"][0]["VariantName"]  # where there are shadows, it is the only one
    shadows = tuple(variant_of(context, given, source) for given in config.body.get("ShadowProductionVariants", []))
    tags = tags_document(context, ARN_TYPE, config.name)
    sticky = sticky_of(tags.body["Tags"]) if tags is not None else ""
    variants = (*production, *shadows)
    return FleetSpec(config.name, config_arn(context, config.name), variants, sticky, asynchronous=route)


def _asynchronous(variant: VariantSpec) -> VariantSpec:
    """A variant whose containers take inputs of any size that may be sent, and whose requests wait for an instance."""
    containers = (replace(c, environment=async_config.environment(c.environment)) for c in variant.model.containers)
    return replace(variant, model=replace(variant.model, containers=tuple(containers)), may_be_empty=True)


def variant_of(context: Context, given: Mapping[str, Any], shadow_of: str = "") -> VariantSpec:
    """A ProductionVariant with its whole model; `shadow_of`: the variant that it shadows, where it is none itself."""
    model = find_model(context, given["ModelName"])
    containers = containers_of(model)
    held = _model(context, model, containers)
    if is_serverless(given):
        check_model(given["VariantName"], model)  # it may be another one than the config was made for
        return variant_spec(given, held)
    size = context.instance_types.get(given["InstanceType"])
    strategy = given.get("RoutingConfig", {}).get("RoutingStrategy")
    foreign = any(container.foreign for container in held.containers)
    environments = [container.environment for container in held.containers]
    return VariantSpec(
        name=given["VariantName"],
        model=held,
        instance_type=size.name,
        vcpu_milli=size.vcpu_milli,
        memory_mb=size.memory_mb,
        initial_count=given["InitialInstanceCount"],
        initial_weight=given["InitialVariantWeight"],
        strategy=RoutingStrategy(strategy) if strategy else RoutingStrategy.LEAST_OUTSTANDING_REQUESTS,
        startup_timeout_s=given.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_TIMEOUT_S),
        foreign=foreign,
        workers=workers(size.vcpu_milli, context.instance_types.host_cpus, environments, foreign),
        shadow_of=shadow_of,
    )


def model_of(context: Context, name: str) -> ModelSpec:
    """A model by its name, whole. Raises ValidationException where it, or one of its images, is not there."""
    model = find_model(context, name)
    return _model(context, model, containers_of(model))


def _model(context: Context, model: Document, containers: Sequence[Mapping[str, Any]]) -> ModelSpec:
    mode = model.body.get("InferenceExecutionConfig", {}).get("Mode", Execution.SERIAL)
    names = ["primary"] if len(containers) == 1 else [f"container-{n}" for n in range(1, len(containers) + 1)]
    return ModelSpec(
        name=model.name,
        arn=model_arn(context, model.name),
        containers=tuple(_container(context, given, name) for given, name in zip(containers, names, strict=True)),
        execution_role_arn=model.body.get("ExecutionRoleArn"),
        execution=Execution(mode),
    )


def _container(context: Context, given: Mapping[str, Any], name: str) -> ContainerSpec:
    """`name`: its host name where the model gives none. Its image is what the name means now, for ever."""
    image = given["Image"]
    digest = image_table.resolve(context, image)
    if digest is None and images.resolve(image) is None:
        raise validation(image_table.refusal(context, image))
    cache = given.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled")
    return ContainerSpec(
        hostname=given.get("ContainerHostname", name),
        image=image,
        artifact=None,
        model_data_url=model_data_url(given),
        environment=dict(given.get("Environment", {})),
        mode=ContainerMode(given.get("Mode", ContainerMode.SINGLE_MODEL)),
        model_cache=cache == "Enabled",
        image_digest=digest,
    )


def _change(given: Mapping[str, Any]) -> CapacityChange:
    name = given["VariantName"]
    most, kept = with_update(name, given.get("ServerlessUpdateConfig", {}))
    return CapacityChange(name, given.get("DesiredWeight"), given.get("DesiredInstanceCount"), most, kept)


def _check_changes(context: Context, now: Endpoint, changes: Sequence[CapacityChange]) -> None:
    wanted = {c.variant: c for c in changes}
    counts, weights = [], 0.0
    for variant in now.fleet.variants:
        change = wanted.get(variant.name)
        count = change.count if change and change.count is not None else variant.desired_count
        most = variant.serverless.max_concurrency if variant.serverless else 0
        counts.append((variant.spec, count, change.max_concurrency or most if change else most))
        if not variant.shadow:
            weights += change.weight if change and change.weight is not None else variant.desired_weight
    if weights <= 0:
        raise validation("The weights of the production variants would add up to 0: no request could be routed.")
    others = [e for e in context.endpoints.list(context.scope) if e.key != now.key]
    _check_quota(context, others, quotas.needed(counts))


def _check_quota(context: Context, others: Sequence[Endpoint], wanted: Counter[str]) -> None:
    over = quotas.excess(context.store, context.scope, others, wanted)
    if over is not None:
        raise resource_limit_exceeded(over.name, over.limit, over.used, over.wanted, over.unit)


def _find(context: Context, name: str) -> Endpoint:
    found = context.endpoints.get(_key(context, name))
    if found is None:
        raise could_not_find(NOUN, context.arn("endpoint", name))
    return found


def _key(context: Context, name: str) -> EndpointKey:
    return EndpointKey(context.scope.account, context.scope.region, name)


def _row(endpoint: Endpoint) -> Row:
    summary = {
        "EndpointName": endpoint.key.name,
        "EndpointArn": endpoint.arn,
        "CreationTime": seconds(endpoint.created_ms),
        "LastModifiedTime": seconds(endpoint.modified_ms),
        "EndpointStatus": str(endpoint.status),
    }
    return Row(endpoint.key.name, endpoint.created_ms, endpoint.modified_ms, summary, str(endpoint.status))
