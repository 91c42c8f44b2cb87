"""The claim, and the variables of the container contract that follow from it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from eyrie.modelserver import environment
from eyrie.modelserver.environment import BODY_BYTES_DEFAULT, BODY_BYTES_MAX, Claim, ClaimError

WHOLE: dict[str, Any] = {
    "instance_id": "i-1",
    "container": "primary",
    "endpoint": "123456789012.eu-west-1.shop",
    "variant": "A",
    "zone": "b",
    "vcpu_milli": 2000,
    "image": "eyrie/xgboost",
    "environment": {"COLOUR": "red"},
}


def test_a_whole_claim() -> None:
    claim = Claim.parse(json.dumps(WHOLE | {"unknown": 1}).encode())
    assert claim == Claim(
        "i-1", "primary", "123456789012.eu-west-1.shop", "A", "b", 2000, "eyrie/xgboost", {"COLOUR": "red"}
    )
    assert claim.region == "eu-west-1"
    assert Claim.parse(b'{"instance_id": "i-2"}').region == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instance_id": ""}, "instance_id"),
        ({"instance_id": 3}, "instance_id"),
        ({"zone": 3}, "zone is not text"),
        ({"vcpu_milli": 0}, "vcpu_milli"),
        ({"vcpu_milli": "2"}, "vcpu_milli"),
        ({"environment": []}, "not an object of text"),
        ({"environment": {"A": 1}}, "not an object of text"),
        ({"environment": {f"V{i}": "" for i in range(101)}}, "more than 100"),
        ({"environment": {"A=B": ""}}, "cannot be an environment variable"),
        ({"environment": {"A": "\0"}}, "cannot be an environment variable"),
        ({"environment": {"A": "x" * 10_241}}, "cannot be an environment variable"),
    ],
)
def test_a_claim_that_is_refused_says_which_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClaimError, match=words):
        Claim.parse(json.dumps(WHOLE | change).encode())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff"])
def test_a_claim_that_is_no_object(body: bytes) -> None:
    with pytest.raises(ClaimError):
        Claim.parse(body)


def test_variables_of_the_contract_and_of_the_user(tmp_path: Path) -> None:
    environ = {"EYRIE_DATA": "/secret", "PATH": "/bin"}
    environment.apply(Claim.parse(json.dumps(WHOLE).encode()), tmp_path, environ)
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


def test_reserved_variables_are_protected_and_it_is_said(tmp_path: Path, caplog: Any) -> None:
    environ: dict[str, str] = {}
    asked = {"SM_MODEL_DIR": "/etc", "EYRIE_PORT": "1", "AWS_REGION": "eu-north-1"}
    environment.apply(Claim("i-1", endpoint=WHOLE["endpoint"], environment=asked), tmp_path, environ)
    assert environ["SM_MODEL_DIR"] == str(tmp_path / "model")
    assert "EYRIE_PORT" not in environ
    assert environ["AWS_REGION"] == "eu-north-1"
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


def test_the_log_level_by_number_or_name() -> None:
    root = logging.getLogger()
    before = root.level
    try:
        for text, level in (("10", 10), ("ERROR", 40), ("loud", 40), ("", 40)):
            environment.set_log_level({"SAGEMAKER_CONTAINER_LOG_LEVEL": text})
            assert root.level == level
    finally:
        root.setLevel(before)
