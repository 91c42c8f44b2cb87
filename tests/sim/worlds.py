"""Small experiments for the tests of the wind tunnel."""

from __future__ import annotations

import json
from typing import Any

from eyrie.domain.names import EndpointKey
from eyrie.sim import policy_file
from eyrie.sim.ours import Ours
from eyrie.sim.profile import InstanceProfile

PROFILE = InstanceProfile(service_ms=50, slots=2, startup_s=8, usd_per_hour=0.1)  # 40 requests/s an instance
RATE = PROFILE.rate
AWS: dict[str, Any] = {
    "TargetValue": 0.7 * RATE * 60,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
}
FAST: dict[str, Any] = {
    "TargetValue": 0.7 * PROFILE.slots,
    "CustomizedMetricSpecification": {
        "Namespace": "eyrie:Fast",
        "MetricName": "ConcurrentRequests",
        "Statistic": "Average",
    },
}
STEPS: dict[str, Any] = {
    "ScalingPolicies": [
        {
            "PolicyName": "out",
            "PolicyType": "StepScaling",
            "StepScalingPolicyConfiguration": {
                "AdjustmentType": "ChangeInCapacity",
                "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 2}],
                "Cooldown": 120,
            },
        },
        {
            "PolicyName": "in",
            "PolicyType": "StepScaling",
            "StepScalingPolicyConfiguration": {
                "AdjustmentType": "ChangeInCapacity",
                "StepAdjustments": [{"MetricIntervalUpperBound": 0, "ScalingAdjustment": -1}],
                "Cooldown": 120,
            },
        },
    ],
    "Alarms": [
        {
            "AlarmName": name,
            "Namespace": "AWS/SageMaker",
            "MetricName": "InvocationsPerInstance",
            "Dimensions": [
                {"Name": "EndpointName", "Value": "simulated"},
                {"Name": "VariantName", "Value": "AllTraffic"},
            ],
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": threshold,
            "ComparisonOperator": comparison,
            "AlarmActions": [name],
        }
        for name, threshold, comparison in (
            ("out", 0.8 * RATE * 60, "GreaterThanThreshold"),
            ("in", 0.4 * RATE * 60, "LessThanThreshold"),
        )
    ],
}


def tracking(configuration: dict[str, Any]) -> dict[str, Any]:
    """A PutScalingPolicy of a tracked target."""
    return {
        "PolicyName": "p",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": configuration,
    }


def ours(given: dict[str, Any]) -> Ours:
    """A policy file's content in the tunnel."""
    document = given if "ScalingPolicies" in given else tracking(given)
    key = EndpointKey("123456789012", "us-east-1", "simulated")
    return Ours(policy_file.read("policy.json", json.dumps(document), key, "AllTraffic"))
