"""Endpoint configs through boto3: what they check, what they refuse, what they keep."""

from __future__ import annotations

from typing import Any

import pytest

ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/"
MODEL_ARN = "arn:aws:sagemaker:us-east-1:123456789012:model/"
VARIANT = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}


@pytest.fixture
def model(sm: Any) -> None:
    sm.create_model(ModelName="m", PrimaryContainer={"Image": "eyrie/xgboost"})


def create(sm: Any, name: str = "c", variants: Any = None, **more: Any) -> Any:
    return sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants or [VARIANT], **more)


def test_a_config_reads_back_with_its_defaults(sm: Any, model: None) -> None:
    two = [VARIANT, {**VARIANT, "VariantName": "w", "InitialVariantWeight": 0.25, "VolumeSizeInGB": 5}]
    assert create(sm, variants=two)["EndpointConfigArn"] == ARN + "c"
    found = sm.describe_endpoint_config(EndpointConfigName="c")
    assert found["ProductionVariants"] == [{**VARIANT, "InitialVariantWeight": 1.0}, two[1]]
    assert found["EndpointConfigArn"] == ARN + "c"
    assert found["EnableNetworkIsolation"] is False


def test_a_missing_config_and_a_taken_name(sm: Any, model: None, refused: Any) -> None:
    missing = ("ValidationException", f'Could not find endpoint configuration "{ARN}c".')
    assert refused(sm.describe_endpoint_config, EndpointConfigName="c") == missing
    assert refused(sm.delete_endpoint_config, EndpointConfigName="c") == missing
    create(sm)
    taken = refused(create, sm=sm)
    assert taken == ("ValidationException", f'Cannot create already existing endpoint configuration "{ARN}c".')


def test_a_config_naming_a_missing_model_is_refused(sm: Any, refused: Any) -> None:
    assert refused(create, sm=sm) == ("ValidationException", f'Could not find model "{MODEL_ARN}m".')


VARIANTS = [
    ({"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}, "has both ServerlessConfig and InstanceType"),
    ({"InstancePools": [{"InstanceType": "ml.m5.large", "Priority": 1}]}, "InstancePools is not supported"),
    ({"AcceleratorType": "ml.eia2.medium"}, "AcceleratorType is not supported"),
    ({"CoreDumpConfig": {"DestinationS3Uri": "s3://b/"}}, "CoreDumpConfig is not supported"),
    ({"EnableSSMAccess": True}, "EnableSSMAccess is not supported"),
    ({"ManagedInstanceScaling": {"Status": "ENABLED"}}, "ManagedInstanceScaling is not supported"),
    ({"CapacityReservationConfig": {"CapacityReservationPreference": "capacity-reservations-only"}}, "reservations"),
    ({"AcceleratorPartitionLayouts": [{"AcceleratorPartitionTypes": ["mig-1g.5gb"]}]}, "no accelerators"),
    ({"RoutingConfig": {"RoutingStrategy": "PREFIX_AWARE"}}, "RoutingStrategy PREFIX_AWARE is not supported"),
    ({"InstanceType": "ml.p3.2xlarge"}, "this host offers none"),
    ({"InstanceType": None}, 'The production variant "v" needs an InstanceType.'),
    ({"InitialInstanceCount": None}, 'The production variant "v" needs an InitialInstanceCount.'),
    ({"ModelName": None}, 'The production variant "v" needs a ModelName.'),
    ({"InitialVariantWeight": 0.0}, "add up to 0"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), VARIANTS, ids=[next(iter(c)) for c, _ in VARIANTS])
def test_a_variant_that_cannot_be_is_refused_with_the_reason(
    sm: Any, model: None, refused: Any, change: dict[str, Any], text: str
) -> None:
    variant = {name: value for name, value in {**VARIANT, **change}.items() if value is not None}
    code, message = refused(create, sm=sm, variants=[variant])
    assert code == "ValidationException"
    assert text in message


CONFIGS = [
    ({"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/o", "KmsKeyId": "k"}}}, "KmsKeyId is not"),
    ({"KmsKeyId": "k"}, "KmsKeyId is not supported by this Eyrie: volumes are not encrypted"),
    ({"EnableNetworkIsolation": True}, "EnableNetworkIsolation is not supported"),
    (
        {"DataCaptureConfig": {"InitialSamplingPercentage": 1, "DestinationS3Uri": "https://b/",
                               "CaptureOptions": [{"CaptureMode": "Input"}]}},
        "DataCaptureConfig.DestinationS3Uri https://b/ is not supported by this Eyrie",
    ),
    (
        {"CrossRegionTrafficConfig": {"MaxInvocationsPerSecondPerInstance": 1, "MaxCrossRegionPercentPerEndpoint": 1}},
        "CrossRegionTrafficConfig is not supported",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("more", "text"), CONFIGS, ids=[next(iter(c)) for c, _ in CONFIGS])
def test_a_config_that_asks_for_more_is_refused_with_the_reason(
    sm: Any, model: None, refused: Any, more: dict[str, Any], text: str
) -> None:
    code, message = refused(create, sm=sm, **more)
    assert code == "ValidationException"
    assert text in message
    assert "docs/reference/coverage.md" in message


ASYNC_TOPIC = {"ErrorTopic": "arn:aws:sns:us-east-1:999999999999:t"}


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"S3OutputPath": "https://b/o"}, "must be an s3:// address"),
        ({}, "needs an S3OutputPath, or a SuccessTopic"),
        ({"S3OutputPath": "s3://bucket/o", "NotificationConfig": ASYNC_TOPIC}, "is not a topic of account"),
    ],
)
def test_an_asynchronous_config_that_cannot_be_is_refused(
    sm: Any, model: None, refused: Any, output: dict[str, Any], text: str
) -> None:
    code, message = refused(create, sm=sm, AsyncInferenceConfig={"OutputConfig": output})
    assert (code, text in message) == ("ValidationException", True)


