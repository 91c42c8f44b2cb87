"""`/eyrie/deployments` through the signed door, and what Describe and events tell of a deployment that is paused."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.control.endpoint_events import DEPLOYMENT_CHANGE, endpoint_changes
from eyrie.control.endpoints import encode
from eyrie.domain.analysis import AnalysisPolicy, Pause, PausedBy
from eyrie.domain.deployment import DeploymentPhase
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.names import EndpointKey

KEY = EndpointKey("123456789012", "us-east-1", "e")
TAG = "eyrie:CanaryAnalysis"
SIZE = {"Type": "CAPACITY_PERCENT", "Value": 50}
ROUTING = {"Type": "CANARY", "CanarySize": SIZE, "WaitIntervalInSeconds": 30}
CANARY = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": ROUTING}}


def asked(door: Any, name: str, given: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Status and body of a GET, or of a POST where something is given."""
    url = f"{door.url}/eyrie/deployments/{name}"
    body = json.dumps(given).encode() if given is not None else None
    request = AWSRequest("POST" if body else "GET", url, data=body)
    key = door.keys[0]
    SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1").add_auth(request)
    headers = {"Content-Type": "application/json", **dict(request.headers.items())}
    sent = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(sent) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
def second(sm: Any, door: Any, deployed: Any) -> str:
    """An endpoint `e` in service, and another config for it, with the tag."""
    deployed("e", InitialInstanceCount=2)
    deployed("f", InitialInstanceCount=2)
    door.change("e", status=EndpointStatus.IN_SERVICE)
    arn = sm.describe_endpoint_config(EndpointConfigName="f")["EndpointConfigArn"]
    sm.add_tags(ResourceArn=arn, Tags=[{"Key": TAG, "Value": "MinimumSamples=200 PredictionShift=off"}])
    return "f"


def test_a_plan_is_told_and_nothing_is_done(door: Any, second: str) -> None:
    status, plan = asked(door, "e", {"do": "plan", "config": second, "deployment_config": CANARY})
    assert status == 200
    assert [(s["phase"], s["blue"], s["green"]) for s in plan["stages"]][:3] == [
        ("PROVISIONING", 2, 2), ("BAKING", 2, 2), ("BAKING", 2, 2),
    ]  # fmt: skip
    assert (plan["steps"], plan["starts"], plan["peak"]["instances"]) == (2, 2, 4)
    assert plan["takes_ms"] == plan["startup_ms"] + 60_000
    assert plan["analysis"]["samples_min"] == 200
    assert plan["problems"] == []
    assert door.endpoints.get(KEY).deployment is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"do": "dance"}, "do must be plan, promote, abort, pause"),
        ({"do": "plan"}, "plan needs the name of a config"),
        ({"do": "plan", "config": "none"}, "Could not find endpoint configuration"),
        ({"do": "plan", "config": "f", "deployment_config": {"BlueGreenUpdatePolicy": 7}}, "not as UpdateEndpoint has"),
        ({"do": "plan", "config": "f", "deployment_config": {"BlueGreen": {}}}, "A DeploymentConfig has no BlueGreen."),
        (
            {"do": "plan", "config": "f", "deployment_config": {"RollingUpdatePolicy": {"MaximumBatch": 1}}},
            "A DeploymentConfig has no RollingUpdatePolicy.MaximumBatch.",
        ),
        (
            {"do": "plan", "config": "f", "deployment_config": {"RollingUpdatePolicy": {"WaitIntervalInSeconds": 5}}},
            "Value null at 'rollingUpdatePolicy.maximumBatchSize' failed",
        ),
        ({"do": "plan", "config": "f"}, "ALL_AT_ONCE of 2 instances in one step"),
        ({"do": "promote"}, "No deployment of endpoint"),
        ({"do": "promote", "when": 1}, "unknown field"),
    ],
)
def test_what_cannot_be_done_is_refused(door: Any, second: str, given: dict[str, Any], said: str) -> None:
    status, told = asked(door, "e", given)
    assert status == 400
    assert said in (told.get("message") or told.get("Message"))


def test_an_endpoint_that_is_not_there(door: Any) -> None:
    assert asked(door, "nobody")[0] in (400, 404)


def test_the_tag_asks_for_the_analysis_and_a_person_steers(sm: Any, door: Any, second: str) -> None:
    sm.update_endpoint(EndpointName="e", EndpointConfigName=second, DeploymentConfig=CANARY)
    deployment = door.endpoints.get(KEY).deployment
    assert deployment.policy.analysis == AnalysisPolicy(samples_min=200, predictions=None)
    door.change("e", deployment=replace(deployment, phase=DeploymentPhase.BAKING, step=1))
    status, shown = asked(door, "e")
    assert status == 200
    assert (shown["phase"], shown["step"], shown["steps"], shown["green_share"]) == ("BAKING", 1, 2, 0.5)
    assert shown["analysis"]["verdict"] == "INCONCLUSIVE"
    assert asked(door, "e", {"do": "pause", "why": "lunch"})[1]["pause"]["why"] == "by a person: lunch"
    asked(door, "e", {"do": "promote"})
    assert door.endpoints.get(KEY).deployment.promoted == 1
    asked(door, "e", {"do": "abort"})
    assert door.endpoints.get(KEY).deployment.aborted == "A person aborted it."


def test_a_tag_that_cannot_be_followed_is_refused_where_it_is_given(sm: Any, second: str, refused: Any) -> None:
    variant = {"VariantName": "A", "ModelName": "e", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    code, said = refused(
        sm.create_endpoint_config,
        EndpointConfigName="g",
        ProductionVariants=[variant],
        Tags=[{"Key": TAG, "Value": "ErrorIncrease=7"}],
    )
    assert code == "ValidationException"
    assert "ErrorIncrease must be a number from 0 to 1, and is '7'" in said


def test_a_pause_is_told_by_describe_and_announced(sm: Any, door: Any, second: str) -> None:
    sm.update_endpoint(EndpointName="e", EndpointConfigName=second, DeploymentConfig=CANARY)
    before = door.endpoints.get(KEY)
    baking = replace(before.deployment, phase=DeploymentPhase.BAKING, step=1)
    paused = replace(baking, pause=Pause(PausedBy.ANALYSIS, 0, 60_000, "step 1 is inconclusive"))
    after = door.change("e", deployment=paused)
    status = sm.describe_endpoint(EndpointName="e")["PendingDeploymentSummary"]["ProductionVariants"][0][
        "VariantStatus"
    ]
    assert (status[0]["Status"], status[0]["StatusMessage"]) == (
        "Baking", "Paused by analysis: step 1 is inconclusive",
    )  # fmt: skip
    changes = list(endpoint_changes(encode(replace(before, deployment=baking)), encode(after), {}))
    assert [kind for kind, _, _ in changes] == [DEPLOYMENT_CHANGE]
    green = changes[0][1]["PendingDeploymentSummary"]["ProductionVariants"][0]
    assert green["VariantStatus"][0]["StatusMessage"] == "Paused by analysis: step 1 is inconclusive"
