"""The generic family through boto3: every noun in one life, and what is particular to some."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest

from eyrie.control.family_table import FAMILY, Noun

NOUNS = pytest.mark.parametrize("noun", FAMILY, ids=[noun.kind for noun in FAMILY])
ARN = "arn:aws:sagemaker:us-east-1:123456789012:"
ROLE = "arn:aws:iam::123456789012:role/Eyrie"
CLUSTER = {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}}
ENDPOINT = {"EndpointName": "e", "LocalPath": "/opt/ml/in"}
OUTPUT = {"MonitoringOutputs": [{"S3Output": {"S3Uri": "s3://b/o", "LocalPath": "/opt/ml/out"}}]}
GROUND_TRUTH = {"GroundTruthS3Input": {"S3Uri": "s3://b/g"}}


def job_definition(kind: str, app: dict[str, Any], job_input: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{kind}AppSpecification": app,
        f"{kind}JobInput": {"EndpointInput": ENDPOINT, **job_input},
        f"{kind}JobOutputConfig": OUTPUT,
        "JobResources": CLUSTER,
        "RoleArn": ROLE,
    }


IMAGE = {"ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/monitor:1"}
CONFIG_URI = {**IMAGE, "ConfigUri": "s3://b/analysis.json"}
GIVEN: dict[str, dict[str, Any]] = {
    "Action": {"Source": {"SourceUri": "s3://b/a"}, "ActionType": "t", "Properties": {"a": "1"}},
    "Artifact": {"Source": {"SourceUri": "s3://b/a"}, "ArtifactType": "t", "ArtifactName": "n"},
    "Context": {"Source": {"SourceUri": "s3://b/a"}, "ContextType": "t"},
    "Experiment": {"Description": "d", "DisplayName": "shown"},
    "Trial": {"ExperimentName": "parent"},
    "TrialComponent": {
        "Parameters": {"lr": {"NumberValue": 0.5}},
        "StartTime": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    },
    "ModelPackageGroup": {"ModelPackageGroupDescription": "d"},
    "CodeRepository": {"GitConfig": {"RepositoryUrl": "https://host/r.git", "Branch": "main"}},
    "NotebookInstanceLifecycleConfig": {"OnStart": [{"Content": "ZWNobw=="}]},
    "StudioLifecycleConfig": {
        "StudioLifecycleConfigContent": "ZWNobw==",
        "StudioLifecycleConfigAppType": "JupyterServer",
    },
    "AppImageConfig": {"JupyterLabAppImageConfig": {"FileSystemConfig": {"MountPath": "/home/x"}}},
    "AIWorkloadConfig": {},
    "DataQualityJobDefinition": job_definition("DataQuality", IMAGE, {}),
    "ModelQualityJobDefinition": job_definition("ModelQuality", {**IMAGE, "ProblemType": "Regression"}, GROUND_TRUTH),
    "ModelBiasJobDefinition": job_definition("ModelBias", CONFIG_URI, GROUND_TRUTH),
    "ModelExplainabilityJobDefinition": job_definition("ModelExplainability", CONFIG_URI, {}),
}


def method(sm: Any, operation: str) -> Callable[..., Any]:
    return getattr(sm, botocore.xform_name(operation))  # type: ignore[no-any-return]


def named(noun: Noun, name: str, made: dict[str, Any]) -> dict[str, Any]:
    """How calls name it."""
    if noun.by_arn:
        return {f"{noun.kind}Arn": made[f"{noun.kind}Arn"]}
    return {noun.member: name}


def create(sm: Any, noun: Noun, name: str = "x-1", **more: Any) -> Any:
    key = {} if noun.by_arn else {noun.member: name}
    return method(sm, f"Create{noun.kind}")(**key, **{**GIVEN[noun.kind], **more})


@pytest.fixture
def parent(sm: Any) -> None:
    sm.create_experiment(ExperimentName="parent")


@NOUNS
def test_a_whole_life(sm: Any, parent: None, refused: Any, noun: Noun) -> None:
    made = create(sm, noun, Tags=[{"Key": "k", "Value": "v"}])
    arn = next(value for name, value in made.items() if name.endswith("Arn"))
    assert re.fullmatch(f"{ARN}{noun.arn_type}/.+", arn)
    key = named(noun, "x-1", made)
    found = method(sm, f"Describe{noun.kind}")(**key)
    for member, value in GIVEN[noun.kind].items():
        assert found[member] == value
    assert arn in found.values()
    assert found["CreationTime"] == datetime.fromtimestamp(1_700_000_000, UTC)
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
    listed = method(sm, noun.list_operation)()
    items = next(value for value in listed.values() if isinstance(value, list))
    assert arn in [value for item in items for value in item.values()]
    method(sm, f"Delete{noun.kind}")(**key)
    code, _ = refused(method(sm, f"Describe{noun.kind}"), **key)
    assert code in ("ResourceNotFound", "ValidationException")
    assert refused(method(sm, f"Delete{noun.kind}"), **key)[0] == code
    assert refused(sm.list_tags, ResourceArn=arn)[0] == "ValidationException"


@NOUNS
def test_the_style_of_a_missing_one_follows_from_the_model(sm: Any, refused: Any, noun: Noun) -> None:
    describe = f"Describe{noun.kind}"
    modelled = {shape.name for shape in sm.meta.service_model.operation_model(describe).error_shapes}
    key = {f"{noun.kind}Arn": f"{ARN}{noun.arn_type}/none"} if noun.by_arn else {noun.member: "none"}
    code, message = refused(method(sm, describe), **key)
    if "ResourceNotFound" in modelled:
        assert (code, message) == ("ResourceNotFound", f"{noun.kind} 'none' does not exist.")
    else:
        assert code == "ValidationException"
        assert message == f'Could not find {noun.words} "{ARN}{noun.arn_type}/none".'


@NOUNS
def test_a_taken_name_is_refused_in_words_that_sdks_know(sm: Any, parent: None, refused: Any, noun: Noun) -> None:
    create(sm, noun)
    if noun.by_arn:
        create(sm, noun)  # its name is drawn: another one
        return
    code, message = refused(create, sm=sm, noun=noun)
    modelled = {shape.name for shape in sm.meta.service_model.operation_model(f"Create{noun.kind}").error_shapes}
    assert code == ("ResourceInUse" if "ResourceInUse" in modelled else "ValidationException")
    assert "already exist" in message


def test_the_arn_types_are_those_of_the_model(sm: Any, parent: None) -> None:
    """Where the model's pattern of the ARN names a type, it is ours."""
    for noun in FAMILY:
        output = sm.meta.service_model.operation_model(f"Create{noun.kind}").output_shape
        member = next(name for name in output.members if name.endswith("Arn"))
        pattern = output.members[member].metadata.get("pattern", ".*")
        assert re.fullmatch(pattern, f"{ARN}{noun.arn_type}/x-1"), noun.kind