def test_what_is_switched_off_is_kept(sm: Any, model: None) -> None:
    off = {"EnableCapture": False, "InitialSamplingPercentage": 1, "DestinationS3Uri": "s3://b/",
           "CaptureOptions": [{"CaptureMode": "Input"}]}  # fmt: skip
    create(sm, DataCaptureConfig=off, MetricsConfig={"EnableEnhancedMetrics": True}, EnableNetworkIsolation=False)
    found = sm.describe_endpoint_config(EndpointConfigName="c")
    assert found["DataCaptureConfig"] == off
    assert found["MetricsConfig"] == {"EnableEnhancedMetrics": True}


def test_variant_names_are_unique(sm: Any, model: None, refused: Any) -> None:
    assert refused(create, sm=sm, variants=[VARIANT, VARIANT]) == (
        "ValidationException",
        'Variant names must be unique within an endpoint configuration: "v" occurs twice.',
    )


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"InstanceType": "ml.none.large"}, "productionVariants.1.member.instanceType"),
        ({"VariantName": "-v"}, "productionVariants.1.member.variantName"),
        ({"InitialInstanceCount": 0}, "productionVariants.1.member.initialInstanceCount"),
        ({"InitialVariantWeight": -1.0}, "productionVariants.1.member.initialVariantWeight"),
        ({"ContainerStartupHealthCheckTimeoutInSeconds": 59}, "containerStartupHealthCheckTimeoutInSeconds"),
        ({"VolumeSizeInGB": 513}, "volumeSizeInGB"),
    ],
)
def test_constraints_of_the_model_are_checked(door: Any, refused: Any, change: dict[str, Any], at: str) -> None:
    client = door.client("sagemaker", parameter_validation=False)
    code, message = refused(create, sm=client, variants=[{**VARIANT, **change}])
    client.close()
    assert code == "ValidationException"
    assert "1 validation error detected: Value" in message
    assert at in message


def test_configs_are_listed_filtered_and_deleted(sm: Any, door: Any, model: None, refused: Any) -> None:
    for name in ("c1", "c2", "d1"):
        create(sm, name=name)
        door.clock.at_ms += 1000
    listed = sm.list_endpoint_configs(NameContains="c")["EndpointConfigs"]
    assert [c["EndpointConfigName"] for c in listed] == ["c2", "c1"]
    assert listed[0]["EndpointConfigArn"] == ARN + "c2"
    sm.delete_endpoint_config(EndpointConfigName="c2")
    assert [c["EndpointConfigName"] for c in sm.list_endpoint_configs()["EndpointConfigs"]] == ["d1", "c1"]


def test_a_model_in_use_may_be_deleted(sm: Any, model: None) -> None:
    create(sm)
    sm.delete_model(ModelName="m")
    assert sm.describe_endpoint_config(EndpointConfigName="c")["ProductionVariants"][0]["ModelName"] == "m"


def test_tags_of_a_config(sm: Any, model: None) -> None:
    create(sm, Tags=[{"Key": "a", "Value": "1"}])
    assert sm.list_tags(ResourceArn=ARN + "c")["Tags"] == [{"Key": "a", "Value": "1"}]
