"""Deploy, invoke, update and delete with plain boto3 against a real Eyrie."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from demo_models import pack

from .conftest import ROLE, Deployed, RealEyrie, until


def test_two_variants_answer_by_weight_from_instances_in_different_zones(deployed: Deployed) -> None:
    deployed.create("both", models=("xgboost", "sklearn"))
    runtime = boto3.client("sagemaker-runtime")
    answered: Counter[str] = Counter()
    right = 0
    for row, label in zip(deployed.rows, deployed.truth, strict=True):
        reply = runtime.invoke_endpoint(EndpointName="both", ContentType="text/csv", Accept="text/csv", Body=row)
        answered[reply["InvokedProductionVariant"]] += 1
        right += round(float(reply["Body"].read())) == label
    assert right / len(deployed.rows) > 0.93
    assert abs(answered["xgboost"] - answered["sklearn"]) <= 1 + 2  # exact within one request a worker
    zones = {(i["variant"], i["zone"]) for i in deployed.eyrie.instances("both")}
    assert len(zones) == 4
    deployed.delete("both")


def test_describe_tells_what_runs(deployed: Deployed) -> None:
    deployed.create("told", instances=1)
    found = boto3.client("sagemaker").describe_endpoint(EndpointName="told")
    assert found["EndpointStatus"] == "InService"
    variant = found["ProductionVariants"][0]
    assert (variant["VariantName"], variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (
        "sklearn",
        1,
        1,
    )
    deployed.delete("told")


def test_resizing_a_variant_starts_and_ends_instances(deployed: Deployed) -> None:
    deployed.create("sized", instances=1)
    sagemaker = boto3.client("sagemaker")
    for wanted in (3, 1):
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="sized",
            DesiredWeightsAndCapacities=[{"VariantName": "sklearn", "DesiredInstanceCount": wanted}],
        )
        deployed.wait_in_service("sized")
        until(lambda wanted=wanted: len(deployed.eyrie.serving("sized")) == wanted)
        assert deployed.ask("sized")
    deployed.delete("sized")


def test_an_endpoint_heals_from_its_own_copy_of_the_model(deployed: Deployed) -> None:
    deployed.create("kept", instances=1)
    boto3.client("s3").delete_object(Bucket="models", Key="sklearn.tar.gz")
    before = deployed.eyrie.serving("kept")
    sagemaker = boto3.client("sagemaker")
    sagemaker.delete_endpoint_config(EndpointConfigName="kept")
    weights = [{"VariantName": "sklearn", "DesiredInstanceCount": 2}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="kept", DesiredWeightsAndCapacities=weights)
    until(lambda: len(deployed.eyrie.serving("kept")) == 2)
    assert before < deployed.eyrie.serving("kept")
    deployed.wait_in_service("kept")
    sagemaker.delete_endpoint(EndpointName="kept")
    archive = next(m.archive for m in deployed.models if m.name == "sklearn")
    boto3.client("s3").upload_file(str(archive), "models", "sklearn.tar.gz")


def test_a_row_that_the_model_cannot_read_is_a_model_error(deployed: Deployed) -> None:
    deployed.create("strict", instances=1)
    with pytest.raises(ClientError) as error:
        deployed.ask("strict", "one,two")
    assert error.value.response["Error"]["Code"] == "ModelError"
    assert error.value.response["OriginalStatusCode"] in (400, 415, 500)
    assert deployed.ask("strict")
    deployed.delete("strict")


def test_a_missing_endpoint_is_told_as_the_real_service_does(eyrie: RealEyrie) -> None:
    runtime = boto3.client("sagemaker-runtime")
    with pytest.raises(ClientError) as error:
        runtime.invoke_endpoint(EndpointName="nobody", Body=b"1")
    assert error.value.response["Error"]["Code"] == "ValidationError"
    assert error.value.response["Error"]["Message"] == "Endpoint nobody of account 123456789012 not found."


def test_a_model_that_does_not_load_fails_its_endpoint_with_the_reason(deployed: Deployed, tmp_path: Path) -> None:
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    (tmp_path / "xgboost-model").write_text("this is no model")
    s3.upload_file(str(pack(tmp_path / "xgboost-model")), "models", "wrong.tar.gz")
    container = {"Image": "eyrie/xgboost", "ModelDataUrl": "s3://models/wrong.tar.gz"}
    sagemaker.create_model(ModelName="wrong", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": "wrong", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="wrong", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="wrong", EndpointConfigName="wrong")
    until(lambda: sagemaker.describe_endpoint(EndpointName="wrong")["EndpointStatus"] == "Failed", 200.0)
    reason = sagemaker.describe_endpoint(EndpointName="wrong")["FailureReason"]
    assert "xgboost-model" in reason
    assert "xgboost-model" in deployed.eyrie.run("logs", "wrong").stdout
    deployed.delete("wrong")


def test_keys_that_are_not_ours_are_refused(eyrie: RealEyrie) -> None:
    stranger = boto3.client("sagemaker", aws_access_key_id="AKIASTRANGER", aws_secret_access_key="x")
    with pytest.raises(ClientError) as error:
        stranger.list_endpoints()
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)


def test_the_readmes_example_runs(eyrie: RealEyrie, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "quickstart.py"
    boto3.client("s3").delete_object(Bucket="models", Key="iris/model.tar.gz")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip().endswith("from variant main"), done.stderr
    assert "0" in done.stdout.split(" from ")[0]
    sagemaker = boto3.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName="iris")
