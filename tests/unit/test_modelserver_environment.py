"""The claim, and the variables of the container contract that follow from it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from eyrie.modelserver import environment
from eyrie.modelserver.environment import BODY_BYTES_DEFAULT, BODY_BYTES_MAX, Claim, ClaimError, Container

CONTAINER: dict[str, Any] = {
    "hostname": "primary",
    "image": "eyrie/xgboost",
    "environment": {"COLOUR": "red"},
    "mode": "SingleModel",
    "folder": "",
}
WHOLE: dict[str, Any] = {
    "instance_id": "i-1",
    "endpoint": "123456789012.eu-west-1.shop",
    "variant": "A",
    "zone": "b",
    "vcpu_milli": 2000,
    "memory_mb": 4096,
    "execution": "Serial",
    "containers": [CONTAINER],
}


def parse(claim: dict[str, Any]) -> Claim:
    return Claim.parse(json.dumps(claim).encode())


def test_a_whole_claim() -> None:
    claim = parse(WHOLE | {"unknown": 1})
    primary = Container("primary", "eyrie/xgboost", {"COLOUR": "red"})
    assert claim == Claim("i-1", "123456789012.eu-west-1.shop", "A", "b", 2000, 4096, containers=(primary,))
    assert claim.region == "eu-west-1"
    assert parse({"instance_id": "i-2", "containers": [{}]}).region == ""
    assert parse(WHOLE | {"execution": "Direct"}).direct
    assert parse(WHOLE | {"containers": [CONTAINER | {"mode": "MultiModel"}]}).multi_model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instance_id": ""}, "instance_id"),
        ({"instance_id": 3}, "instance_id"),
        ({"zone": 3}, "zone is not text"),
        ({"vcpu_milli": 0}, "vcpu_milli"),
        ({"vcpu_milli": "2"}, "vcpu_milli"),
        ({"memory_mb": -1}, "memory_mb"),
        ({"execution": "Sometimes"}, "neither Serial nor Direct"),
        ({"containers": []}, "list of 1 to 15"),
        ({"containers": None}, "list of 1 to 15"),
        ({"containers": [{"hostname": f"c-{i}"} for i in range(16)]}, "list of 1 to 15"),
        ({"containers": ["primary"]}, "not an object"),
        ({"containers": [CONTAINER, CONTAINER]}, "same hostname"),
        ({"containers": [{"hostname": "a", "mode": "MultiModel"}, {"hostname": "b"}]}, "instance of one container"),
    ],
)
def test_a_claim_that_is_refused_says_which_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClaimError, match=words):
        parse(WHOLE | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostname": 3}, "hostname is not text"),
        ({"mode": "Both"}, "neither SingleModel nor MultiModel"),
        ({"folder": "/etc"}, "leads out of"),
        ({"folder": "containers/../.."}, "leads out of"),
        ({"environment": []}, "not an object of text"),
        ({"environment": {"A": 1}}, "not an object of text"),
        ({"environment": {f"V{i}": "" for i in range(101)}}, "more than 100"),
        ({"environment": {"A=B": ""}}, "cannot be an environment variable"),
        ({"environment": {"A": "\0"}}, "cannot be an environment variable"),
        ({"environment": {"A": "x" * 10_241}}, "cannot be an environment variable"),
    ],
)
def test_a_container_that_is_refused_says_which_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClaimError, match=words):
        parse(WHOLE | {"containers": [CONTAINER | change]})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff"])
def test_a_claim_that_is_no_object(body: bytes) -> None:
    with pytest.raises(ClaimError):
        Claim.parse(body)


def test_variables_of_the_contract_and_of_the_user(tmp_path: Path) -> None:
    environ = {"EYRIE_DATA": "/secret", "PATH": "/bin"}
    claim = parse(WHOLE)
    environment.apply(environment.variables(claim, claim.containers[0], tmp_path), environ)
    assert environ == {
        "PATH": "/bin",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "SAGEMAKER_REGION": "eu-west-1",
        "HOSTNAME": "primary",
        "COLOUR": "red",
        "SAGEMAKER_BASE_DIR": str(tmp_path),
        "SM_MODEL_DIR": str(tmp_path / "model"),
    }


def test_each_of_several_containers_has_variables_of_its_own(tmp_path: Path) -> None:
    first = CONTAINER | {"hostname": "a", "folder": "containers/0", "environment": {"COLOUR": "red", "SIZE": "L"}}
    second = CONTAINER | {"hostname": "b", "folder": "containers/1", "environment": {"COLOUR": "blue", "SIZE": "L"}}
    claim = parse(WHOLE | {"containers": [first, second]})
    sets = [environment.variables(claim, container, tmp_path) for container in claim.containers]
    assert [found["COLOUR"] for found in sets] == ["red", "blue"]
    assert [found["HOSTNAME"] for found in sets] == ["a", "b"]
    assert sets[1]["SM_MODEL_DIR"] == str(tmp_path / "containers" / "1" / "model")
    assert environment.in_common(sets) == {
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "SAGEMAKER_REGION": "eu-west-1",
        "SIZE": "L",
    }


def test_reserved_variables_are_protected_and_it_is_said(tmp_path: Path, caplog: Any) -> None:
    asked = {"SM_MODEL_DIR": "/etc", "EYRIE_PORT": "1", "AWS_REGION": "eu-north-1"}
    container = Container(environment=asked)
    found = environment.variables(Claim("i-1", WHOLE["endpoint"], containers=(container,)), container, tmp_path)
    assert found["SM_MODEL_DIR"] == str(tmp_path / "model")
    assert "EYRIE_PORT" not in found
    assert found["AWS_REGION"] == "eu-north-1"
    assert [record.args for record in caplog.records] == [("SM_MODEL_DIR",), ("EYRIE_PORT",)]


@pytest.mark.parametrize(
    ("env", "limit"),
    [
        ({}, BODY_BYTES_DEFAULT),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}, 6 * 1024 * 1024),
        ({"MAX_CONTENT_LENGTH": "1000"}, 1000),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1", "MAX_CONTENT_LENGTH": "1000"}, 1024 * 1024),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, BODY_BYTES_MAX),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "9999"}, BODY_BYTES_MAX),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "six"}, BODY_BYTES_DEFAULT),
        ({"MAX_CONTENT_LENGTH": "-5"}, BODY_BYTES_DEFAULT),
    ],
)
def test_the_limit_of_a_body(env: dict[str, str], limit: int) -> None:
    assert environment.body_bytes_max(env) == limit


@pytest.mark.parametrize(
    ("text", "rows"), [("", 256), (" 16 ", 16), ("1", 1), ("0", 256), ("many", 256), ("9" * 30, 256)]
)
def test_rows_of_a_batch(text: str, rows: int, tmp_path: Path) -> None:
    container = Container(environment={"EYRIE_BATCH_ROWS": text})
    env = environment.variables(Claim("i-1", WHOLE["endpoint"], containers=(container,)), container, tmp_path)
    assert env["EYRIE_BATCH_ROWS"] == text  # of Eyrie's own, but a container's
    assert environment.batch_rows(env) == rows
    assert environment.batch_rows({}) == 256


def test_the_log_level_by_number_or_name() -> None:
    root = logging.getLogger()
    before = root.level
    try:
        for text, level in (("10", 10), ("ERROR", 40), ("loud", 40), ("", 40)):
            environment.set_log_level({"SAGEMAKER_CONTAINER_LOG_LEVEL": text})
            assert root.level == level
    finally:
        root.setLevel(before)
