"""Application Auto Scaling by boto3, as users write it: targets, policies and alarms, schedules, tags, refusals."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from eyrie.control import scaling_table
from eyrie.domain.scaling import Activity, ActivityStatus, TargetKey

ACCOUNT, REGION = "123456789012", "us-east-1"
Refusal = Callable[..., tuple[str, str]]


RESOURCE = "endpoint/birds/variant/AllTraffic"
PLACE = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": RESOURCE,
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
PREDEFINED = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
TRACKING = {"TargetValue": 70.0, "PredefinedMetricSpecification": PREDEFINED}
STEPS = {
    "AdjustmentType": "ChangeInCapacity",
    "StepAdjustments": [
        {"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 10.0, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 10.0, "ScalingAdjustment": 2},
    ],
}
TRACKED = {"PolicyName": "t", "PolicyType": "TargetTrackingScaling"}
FAST = {"Namespace": "eyrie:Fast", "MetricName": "RequestRate", "Statistic": "Average"}


@pytest.fixture
def scaling(door: Any, deployed: Callable[..., None]) -> Any:
    """A client, and an endpoint with a scalable target."""
    deployed("birds")
    client = door.client("application-autoscaling")
    client.register_scalable_target(**PLACE, MinCapacity=1, MaxCapacity=4)
    yield client
    client.close()


def track(client: Any, name: str = "track", **configuration: Any) -> Any:
    return client.put_scaling_policy(
        PolicyName=name,
        **PLACE,
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={**TRACKING, **configuration},
    )


def step(client: Any, **configuration: Any) -> Any:
    given = {**STEPS, **configuration}
    return client.put_scaling_policy(
        PolicyName="step", **PLACE, PolicyType="StepScaling", StepScalingPolicyConfiguration=given
    )


def test_a_target_is_registered_changed_and_deregistered(scaling: Any, refused: Refusal) -> None:
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    assert {name: target[name] for name in PLACE} == PLACE
    assert "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint" in target["RoleARN"]
    assert target["SuspendedState"] == {
        "DynamicScalingInSuspended": False,
        "DynamicScalingOutSuspended": False,
        "ScheduledScalingSuspended": False,
    }
    suspended = {"DynamicScalingInSuspended": True}
    again = scaling.register_scalable_target(**PLACE, MaxCapacity=9, SuspendedState=suspended)
    assert again["ScalableTargetARN"] == target["ScalableTargetARN"]
    (changed,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[RESOURCE])[
        "ScalableTargets"
    ]
    assert (changed["MinCapacity"], changed["MaxCapacity"]) == (1, 9)
    assert changed["SuspendedState"]["DynamicScalingInSuspended"] is True
    assert scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"] == []
    scaling.deregister_scalable_target(**PLACE)
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    code, text = refused(scaling.deregister_scalable_target, **PLACE)
    assert (code, RESOURCE in text) == ("ObjectNotFoundException", True)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"MinCapacity": 5, "MaxCapacity": 2}, ["MaxCapacity is 2", "MinCapacity 5"]),
        ({"MinCapacity": -1}, ["MinCapacity", "-1"]),
        ({"MaxCapacity": 10_001}, ["MaxCapacity", "10001"]),
        ({"MinCapacity": 8}, ["MaxCapacity is 4", "MinCapacity 8"]),
        ({"ServiceNamespace": "ecs"}, ["ServiceNamespace ecs"]),
        ({"ResourceId": "endpoint/none/variant/AllTraffic", "MinCapacity": 1, "MaxCapacity": 2}, ["endpoint/none"]),
        ({"ResourceId": "endpoint/birds/variant/B", "MinCapacity": 1, "MaxCapacity": 2}, ["variant/B"]),
        ({"ResourceId": "service/birds"}, ["service/birds"]),
        ({"ScalableDimension": "sagemaker:inference-component:DesiredCopyCount"}, ["DesiredCopyCount"]),
        ({"ScalableDimension": "sagemaker:variant:Wrong"}, ["scalableDimension", "enum value set"]),
    ],
)
def test_a_wrong_target_is_told_by_field_and_value(
    scaling: Any, refused: Refusal, given: dict[str, Any], names: list[str]
) -> None:
    code, text = refused(scaling.register_scalable_target, **{**PLACE, **given})
    assert code == "ValidationException"
    assert all(name in text for name in names), text


def test_a_first_registration_needs_both_bounds(door: Any, deployed: Callable[..., None], refused: Refusal) -> None:
    deployed("birds")
    client = door.client("application-autoscaling")
    assert "MaxCapacity" in refused(client.register_scalable_target, **PLACE, MinCapacity=1)[1]
    client.close()


def test_target_tracking_makes_its_pair_of_alarms(door: Any, scaling: Any) -> None:
    reply = track(scaling, ScaleInCooldown=60)
    arn = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:scalingPolicy:"
    assert reply["PolicyARN"].startswith(arn)
    assert reply["PolicyARN"].endswith(f":resource/sagemaker/{RESOURCE}:policyName/track")
    high, low = (alarm["AlarmName"] for alarm in reply["Alarms"])
    assert high.startswith(f"TargetTracking-{RESOURCE}-AlarmHigh-")
    assert low.startswith(f"TargetTracking-{RESOURCE}-AlarmLow-")
    cloudwatch = door.client("cloudwatch")
    alarms = {a["AlarmName"]: a for a in cloudwatch.describe_alarms(AlarmNames=[high, low])["MetricAlarms"]}
    assert (alarms[high]["Threshold"], alarms[high]["EvaluationPeriods"], alarms[high]["Period"]) == (70.0, 3, 60)
    assert alarms[high]["ComparisonOperator"] == "GreaterThanThreshold"
    assert (alarms[low]["Threshold"], alarms[low]["EvaluationPeriods"]) == (63.0, 15)
    assert alarms[low]["ComparisonOperator"] == "LessThanThreshold"
    assert alarms[high]["AlarmActions"] == alarms[low]["AlarmActions"] == [reply["PolicyARN"]]
    assert alarms[high]["Dimensions"] == [
        {"Name": "EndpointName", "Value": "birds"},
        {"Name": "VariantName", "Value": "AllTraffic"},
    ]
    assert (alarms[high]["MetricName"], alarms[high]["Statistic"]) == ("InvocationsPerInstance", "Sum")
    again = track(scaling, TargetValue=100.0, DisableScaleIn=True)
    assert again["PolicyARN"] == reply["PolicyARN"]
    assert again["Alarms"] == reply["Alarms"]
    found = {a["AlarmName"]: a for a in cloudwatch.describe_alarms(AlarmNames=[high, low])["MetricAlarms"]}
    assert (found[low]["Threshold"], found[low]["AlarmActions"]) == (90.0, [])
    (shown,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=RESOURCE)["ScalingPolicies"]
    assert shown["Alarms"] == reply["Alarms"]
    assert shown["TargetTrackingScalingPolicyConfiguration"] == {
        **TRACKING,
        "TargetValue": 100.0,
        "DisableScaleIn": True,
    }
    scaling.delete_scaling_policy(PolicyName="track", **PLACE)
    assert cloudwatch.describe_alarms(AlarmNames=[high, low])["MetricAlarms"] == []
    cloudwatch.close()


def test_high_resolution_and_customized_metrics(door: Any, scaling: Any) -> None:
    cloudwatch = door.client("cloudwatch")
    kind = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    reply = track(scaling, "fine", PredefinedMetricSpecification={"PredefinedMetricType": kind})
    names = [alarm["AlarmName"] for alarm in reply["Alarms"]]
    periods = {
        a["EvaluationPeriods"]: a["Period"] for a in cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
    }
    assert periods == {3: 10, 90: 10}
    metric = {"Namespace": "/aws/sagemaker/Endpoints", "MetricName": "CPUUtilization"}
    variant = [{"Name": "EndpointName", "Value": "birds"}, {"Name": "VariantName", "Value": "AllTraffic"}]
    cpu = {**metric, "Dimensions": variant, "Statistic": "Average", "Unit": "Percent"}
    put = {"TargetValue": 60.0, "CustomizedMetricSpecification": cpu}
    math = [
        {"Id": "m1", "MetricStat": {"Metric": {**metric, "Dimensions": variant}, "Stat": "Sum"}, "ReturnData": False},
        {"Id": "share", "Expression": "m1 / 2", "Label": "half", "ReturnData": True},
    ]
    for name, configuration in (("cpu", put), ("math", {**put, "CustomizedMetricSpecification": {"Metrics": math}})):
        reply = scaling.put_scaling_policy(
            PolicyName=name,
            **PLACE,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=configuration,
        )
        found = cloudwatch.describe_alarms(AlarmNames=[alarm["AlarmName"] for alarm in reply["Alarms"]])
        assert len(found["MetricAlarms"]) == 2
    cloudwatch.close()


def test_fast_policies_are_sent_by_unchanged_clients(scaling: Any) -> None:
    windows = [{"Name": "StableWindowSeconds", "Value": "30"}, {"Name": "PanicWindowSeconds", "Value": "1"}]
    configuration = {"TargetValue": 50.0, "CustomizedMetricSpecification": {**FAST, "Dimensions": windows}}
    reply = scaling.put_scaling_policy(
        PolicyName="fast",
        **PLACE,
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=configuration,
    )
    assert reply["Alarms"] == []
    (shown,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker", PolicyNames=["fast"])["ScalingPolicies"]
    assert shown["TargetTrackingScalingPolicyConfiguration"] == configuration


CUSTOM = {"Namespace": "N", "MetricName": "M", "Statistic": "Average"}
M1 = {"Id": "m1", "MetricStat": {"Metric": {"Namespace": "N", "MetricName": "M"}, "Stat": "Sum"}}


@pytest.mark.parametrize(
    ("configuration", "names"),
    [
        ({"TargetValue": 0.0}, ["TargetValue", "0"]),
        ({"TargetValue": -3.0}, ["TargetValue", "-3"]),
        ({"PredefinedMetricSpecification": None}, ["PredefinedMetricSpecification"]),
        ({"CustomizedMetricSpecification": CUSTOM}, ["Exactly one"]),
        ({"PredefinedMetricSpecification": {"PredefinedMetricType": "CPU"}}, ["predefinedMetricType", "'CPU'"]),
        (
            {"PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}},
            ["ECSService"],
        ),
        ({"PredefinedMetricSpecification": {**PREDEFINED, "ResourceLabel": "x"}}, ["ResourceLabel", "'x'"]),
        ({"ScaleInCooldown": -1}, ["ScaleInCooldown", "-1"]),
        ({"CustomizedMetricSpecification": {"Namespace": "N", "Statistic": "Sum"}}, ["MetricName"]),
        ({"CustomizedMetricSpecification": {**CUSTOM, "Statistic": "Mode"}}, ["statistic", "'Mode'"]),
        ({"CustomizedMetricSpecification": {"Metrics": []}}, ["Metrics"]),
        ({"CustomizedMetricSpecification": {"Metrics": [M1, M1]}}, ["m1"]),
        ({"CustomizedMetricSpecification": {"Metrics": [{"Id": "e", "Expression": "m1 +* 2"}]}}, ["Expression of e"]),
        ({"CustomizedMetricSpecification": {"Metrics": [{"Id": "E", "Expression": "1"}]}}, ["'E'"]),
        ({"CustomizedMetricSpecification": {"Metrics": [{**M1, "ReturnData": False}]}}, ["ReturnData"]),
        ({"CustomizedMetricSpecification": {**FAST, "MetricName": "CPU"}}, ["MetricName 'CPU'", "RequestRate"]),
        (
            {"CustomizedMetricSpecification": {**FAST, "Dimensions": [{"Name": "Window", "Value": "3"}]}},
            ["'Window'", "StableWindowSeconds"],
        ),
        (
            {"CustomizedMetricSpecification": {**FAST, "Dimensions": [{"Name": "PanicWindowSeconds", "Value": "99"}]}},
            ["PanicWindowSeconds", "99"],
        ),
    ],
)
def test_a_wrong_target_tracking_policy_is_told(
    scaling: Any, refused: Refusal, configuration: dict[str, Any], names: list[str]
) -> None:
    given = {**TRACKING, **configuration}
    if (
        "CustomizedMetricSpecification" in configuration
        and configuration["CustomizedMetricSpecification"] is not CUSTOM
    ):
        del given["PredefinedMetricSpecification"]
    given = {name: value for name, value in given.items() if value is not None}
    code, text = refused(
        scaling.put_scaling_policy,
        PolicyName="p",
        **PLACE,
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=given,
    )
    assert code == "ValidationException"
    assert all(name in text for name in names), text


def at(lower: float | None, upper: float | None, adjustment: int = 1) -> dict[str, Any]:
    bounds = {"MetricIntervalLowerBound": lower, "MetricIntervalUpperBound": upper}
    return {**{k: v for k, v in bounds.items() if v is not None}, "ScalingAdjustment": adjustment}


@pytest.mark.parametrize(
    ("configuration", "names"),
    [
        ({"StepAdjustments": []}, ["StepAdjustments"]),
        ({"StepAdjustments": [at(10, 5)]}, ["10", "5", "MetricIntervalUpperBound"]),
        ({"StepAdjustments": [at(0, 10), at(5, None)]}, ["overlap"]),
        ({"StepAdjustments": [at(0, 10), at(15, None)]}, ["gap"]),
        ({"StepAdjustments": [at(0, None), at(5, None)]}, ["MetricIntervalUpperBound"]),
        ({"StepAdjustments": [at(None, 0), at(None, 5)]}, ["MetricIntervalLowerBound"]),
        ({"AdjustmentType": "ExactCapacity", "StepAdjustments": [at(0, None, -2)]}, ["ScalingAdjustment"]),
        ({"MinAdjustmentMagnitude": 2}, ["MinAdjustmentMagnitude"]),
        ({"AdjustmentType": "Halve"}, ["adjustmentType", "'Halve'"]),
        ({"Cooldown": -5}, ["Cooldown", "-5"]),
    ],
)
def test_a_wrong_step_policy_is_told(
    scaling: Any, refused: Refusal, configuration: dict[str, Any], names: list[str]
) -> None:
    code, text = refused(step, client=scaling, **configuration)
    assert code == "ValidationException"
    assert all(name in text for name in names), text


def test_a_step_policy_shows_the_alarms_that_call_it(door: Any, scaling: Any) -> None:
    arn = step(scaling)["PolicyARN"]
    given = {"Namespace": "N", "MetricName": "M", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1}
    given |= {"Threshold": 1.0, "ComparisonOperator": "GreaterThanThreshold"}
    door.client("cloudwatch").put_metric_alarm(AlarmName="busy", AlarmActions=[arn], **given)
    door.client("cloudwatch").put_metric_alarm(AlarmName="other", **given)
    (shown,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert [alarm["AlarmName"] for alarm in shown["Alarms"]] == ["busy"]


def test_policies_are_put_changed_listed_and_deleted(door: Any, scaling: Any, refused: Refusal) -> None:
    first = step(scaling)
    assert first["Alarms"] == []
    assert step(scaling, Cooldown=60)["PolicyARN"] == first["PolicyARN"]
    track(scaling)
    first_page = scaling.describe_scaling_policies(ServiceNamespace="sagemaker", MaxResults=1)
    token = first_page["NextToken"]
    second = scaling.describe_scaling_policies(ServiceNamespace="sagemaker", MaxResults=1, NextToken=token)
    names = {p["PolicyName"] for p in (*first_page["ScalingPolicies"], *second["ScalingPolicies"])}
    assert (names, "NextToken" in second) == ({"step", "track"}, False)
    code, _ = refused(scaling.describe_scheduled_actions, ServiceNamespace="sagemaker", NextToken=token)
    assert code == "InvalidNextTokenException"
    code, text = refused(
        scaling.put_scaling_policy,
        PolicyName="track",
        **PLACE,
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration=STEPS,
    )
    assert (code, "PolicyType" in text) == ("ValidationException", True)
    code, _ = refused(scaling.delete_scaling_policy, PolicyName="none", **PLACE)
    assert code == "ObjectNotFoundException"
    elsewhere = {**PLACE, "ResourceId": "endpoint/other/variant/AllTraffic"}
    code, _ = refused(
        scaling.put_scaling_policy,
        PolicyName="p",
        **elsewhere,
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration=STEPS,
    )
    assert code == "ObjectNotFoundException"
    scaling.deregister_scalable_target(**PLACE)  # takes all of it along
    assert scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    cloudwatch = door.client("cloudwatch")
    assert cloudwatch.describe_alarms()["MetricAlarms"] == []
    cloudwatch.close()


def test_predictive_scaling_is_refused(scaling: Any, refused: Refusal) -> None:
    metric = {"TargetValue": 40.0, "PredefinedMetricPairSpecification": {"PredefinedMetricType": "ECSServiceCPU"}}
    code, text = refused(
        scaling.put_scaling_policy,
        PolicyName="p",
        **PLACE,
        PolicyType="PredictiveScaling",
        PredictiveScalingPolicyConfiguration={"MetricSpecifications": [metric]},
    )
    assert (code, "PredictiveScaling" in text) == ("ValidationException", True)
    span = {"StartTime": 1_700_000_000, "EndTime": 1_700_100_000}
    code, _ = refused(scaling.get_predictive_scaling_forecast, PolicyName="p", **PLACE, **span)
    assert code == "ValidationException"


def test_scheduled_actions(scaling: Any, refused: Refusal) -> None:
    scaling.put_scheduled_action(
        ScheduledActionName="day",
        **PLACE,
        Schedule="cron(0 8 * * ? *)",
        Timezone="Europe/Berlin",
        ScalableTargetAction={"MinCapacity": 2, "MaxCapacity": 6},
    )
    scaling.put_scheduled_action(ScheduledActionName="day", **PLACE, Schedule="cron(0 9 * * ? *)")
    (shown,) = scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"]
    assert (shown["Schedule"], shown["Timezone"]) == ("cron(0 9 * * ? *)", "Europe/Berlin")
    assert shown["ScalableTargetAction"] == {"MinCapacity": 2, "MaxCapacity": 6}
    assert shown["ScheduledActionARN"].endswith(":scheduledActionName/day")
    scaling.delete_scheduled_action(ScheduledActionName="day", **PLACE)
    assert scaling.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"] == []
    code, _ = refused(scaling.delete_scheduled_action, ScheduledActionName="day", **PLACE)
    assert code == "ObjectNotFoundException"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"Schedule": "cron(0 8 * * *)"}, ["cron(0 8 * * *)", "six fields"]),
        ({"Schedule": "rate(5 minute)"}, ["rate(5 minute)", "plural"]),
        ({"Schedule": "tomorrow"}, ["tomorrow"]),
        ({"Schedule": "at(2020-01-01T00:00:00)"}, ["at(2020-01-01T00:00:00)", "past"]),
        ({"Schedule": None}, ["Schedule"]),
        ({"Timezone": "Mars/Olympus"}, ["Mars/Olympus", "Timezone"]),
        ({"ScalableTargetAction": {}}, ["MinCapacity"]),
        ({"ScalableTargetAction": {"MinCapacity": 5, "MaxCapacity": 2}}, ["MaxCapacity is 2", "MinCapacity 5"]),
        ({"StartTime": 1_900_000_000, "EndTime": 1_800_000_000}, ["start time"]),
    ],
)
def test_a_wrong_scheduled_action_is_told(
    scaling: Any, refused: Refusal, given: dict[str, Any], names: list[str]
) -> None:
    whole = {"Schedule": "rate(5 minutes)", "ScalableTargetAction": {"MinCapacity": 1}, **given}
    params = {name: value for name, value in whole.items() if value is not None}
    code, text = refused(scaling.put_scheduled_action, ScheduledActionName="a", **PLACE, **params)
    assert code == "ValidationException"
    assert all(name in text for name in names), text


def test_tags(scaling: Any, refused: Refusal) -> None:
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    arn = target["ScalableTargetARN"]
    scaling.tag_resource(ResourceARN=arn, Tags={"team": "birds", "cost": "1"})
    scaling.untag_resource(ResourceARN=arn, TagKeys=["cost"])
    assert scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"team": "birds"}
    code, _ = refused(scaling.tag_resource, ResourceARN=arn, Tags={str(n): "" for n in range(51)})
    assert code == "TooManyTagsException"
    code, _ = refused(scaling.list_tags_for_resource, ResourceARN=arn[:-4] + "ffff")
    assert code == "ResourceNotFoundException"


def test_activities_are_listed_newest_first(door: Any, scaling: Any) -> None:
    key = TargetKey(ACCOUNT, REGION, "birds", "AllTraffic")
    state = scaling_table.State(key, "t")
    for n in range(3):
        state = state.with_activity(Activity(f"a{n}", f"Setting {n}", "why", n * 1000, ActivityStatus.SUCCESSFUL, n))
    reason = {"Code": "AlreadyAtMaxCapacity", "CurrentCapacity": 4, "MaxCapacity": 4}
    state = state.with_activity(Activity("u", "Attempting", "why", 9000, ActivityStatus.FAILED, not_scaled=(reason,)))
    door.put(scaling_table.put(None, scaling_table.STATE, key, "", state, 1))
    found = scaling.describe_scaling_activities(ServiceNamespace="sagemaker", ResourceId=RESOURCE)["ScalingActivities"]
    assert [activity["ActivityId"] for activity in found] == ["a2", "a1", "a0"]
    found = scaling.describe_scaling_activities(ServiceNamespace="sagemaker", IncludeNotScaledActivities=True)
    assert found["ScalingActivities"][0]["NotScaledReasons"] == [reason]


def test_no_configuration_breaks_it(door: Any, scaling: Any) -> None:
    """Wild values at every place: an answer, or a refusal that says what is wrong."""
    rng = random.Random(5)
    client = door.client("application-autoscaling", parameter_validation=False)
    numbers = (0, -1, 1, 0.5, 10**9, 1e300, 2**31 - 1)
    words = (
        "",
        "x",
        "eyrie:Fast",
        "RequestRate",
        "StableWindowSeconds",
        "60",
        "²",
        "m1",
        "Sum",
        "p99.9",
        "\u0000",
        "é" * 300,
    )

    def wild(given: Any) -> Any:
        if isinstance(given, dict):
            return {k: wild(v) if rng.random() < 0.4 else v for k, v in given.items() if rng.random() < 0.95}
        if isinstance(given, list):
            return [wild(v) for v in given] * rng.choice((0, 1, 1, 2))
        return rng.choice(numbers if isinstance(given, int | float) else words)

    fast = {**FAST, "Dimensions": [{"Name": "StableWindowSeconds", "Value": "30"}]}
    tracked = ({"CustomizedMetricSpecification": c} for c in (fast, CUSTOM, {"Metrics": [M1]}))
    shapes: list[tuple[str, dict[str, Any]]] = [
        (
            "put_scaling_policy",
            {"PolicyName": "p", "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": STEPS},
        ),
        *(
            ("put_scaling_policy", {**TRACKED, "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 9.0, **one}})
            for one in tracked
        ),
        ("register_scalable_target", {"MinCapacity": 1, "MaxCapacity": 2, "Tags": {"a": "b"}}),
        (
            "put_scheduled_action",
            {
                "ScheduledActionName": "s",
                "Schedule": "cron(0 8 * * ? *)",
                "Timezone": "UTC",
                "StartTime": 1_800_000_000,
                "ScalableTargetAction": {"MinCapacity": 1},
            },
        ),
        ("describe_scaling_policies", {"PolicyNames": ["p"], "MaxResults": 3, "NextToken": "WyIiLCAxXQ=="}),
    ]
    answered, broken = 0, list[Any]()
    for n in range(100):
        name, shape = shapes[n % len(shapes)]
        given = {**PLACE, **wild(shape)}
        if name.startswith("describe"):
            given = {"ServiceNamespace": "sagemaker", **wild(shape)}
        try:
            getattr(client, name)(**given)
            answered += 1
        except ClientError as error:
            broken += [(name, given)] if error.response["ResponseMetadata"]["HTTPStatusCode"] != 400 else []
        except (ParamValidationError, ValueError, TypeError, AttributeError, RuntimeError):
            continue  # the client itself cannot write it
    assert broken == []
    assert answered > 8
    client.close()
