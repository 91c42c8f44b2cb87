"""Models through boto3: records with checks, lists and their pages, tags."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from eyrie.ports import Commit

ARN = "arn:aws:sagemaker:us-east-1:123456789012:model/"
ECR = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
ROLE = "arn:aws:iam::123456789012:role/Eyrie"


def create(sm: Any, name: str, **container: Any) -> Any:
    given = {"Image": "eyrie/xgboost", "ModelDataUrl": "s3://bucket/model.tar.gz", **container}
    return sm.create_model(ModelName=name, PrimaryContainer=given, ExecutionRoleArn=ROLE)


def test_a_model_reads_back_as_it_was_created(sm: Any, door: Any) -> None:
    container = {
        "Image": ECR,
        "ModelDataUrl": "s3://b/m.tar.gz",
        "Environment": {"A": "1"},
        "ContainerHostname": "main",
    }
    made = sm.create_model(ModelName="M-1", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    assert made["ModelArn"] == ARN + "M-1"
    assert len(made["ResponseMetadata"]["RequestId"]) >= 32
    found = sm.describe_model(ModelName="M-1")
    assert found["PrimaryContainer"] == container
    assert found["ExecutionRoleArn"] == ROLE
    assert found["EnableNetworkIsolation"] is False
    assert found["ModelArn"] == ARN + "M-1"
    assert found["CreationTime"] == datetime.fromtimestamp(1_700_000_000, UTC)


def test_a_missing_model_and_a_taken_name_are_refused_in_the_words_of_the_service(sm: Any, refused: Any) -> None:
    missing = ("ValidationException", f'Could not find model "{ARN}nope".')
    assert refused(sm.describe_model, ModelName="nope") == missing
    assert refused(sm.delete_model, ModelName="nope") == missing
    create(sm, "m")
    assert refused(create, sm=sm, name="m") == (
        "ValidationException",
        f'Cannot create already existing model "{ARN}m".',
    )


def test_a_deleted_model_is_gone_and_its_name_is_free(sm: Any, refused: Any) -> None:
    create(sm, "m")
    sm.delete_model(ModelName="m")
    assert refused(sm.describe_model, ModelName="m")[0] == "ValidationException"
    create(sm, "m")


def test_accounts_and_regions_do_not_see_each_other(sm: Any, door: Any, refused: Any) -> None:
    create(sm, "m")
    other = door.client("sagemaker", key=door.keys[1])
    far = door.client("sagemaker", region="eu-west-1")
    assert refused(other.describe_model, ModelName="m")[1].endswith('us-east-1:210987654321:model/m".')
    assert refused(far.describe_model, ModelName="m")[1].endswith('eu-west-1:123456789012:model/m".')
    create(far, "m")
    assert far.list_models()["Models"][0]["ModelArn"].startswith("arn:aws:sagemaker:eu-west-1:123456789012:")
    other.close()
    far.close()


REFUSED_CONTAINERS = [
    ({"Mode": "MultiModel"}, 'ModelDataUrl must be an S3 prefix, and "s3://bucket/model.tar.gz" names an archive'),
    ({"Mode": "MultiModel", "ModelDataUrl": "https://host/p/"}, "it must be an s3:// URL"),
    ({"ModelPackageName": "p"}, "ModelPackageName is not supported by this Eyrie: there is no model registry yet."),
    ({"MultiModelConfig": {"ModelCacheSetting": "Enabled"}}, "MultiModelConfig is for containers with Mode MultiModel"),
    ({"ImageConfig": {"RepositoryAccessMode": "Vpc"}}, "RepositoryAccessMode Vpc is not supported"),
    ({"Image": "nginx:latest"}, "Requested image 123456789012.dkr.ecr.us-east-1.amazonaws.com/nginx:latest not found"),
    ({"Image": "1.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1"}, "eyrie image add 1.dkr.ecr"),
    ({"Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/mxnet-inference:1.9"}, "Eyrie's: eyrie/huggingface"),
    ({"Image": "UPPER"}, "is no repository's name"),
    ({"ModelDataUrl": "https://host/m.tar.gz"}, "it must be an s3:// URL"),
    (
        {"AdditionalModelDataSources": [{"ChannelName": "c", "S3DataSource": {
            "S3Uri": "s3://b/k", "S3DataType": "S3Prefix", "CompressionType": "None"}}]},
        "AdditionalModelDataSources is not supported",
    ),
    ({"ModelDataSource": {"S3DataSource": {"S3Uri": "s3://b/k", "S3DataType": "S3Prefix", "CompressionType": "None"}}},
     "either a ModelDataUrl or a ModelDataSource"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "text"), REFUSED_CONTAINERS, ids=[t[:30] for _, t in REFUSED_CONTAINERS])
def test_a_container_that_cannot_run_here_is_refused_with_the_reason(
    sm: Any, refused: Any, container: dict[str, Any], text: str
) -> None:
    code, message = refused(create, sm=sm, name="m", **container)
    assert code == "ValidationException"
    assert text in message


def test_models_of_no_or_too_many_containers_are_refused(sm: Any, refused: Any) -> None:
    one = {"Image": "eyrie/sklearn"}
    assert "needs a PrimaryContainer" in refused(sm.create_model, ModelName="m")[1]
    assert "needs an Image" in refused(sm.create_model, ModelName="m", PrimaryContainer={})[1]
    assert "'containers'" in refused(sm.create_model, ModelName="m", Containers=[one] * 16)[1]
    assert "needs an Image" in refused(sm.create_model, ModelName="m", Containers=[one, {}])[1]
    both = refused(sm.create_model, ModelName="m", PrimaryContainer=one, Containers=[one])
    assert both == ("ValidationException", "A model has either a PrimaryContainer or Containers, not both.")
    isolated = refused(sm.create_model, ModelName="m", PrimaryContainer=one, EnableNetworkIsolation=True)
    assert isolated[1].startswith("EnableNetworkIsolation is not supported by this Eyrie: the sandbox")
    sm.create_model(ModelName="m", Containers=[one], EnableNetworkIsolation=False)


def named(*names: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"Image": "eyrie/sklearn", "ContainerHostname": name, **fields} for name in names]


@pytest.mark.parametrize("count", [2, 15])
def test_a_pipeline_reads_back_as_it_was_created(sm: Any, count: int) -> None:
    containers = [
        {"Image": ECR, "ModelDataUrl": f"s3://b/{n}.tar.gz", "Environment": {"N": str(n)}} for n in range(count)
    ]
    sm.create_model(ModelName="m", Containers=containers)
    found = sm.describe_model(ModelName="m")
    assert found["Containers"] == containers
    assert "PrimaryContainer" not in found
    assert found["InferenceExecutionConfig"] == {"Mode": "Serial"}


def test_a_model_for_direct_invocation_reads_back(sm: Any) -> None:
    sm.create_model(ModelName="m", Containers=named("a", "b"), InferenceExecutionConfig={"Mode": "Direct"})
    found = sm.describe_model(ModelName="m")
    assert [c["ContainerHostname"] for c in found["Containers"]] == ["a", "b"]
    assert found["InferenceExecutionConfig"] == {"Mode": "Direct"}


def test_a_multi_model_container_reads_back(sm: Any) -> None:
    config = {"ModelCacheSetting": "Disabled"}
    container = {
        "Image": ECR,
        "Mode": "MultiModel",
        "ModelDataUrl": "s3://b/models/",
        "MultiModelConfig": config,
    }
    sm.create_model(ModelName="m", PrimaryContainer=container)
    assert sm.describe_model(ModelName="m")["PrimaryContainer"] == container
    sm.create_model(ModelName="n", Containers=[container])
    assert sm.describe_model(ModelName="n")["Containers"] == [container]


UNNAMED = {"Image": "eyrie/sklearn"}
MANY = {"Image": "eyrie/sklearn", "Mode": "MultiModel", "ModelDataUrl": "s3://b/p/"}
REFUSED_TOGETHER = [
    (named("a", "a"), None, 'ContainerHostname must be unique within a model: "a" occurs twice.'),
    ([*named("a"), UNNAMED], None, "Either every one of the Containers has a ContainerHostname, or none has."),
    ([UNNAMED, UNNAMED], "Direct", "Mode Direct needs a ContainerHostname for every one of the Containers"),
    ([UNNAMED], "Direct", "Mode Direct needs Containers, 2 to 15 of them"),
    ([MANY, MANY], "Serial", "More than one container in MultiModel mode is not supported with inference pipeline."),
    ([UNNAMED, MANY], None, "Mode MultiModel in one of several Containers is not supported by this Eyrie"),
    ([{**MANY, "ModelDataUrl": "s3://b/m.tgz"}], None, "names an archive"),
    ([{"Image": "eyrie/sklearn", "Mode": "MultiModel"}], None, "needs a ModelDataUrl: the S3 prefix"),
]


@pytest.mark.parametrize(("containers", "mode", "text"), REFUSED_TOGETHER, ids=[t[:40] for *_, t in REFUSED_TOGETHER])
def test_containers_that_do_not_go_together_are_refused(
    sm: Any, refused: Any, containers: list[dict[str, Any]], mode: str | None, text: str
) -> None:
    executed = {"InferenceExecutionConfig": {"Mode": mode}} if mode else {}
    code, message = refused(sm.create_model, ModelName="m", Containers=containers, **executed)
    assert code == "ValidationException"
    assert text in message


IMAGES = [
    ("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1", "xgboost"),
    ("141502667606.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-xgboost:3.0-5", "xgboost"),
    ("811284229777.dkr.ecr.us-east-1.amazonaws.com/xgboost:latest", "xgboost"),
    ("246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3", "sklearn"),
    ("450853457545.dkr.ecr.cn-north-1.amazonaws.com.cn/sagemaker-scikit-learn:0.23-1-cpu-py3", "sklearn"),
    ("683313688378.dkr.ecr-fips.us-east-1.amazonaws.com/sagemaker-xgboost@sha256:0a", "xgboost"),
    ("eyrie/xgboost", "xgboost"),
    ("eyrie/sklearn:1", "sklearn"),
    ("eyrie/scikit-learn", "sklearn"),
    ("eyrie/python", "python"),
]


@pytest.mark.parametrize(("image", "framework"), IMAGES)
def test_image_names_mean_the_model_server(image: str, framework: str) -> None:
    from eyrie.control import images

    found = images.resolve(image)
    assert found is not None
    assert (found.framework, found.specified) == (framework, image)
    assert found.resolved.startswith(f"eyrie/{framework}:")


def test_a_prefix_of_files_may_stand_for_the_archive(sm: Any) -> None:
    source = {"S3DataSource": {"S3Uri": "s3://b/p/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
    sm.create_model(ModelName="m", PrimaryContainer={"Image": "eyrie/xgboost", "ModelDataSource": source})
    assert sm.describe_model(ModelName="m")["PrimaryContainer"]["ModelDataSource"] == source


@pytest.mark.parametrize(
    ("kind", "compression", "uri", "text"),
    [
        ("S3Prefix", "Gzip", "s3://b/p/", "S3DataType S3Prefix with CompressionType Gzip is not supported"),
        ("S3Object", "None", "s3://b/p", "S3DataType S3Object with CompressionType None is not supported"),
        ("S3Prefix", "None", "s3://b/p", 'must end with "/"'),
    ],
)
def test_a_source_that_cannot_be_fetched_is_refused(
    sm: Any, refused: Any, kind: str, compression: str, uri: str, text: str
) -> None:
    source = {"S3DataSource": {"S3Uri": uri, "S3DataType": kind, "CompressionType": compression}}
    container = {"Image": "eyrie/xgboost", "ModelDataSource": source}
    code, message = refused(sm.create_model, ModelName="m", PrimaryContainer=container)
    assert code == "ValidationException"
    assert text in message


def test_vpc_config_is_kept_as_a_record(sm: Any) -> None:
    vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    sm.create_model(ModelName="m", PrimaryContainer={"Image": "eyrie/xgboost"}, VpcConfig=vpc)
    assert sm.describe_model(ModelName="m")["VpcConfig"] == vpc


@pytest.mark.parametrize("name", ["-m", "m-", "m_m", "a" * 64, "", "m m"])
def test_names_follow_the_pattern(sm: Any, refused: Any, name: str) -> None:
    code, message = refused(create, sm=sm, name=name)
    assert code == "ValidationException"
    assert "at 'modelName' failed to satisfy constraint" in message


@pytest.fixture
def seven(sm: Any, door: Any) -> list[str]:
    """Seven models, a second apart, whose names run against their age."""
    names = [f"m{9 - n}" for n in range(7)]
    for name in names:
        create(sm, name)
        door.clock.at_ms += 1000
    return names


def names(page: Any) -> list[str]:
    return [model["ModelName"] for model in page["Models"]]


def test_lists_are_newest_first_and_sort_as_asked(sm: Any, seven: list[str]) -> None:
    assert names(sm.list_models()) == seven[::-1]
    assert names(sm.list_models(SortOrder="Ascending")) == seven
    assert names(sm.list_models(SortBy="Name")) == sorted(seven, reverse=True)
    assert names(sm.list_models(SortBy="Name", SortOrder="Ascending")) == sorted(seven)


def test_lists_filter_by_name_and_time(sm: Any, seven: list[str]) -> None:
    third = datetime.fromtimestamp(1_700_000_002, UTC)
    assert names(sm.list_models(NameContains="M5")) == ["m5"]
    assert names(sm.list_models(NameContains="zzz")) == []
    assert names(sm.list_models(CreationTimeAfter=third, SortOrder="Ascending")) == seven[2:]
    assert names(sm.list_models(CreationTimeBefore=third, SortOrder="Ascending")) == seven[:2]


@pytest.mark.parametrize("sort", [{}, {"SortBy": "Name"}, {"SortBy": "Name", "SortOrder": "Ascending"}])
def test_pages_join_to_the_whole_list(sm: Any, seven: list[str], sort: dict[str, str]) -> None:
    pages = list(sm.get_paginator("list_models").paginate(PaginationConfig={"PageSize": 3}, **sort))
    assert [len(page["Models"]) for page in pages] == [3, 3, 1]
    assert [name for page in pages for name in names(page)] == names(sm.list_models(**sort))


def test_the_default_page_is_ten(sm: Any) -> None:
    for n in range(11):
        create(sm, f"m{n}")
    first = sm.list_models()
    assert len(first["Models"]) == 10
    assert len(sm.list_models(NextToken=first["NextToken"])["Models"]) == 1


def test_a_page_goes_on_after_what_was_deleted_or_created(sm: Any, seven: list[str]) -> None:
    first = sm.list_models(MaxResults=3, SortOrder="Ascending")
    sm.delete_model(ModelName=seven[2])  # the row that the token names
    create(sm, "late")
    rest = sm.list_models(MaxResults=10, SortOrder="Ascending", NextToken=first["NextToken"])
    assert names(rest) == [*seven[3:], "late"]


@pytest.mark.parametrize("token", ["x", "WzEsMl0=", "WyJhIiwxLCJiIl0=", "W" * 2000, "é"])
def test_a_token_that_is_none_is_refused(sm: Any, seven: list[str], refused: Any, token: str) -> None:
    assert refused(sm.list_models, NextToken=token) == (
        "ValidationException",
        "Invalid NextToken: it does not belong to this list with these filters.",
    )


def test_a_token_belongs_to_its_list_and_filters(sm: Any, seven: list[str], refused: Any) -> None:
    token = sm.list_models(MaxResults=2)["NextToken"]
    assert refused(sm.list_models, NextToken=token, NameContains="m")[0] == "ValidationException"
    assert refused(sm.list_models, NextToken=token, SortBy="Name")[0] == "ValidationException"
    assert refused(sm.list_endpoint_configs, NextToken=token)[0] == "ValidationException"
    assert len(sm.list_models(MaxResults=5, NextToken=token)["Models"]) == 5  # another page size is no other filter


@pytest.mark.parametrize("given", [{"MaxResults": 0}, {"MaxResults": 101}, {"SortBy": "Status"}, {"NameContains": "_"}])
def test_list_parameters_are_checked(door: Any, refused: Any, given: dict[str, Any]) -> None:
    client = door.client("sagemaker", parameter_validation=False)
    code, message = refused(client.list_models, **given)
    client.close()
    assert code == "ValidationException"
    assert "1 validation error detected" in message


def test_tags_are_kept_beside_the_model(sm: Any, refused: Any) -> None:
    arn = sm.create_model(
        ModelName="m", PrimaryContainer={"Image": "eyrie/xgboost"}, Tags=[{"Key": "a", "Value": "1"}]
    )["ModelArn"]
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    after = sm.add_tags(ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}, {"Key": "a", "Value": "3"}])["Tags"]
    assert after == [{"Key": "a", "Value": "3"}, {"Key": "b", "Value": "2"}]
    sm.delete_tags(ResourceArn=arn, TagKeys=["a", "never"])
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    assert "Tags" not in sm.describe_model(ModelName="m")


def test_tags_do_not_outlive_the_model(sm: Any, door: Any, refused: Any) -> None:
    container = {"Image": "eyrie/xgboost"}
    sm.create_model(ModelName="m", PrimaryContainer=container, Tags=[{"Key": "a", "Value": "1"}])
    sm.delete_model(ModelName="m")
    assert door.store.scan("Tags") == []
    assert refused(sm.list_tags, ResourceArn=ARN + "m") == ("ValidationException", f'Could not find model "{ARN}m".')
    sm.create_model(ModelName="m", PrimaryContainer=container)
    assert sm.list_tags(ResourceArn=ARN + "m")["Tags"] == []


def test_arns_are_compared_without_regard_to_case(sm: Any) -> None:
    sm.create_model(ModelName="Mixed", PrimaryContainer={"Image": "eyrie/xgboost"})
    sm.add_tags(ResourceArn=ARN + "mixed", Tags=[{"Key": "a", "Value": "1"}])
    assert sm.list_tags(ResourceArn=ARN + "Mixed")["Tags"] == [{"Key": "a", "Value": "1"}]


def test_tags_have_bounds(sm: Any, refused: Any) -> None:
    create(sm, "m")
    fifty = [{"Key": f"k{n}", "Value": ""} for n in range(50)]
    sm.add_tags(ResourceArn=ARN + "m", Tags=fifty)
    more = refused(sm.add_tags, ResourceArn=ARN + "m", Tags=[{"Key": "one-more", "Value": ""}])
    assert more == ("ValidationException", "A resource has at most 50 tags; with these it would have 51.")
    reserved = refused(sm.add_tags, ResourceArn=ARN + "m", Tags=[{"Key": "aws:x", "Value": ""}])
    assert "reserved" in reserved[1]
    twice = refused(sm.add_tags, ResourceArn=ARN + "m", Tags=[{"Key": "x", "Value": "1"}, {"Key": "x", "Value": "2"}])
    assert twice == ("ValidationException", "Duplicate tag key: x.")
    assert len(sm.list_tags(ResourceArn=ARN + "m", NextToken="", MaxResults=50)["Tags"]) == 50
    code, text = refused(sm.list_tags, ResourceArn=ARN + "m", NextToken="one-that-no-list-gave")
    assert (code, "Invalid NextToken" in text) == ("ValidationException", True)


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:sagemaker:us-east-1:123456789012:model/none",
        "arn:aws:sagemaker:us-east-1:210987654321:model/m",
        "arn:aws:sagemaker:us-west-2:123456789012:model/m",
        "arn:aws:sagemaker:us-east-1:123456789012:training-job/m",
        "arn:aws:sagemaker:us-east-1:123456789012:model",
    ],
)
def test_tags_of_what_is_not_there_are_refused(sm: Any, refused: Any, arn: str) -> None:
    create(sm, "m")
    code, message = refused(sm.list_tags, ResourceArn=arn)
    assert code == "ValidationException"
    assert message.startswith("Could not find")


def test_a_quota_bounds_how_many_there_are(sm: Any, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from eyrie.control import records

    monkeypatch.setattr(records, "DOCUMENTS_MAX", 2)
    create(sm, "a")
    create(sm, "b")
    code, message = refused(create, sm=sm, name="c")
    assert code == "ResourceLimitExceeded"
    assert message == "The account-level service limit 'Number of resources of type Model' is 2, all are in use."


def test_an_operation_that_lost_a_race_decides_again(sm: Any, door: Any, refused: Any, monkeypatch: Any) -> None:
    """Another creator commits between this one's look and its commit."""
    commit, raced = door.store.commit, []

    def racing(given: Commit) -> None:
        if not raced and given.puts and given.puts[0].kind == "Model":
            raced.append(given)
            commit(given)
        commit(given)

    monkeypatch.setattr(door.store, "commit", racing)
    assert refused(create, sm=sm, name="m") == (
        "ValidationException",
        f'Cannot create already existing model "{ARN}m".',
    )
