"""The call sequences that the SageMaker SDKs and the AWS CLI make (control's part of them), one test each, in order.

What the SDKs look at in each reply is asserted. S3 and InvokeEndpoint are answered by other processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.fleet import Instance, InstanceState
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute

XGBOOST = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
ROLE = "arn:aws:iam::123456789012:role/Eyrie"
TAGS = [{"Key": "sagemaker:project", "Value": "p"}]


@pytest.fixture(scope="session")
def _clients(running: Any) -> Iterator[Any]:
    clients = {service: running.client(service) for service in ("sts", "iam", "logs")}
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture
def clients(door: Any, _clients: Any) -> Any:
    return _clients


def settle(door: Any, name: str) -> None:
    """What the reconciler comes to: every instance is ready, a deployment has succeeded."""
    found = door.endpoints.get(EndpointKey("123456789012", "us-east-1", name))
    fleet = found.deployment.green if found.deployment else found.fleet
    ready = tuple(
        Instance(f"i-{n}", v.name, fleet.generation, 1, "a", InstanceState.READY, "", 0, 0)
        for v in fleet.variants
        for n in range(v.desired_count)
    )
    door.change(
        name,
        status=EndpointStatus.IN_SERVICE,
        fleet=fleet,
        config_name=fleet.config_name,
        deployment=None,
        instances=ready,
        route=EndpointRoute(found.key, 1),
    )


def variant(model: str, **more: Any) -> dict[str, Any]:
    """A variant as the SDKs spell it."""
    return {
        "ModelName": model,
        "VariantName": "AllTraffic",
        "InitialVariantWeight": 1,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        **more,
    }


def test_v2_the_account_and_role_of_a_session(clients: Any) -> None:
    """default_bucket and get_execution_role: the ARN of the caller is turned into that of a role, which IAM knows."""
    caller = clients["sts"].get_caller_identity()
    assert caller["Account"] == "123456789012"
    role = re.sub(r"^(.+)sts::(\d+):assumed-role/(.+?)/.*$", r"\1iam::\2:role/\3", caller["Arn"])
    found = clients["iam"].get_role(RoleName=role[role.rfind("/") + 1 :])["Role"]["Arn"]
    assert found == ROLE
    assert ":role/" in found


@pytest.mark.parametrize("image", [XGBOOST, SKLEARN])
def test_v2_framework_model_deploy_predict_delete(sm: Any, door: Any, image: str) -> None:
    """SKLearnModel.deploy, XGBoostModel.deploy; delete_endpoint, delete_model."""
    environment = {
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "s3://sagemaker-us-east-1-123456789012/m/sourcedir.tar.gz",
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
        "SAGEMAKER_REGION": "us-east-1",
    }
    container = {"Image": image, "Environment": environment, "ModelDataUrl": "s3://b/model.tar.gz"}
    sm.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container, Tags=TAGS)
    sm.create_endpoint_config(EndpointConfigName="e", ProductionVariants=[variant("m")], Tags=TAGS)
    sm.create_endpoint(EndpointName="e", EndpointConfigName="e", Tags=TAGS)
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Creating"
    settle(door, "e")
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
    config = sm.describe_endpoint(EndpointName="e")["EndpointConfigName"]
    sm.delete_endpoint_config(EndpointConfigName=config)
    sm.delete_endpoint(EndpointName="e")
    sm.delete_model(ModelName="m")


def test_v2_update_endpoint(sm: Any, door: Any) -> None:
    """Predictor.update_endpoint: the new config is the old one with what changed, tags carried over."""
    sm.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": XGBOOST})
    sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant("m")], Tags=TAGS)
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    settle(door, "e")
    described = sm.describe_endpoint(EndpointName="e")
    assert "DataCaptureConfig" not in described
    old = sm.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
    old = sm.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
    tags = sm.list_tags(ResourceArn=old["EndpointConfigArn"], MaxResults=50)
    assert tags["Tags"] == TAGS
    assert "nextToken" not in tags
    changed = {**old["ProductionVariants"][0], "InitialInstanceCount": 2}
    request = {"EndpointConfigName": "c2", "ProductionVariants": [changed], "Tags": tags["Tags"]}
    for member in ("KmsKeyId", "DataCaptureConfig", "AsyncInferenceConfig", "ExplainerConfig"):
        assert member not in old
    sm.create_endpoint_config(**request)
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
    sm.update_endpoint(EndpointName="e", EndpointConfigName="c2")
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Updating"
    settle(door, "e")
    after = sm.describe_endpoint(EndpointName="e")
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "c2")
    assert after["ProductionVariants"][0]["CurrentInstanceCount"] == 2


def test_v2_an_endpoint_that_does_not_exist_is_recognised(sm: Any) -> None:
    """The session's `_deployment_entity_exists`: ValidationException with "Could not find" is no."""
    with pytest.raises(ClientError) as caught:
        sm.describe_endpoint(EndpointName="none")
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert "Could not find" in error["Message"]


