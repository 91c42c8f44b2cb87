"""CompilationJob's API: what is taken, what is refused with which words, how jobs are shown and listed."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.session import Session

from eyrie.control.compilation_targets import (
    ARM64,
    DEVICES_REFUSED,
    FRAMEWORKS,
    FRAMEWORKS_REFUSED,
    X86_64,
    device_refusal,
    platform_refusal,
)

ROLE = "arn:aws:iam::123456789012:role/x"
INPUT = {"S3Uri": "s3://b/in/model.tar.gz", "Framework": "XGBOOST", "DataInputConfig": '{"data": [1, 4]}'}
OUTPUT = {"S3OutputLocation": "s3://b/out", "TargetPlatform": {"Os": "LINUX", "Arch": "X86_64"}}


def create(client: Any, name: str, given: dict[str, Any] | None = None, output: dict[str, Any] | None = None) -> None:
    client.create_compilation_job(
        CompilationJobName=name,
        RoleArn=ROLE,
        InputConfig={**INPUT, **(given or {})},
        OutputConfig=output or OUTPUT,
        StoppingCondition={"MaxRuntimeInSeconds": 60},
        Tags=[{"Key": "team", "Value": "blue"}],
    )


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyrie.control.compilation_targets.platform.machine", lambda: "x86_64")


def test_a_job_is_described_listed_and_asked_to_stop(door: Any, x86: None) -> None:
    client = door.client("sagemaker")
    create(client, "one")
    create(client, "two", output={"S3OutputLocation": "s3://b", "TargetDevice": "ml_c5"})
    found = client.describe_compilation_job(CompilationJobName="one")
    assert (found["CompilationJobStatus"], found["FailureReason"]) == ("STARTING", "")
    assert found["InputConfig"] == INPUT
    assert found["ModelArtifacts"] == {"S3ModelArtifacts": ""}
    assert client.list_tags(ResourceArn=found["CompilationJobArn"])["Tags"] == [{"Key": "team", "Value": "blue"}]
    names = [
        s["CompilationJobName"]
        for s in client.list_compilation_jobs(SortBy="Name", SortOrder="Ascending")["CompilationJobSummaries"]
    ]
    assert names == ["one", "two"]
    page = client.list_compilation_jobs(MaxResults=1)
    assert len(client.list_compilation_jobs(MaxResults=1, NextToken=page["NextToken"])["CompilationJobSummaries"]) == 1
    client.stop_compilation_job(CompilationJobName="one")
    with pytest.raises(ClientError, match="Stop it first"):
        client.delete_compilation_job(CompilationJobName="one")


@pytest.mark.parametrize("operation", ["describe", "stop", "delete"])
def test_a_job_that_is_not_there(door: Any, operation: str) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(door.client("sagemaker"), f"{operation}_compilation_job")(CompilationJobName="nobody")
    assert refused.value.response["Error"]["Code"] == "ResourceNotFound"


@pytest.mark.parametrize(
    ("given", "output", "words"),
    [
        ({"Framework": "PYTORCH"}, None, "Framework PYTORCH is not supported"),
        ({"DataInputConfig": "[1, 2"}, None, "DataInputConfig must be a JSON object"),
        ({"DataInputConfig": '{"data": [0, 4]}'}, None, "DataInputConfig must be a JSON object"),
        ({"S3Uri": "https://example.org/model.tar.gz"}, None, "S3Uri must be an s3:// URL"),
        (
            {},
            {"S3OutputLocation": "s3://b", "TargetDevice": "ml_inf1"},
            "TargetDevice ml_inf1 is not supported.*Neuron",
        ),
        ({}, {"S3OutputLocation": "s3://b", "TargetDevice": "jetson_nano"}, "TargetDevice jetson_nano.*edge device"),
        ({}, {"S3OutputLocation": "s3://b", "TargetDevice": "ml_c6g"}, "TargetDevice ml_c6g.*aarch64"),
        ({}, {"S3OutputLocation": "s3://b", "TargetPlatform": {"Os": "ANDROID", "Arch": "ARM64"}}, "ANDROID"),
        ({}, {"S3OutputLocation": "s3://b"}, "either a TargetDevice or a TargetPlatform"),
        ({}, {**OUTPUT, "TargetDevice": "ml_c5"}, "either a TargetDevice or a TargetPlatform"),
        ({}, {**OUTPUT, "CompilerOptions": '{"a": 1}'}, "CompilerOptions is not supported"),
    ],
)
def test_what_cannot_be_done_is_refused_naming_it(
    door: Any, x86: None, given: dict[str, Any], output: dict[str, Any] | None, words: str
) -> None:
    with pytest.raises(ClientError, match=words) as refused:
        create(door.client("sagemaker"), "no", given, output)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_every_device_and_framework_of_the_api_is_taken_or_refused_with_a_reason() -> None:
    model = Session().get_service_model("sagemaker")
    assert {*DEVICES_REFUSED, *X86_64, *ARM64} == set(model.shape_for("TargetDevice").enum)
    assert {*FRAMEWORKS, *FRAMEWORKS_REFUSED} == set(model.shape_for("Framework").enum)
    assert [device_refusal(device, "x86_64") for device in X86_64] == [None] * len(X86_64)
    assert [device_refusal(device, "aarch64") for device in ARM64] == [None] * len(ARM64)
    assert platform_refusal({"Os": "LINUX", "Arch": "ARM64"}, "aarch64") is None
    assert platform_refusal({"Os": "LINUX", "Arch": "X86_64", "Accelerator": "NVIDIA"}, "x86_64") is not None