def test_an_update_replaces_merges_and_removes(sm: Any, door: Any) -> None:
    sm.create_action(ActionName="a", **GIVEN["Action"], Description="old")
    door.clock.at_ms += 1000
    sm.update_action(
        ActionName="a", Description="new", Properties={"b": "2", "c": "3"}, PropertiesToRemove=["a", "none"]
    )
    found = sm.describe_action(ActionName="a")
    assert (found["Description"], found["Properties"]) == ("new", {"b": "2", "c": "3"})
    assert found["ActionType"] == "t"
    assert found["LastModifiedTime"].timestamp() == 1_700_000_001
    assert found["LastModifiedBy"]["IamIdentity"]["Arn"].startswith("arn:aws:sts::123456789012:assumed-role/")
    sm.create_code_repository(CodeRepositoryName="r", **GIVEN["CodeRepository"])
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:s"
    sm.update_code_repository(CodeRepositoryName="r", GitConfig={"SecretArn": secret})
    merged = sm.describe_code_repository(CodeRepositoryName="r")["GitConfig"]
    assert merged == {"RepositoryUrl": "https://host/r.git", "Branch": "main", "SecretArn": secret}


def test_an_artifact_is_updated_by_its_arn_and_deleted_by_its_source(sm: Any, refused: Any) -> None:
    arn = create(sm, next(noun for noun in FAMILY if noun.kind == "Artifact"))["ArtifactArn"]
    sm.update_artifact(ArtifactArn=arn, ArtifactName="renamed", Properties={"p": "1"})
    found = sm.describe_artifact(ArtifactArn=arn)
    assert (found["ArtifactName"], found["Properties"]) == ("renamed", {"p": "1"})
    assert refused(sm.delete_artifact)[0] == "ValidationException"
    assert sm.delete_artifact(Source={"SourceUri": "s3://b/a"})["ArtifactArn"] == arn
    assert refused(sm.delete_artifact, Source={"SourceUri": "s3://b/a"})[0] == "ResourceNotFound"
    foreign = arn.replace("123456789012", "210987654321")
    assert refused(sm.describe_artifact, ArtifactArn=foreign)[0] == "ResourceNotFound"


