"""Inference recommendations by the API: what is taken, what is refused with which words, how jobs are shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from eyrie.control import jobs
from eyrie.domain.jobs import Job, JobState
from eyrie.domain.recommendation import Candidate, Ledger, Measured, Order, Trial, TrialState
from eyrie.ports import Commit

ROLE = "arn:aws:iam::123456789012:role/x"
KIND = "InferenceRecommendationsJob"
PAYLOAD = {"PayloadConfig": {"SamplePayloadUrl": "s3://b/p.tar.gz", "SupportedContentTypes": ["application/json"]}}
LARGE = [{"InstanceType": "ml.m5.large"}]


def ranged(**values: list[str]) -> list[dict[str, Any]]:
    ranges = [{"Name": name, "Value": value} for name, value in values.items()]
    return [{**LARGE[0], "EnvironmentParameterRanges": {"CategoricalParameterRanges": ranges}}]


def create(client: Any, name: str, kind: str = "Advanced", top: dict[str, Any] | None = None, **config: Any) -> str:
    given = {"ModelName": "m", "ContainerConfig": PAYLOAD, "EndpointConfigurations": LARGE, **config}
    given = {member: value for member, value in given.items() if value is not None}
    made = client.create_inference_recommendations_job(
        JobName=name, JobType=kind, RoleArn=ROLE, InputConfig=given, **(top or {})
    )
    return str(made["JobArn"])


@pytest.fixture
def client(door: Any) -> Any:
    made = door.client("sagemaker")
    container = {"Image": "eyrie/sklearn", "ModelDataUrl": "s3://b/m.tar.gz"}
    made.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    return made


def stored(door: Any, name: str) -> Job:
    return next(jobs.job_of(d) for d in door.store.scan(KIND) if d.name == name)


def order(door: Any, name: str) -> Order:
    return msgspec.convert(stored(door, name).spec.arguments["order"], Order)


def completed(door: Any, name: str, ledger: Ledger, state: JobState = JobState.COMPLETED) -> None:
    """The job as it is when its program has ended."""
    document = next(d for d in door.store.scan(KIND) if d.name == name)
    job = replace(jobs.job_of(document), state=state, ended_ms=1_700_000_100_000, progress=msgspec.to_builtins(ledger))
    door.store.commit(Commit(puts=[replace(document, body=jobs.encode(job))]))


def trial(number: int, candidate: Candidate, rpm: int, **fields: Any) -> Trial:
    measured = Measured(rpm, 12.3, 4, 0.0, 150.0, 3.0, 4.2)
    made = Trial(number, candidate, TrialState.COMPLETED, f"sm-epc-x-{number}", "v", began_ms=1_000, ended_ms=2_000)
    return replace(made, **{"measured": measured, **fields})


def test_a_job_is_an_order_and_is_shown(door: Any, client: Any) -> None:
    stairs = {"TrafficType": "STAIRS", "Stairs": {"DurationInSeconds": 10, "NumberOfSteps": 3, "UsersPerStep": 2}}
    conditions = {
        "MaxInvocations": 500,
        "ModelLatencyThresholds": [{"Percentile": "P99", "ValueInMilliseconds": 80}],
        "FlatInvocations": "Continue",
    }
    top = {"JobDescription": "why", "Tags": [{"Key": "a", "Value": "b"}], "StoppingConditions": conditions}
    arn = create(client, "one", top=top, TrafficPattern=stairs, EndpointConfigurations=ranged(A=["1", "2"], B=["x"]))
    made = order(door, "one")
    assert [c.environment for c in made.candidates] == [{"A": "1", "B": "x"}, {"A": "2", "B": "x"}]
    assert made.pattern is not None
    assert (made.pattern.seconds, made.content_type, made.budget_s) == (30, "application/json", 7_200)
    stopping = made.stopping
    assert (stopping.max_invocations, stopping.percentile, stopping.latency_ms, stopping.flat) == (500, 99, 80, False)
    assert made.compilable
    assert made.batching
    told = client.describe_inference_recommendations_job(JobName="one")
    assert (told["Status"], told["JobType"], told["JobArn"], told["JobDescription"]) == (
        "PENDING",
        "Advanced",
        arn,
        "why",
    )
    assert told["InputConfig"]["TrafficPattern"] == stairs
    assert told["StoppingConditions"] == conditions
    assert "InferenceRecommendations" not in told
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    create(client, "two", kind="Default", EndpointConfigurations=None)
    assert order(door, "two").search
    assert order(door, "two").candidates[0].instance_type.startswith("ml.c5.")
    client.create_model(
        ModelName="other", PrimaryContainer={"Image": "eyrie/python", "ModelDataUrl": "s3://b/m"}, ExecutionRoleArn=ROLE
    )
    create(client, "three", ModelName="other")
    assert not order(door, "three").compilable
    assert not order(door, "three").batching
    listed = client.list_inference_recommendations_jobs(ModelNameEquals="m", SortBy="Name", SortOrder="Ascending")
    assert [one["JobName"] for one in listed["InferenceRecommendationsJobs"]] == ["one", "two"]
    assert listed["InferenceRecommendationsJobs"][0]["SamplePayloadUrl"] == "s3://b/p.tar.gz"
    first = client.list_inference_recommendations_jobs(MaxResults=1)
    second = client.list_inference_recommendations_jobs(MaxResults=2, NextToken=first["NextToken"])
    assert len(second["InferenceRecommendationsJobs"]) == 2
    client.stop_inference_recommendations_job(JobName="one")
    assert stored(door, "one").stop_asked


def test_what_was_measured_is_recommended(door: Any, client: Any) -> None:
    create(
        client,
        "one",
        top={"StoppingConditions": {"MaxInvocations": 2_000}},
        EndpointConfigurations=ranged(A=["1", "2"]),
    )
    slow, fast = order(door, "one").candidates
    failed = trial(3, Candidate("ml.m5.xlarge"), 1, state=TrialState.FAILED, measured=None, reason="ClientError: no")
    there = trial(4, Candidate(endpoint="mine"), 700)
    ledger = Ledger(tests=(trial(1, slow, 500), trial(2, fast, 1_000, note="no caps"), failed, there))
    completed(door, "one", ledger)
    told = client.describe_inference_recommendations_job(JobName="one")
    best, other = told["InferenceRecommendations"]
    variables = {one["Key"]: one["Value"] for one in best["ModelConfiguration"]["EnvironmentParameters"]}
    assert variables == {"A": "2", "EYRIE_NOTE": "no caps"}
    assert best["Metrics"] == {
        "CostPerHour": pytest.approx(0.1152, rel=0.01),
        "CostPerInference": pytest.approx(0.1152 / 60_000, rel=0.01),
        "MaxInvocations": 1_000,
        "ModelLatency": 13,
        "CpuUtilization": 150.0,
        "MemoryUtilization": 3.0,
        "ModelSetupTime": 5,
    }
    assert best["EndpointConfiguration"] == {
        "EndpointName": "sm-epc-x-2",
        "VariantName": "v",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 3,
    }
    assert told["EndpointPerformances"][0]["Metrics"] == {"MaxInvocations": 700, "ModelLatency": 13}
    steps = client.list_inference_recommendations_job_steps(JobName="one")["Steps"]
    assert [step["Status"] for step in steps] == ["COMPLETED", "COMPLETED", "FAILED", "COMPLETED"]
    assert steps[2]["InferenceBenchmark"]["FailureReason"] == "ClientError: no"
    assert len(client.list_inference_recommendations_job_steps(JobName="one", Status="FAILED")["Steps"]) == 1
    scaling = client.get_scaling_configuration_recommendation(
        InferenceRecommendationsJobName="one",
        RecommendationId=other["RecommendationId"],
        TargetCpuUtilizationPerCore=50,
        ScalingPolicyObjective={"MinInvocationsPerMinute": 250, "MaxInvocationsPerMinute": 2_000},
    )
    assert scaling["Metric"] == {"InvocationsPerInstance": 250, "ModelLatency": 13}
    assert (scaling["DynamicScalingConfiguration"]["MinCapacity"], scaling["TargetCpuUtilizationPerCore"]) == (1, 50)
    assert scaling["DynamicScalingConfiguration"]["MaxCapacity"] == 8
    mine = client.get_scaling_configuration_recommendation(InferenceRecommendationsJobName="one", EndpointName="mine")
    assert mine["Metric"]["InvocationsPerInstance"] == 560
    with pytest.raises(ClientError, match="Could not find RecommendationId one/nothing"):
        client.get_scaling_configuration_recommendation(
            InferenceRecommendationsJobName="one", RecommendationId="one/nothing"
        )
    with pytest.raises(ClientError, match="PENDING or IN_PROGRESS"):
        client.stop_inference_recommendations_job(JobName="one")


def test_the_middle_of_a_job_ends_with_it(door: Any, client: Any) -> None:
    create(client, "one")
    begun = trial(1, Candidate("ml.m5.large"), 1, state=TrialState.IN_PROGRESS, measured=None)
    completed(door, "one", Ledger(tests=(begun,)), JobState.FAILED)
    assert client.list_inference_recommendations_job_steps(JobName="one")["Steps"][0]["Status"] == "FAILED"
    with pytest.raises(ClientError, match="only one that is COMPLETED"):
        client.get_scaling_configuration_recommendation(InferenceRecommendationsJobName="one")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"ModelName": None}, "InputConfig needs a ModelName"),
        ({"ModelName": "nobody"}, "Could not find model"),
        (
            {"ModelPackageVersionArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/g/1"},
            "InputConfig.ModelPackageVersionArn is not supported by this Eyrie: there is no model registry yet",
        ),
        ({"ContainerConfig": None}, "SamplePayloadUrl is needed"),
        ({"ContainerConfig": {"PayloadConfig": {"SamplePayloadUrl": "https://x/y"}}}, "must be an s3:// URL"),
        ({"EndpointConfigurations": None}, "needs InputConfig.EndpointConfigurations"),
        ({"EndpointConfigurations": [{}]}, "needs either an InstanceType or a ServerlessConfig"),
        ({"EndpointConfigurations": [{"InstanceType": "ml.g5.xlarge"}]}, "accelerator"),
        ({"EndpointConfigurations": [{**LARGE[0], "InferenceSpecificationName": "x"}]}, "no model registry"),
        ({"JobDurationInSeconds": 18_001}, "must be at most 18000, not 18001"),
        ({"TrafficPattern": {"TrafficType": "PHASES"}}, "needs Phases"),
        ({"TrafficPattern": {"TrafficType": "STAIRS"}}, "needs Stairs"),
        (
            {"TrafficPattern": {"TrafficType": "PHASES", "Phases": [{"InitialNumberOfUsers": 1}]}},
            "Phases.1.member.DurationInSeconds is needed",
        ),
        (
            {
                "TrafficPattern": {
                    "Phases": [{"InitialNumberOfUsers": 1, "SpawnRate": 60_000, "DurationInSeconds": 600}],
                }
            },
            "comes to 600001 users: at most 5000",
        ),
        ({"Endpoints": [{"EndpointName": "nobody"}]}, "Could not find endpoint"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(client: Any, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError) as refused:
        create(client, "one", **config)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"MaxInvocations": 0}, "MaxInvocations must be at least 1, not 0"),
        ({"ModelLatencyThresholds": [{"Percentile": "P42", "ValueInMilliseconds": 1}]}, "not P42"),
        ({"ModelLatencyThresholds": [{"Percentile": "P95"}]}, "ValueInMilliseconds is needed"),
    ],
)
def test_stopping_conditions_are_checked(client: Any, conditions: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words):
        create(client, "one", top={"StoppingConditions": conditions})


def test_a_default_job_takes_no_traffic_and_a_name_is_taken_once(client: Any) -> None:
    with pytest.raises(ClientError, match="TrafficPattern is for jobs of JobType Advanced"):
        create(client, "one", kind="Default", TrafficPattern={"TrafficType": "PHASES"})
    with pytest.raises(ClientError, match="EnvironmentParameterRanges is for jobs of JobType Advanced"):
        create(client, "one", kind="Default", EndpointConfigurations=ranged(A=["1"]))
    create(client, "one")
    with pytest.raises(ClientError) as refused:
        create(client, "one")
    assert refused.value.response["Error"]["Code"] == "ResourceInUse"


@pytest.mark.parametrize(
    "operation",
    [
        "describe_inference_recommendations_job",
        "stop_inference_recommendations_job",
        "list_inference_recommendations_job_steps",
    ],
)
def test_a_job_that_is_not_there(client: Any, operation: str) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(client, operation)(JobName="nobody")
    assert refused.value.response["Error"]["Code"] == "ResourceNotFound"
