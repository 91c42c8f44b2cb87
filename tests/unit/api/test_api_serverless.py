"""ServerlessConfig through boto3: what it may say, what it excludes, how it is shown and changed, and its scaling."""

from __future__ import annotations

from typing import Any

import pytest

from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.names import EndpointKey

KEY = EndpointKey("123456789012", "us-east-1", "e")
ALLOWED = {"MemorySizeInMB": 2048, "MaxConcurrency": 20}
VARIANT = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": ALLOWED}
INSTANCES = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
PLACE = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/v",
    "ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency",
}
IMAGE = {"Image": "eyrie/xgboost", "ModelDataUrl": "s3://b/m.tar.gz"}
CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 1,
    "DestinationS3Uri": "s3://b/",
    "CaptureOptions": [{"CaptureMode": "Input"}],
}


@pytest.fixture
def model(sm: Any) -> None:
    sm.create_model(ModelName="m", PrimaryContainer=IMAGE)


def configure(sm: Any, name: str = "c", variants: Any = None, **more: Any) -> Any:
    return sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants or [VARIANT], **more)


def serve(sm: Any, door: Any, **allowed: int) -> None:
    """An endpoint that came up, as far as the API can tell."""
    configure(sm, variants=[{**VARIANT, "ServerlessConfig": {**ALLOWED, **allowed}}])
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    door.change("e", status=EndpointStatus.IN_SERVICE)


def test_a_config_reads_back(sm: Any, model: None) -> None:
    configure(sm)
    (found,) = sm.describe_endpoint_config(EndpointConfigName="c")["ProductionVariants"]
    assert found == {**VARIANT, "InitialVariantWeight": 1.0}


def test_an_endpoint_proves_its_model_with_one_instance_of_its_memory(sm: Any, door: Any, model: None) -> None:
    configure(sm)
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    (variant,) = door.endpoints.get(KEY).fleet.variants
    spec = variant.spec
    assert (spec.initial_count, spec.memory_mb, spec.vcpu_milli, spec.startup_timeout_s) == (1, 2048, 2000, 180)
    assert spec.may_be_empty
    (shown,) = sm.describe_endpoint(EndpointName="e")["ProductionVariants"]
    assert shown["CurrentServerlessConfig"] == shown["DesiredServerlessConfig"] == ALLOWED


def test_provisioned_concurrency_is_instances_from_the_beginning(sm: Any, door: Any, model: None) -> None:
    serve(sm, door, MaxConcurrency=200, ProvisionedConcurrency=100)
    assert door.endpoints.get(KEY).fleet.variants[0].desired_count == 4  # of 32 requests at once each


def test_a_model_may_say_how_many_requests_an_instance_serves(sm: Any, door: Any, refused: Any) -> None:
    sm.create_model(ModelName="m", PrimaryContainer={**IMAGE, "Environment": {"EYRIE_REQUESTS_AT_ONCE": "2"}})
    serve(sm, door, ProvisionedConcurrency=10)
    assert door.endpoints.get(KEY).fleet.variants[0].desired_count == 5
    sm.create_model(ModelName="n", PrimaryContainer={**IMAGE, "Environment": {"EYRIE_REQUESTS_AT_ONCE": "0"}})
    configure(sm, "d", [{**VARIANT, "ModelName": "n"}])
    code, message = refused(sm.create_endpoint, EndpointName="f", EndpointConfigName="d")
    assert (code, "must be from 1 to 200, and is '0'" in message) == ("ValidationException", True)


REFUSED = [
    ({"MemorySizeInMB": 1500}, "MemorySizeInMB of ServerlessConfig must be one of 1024, 2048"),
    (
        {"MaxConcurrency": 20, "ProvisionedConcurrency": 21},
        "ProvisionedConcurrency 21 must not be above MaxConcurrency",
    ),
]


@pytest.mark.parametrize(("change", "text"), REFUSED)
def test_numbers_that_cannot_be(sm: Any, model: None, refused: Any, change: dict[str, int], text: str) -> None:
    variant = {**VARIANT, "ServerlessConfig": {**ALLOWED, **change}}
    code, message = refused(configure, sm=sm, variants=[variant])
    assert (code, text in message) == ("ValidationException", True), message