def test_v2_creating_what_exists_is_recognised(sm: Any) -> None:
    """`_create_resource`: these words make the SDK go on with what is there."""
    sm.create_model(ModelName="m", PrimaryContainer={"Image": XGBOOST})
    with pytest.raises(ClientError) as caught:
        sm.create_model(ModelName="m", PrimaryContainer={"Image": XGBOOST})
    assert "Cannot create already existing model" in caught.value.response["Error"]["Message"]


def test_v3_build_deploy_delete(sm: Any, door: Any, clients: Any) -> None:
    """ModelBuilder.build, .deploy, Endpoint.delete, Model.delete."""
    allowed = clients["iam"].simulate_principal_policy(
        PolicySourceArn=ROLE, ActionNames=["sagemaker:CreateModel", "sagemaker:CreateEndpoint"]
    )
    assert {r["EvalDecision"] for r in allowed["EvaluationResults"]} == {"allowed"}
    assert clients["iam"].get_role(RoleName="Eyrie")["Role"]["Arn"] == ROLE
    container = {"Image": XGBOOST, "ModelDataUrl": "s3://b/m.tar.gz", "Environment": {"A": "1"}}
    sm.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=ROLE, EnableNetworkIsolation=False)
    assert sm.describe_model(ModelName="m")["PrimaryContainer"]["Image"] == XGBOOST
    assert clients["sts"].get_caller_identity()["Account"] == "123456789012"
    sm.create_endpoint_config(EndpointConfigName="e", ProductionVariants=[variant("m")], Tags=TAGS)
    sm.create_endpoint(EndpointName="e", EndpointConfigName="e", Tags=TAGS)
    logs = {"logGroupName": "/aws/sagemaker/Endpoints/e", "logStreamNamePrefix": "AllTraffic/"}
    assert clients["logs"].filter_log_events(**logs)["events"] == []
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Creating"
    settle(door, "e")
    assert clients["logs"].filter_log_events(**logs)["events"] == []
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
    sm.delete_endpoint(EndpointName="e")
    sm.delete_model(ModelName="m")


def test_v3_a_log_group_that_is_not_there_yet_is_recognised(clients: Any) -> None:
    with pytest.raises(clients["logs"].exceptions.ResourceNotFoundException):
        clients["logs"].filter_log_events(
            logGroupName="/aws/sagemaker/Endpoints/none", logStreamNamePrefix="AllTraffic/"
        )


def test_the_cli_waits_for_an_endpoint_and_for_its_end(sm: Any, door: Any, deployed: Any) -> None:
    deployed("e")
    settle(door, "e")
    sm.get_waiter("endpoint_in_service").wait(EndpointName="e", WaiterConfig={"MaxAttempts": 1})
    sm.delete_endpoint(EndpointName="e")
    door.forget("e")
    sm.get_waiter("endpoint_deleted").wait(EndpointName="e", WaiterConfig={"MaxAttempts": 1})


REFUSED_FLOWS = [
    ("create_training_job", {"TrainingJobName": "t", "AlgorithmSpecification": {"TrainingInputMode": "File"},
        "RoleArn": ROLE, "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60}}),
    ("create_pipeline", {"PipelineName": "p", "ClientRequestToken": "t" * 32, "RoleArn": ROLE}),
    ("search", {"Resource": "ModelPackageGroup"}),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "params"), REFUSED_FLOWS, ids=[o for o, _ in REFUSED_FLOWS])
def test_flows_that_are_not_there_yet_fail_at_their_first_call_with_the_reason(
    sm: Any, refused: Any, operation: str, params: dict[str, Any]
) -> None:
    code, message = refused(getattr(sm, operation), **params)
    assert code == "ValidationException"
    assert "is not supported by this Eyrie" in message
