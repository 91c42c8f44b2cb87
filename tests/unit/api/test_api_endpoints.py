"""Endpoints through boto3, down to what is decided and stored: nothing runs here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from eyrie.domain.deployment import DeploymentPhase
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.fleet import Backoff, Instance, InstanceState
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy

ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/"
CONFIG_ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/"
MODEL_ARN = "arn:aws:sagemaker:us-east-1:123456789012:model/"
KEY = EndpointKey("123456789012", "us-east-1", "e")
ALL_AT_ONCE = {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}}


def test_an_endpoint_is_born_creating(sm: Any, deployed: Any) -> None:
    deployed("e", InitialInstanceCount=2, InitialVariantWeight=0.5)
    found = sm.describe_endpoint(EndpointName="e")
    assert (found["EndpointStatus"], found["EndpointArn"], found["EndpointConfigName"]) == ("Creating", ARN + "e", "e")
    variant = found["ProductionVariants"][0]
    assert variant["VariantName"] == "AllTraffic"
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (0, 2)
    assert (variant["CurrentWeight"], variant["DesiredWeight"]) == (0.0, 0.5)
    assert variant["VariantStatus"][0]["Status"] == "Creating"
    image = variant["DeployedImages"][0]
    assert image["SpecifiedImage"] == "eyrie/xgboost"
    assert image["ResolvedImage"].startswith("eyrie/xgboost:")
    assert "FailureReason" not in found


def test_an_endpoint_holds_its_whole_specification(sm: Any, door: Any) -> None:
    container = {"Image": "eyrie/sklearn", "ModelDataUrl": "s3://b/m.tar.gz", "Environment": {"A": "1"}}
    sm.create_model(ModelName="m", PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.c5.xlarge", "InitialInstanceCount": 3,
               "RoutingConfig": {"RoutingStrategy": "RANDOM"},
               "ContainerStartupHealthCheckTimeoutInSeconds": 600}  # fmt: skip
    sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    sm.delete_model(ModelName="m")
    sm.delete_endpoint_config(EndpointConfigName="c")
    spec = door.endpoints.get(KEY).fleet.variants[0].spec
    assert (spec.instance_type, spec.vcpu_milli, spec.memory_mb) == ("ml.c5.xlarge", 4000, 8192)
    assert (spec.initial_count, spec.initial_weight, spec.startup_timeout_s) == (3, 1.0, 600)
    assert spec.strategy is RoutingStrategy.RANDOM
    assert not spec.foreign
    (made,) = spec.model.containers
    assert (made.hostname, made.image, made.model_data_url) == ("primary", "eyrie/sklearn", "s3://b/m.tar.gz")
    assert made.environment == {"A": "1"}
    assert sm.describe_endpoint(EndpointName="e")["EndpointConfigName"] == "c"


def test_an_endpoint_holds_every_container_of_its_model(sm: Any, door: Any) -> None:
    pipeline = [
        {"Image": "eyrie/sklearn", "ModelDataUrl": "s3://b/first.tar.gz", "Environment": {"A": "1"}},
        {"Image": "eyrie/xgboost", "ModelDataUrl": "s3://b/second.tar.gz"},
    ]
    sm.create_model(ModelName="m", Containers=pipeline)
    many = {"Image": "eyrie/xgboost", "Mode": "MultiModel", "ModelDataUrl": "s3://b/many",
            "MultiModelConfig": {"ModelCacheSetting": "Disabled"}}  # fmt: skip
    sm.create_model(ModelName="many", PrimaryContainer=many)
    direct = [{"Image": "eyrie/sklearn", "ContainerHostname": name} for name in ("one", "two")]
    sm.create_model(ModelName="direct", Containers=direct, InferenceExecutionConfig={"Mode": "Direct"})
    variants = [
        {"VariantName": n, "ModelName": n, "InstanceType": "ml.c5.xlarge", "InitialInstanceCount": 1}
        for n in ("m", "many", "direct")
    ]
    sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=variants)
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    first, second, third = (v.spec.model for v in door.endpoints.get(KEY).fleet.variants)
    assert [(c.hostname, c.image, c.model_data_url, c.environment) for c in first.containers] == [
        ("container-1", "eyrie/sklearn", "s3://b/first.tar.gz", {"A": "1"}),
        ("container-2", "eyrie/xgboost", "s3://b/second.tar.gz", {}),
    ]
    assert (first.execution, third.execution) == ("Serial", "Direct")
    assert [c.hostname for c in third.containers] == ["one", "two"]
    (held,) = second.containers
    assert (held.mode, held.model_cache, held.complete) == ("MultiModel", False, True)
    shown = sm.describe_endpoint(EndpointName="e")["ProductionVariants"][0]["DeployedImages"]
    assert [image["SpecifiedImage"] for image in shown] == ["eyrie/sklearn", "eyrie/xgboost"]


def test_what_is_missing_or_taken_is_said_in_the_words_of_the_service(sm: Any, deployed: Any, refused: Any) -> None:
    for operation, more in (
        (sm.describe_endpoint, {}),
        (sm.delete_endpoint, {}),
        (sm.update_endpoint, {"EndpointConfigName": "c"}),
        (sm.update_endpoint_weights_and_capacities, {"DesiredWeightsAndCapacities": [{"VariantName": "v"}]}),
    ):
        assert refused(operation, EndpointName="none", **more) == (
            "ValidationException",
            f'Could not find endpoint "{ARN}none".',
        )
    missing = refused(sm.create_endpoint, EndpointName="e", EndpointConfigName="none")
    assert missing == ("ValidationException", f'Could not find endpoint configuration "{CONFIG_ARN}none".')
    deployed("E-x")
    for name in ("E-x", "e-X"):  # names differ by more than case
        taken = refused(sm.create_endpoint, EndpointName=name, EndpointConfigName="E-x")
        assert taken == ("ValidationException", f'Cannot create already existing endpoint "{ARN}E-x".')


def test_a_config_whose_model_is_gone_makes_no_endpoint(sm: Any, deployed: Any, refused: Any) -> None:
    deployed("e")
    sm.delete_model(ModelName="e")
    gone = ("ValidationException", f'Could not find model "{MODEL_ARN}e".')
    assert refused(sm.create_endpoint, EndpointName="f", EndpointConfigName="e") == gone


def test_no_command_while_one_is_in_progress(sm: Any, deployed: Any, refused: Any) -> None:
    deployed("e")
    busy = ("ValidationException", f'Cannot update in-progress endpoint "{ARN}e".')
    capacities = [{"VariantName": "AllTraffic", "DesiredWeight": 2.0}]
    assert refused(sm.update_endpoint, EndpointName="e", EndpointConfigName="e") == busy
    assert refused(sm.delete_endpoint, EndpointName="e") == busy
    assert (
        refused(sm.update_endpoint_weights_and_capacities, EndpointName="e", DesiredWeightsAndCapacities=capacities)
        == busy
    )


def test_a_failed_endpoint_may_only_be_deleted(sm: Any, door: Any, deployed: Any, refused: Any) -> None:
    deployed("e")
    door.change("e", status=EndpointStatus.FAILED, failure_reason="x" * 2000)
    found = sm.describe_endpoint(EndpointName="e")
    assert (found["EndpointStatus"], found["FailureReason"]) == ("Failed", "x" * 1024)
    code, message = refused(sm.update_endpoint, EndpointName="e", EndpointConfigName="e")
    assert code == "ValidationException"
    assert message == f'Cannot update endpoint "{ARN}e" with status "Failed": it can only be deleted.'
    sm.delete_endpoint(EndpointName="e")
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Deleting"


def in_service(door: Any, name: str = "e") -> Any:
    found = door.endpoints.get(EndpointKey("123456789012", "us-east-1", name))
    ready = tuple(
        Instance(f"i-{n}", v.name, found.fleet.generation, 1, "a", InstanceState.READY, "", 0, 0)
        for v in found.fleet.variants
        for n in range(v.desired_count)
    )
    return door.change(name, status=EndpointStatus.IN_SERVICE, instances=ready, route=EndpointRoute(found.key, 1))


def test_an_endpoint_in_service_shows_what_serves(sm: Any, door: Any, deployed: Any) -> None:
    deployed("e", InitialInstanceCount=2)
    in_service(door)
    found = sm.describe_endpoint(EndpointName="e")
    variant = found["ProductionVariants"][0]
    assert (found["EndpointStatus"], variant["CurrentInstanceCount"], variant["CurrentWeight"]) == ("InService", 2, 1.0)
    assert "VariantStatus" not in variant
    assert "PendingDeploymentSummary" not in found


def test_a_crash_loop_is_told_as_the_failure_reason(sm: Any, door: Any, deployed: Any) -> None:
    deployed("e")
    in_service(door)
    door.change("e", backoffs=(Backoff("AllTraffic", 1, 3, 0, 0, "it crashed three times"),))
    assert sm.describe_endpoint(EndpointName="e")["FailureReason"] == "it crashed three times"


def test_an_update_is_a_pending_deployment(sm: Any, door: Any, deployed: Any) -> None:
    deployed("e")
    deployed("f", InitialInstanceCount=3)
    in_service(door)
    door.clock.at_ms += 5000
    policy = {"BlueGreenUpdatePolicy": {**ALL_AT_ONCE, "TerminationWaitInSeconds": 7}}
    updated = sm.update_endpoint(EndpointName="e", EndpointConfigName="f", DeploymentConfig=policy)
    assert updated["EndpointArn"] == ARN + "e"
    found = sm.describe_endpoint(EndpointName="e")
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("Updating", "e")
    pending = found["PendingDeploymentSummary"]
    green = pending["ProductionVariants"][0]
    assert (pending["EndpointConfigName"], pending["StartTime"].timestamp()) == ("f", 1_700_000_005)
    assert (green["DesiredInstanceCount"], green["CurrentWeight"], green["InstanceType"]) == (3, 0.0, "ml.m5.large")
    assert green["VariantStatus"][0]["Status"] == "Creating"
    assert found["LastDeploymentConfig"] == policy
    deployment = door.endpoints.get(KEY).deployment
    assert (deployment.policy.termination_wait_ms, deployment.phase) == (7000, DeploymentPhase.PENDING)


@pytest.mark.parametrize(
    ("phase", "status"), [("SHIFTING", "ActivatingTraffic"), ("BAKING", "Baking"), ("ROLLING_BACK", "Deleting")]
)
def test_the_phases_of_green_are_told(sm: Any, door: Any, deployed: Any, phase: str, status: str) -> None:
    deployed("e")
    in_service(door)
    sm.update_endpoint(EndpointName="e", EndpointConfigName="e")
    now = door.endpoints.get(KEY)
    step = int(phase in ("SHIFTING", "BAKING"))
    door.change("e", deployment=replace(now.deployment, phase=DeploymentPhase(phase), step=step))
    found = sm.describe_endpoint(EndpointName="e")
    green = found["PendingDeploymentSummary"]["ProductionVariants"][0]
    assert green["VariantStatus"][0]["Status"] == status
    on_green = phase in ("SHIFTING", "BAKING")
    assert green["CurrentWeight"] == (1.0 if on_green else 0.0)
    assert found["ProductionVariants"][0]["CurrentWeight"] == (0.0 if on_green else 1.0)


def test_a_retained_deployment_config_is_used_again(sm: Any, door: Any, deployed: Any, refused: Any) -> None:
    deployed("e")
    policy = {"BlueGreenUpdatePolicy": {**ALL_AT_ONCE, "TerminationWaitInSeconds": 9}}
    in_service(door)
    door.change("e", last_deployment_config=policy)
    both = refused(
        sm.update_endpoint,
        EndpointName="e",
        EndpointConfigName="e",
        DeploymentConfig=policy,
        RetainDeploymentConfig=True,
    )
    assert both[1] == "You can either give a DeploymentConfig or set RetainDeploymentConfig, not both."
    sm.update_endpoint(EndpointName="e", EndpointConfigName="e", RetainDeploymentConfig=True)
    assert door.endpoints.get(KEY).deployment.policy.termination_wait_ms == 9000


def test_variant_properties_are_retained_as_asked(sm: Any, door: Any, deployed: Any) -> None:
    deployed("e")
    in_service(door)
    change = {"VariantName": "AllTraffic", "DesiredWeight": 4.0, "DesiredInstanceCount": 5}
    sm.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=[change])
    in_service(door)
    door.change("e", resize=None)
    sm.update_endpoint(
        EndpointName="e",
        EndpointConfigName="e",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    green = sm.describe_endpoint(EndpointName="e")["PendingDeploymentSummary"]["ProductionVariants"][0]
    assert (green["DesiredInstanceCount"], green["DesiredWeight"]) == (5, 1.0)


def _size(kind: str, value: int) -> dict[str, Any]:
    return {"Type": kind, "Value": value}


def _blue_green(how: str, **more: Any) -> dict[str, Any]:
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": how, "WaitIntervalInSeconds": 0, **more}}}


ROLLING = {"RollingUpdatePolicy": {"MaximumBatchSize": _size("INSTANCE_COUNT", 1), "WaitIntervalInSeconds": 0}}
TWICE = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}, {"AlarmName": "a"}]}}
POLICIES = [
    (_blue_green("CANARY"), "TrafficRoutingConfiguration of Type CANARY needs CanarySize."),
    (_blue_green("LINEAR"), "TrafficRoutingConfiguration of Type LINEAR needs LinearStepSize."),
    (_blue_green("LINEAR", LinearStepSize=_size("CAPACITY_PERCENT", 50), CanarySize=_size("CAPACITY_PERCENT", 5)),
     "TrafficRoutingConfiguration of Type LINEAR has no CanarySize."),
    (_blue_green("ALL_AT_ONCE", CanarySize=_size("INSTANCE_COUNT", 1)), "of Type ALL_AT_ONCE has no CanarySize."),
    ({"AutoRollbackConfiguration": {"Alarms": [{}]}}, "needs an AlarmName"),
    (TWICE, "names an alarm twice: a, a."),
    ({"BlueGreenUpdatePolicy": ALL_AT_ONCE, **ROLLING}, "either a BlueGreenUpdatePolicy or a RollingUpdatePolicy"),
]  # fmt: skip
TOO_MUCH = [
    (_blue_green("CANARY", CanarySize=_size("CAPACITY_PERCENT", 60)), "CanarySize of 60 (CAPACITY_PERCENT) is 60 %"),
    (_blue_green("LINEAR", LinearStepSize=_size("CAPACITY_PERCENT", 5)), "it must be from 10 to 50 %"),
    (_blue_green("CANARY", CanarySize=_size("INSTANCE_COUNT", 4)), "is 80 % of the 5 instances"),
    ({"RollingUpdatePolicy": {"MaximumBatchSize": _size("CAPACITY_PERCENT", 4), "WaitIntervalInSeconds": 0}},
     "MaximumBatchSize of 4 (CAPACITY_PERCENT) is 4 %"),
    ({"BlueGreenUpdatePolicy": {**_blue_green("ALL_AT_ONCE", WaitIntervalInSeconds=500)["BlueGreenUpdatePolicy"],
      "TerminationWaitInSeconds": 200, "MaximumExecutionTimeoutInSeconds": 600}},
     "MaximumExecutionTimeoutInSeconds is 600; it must exceed the sum of all waits, which is 700."),
    ({"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "nobody"}]}}, "alarms that do not exist: nobody."),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "text"), TOO_MUCH, ids=[t[:25] for _, t in TOO_MUCH])
def test_a_deployment_config_that_the_fleet_cannot_follow_is_refused(
    sm: Any, door: Any, deployed: Any, refused: Any, policy: dict[str, Any], text: str
) -> None:
    deployed("e", InitialInstanceCount=5)
    in_service(door)
    code, message = refused(sm.update_endpoint, EndpointName="e", EndpointConfigName="e", DeploymentConfig=policy)
    assert code == "ValidationException"
    assert text in message
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"


@pytest.mark.parametrize(("policy", "text"), POLICIES, ids=[t[:25] for _, t in POLICIES])
def test_a_deployment_config_that_cannot_be_is_refused(
    sm: Any, door: Any, deployed: Any, refused: Any, policy: dict[str, Any], text: str
) -> None:
    deployed("e")
    in_service(door)
    for operation, name in ((sm.update_endpoint, "e"), (sm.create_endpoint, "new")):
        code, message = refused(operation, EndpointName=name, EndpointConfigName="e", DeploymentConfig=policy)
        assert code == "ValidationException"
        assert text in message
    assert sm.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"


def test_weights_and_capacities(sm: Any, door: Any, deployed: Any, refused: Any) -> None:
    deployed("e")
    in_service(door)
    update = sm.update_endpoint_weights_and_capacities

    def texts(*changes: dict[str, Any]) -> str:
        code, message = refused(update, EndpointName="e", DesiredWeightsAndCapacities=list(changes))
        assert code == "ValidationException"
        return str(message)

    assert texts({"VariantName": "w", "DesiredWeight": 1.0}) == (
        f'The variant name(s) "w" is/are not present within endpoint "{ARN}e".'
    )
    same = {"VariantName": "AllTraffic", "DesiredWeight": 1.0}
    assert texts(same, same) == 'Variant name(s) "AllTraffic" specified more than once.'
    assert "add up to 0" in texts({"VariantName": "AllTraffic", "DesiredWeight": 0.0})
    assert "at least 1" in texts({"VariantName": "AllTraffic", "DesiredInstanceCount": 0})
    serverless = {"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 1}}
    assert texts(serverless) == "ServerlessUpdateConfig is given for variant AllTraffic, which is not serverless."
    update(EndpointName="e", DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 4}])
    found = sm.describe_endpoint(EndpointName="e")
    assert found["EndpointStatus"] == "Updating"
    assert found["ProductionVariants"][0]["DesiredInstanceCount"] == 4
    assert found["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "Updating"


def test_instances_are_bounded_over_all_endpoints(sm: Any, door: Any, deployed: Any, refused: Any) -> None:
    deployed("e", InitialInstanceCount=499)
    code, message = refused(deployed, name="f", InitialInstanceCount=2)
    assert code == "ResourceLimitExceeded"
    assert message == (
        "The account-level service limit 'Number of instances across active endpoints' is 500 Instances, with current "
        "utilization of 499 Instances and a request delta of 2 Instances. Please use AWS Service Quotas to request an "
        "increase for this quota. If AWS Service Quotas is not available, contact AWS support to request an increase "
        "for this quota."
    )
    deployed("g", InitialInstanceCount=1)  # the last that there may be
    in_service(door)
    grow = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 501}]
    too_many = refused(sm.update_endpoint_weights_and_capacities, EndpointName="e", DesiredWeightsAndCapacities=grow)
    assert too_many[0] == "ResourceLimitExceeded"


def test_endpoints_are_listed_with_every_filter(sm: Any, door: Any, deployed: Any) -> None:
    for name in ("e1", "e2", "x1"):
        deployed(name)
        door.clock.at_ms += 1000
    in_service(door, "e2")
    in_service(door, "x1")

    def listed(**params: Any) -> list[str]:
        return [e["EndpointName"] for e in sm.list_endpoints(**params)["Endpoints"]]

    assert listed() == ["x1", "e2", "e1"]
    assert listed(StatusEquals="InService") == ["x1", "e2"]
    assert listed(StatusEquals="InService", NameContains="e") == ["e2"]
    assert listed(SortBy="Status", SortOrder="Ascending") == ["e1", "e2", "x1"]
    assert listed(LastModifiedTimeAfter=1_700_000_001) == ["x1", "e2"]
    assert listed(LastModifiedTimeBefore=1_700_000_001) == ["e1"]
    assert listed(CreationTimeAfter=1_700_000_002, CreationTimeBefore=1_700_000_003) == ["x1"]
    first = sm.list_endpoints()["Endpoints"][0]
    assert set(first) == {"EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus"}


def test_the_waiters_of_boto3_see_the_states(sm: Any, door: Any, deployed: Any, refused: Any) -> None:
    from botocore.exceptions import WaiterError

    deployed("e")
    in_service(door)
    sm.get_waiter("endpoint_in_service").wait(EndpointName="e", WaiterConfig={"MaxAttempts": 1})
    sm.delete_endpoint(EndpointName="e")
    door.forget("e")
    sm.get_waiter("endpoint_deleted").wait(EndpointName="e", WaiterConfig={"MaxAttempts": 1})
    deployed("g")
    door.change("g", status=EndpointStatus.FAILED, failure_reason="no")
    with pytest.raises(WaiterError, match="terminal failure"):
        sm.get_waiter("endpoint_in_service").wait(EndpointName="g", WaiterConfig={"MaxAttempts": 1})


def test_tags_of_an_endpoint_go_with_it_and_come_with_the_next(sm: Any, door: Any, deployed: Any) -> None:
    deployed("e")
    sm.create_endpoint(EndpointName="t", EndpointConfigName="e", Tags=[{"Key": "a", "Value": "1"}])
    assert sm.list_tags(ResourceArn=ARN + "t")["Tags"] == [{"Key": "a", "Value": "1"}]
    in_service(door, "t")
    sm.delete_endpoint(EndpointName="t")
    assert sm.list_tags(ResourceArn=ARN + "t")["Tags"] == []
    door.forget("t")
    sm.create_endpoint(EndpointName="t", EndpointConfigName="e", Tags=[{"Key": "b", "Value": "2"}])
    assert sm.list_tags(ResourceArn=ARN + "t")["Tags"] == [{"Key": "b", "Value": "2"}]