@pytest.mark.parametrize("change", [{"MemorySizeInMB": 512}, {"MaxConcurrency": 201}, {"ProvisionedConcurrency": 201}])
def test_numbers_out_of_the_models_bounds_are_refused_on_the_wire(
    door: Any, model: None, refused: Any, change: dict[str, int]
) -> None:
    sm = door.client("sagemaker", parameter_validation=False)
    code, message = refused(configure, sm=sm, variants=[{**VARIANT, "ServerlessConfig": {**ALLOWED, **change}}])
    assert code == "ValidationException"
    assert next(iter(change)) in message or next(iter(change))[0].lower() + next(iter(change))[1:] in message
    sm.close()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"InstanceType": "ml.m5.large"}, "both ServerlessConfig and InstanceType"),
        ({"InitialInstanceCount": 1}, "both ServerlessConfig and InitialInstanceCount"),
        ({"RoutingConfig": {"RoutingStrategy": "RANDOM"}}, "both ServerlessConfig and RoutingConfig"),
        ({"ContainerStartupHealthCheckTimeoutInSeconds": 60}, "ContainerStartupHealthCheckTimeoutInSeconds"),
        ({"ModelName": "pipeline"}, "a pipeline of 2 containers"),
        ({"ModelName": "many"}, "Mode MultiModel"),
        ({"ModelName": "inside"}, "VpcConfig"),
    ],
)
def test_what_a_variant_cannot_have_beside_it(
    sm: Any, model: None, refused: Any, more: dict[str, Any], text: str
) -> None:
    sm.create_model(ModelName="pipeline", Containers=[IMAGE, IMAGE])
    sm.create_model(ModelName="many", PrimaryContainer={**IMAGE, "ModelDataUrl": "s3://b/p/", "Mode": "MultiModel"})
    vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    sm.create_model(ModelName="inside", PrimaryContainer=IMAGE, VpcConfig=vpc)
    code, message = refused(configure, sm=sm, variants=[{**VARIANT, **more}])
    assert (code, text in message) == ("ValidationException", True), message


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"variants": [VARIANT, {**VARIANT, "VariantName": "w"}]}, "a serverless endpoint has exactly one variant"),
        ({"variants": [VARIANT, {**INSTANCES, "VariantName": "w"}]}, "a serverless endpoint has exactly one variant"),
        ({"DataCaptureConfig": CAPTURE}, "data capture"),
        ({"ShadowProductionVariants": [{**INSTANCES, "VariantName": "s"}]}, "shadow variants"),
        ({"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/o"}}}, "asynchronous inference"),
        ({"EnableNetworkIsolation": True}, "network isolation"),
    ],
)
def test_what_a_config_cannot_have_beside_it(
    sm: Any, model: None, refused: Any, more: dict[str, Any], text: str
) -> None:
    code, message = refused(configure, sm=sm, **more)
    assert (code, text in message) == ("ValidationException", True), message


def test_concurrency_is_changed_in_place(sm: Any, door: Any, model: None, refused: Any) -> None:
    serve(sm, door)

    def change(**config: int) -> Any:
        wanted = [{"VariantName": "v", "ServerlessUpdateConfig": config}]
        return sm.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=wanted)

    assert "must not be above its MaxConcurrency 20" in refused(change, ProvisionedConcurrency=21)[1]
    count = {"VariantName": "v", "DesiredInstanceCount": 1}
    update = sm.update_endpoint_weights_and_capacities
    assert "use ServerlessUpdateConfig" in refused(update, EndpointName="e", DesiredWeightsAndCapacities=[count])[1]
    change(MaxConcurrency=50, ProvisionedConcurrency=40)
    (shown,) = sm.describe_endpoint(EndpointName="e")["ProductionVariants"]
    assert shown["CurrentServerlessConfig"] == ALLOWED
    wanted = {"MemorySizeInMB": 2048, "MaxConcurrency": 50, "ProvisionedConcurrency": 40}
    assert shown["DesiredServerlessConfig"] == wanted
    assert shown["DesiredInstanceCount"] == 2


def test_instances_do_not_become_serverless(sm: Any, door: Any, model: None, refused: Any) -> None:
    configure(sm, "i", [INSTANCES])
    configure(sm, "c")
    sm.create_endpoint(EndpointName="e", EndpointConfigName="i")
    door.change("e", status=EndpointStatus.IN_SERVICE)
    code, message = refused(sm.update_endpoint, EndpointName="e", EndpointConfigName="c")
    assert code == "ValidationException"
    assert "an endpoint with instances cannot be updated" in message


def test_serverless_becomes_instances_and_moves_its_traffic_all_at_once(
    sm: Any, door: Any, model: None, refused: Any
) -> None:
    serve(sm, door)
    configure(sm, "i", [INSTANCES])
    shift = {
        "Type": "CANARY",
        "WaitIntervalInSeconds": 0,
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
    }
    policy = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": shift}}
    code, message = refused(sm.update_endpoint, EndpointName="e", EndpointConfigName="i", DeploymentConfig=policy)
    assert (code, "CANARY is not for serverless endpoints" in message) == ("ValidationException", True)
    sm.update_endpoint(EndpointName="e", EndpointConfigName="i")
    (pending,) = sm.describe_endpoint(EndpointName="e")["PendingDeploymentSummary"]["ProductionVariants"]
    assert pending["InstanceType"] == "ml.m5.large"


def test_provisioned_concurrency_is_a_scalable_dimension(sm: Any, door: Any, model: None, refused: Any) -> None:
    serve(sm, door, ProvisionedConcurrency=1)
    scaling = door.client("application-autoscaling")
    other = {**PLACE, "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
    code, message = refused(scaling.register_scalable_target, **other, MinCapacity=1, MaxCapacity=4)
    assert (code, "which is serverless" in message) == ("ValidationException", True)
    scaling.register_scalable_target(**PLACE, MinCapacity=1, MaxCapacity=10)
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert target["ScalableDimension"] == PLACE["ScalableDimension"]
    tracked = {"PolicyName": "p", "PolicyType": "TargetTrackingScaling", **PLACE}
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    wrong = {"TargetValue": 0.5, "PredefinedMetricSpecification": metric}
    code, message = refused(scaling.put_scaling_policy, **tracked, TargetTrackingScalingPolicyConfiguration=wrong)
    assert "SageMakerVariantProvisionedConcurrencyUtilization" in message
    metric = {"PredefinedMetricType": "SageMakerVariantProvisionedConcurrencyUtilization"}
    right = {"TargetValue": 0.5, "PredefinedMetricSpecification": metric}
    made = scaling.put_scaling_policy(**tracked, TargetTrackingScalingPolicyConfiguration=right)
    assert len(made["Alarms"]) == 2
    missing = refused(scaling.deregister_scalable_target, **other)
    assert missing[0] == "ObjectNotFoundException"
    scaling.deregister_scalable_target(**PLACE)
    scaling.close()