def test_lists_filter_by_what_the_noun_has(sm: Any) -> None:
    for name, uri, kind in (("a", "s3://1", "t"), ("b", "s3://2", "t"), ("c", "s3://2", "u")):
        sm.create_context(ContextName=name, Source={"SourceUri": uri}, ContextType=kind)

    def listed(**params: Any) -> list[str]:
        return sorted(c["ContextName"] for c in sm.list_contexts(**params)["ContextSummaries"])

    assert listed(SourceUri="s3://2") == ["b", "c"]
    assert listed(SourceUri="s3://2", ContextType="t") == ["b"]
    assert listed(CreatedAfter=1_700_000_001) == []
    sm.create_studio_lifecycle_config(StudioLifecycleConfigName="s", **GIVEN["StudioLifecycleConfig"])
    assert len(sm.list_studio_lifecycle_configs(AppTypeEquals="JupyterServer")["StudioLifecycleConfigs"]) == 1
    assert sm.list_studio_lifecycle_configs(AppTypeEquals="KernelGateway")["StudioLifecycleConfigs"] == []
    sm.create_data_quality_job_definition(JobDefinitionName="j", **GIVEN["DataQualityJobDefinition"])
    found = sm.list_data_quality_job_definitions(EndpointName="e")["JobDefinitionSummaries"]
    assert found[0]["MonitoringJobDefinitionName"] == "j"
    assert found[0]["MonitoringJobDefinitionArn"] == f"{ARN}data-quality-job-definition/j"
    assert found[0]["EndpointName"] == "e"
    assert sm.list_data_quality_job_definitions(EndpointName="f")["JobDefinitionSummaries"] == []


def test_the_default_order_is_the_nouns_own(sm: Any, door: Any) -> None:
    for name in ("b", "a", "c"):
        sm.create_code_repository(CodeRepositoryName=name, **GIVEN["CodeRepository"])
        sm.create_model_package_group(ModelPackageGroupName=name)
        sm.create_experiment(ExperimentName=name)
        door.clock.at_ms += 1000
    repositories = sm.list_code_repositories()["CodeRepositorySummaryList"]
    assert [r["CodeRepositoryName"] for r in repositories] == ["a", "b", "c"]
    groups = sm.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert [g["ModelPackageGroupName"] for g in groups] == ["b", "a", "c"]
    experiments = sm.list_experiments()["ExperimentSummaries"]
    assert [e["ExperimentName"] for e in experiments] == ["c", "a", "b"]
    pages = sm.get_paginator("list_experiments").paginate(PaginationConfig={"PageSize": 2})
    assert [len(p["ExperimentSummaries"]) for p in pages] == [2, 1]


def test_trials_and_components_belong_together(sm: Any, refused: Any) -> None:
    assert refused(sm.create_trial, TrialName="t", ExperimentName="none") == (
        "ResourceNotFound",
        "Experiment 'none' does not exist.",
    )
    for name in ("e", "f"):
        sm.create_experiment(ExperimentName=name)
    sm.create_trial(TrialName="t", ExperimentName="e")
    sm.create_trial(TrialName="u", ExperimentName="f")
    sm.create_trial_component(TrialComponentName="c", Status={"PrimaryStatus": "Completed"})
    tied = sm.associate_trial_component(TrialComponentName="c", TrialName="t")
    assert tied["TrialArn"] == f"{ARN}experiment-trial/t"
    assert [t["TrialName"] for t in sm.list_trials(TrialComponentName="c")["TrialSummaries"]] == ["t"]
    assert [t["TrialName"] for t in sm.list_trials(ExperimentName="f")["TrialSummaries"]] == ["u"]

    def components(**params: Any) -> list[str]:
        return [c["TrialComponentName"] for c in sm.list_trial_components(**params)["TrialComponentSummaries"]]

    assert components(TrialName="t") == components(ExperimentName="e") == components() == ["c"]
    assert (
        components(TrialName="u") == components(ExperimentName="f") == components(SourceArn="arn:aws:sagemaker:x") == []
    )
    code, message = refused(sm.delete_experiment, ExperimentName="e")
    assert (code, message) == ("ValidationException", "Experiment 'e' cannot be deleted: trial 't' belongs to it.")
    assert "Trials" not in sm.describe_trial_component(TrialComponentName="c")
    sm.disassociate_trial_component(TrialComponentName="c", TrialName="t")
    assert components(TrialName="t") == []
    assert refused(sm.associate_trial_component, TrialComponentName="none", TrialName="t")[0] == "ResourceNotFound"


def test_a_model_package_group_is_complete_at_once_and_says_so_twice(sm: Any, refused: Any) -> None:
    sm.create_model_package_group(ModelPackageGroupName="g")
    assert sm.describe_model_package_group(ModelPackageGroupName="g")["ModelPackageGroupStatus"] == "Completed"
    code, message = refused(sm.create_model_package_group, ModelPackageGroupName="g")
    assert code == "ValidationException"
    assert message.startswith("ModelPackage already exists")


def test_refused_operations_say_why_and_where_to_look(sm: Any, refused: Any) -> None:
    text = (
        "is not supported by this Eyrie: it trains no models yet. What it does is listed in docs/reference/coverage.md."
    )
    assert refused(sm.list_training_jobs) == ("ValidationException", f"ListTrainingJobs {text}")
    assert refused(sm.describe_training_job, TrainingJobName="j")[1] == f"DescribeTrainingJob {text}"
    assert "it runs no monitors yet" in refused(sm.delete_monitoring_schedule, MonitoringScheduleName="m")[1]
