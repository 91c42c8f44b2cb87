"""Shadow variants and inference experiments over the API: what is taken, what is refused, how they are shown."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from eyrie.control.inference_experiments import decode, encode
from eyrie.control.shadow_meter import ShadowMeter
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.inference_experiments import ExperimentStatus
from eyrie.domain.metrics import bucket_of
from eyrie.domain.names import Scope
from eyrie.ports import Commit

ROLE = "arn:aws:iam::123456789012:role/x"
ARN = "arn:aws:sagemaker:us-east-1:123456789012:inference-experiment/"
NOW = datetime.fromtimestamp(1_700_000_000, UTC)


def variant(name: str, model: str = "m", count: int = 1) -> dict[str, Any]:
    """A ProductionVariant."""
    return {"VariantName": name, "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}


def wanted(name: str, model: str = "m", count: int = 1, kind: str = "ml.m5.large") -> dict[str, Any]:
    """A ModelVariantConfig."""
    infrastructure = {"InstanceType": kind, "InstanceCount": count}
    return {
        "VariantName": name,
        "ModelName": model,
        "InfrastructureConfig": {"InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": infrastructure},
    }


def asked(name: str = "x", **more: Any) -> dict[str, Any]:
    mode = {
        "SourceModelVariantName": "AllTraffic",
        "ShadowModelVariants": [{"ShadowModelVariantName": "S", "SamplingPercentage": more.pop("percent", 25)}],
    }
    given = {"Name": name, "Type": "ShadowMode", "RoleArn": ROLE, "EndpointName": "e", "ModelVariants": [wanted("S")]}
    return {**given, "ShadowModeConfig": mode, **more}


@pytest.fixture
def serving(door: Any, sm: Any, deployed: Callable[..., None]) -> Any:
    """An endpoint "e" that is InService, of the model "m"."""
    sm.create_model(ModelName="m", PrimaryContainer={"Image": "eyrie/xgboost", "ModelDataUrl": "s3://b/m.tar.gz"})
    deployed("e")
    door.change("e", status=EndpointStatus.IN_SERVICE)
    return sm


def put(door: Any, name: str, **changes: Any) -> None:
    """Put an experiment into another state, as its reconciler would."""
    document = door.store.get("InferenceExperiment", Scope("123456789012", "us-east-1"), name)
    changed = replace(decode(document.body), **changes)
    door.store.commit(Commit(puts=[replace(document, body=encode(changed))]))


def status(sm: Any, name: str = "x") -> str:
    return str(sm.describe_inference_experiment(Name=name)["Status"])


# ---------------------------------------------------------------------------------------------------- shadow variants
def config(sm: Any, name: str, **more: Any) -> None:
    sm.create_endpoint_config(EndpointConfigName=name, **{"ProductionVariants": [variant("A")], **more})


def test_a_shadow_variant_is_kept_described_and_deployed(sm: Any, serving: Any, door: Any) -> None:
    config(sm, "c", ShadowProductionVariants=[{**variant("S"), "InitialVariantWeight": 0.5}])
    found = sm.describe_endpoint_config(EndpointConfigName="c")
    assert [v["VariantName"] for v in found["ShadowProductionVariants"]] == ["S"]
    sm.create_endpoint(EndpointName="c", EndpointConfigName="c")
    shown = sm.describe_endpoint(EndpointName="c")
    assert [v["VariantName"] for v in shown["ProductionVariants"]] == ["A"]
    (shadow,) = shown["ShadowProductionVariants"]
    assert (shadow["VariantName"], shadow["DesiredWeight"], shadow["DesiredInstanceCount"]) == ("S", 0.5, 1)
    door.change("c", status=EndpointStatus.IN_SERVICE)
    sm.update_endpoint_weights_and_capacities(
        EndpointName="c", DesiredWeightsAndCapacities=[{"VariantName": "S", "DesiredWeight": 0.1}]
    )
    assert sm.describe_endpoint(EndpointName="c")["ShadowProductionVariants"][0]["DesiredWeight"] == pytest.approx(0.1)
    door.change("c", status=EndpointStatus.IN_SERVICE)
    with pytest.raises(ClientError, match="no request could be routed"):
        sm.update_endpoint_weights_and_capacities(
            EndpointName="c", DesiredWeightsAndCapacities=[{"VariantName": "A", "DesiredWeight": 0.0}]
        )


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"ProductionVariants": [variant("A"), variant("B")], "ShadowProductionVariants": [variant("S")]}, "2 and 1"),
        ({"ShadowProductionVariants": [variant("S"), variant("T")]}, "1 and 2"),
        ({"ShadowProductionVariants": [variant("A")]}, '"A" occurs twice'),
        ({"ShadowProductionVariants": [variant("S", "many")]}, "several containers or models"),
        ({"ShadowProductionVariants": [variant("S", "none")]}, "Could not find model"),
    ],
)
def test_shadow_variants_that_cannot_be(serving: Any, refused: Any, more: dict[str, Any], text: str) -> None:
    container = {"Image": "eyrie/xgboost", "ModelDataUrl": "s3://b/models/", "Mode": "MultiModel"}
    serving.create_model(ModelName="many", PrimaryContainer=container)
    code, message = refused(config, sm=serving, name="c", **more)
    assert code == "ValidationException"
    assert text in message


# -------------------------------------------------------------------------------------------------------- experiments
def test_an_experiment_is_described_and_tagged(serving: Any) -> None:
    made = serving.create_inference_experiment(**asked(Description="why not", Tags=[{"Key": "a", "Value": "b"}]))
    assert made["InferenceExperimentArn"] == ARN + "x"
    found = serving.describe_inference_experiment(Name="x")
    found.pop("ResponseMetadata")
    assert found == {
        "Arn": ARN + "x", "Name": "x", "Type": "ShadowMode", "Status": "Creating", "StatusReason": "it was asked for",
        "Description": "why not", "RoleArn": ROLE, "CreationTime": NOW, "LastModifiedTime": NOW,
        "Schedule": {"StartTime": NOW, "EndTime": NOW + timedelta(days=7)},
        "EndpointMetadata": {"EndpointName": "e", "EndpointConfigName": "e", "EndpointStatus": "InService"},
        "ModelVariants": [{**wanted("S"), "Status": "Creating"}],
        "ShadowModeConfig": asked()["ShadowModeConfig"],
    }  # fmt: skip
    assert serving.list_tags(ResourceArn=ARN + "x")["Tags"] == [{"Key": "a", "Value": "b"}]


def test_a_name_is_taken_once_and_an_endpoint_has_one_experiment(serving: Any, refused: Any) -> None:
    serving.create_inference_experiment(**asked())
    assert refused(serving.create_inference_experiment, **asked())[0] == "ResourceInUse"
    code, message = refused(serving.create_inference_experiment, **asked("y"))
    assert (code, message) == ("ResourceInUse", "The endpoint e is in the inference experiment x.")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"EndpointName": "none"}, "Could not find endpoint"),
        ({"ModelVariants": [wanted("S", "none")]}, "Could not find model"),
        ({"ModelVariants": [wanted("S"), wanted("T")]}, '"T" of ModelVariants is neither'),
        ({"ModelVariants": [wanted("AllTraffic")]}, 'needs the variant "S"'),
        ({"ModelVariants": [wanted("S"), wanted("S")]}, 'names the variant "S" twice'),
        ({"ModelVariants": [wanted("S", count=0)]}, "InstanceCount of variant"),
        ({"ModelVariants": [wanted("S", kind="ml.p3.2xlarge")]}, "this host offers none"),
        ({"percent": -1}, "SamplingPercentage must be from 0 to 100"),
        ({"KmsKey": "k"}, "KmsKey is not supported"),
        ({"Schedule": {"EndTime": NOW - timedelta(hours=1)}}, "must be after"),
        ({"Schedule": {"EndTime": NOW + timedelta(days=31)}}, "at most 30 days"),
        (
            {"ShadowModeConfig": {"SourceModelVariantName": "Other", "ShadowModelVariants": [
                {"ShadowModelVariantName": "S", "SamplingPercentage": 1}]}},
            "experiment shadows Other alone",
        ),
    ],
)  # fmt: skip
def test_an_experiment_that_cannot_be(serving: Any, refused: Any, more: dict[str, Any], text: str) -> None:
    code, message = refused(serving.create_inference_experiment, **asked(**more))
    assert code == "ValidationException"
    assert text in message


def test_experiments_are_listed_by_status_name_and_page(serving: Any, door: Any) -> None:
    for name in ("one", "two", "three"):
        serving.create_inference_experiment(**asked(name))
        put(door, name, status=ExperimentStatus.COMPLETED if name == "one" else ExperimentStatus.CANCELLED)
        door.clock.at_ms += 1_000
    listed = serving.list_inference_experiments()["InferenceExperiments"]
    assert [e["Name"] for e in listed] == ["three", "two", "one"]
    assert [
        e["Name"] for e in serving.list_inference_experiments(StatusEquals="Completed")["InferenceExperiments"]
    ] == ["one"]
    page = serving.list_inference_experiments(SortBy="Name", SortOrder="Ascending", MaxResults=2, NameContains="o")
    assert [e["Name"] for e in page["InferenceExperiments"]] == ["one", "two"]
    assert "NextToken" not in page
    first = serving.list_inference_experiments(MaxResults=2, Type="ShadowMode")
    rest = serving.list_inference_experiments(MaxResults=2, Type="ShadowMode", NextToken=first["NextToken"])
    assert [e["Name"] for e in rest["InferenceExperiments"]] == ["one"]


def test_each_operation_has_its_time(serving: Any, door: Any, refused: Any) -> None:
    stop = {"Name": "x", "ModelVariantActions": {"S": "Remove"}}
    serving.create_inference_experiment(**asked())
    assert refused(serving.start_inference_experiment, Name="x")[0] == "ConflictException"
    assert refused(serving.stop_inference_experiment, **stop)[0] == "ConflictException"
    assert refused(serving.delete_inference_experiment, Name="x")[0] == "ConflictException"
    assert refused(serving.update_inference_experiment, Name="x", Description="d")[0] == "ConflictException"
    put(door, "x", status=ExperimentStatus.CREATED)
    serving.update_inference_experiment(Name="x", Description="d", Schedule={"EndTime": NOW + timedelta(days=9)})
    found = serving.describe_inference_experiment(Name="x")
    assert (found["Description"], found["Schedule"]["EndTime"]) == ("d", NOW + timedelta(days=9))
    serving.start_inference_experiment(Name="x")
    assert status(serving) == "Starting"
    put(door, "x", status=ExperimentStatus.RUNNING, started_ms=1)
    later = {"StartTime": NOW + timedelta(hours=1)}
    code, message = refused(serving.update_inference_experiment, Name="x", Schedule=later)
    assert (code, "cannot be changed" in message) == ("ValidationException", True)
    serving.stop_inference_experiment(**stop, DesiredState="Cancelled", Reason="enough")
    assert status(serving) == "Stopping"
    assert refused(serving.delete_inference_experiment, Name="x")[0] == "ConflictException"
    put(door, "x", status=ExperimentStatus.CANCELLED)
    serving.delete_inference_experiment(Name="x")
    assert refused(serving.describe_inference_experiment, Name="x") == (
        "ResourceNotFound",
        f'Could not find inference experiment "{ARN}x".',
    )


@pytest.mark.parametrize(
    ("actions", "more", "text"),
    [
        ({"S": "Promote", "AllTraffic": "Retain"}, {}, "One of both must be the production variant"),
        ({"S": "Remove", "AllTraffic": "Remove"}, {}, "One of both must be the production variant"),
        ({"AllTraffic": "Promote"}, {}, "is the production variant already"),
        ({"T": "Remove"}, {}, 'names "T"'),
        ({"S": "Remove"}, {"DesiredModelVariants": [wanted("S")]}, "does not remain"),
    ],
)
def test_endings_that_leave_no_production_variant(
    serving: Any, door: Any, refused: Any, actions: dict[str, str], more: dict[str, Any], text: str
) -> None:
    serving.create_inference_experiment(**asked())
    put(door, "x", status=ExperimentStatus.RUNNING, started_ms=1)
    code, message = refused(serving.stop_inference_experiment, Name="x", ModelVariantActions=actions, **more)
    assert code == "ValidationException"
    assert text in message


# ------------------------------------------------------------------------------------------------------------- report
def reported(door: Any, path: str) -> tuple[int, Any]:
    """Status and body of `GET /eyrie/shadow/...`."""
    url = f"{door.url}/eyrie/shadow/{path}"
    request = AWSRequest("GET", url)
    key = door.keys[0]
    SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1").add_auth(request)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(request.headers.items()))) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def measured(door: Any, pairs: int) -> None:
    """Pairs as two workers tell them: the shadow is 100 us slower, fails one in ten, and disagrees where x is high."""
    meter = ShadowMeter(door.app._with.metrics, door.clock)
    agreeing, high = pairs * 8 // 10, pairs * 2 // 10
    latency = [pairs, 100.0 * pairs, 100.0, 100.0, {bucket_of(100.0): pairs}]
    agreement = [pairs, float(agreeing), 0.0, 1.0, {0: high, bucket_of(1.0): agreeing}]
    every = {bucket_of(float(x)): pairs // 10 for x in range(1, 11)}
    off = {bucket_of(float(x)): pairs // 10 for x in (9, 10)}
    counts = {"outcomes": [pairs, 0, pairs // 10, 0], "dropped": {"requests": 3}, "skipped": {}, "latency": latency,
              "agreement": agreement, "difference": [],
              "features": {"x": {"every": every, "off": off, "values": {}}}}  # fmt: skip
    meter.take({"at_s": 1, "shadows": {"123456789012.us-east-1.c": {"S": counts}}})


def test_the_report_tells_what_is_decided_and_for_which_requests(serving: Any, door: Any) -> None:
    config(serving, "c", ShadowProductionVariants=[{**variant("S"), "InitialVariantWeight": 0.5}])
    serving.create_endpoint(EndpointName="c", EndpointConfigName="c")
    measured(door, 1_000)
    code, found = reported(door, "c")
    assert (code, found["production"], found["shadow"], found["experiment"]) == (200, "A", "S", None)
    assert found["requests"] == {"sent": 1_100, "dropped": {"requests": 3}, "not_compared": {}}
    assert found["errors"]["verdict"] == "worse"
    assert found["errors"]["low"] < 100 / 1_100 < found["errors"]["high"]
    assert found["latency"]["difference"]["verdict"] == "worse"
    assert found["agreement"]["value"] == pytest.approx(0.8)
    assert found["agreement"]["low"] < 0.8 < found["agreement"]["high"]
    (feature,) = found["features"]
    assert (feature["slices"][0]["agreement"], feature["slices"][0]["count"]) == (0.0, 200.0)
    assert [s["agreement"] for s in feature["slices"]][1:] == [1.0] * 4


def test_there_is_no_report_where_there_was_no_shadow(serving: Any, door: Any) -> None:
    assert reported(door, "e")[0] == 400
    assert "has no shadow variant" in str(reported(door, "e")[1])
    assert "ever ran" in str(reported(door, "e?experiment=x")[1])
