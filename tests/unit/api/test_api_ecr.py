"""The local table of images and ECR's view of it, through boto3 and through the door of `eyrie image`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from eyrie.adapters.image_store import SETTLED_S, ImageStore, StoredImage
from eyrie.control import image_door
from eyrie.control.context import Caller, Context
from eyrie.control.image_table import BadName, parse
from eyrie.domain.names import EndpointKey, Scope
from eyrie.wire.errors import ApiError

ACCOUNT, REGION = "123456789012", "us-east-1"
SCOPE = Scope(ACCOUNT, REGION)
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


@pytest.fixture
def ecr(door: Any) -> Any:
    client = door.client("ecr")
    yield client
    client.close()


@pytest.fixture
def image(door: Any, tmp_path: Path) -> Any:
    """An image on disk, no name yet. Everything is removed after the test."""

    def make(text: str = "one") -> StoredImage:
        folder = tmp_path / text
        folder.mkdir(exist_ok=True)
        (folder / "serve").write_text(f"#!/bin/sh\n# {text}\n")
        (folder / "serve").chmod(0o755)
        return ImageStore(door.data).add_tree(folder)

    yield make
    shutil.rmtree(door.data / "images", ignore_errors=True)


@pytest.fixture
def ask(door: Any) -> Callable[..., dict[str, Any]]:
    """What `eyrie image` asks for."""

    def call(method: str, path: str, **given: str) -> dict[str, Any]:
        import json

        context = Context(
            SCOPE,
            Caller("AKIA", ACCOUNT),
            door.clock.now_ms(),
            door.store,
            identity=None,  # type: ignore[arg-type]
            logs=None,  # type: ignore[arg-type]
            queries=None,  # type: ignore[arg-type]
            endpoints=door.endpoints,
            instance_types=None,  # type: ignore[arg-type]
            metrics=None,  # type: ignore[arg-type]
        )
        return image_door.answer(context, door.data, method, path, json.dumps(given).encode())

    return call


def code(error: Any) -> str:
    return str(error.value.response["Error"]["Code"])


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("mine", f"{REGISTRY}/mine:latest"),
        ("team/mine:1.0", f"{REGISTRY}/team/mine:1.0"),
        ("999999999999.dkr.ecr.eu-west-1.amazonaws.com/x-y:z", "999999999999.dkr.ecr.eu-west-1.amazonaws.com/x-y:z"),
        (f"{REGISTRY}/mine@sha256:{'a' * 64}", f"{REGISTRY}/mine@sha256:{'a' * 64}"),
        (f"{REGISTRY}/mine:tag@sha256:{'a' * 64}", f"{REGISTRY}/mine@sha256:{'a' * 64}"),
    ],
)
def test_names(text: str, uri: str) -> None:
    assert parse(text, SCOPE).uri == uri


@pytest.mark.parametrize("text", ["", "a", "Mine", "-x", "mine:a/b", "mine@sha256:1", "../mine", "a//b", "x y"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(BadName):
        parse(text, SCOPE)


def test_repositories_are_made_described_and_removed(ecr: Any) -> None:
    tags = [{"Key": "a", "Value": "b"}]
    made = ecr.create_repository(repositoryName="team/mine", imageTagMutability="IMMUTABLE", tags=tags)
    repository = made["repository"]
    assert repository["repositoryUri"] == f"{REGISTRY}/team/mine"
    assert repository["repositoryArn"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/mine"
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert ecr.describe_repositories()["repositories"] == [repository]
    assert ecr.describe_repositories(repositoryNames=["team/mine"])["repositories"] == [repository]
    assert ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"] == tags
    with pytest.raises(ClientError) as twice:
        ecr.create_repository(repositoryName="team/mine")
    assert code(twice) == "RepositoryAlreadyExistsException"
    assert twice.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    ecr.delete_repository(repositoryName="team/mine")
    with pytest.raises(ClientError) as gone:
        ecr.delete_repository(repositoryName="team/mine")
    assert code(gone) == "RepositoryNotFoundException"
    assert ecr.describe_repositories()["repositories"] == []


def test_repositories_come_in_pages(ecr: Any) -> None:
    for number in range(5):
        ecr.create_repository(repositoryName=f"mine-{number}")
    pages = list(ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 2}))
    names = [[r["repositoryName"] for r in page["repositories"]] for page in pages]
    assert names == [["mine-0", "mine-1"], ["mine-2", "mine-3"], ["mine-4"]]


def test_there_is_nothing_to_log_in_to(ecr: Any) -> None:
    with pytest.raises(ClientError, match="eyrie image add"):
        ecr.get_authorization_token()
    with pytest.raises(ClientError) as unknown:
        ecr.put_image(repositoryName="mine", imageManifest="{}")
    assert code(unknown) == "UnknownOperationException"


def test_another_accounts_registry_is_not_the_callers(ecr: Any) -> None:
    with pytest.raises(ClientError, match="another account"):
        ecr.describe_repositories(registryId="210987654321")


def test_an_image_is_named_described_and_forgotten(ecr: Any, ask: Any, image: Any) -> None:
    one, two = image("one"), image("two")
    assert ask("POST", "/eyrie/images", name="mine:1", digest=one.digest)["name"] == f"{REGISTRY}/mine:1"
    ask("POST", "/eyrie/images", name="mine:2", digest=two.digest)
    ask("POST", "/eyrie/images", name="mine:best", digest=two.digest)
    details = {d["imageDigest"]: d for d in ecr.describe_images(repositoryName="mine")["imageDetails"]}
    assert details[f"sha256:{two.digest}"]["imageTags"] == ["2", "best"]
    assert details[f"sha256:{one.digest}"]["imageSizeInBytes"] == one.size_bytes
    (found,) = ecr.describe_images(repositoryName="mine", imageIds=[{"imageTag": "best"}])["imageDetails"]
    assert found["imageDigest"] == f"sha256:{two.digest}"
    ids = ecr.list_images(repositoryName="mine")["imageIds"]
    assert {(i["imageDigest"][7:], i["imageTag"]) for i in ids} == {
        (one.digest, "1"),
        (two.digest, "2"),
        (two.digest, "best"),
    }
    with pytest.raises(ClientError) as missing:
        ecr.describe_images(repositoryName="mine", imageIds=[{"imageTag": "nope"}])
    assert code(missing) == "ImageNotFoundException"
    with pytest.raises(ClientError) as full:
        ecr.delete_repository(repositoryName="mine")
    assert code(full) == "RepositoryNotEmptyException"
    ask("POST", "/eyrie/images/remove", name="mine:2")
    ask("POST", "/eyrie/images/remove", name="mine:best")
    assert [row["name"] for row in ask("GET", "/eyrie/images")["images"]] == [f"{REGISTRY}/mine:1"]
    ecr.delete_repository(repositoryName="mine", force=True)
    assert ask("GET", "/eyrie/images")["images"] == []


def test_images_are_deleted_by_tag_and_by_digest(ecr: Any, ask: Any, image: Any) -> None:
    one, two = image("one"), image("two")
    for tag, digest in (("1", one.digest), ("also", one.digest), ("2", two.digest)):
        ask("POST", "/eyrie/images", name=f"mine:{tag}", digest=digest)
    ids = [{"imageTag": "1"}, {"imageDigest": f"sha256:{two.digest}"}, {"imageTag": "nope"}]
    answer = ecr.batch_delete_image(repositoryName="mine", imageIds=ids)
    assert answer["imageIds"] == [
        {"imageDigest": f"sha256:{one.digest}", "imageTag": "1"},
        {"imageDigest": f"sha256:{two.digest}"},
    ]
    assert [f["failureCode"] for f in answer["failures"]] == ["ImageNotFound"]
    left = ecr.list_images(repositoryName="mine")["imageIds"]
    assert left == [{"imageDigest": f"sha256:{one.digest}", "imageTag": "also"}]


def test_an_immutable_tag_stays(ecr: Any, ask: Any, image: Any) -> None:
    one, two = image("one"), image("two")
    ecr.create_repository(repositoryName="mine", imageTagMutability="IMMUTABLE")
    ask("POST", "/eyrie/images", name="mine:1", digest=one.digest)
    ask("POST", "/eyrie/images", name="mine:1", digest=one.digest)
    with pytest.raises(ApiError, match="immutable"):
        ask("POST", "/eyrie/images", name="mine:1", digest=two.digest)


def test_what_cannot_be_named(ask: Any, image: Any) -> None:
    with pytest.raises(ApiError, match="no image"):
        ask("POST", "/eyrie/images", name="mine", digest="a" * 64)
    with pytest.raises(ApiError, match="no image"):
        ask("POST", "/eyrie/images", name="mine", digest="../../etc")
    with pytest.raises(ApiError, match="no repository's name"):
        ask("POST", "/eyrie/images", name="MINE", digest=image().digest)
    with pytest.raises(ApiError, match="has the digest"):
        ask("POST", "/eyrie/images", name=f"mine@sha256:{'b' * 64}", digest=image().digest)
    with pytest.raises(ApiError, match="There is no image"):
        ask("POST", "/eyrie/images/remove", name="mine")


def test_a_model_may_name_it_and_its_endpoint_keeps_what_it_meant(
    door: Any, sm: Any, ask: Any, image: Any, refused: Any
) -> None:
    one, two = image("one"), image("two")
    ask("POST", "/eyrie/images", name="mine:1", digest=one.digest)
    name = f"{REGISTRY}/mine:1"
    sm.create_model(ModelName="m", PrimaryContainer={"Image": name})
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    endpoint = door.endpoints.get(EndpointKey(ACCOUNT, REGION, "e"))
    (spec,) = (v.spec for v in endpoint.fleet.variants)
    assert spec.foreign
    assert spec.model.containers[0].image_digest == one.digest
    (shown,) = sm.describe_endpoint(EndpointName="e")["ProductionVariants"]
    assert shown["DeployedImages"][0]["ResolvedImage"] == f"{REGISTRY}/mine@sha256:{one.digest}"
    ask("POST", "/eyrie/images", name="mine:1", digest=two.digest)
    assert sm.describe_endpoint(EndpointName="e")["ProductionVariants"] == [shown]
    ask("POST", "/eyrie/images/remove", name="mine:1")
    missing = refused(sm.create_endpoint, EndpointName="e2", EndpointConfigName="c")
    assert missing[0] == "ValidationException"
    assert f"Requested image {name} not found" in missing[1]


def test_an_image_of_ones_own_may_be_one_of_several(sm: Any, ask: Any, image: Any) -> None:
    ask("POST", "/eyrie/images", name="mine", digest=image().digest)
    containers = [{"Image": "eyrie/xgboost"}, {"Image": "mine"}]
    sm.create_model(ModelName="m", Containers=containers)
    assert [one["Image"] for one in sm.describe_model(ModelName="m")["Containers"]] == ["eyrie/xgboost", "mine"]


def test_an_image_of_ones_own_goes_before_ours(door: Any, sm: Any, ask: Any, image: Any, deployed: Any) -> None:
    ask("POST", "/eyrie/images", name="eyrie/xgboost:latest", digest=image().digest)
    deployed("e")
    (variant,) = door.endpoints.get(EndpointKey(ACCOUNT, REGION, "e")).fleet.variants
    assert variant.spec.foreign


def test_only_what_nobody_names_is_swept(door: Any, sm: Any, ask: Any, image: Any) -> None:
    kept, run, gone, young = image("kept"), image("run"), image("gone"), image("young")
    store = ImageStore(door.data)
    for name, made in (("kept", kept), ("run", run)):
        ask("POST", "/eyrie/images", name=name, digest=made.digest)
    sm.create_model(ModelName="m", PrimaryContainer={"Image": "run"})
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sm.create_endpoint(EndpointName="e", EndpointConfigName="c")
    ask("POST", "/eyrie/images/remove", name="run")
    for made in (kept, run, gone):
        old = os.stat(store.path(made.digest)).st_mtime - SETTLED_S - 10
        os.utime(store.path(made.digest), (old, old))
    ask("POST", "/eyrie/images", name="kept", digest=kept.digest)
    assert [bool(store.find(made.digest)) for made in (kept, run, gone, young)] == [True, True, False, True]


def test_boto3_signs_for_ecr_as_ever(door: Any) -> None:
    client = boto3.client(
        "ecr", endpoint_url=door.url, region_name=REGION, aws_access_key_id="AKIAEYRIE", aws_secret_access_key="wrong"
    )
    with pytest.raises(ClientError) as denied:
        client.describe_repositories()
    assert denied.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)
    client.close()
