"""DataCaptureConfig and the tag of sticky assignment through boto3: what is checked, what is shown, what an update
keeps.
"""

from __future__ import annotations

from typing import Any

import pytest
from test_sdk_sequences import settle

from eyrie.adapters import capture_keys
from eyrie.decide.policy import Policy
from eyrie.decide.publication import wished
from eyrie.domain.capture import CaptureRoute
from eyrie.domain.names import EndpointKey

KEY = EndpointKey("123456789012", "us-east-1", "e")
VARIANT = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 20,
    "DestinationS3Uri": "s3://bucket/old",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
}


@pytest.fixture
def model(sm: Any) -> None:
    sm.create_model(ModelName="m", PrimaryContainer={"Image": "eyrie/xgboost"})


def config(sm: Any, name: str, **more: Any) -> None:
    sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[VARIANT], **more)


def shown(sm: Any) -> Any:
    return sm.describe_endpoint(EndpointName="e").get("DataCaptureConfig")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"InitialSamplingPercentage": 101}, "initialSamplingPercentage"),
        ({"DestinationS3Uri": "ftp://b"}, "destinationS3Uri"),
        ({"DestinationS3Uri": "https://b/c"}, "captured data goes to an s3:// URI"),
        ({"DestinationS3Uri": "s3://B_/c"}, 'DestinationS3Uri "s3://B_/c" does not name a bucket'),
        ({"CaptureOptions": [{"CaptureMode": "Both"}]}, "enum value set"),
        ({"CaptureContentTypeHeader": {"CsvContentTypes": ["a b"]}}, "csvContentTypes"),
        (
            {"CaptureContentTypeHeader": {"CsvContentTypes": ["a/b"], "JsonContentTypes": ["A/B"]}},
            'Content type "a/b" is both in CsvContentTypes and in JsonContentTypes.',
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_capture_that_cannot_be_is_refused(
    sm: Any, model: None, refused: Any, change: dict[str, Any], text: str
) -> None:
    code, message = refused(config, sm=sm, name="c", DataCaptureConfig={**CAPTURE, **change})
    assert code == "ValidationException"
    assert text in message


def test_a_key_needs_the_library_that_encrypts(
    sm: Any, model: None, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_keys, "available", lambda: False)
    sealed = {**CAPTURE, "KmsKeyId": "alias/k"}
    assert "eyrie[encryption]" in refused(config, sm=sm, name="c", DataCaptureConfig=sealed)[1]
    monkeypatch.setattr(capture_keys, "available", lambda: True)
    config(sm, "c", DataCaptureConfig=sealed)


def test_what_an_endpoint_tells_of_its_capture(sm: Any, door: Any, model: None) -> None:
    config(sm, "c", DataCaptureConfig=CAPTURE)
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    told = {
        "EnableCapture": True,
        "CaptureStatus": "Stopped",
        "CurrentSamplingPercentage": 20,
        "DestinationS3Uri": "s3://bucket/old",
        "KmsKeyId": "",
    }
    assert shown(sm) == told
    settle(door, "e")
    assert shown(sm) == {**told, "CaptureStatus": "Started"}
    assert sm.describe_endpoint_config(EndpointConfigName="c")["DataCaptureConfig"] == CAPTURE
    (route,) = wished(door.endpoints.get(KEY), Policy())
    assert route.capture == CaptureRoute(20, "s3://bucket/old", True, True)


@pytest.mark.parametrize(
    ("given", "destination"),
    [
        ({}, "new"),
        ({"RetainAllVariantProperties": True}, "old"),
        (
            {
                "RetainAllVariantProperties": True,
                "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DataCaptureConfig"}],
            },
            "new",
        ),
        (
            {
                "RetainAllVariantProperties": True,
                "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
            },
            "old",
        ),
    ],
)
def test_what_an_update_keeps(sm: Any, door: Any, model: None, given: dict[str, Any], destination: str) -> None:
    config(sm, "c", DataCaptureConfig=CAPTURE)
    config(sm, "d", DataCaptureConfig={**CAPTURE, "DestinationS3Uri": "s3://bucket/new"})
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    settle(door, "e")
    sm.update_endpoint(EndpointName="e", EndpointConfigName="d", **given)
    assert shown(sm)["DestinationS3Uri"] == "s3://bucket/old"  # until the update has succeeded
    pending = door.endpoints.get(KEY).deployment.data_capture
    assert pending["DestinationS3Uri"] == f"s3://bucket/{destination}"


def test_a_config_without_capture_ends_it(sm: Any, door: Any, model: None) -> None:
    config(sm, "c", DataCaptureConfig=CAPTURE)
    config(sm, "d")
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    settle(door, "e")
    sm.update_endpoint(EndpointName="e", EndpointConfigName="d")
    assert door.endpoints.get(KEY).deployment.data_capture is None


def test_the_tag_of_sticky_assignment_is_checked_and_copied_with_the_config(
    sm: Any, door: Any, model: None, refused: Any
) -> None:
    wrong = [{"Key": "eyrie:sticky", "Value": "cookie"}]
    code, message = refused(config, sm=sm, name="c", Tags=wrong)
    assert code == "ValidationException"
    assert "inference-id, custom-attributes, custom-attributes:NAME, header:NAME, and is 'cookie'" in message
    config(sm, "c", Tags=[{"Key": "eyrie:sticky", "Value": "inference-id"}, {"Key": "other", "Value": "x"}])
    config(sm, "d")
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    settle(door, "e")
    (route,) = wished(door.endpoints.get(KEY), Policy())
    assert route.sticky == "inference-id"
    sm.update_endpoint(EndpointName="e", EndpointConfigName="d")
    assert door.endpoints.get(KEY).deployment.green.sticky == ""
