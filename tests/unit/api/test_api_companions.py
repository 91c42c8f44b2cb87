"""STS and IAM through boto3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

TRUST = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
)


@pytest.fixture(scope="session")
def _iam(running: Any) -> Iterator[Any]:
    client = running.client("iam")
    yield client
    client.close()


@pytest.fixture
def iam(door: Any, _iam: Any) -> Any:
    return _iam


def test_who_am_i(door: Any) -> None:
    for key, account in ((door.keys[0], "123456789012"), (door.keys[1], "210987654321")):
        sts = door.client("sts", key=key)
        found = sts.get_caller_identity()
        sts.close()
        assert found["Account"] == account
        assert found["Arn"] == f"arn:aws:sts::{account}:assumed-role/Eyrie/{key.access_key_id}"
        assert found["UserId"].endswith(":" + key.access_key_id)


def test_the_role_that_is_always_there(iam: Any, refused: Any) -> None:
    role = iam.get_role(RoleName="Eyrie")["Role"]
    assert role["Arn"] == "arn:aws:iam::123456789012:role/Eyrie"
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert refused(iam.delete_role, RoleName="Eyrie")[0] == "DeleteConflict"
    assert refused(iam.create_role, RoleName="Eyrie", AssumeRolePolicyDocument=TRUST)[0] == "EntityAlreadyExists"


def test_a_role_is_stored(iam: Any, refused: Any, door: Any) -> None:
    missing = ("NoSuchEntity", "The role with name R cannot be found.")
    assert refused(iam.get_role, RoleName="R") == missing
    made = iam.create_role(RoleName="R", Path="/service/", AssumeRolePolicyDocument=TRUST, Description="d")["Role"]
    assert made["Arn"] == "arn:aws:iam::123456789012:role/service/R"
    assert made["RoleId"].startswith("AROA")
    found = iam.get_role(RoleName="R")["Role"]
    assert found["AssumeRolePolicyDocument"] == json.loads(TRUST)
    assert (found["Description"], found["MaxSessionDuration"]) == ("d", 3600)
    assert refused(iam.create_role, RoleName="R", AssumeRolePolicyDocument=TRUST) == (
        "EntityAlreadyExists",
        "Role with name R already exists.",
    )
    far = door.client("iam", region="eu-west-1")  # roles are of the account, not of a region
    assert far.get_role(RoleName="R")["Role"]["RoleId"] == found["RoleId"]
    far.close()
    iam.delete_role(RoleName="R")
    assert refused(iam.get_role, RoleName="R") == missing


def test_policies_are_noted_with_a_role(iam: Any, refused: Any) -> None:
    full = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST)
    for role in ("R", "Eyrie"):
        iam.attach_role_policy(RoleName=role, PolicyArn=full)
        iam.attach_role_policy(RoleName=role, PolicyArn=full)
        found = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        assert found == [{"PolicyName": "AmazonSageMakerFullAccess", "PolicyArn": full}]
        assert iam.get_role(RoleName=role)["Role"]["RoleName"] == role
    assert refused(iam.delete_role, RoleName="R")[0] == "DeleteConflict"
    iam.detach_role_policy(RoleName="R", PolicyArn=full)
    assert refused(iam.detach_role_policy, RoleName="R", PolicyArn=full)[0] == "NoSuchEntity"
    iam.delete_role(RoleName="R")
    for n in range(19):
        iam.attach_role_policy(RoleName="Eyrie", PolicyArn=f"arn:aws:iam::aws:policy/P{n:02d}")
    one_more = refused(iam.attach_role_policy, RoleName="Eyrie", PolicyArn="arn:aws:iam::aws:policy/P99")
    assert one_more == ("LimitExceeded", "A role has at most 20 attached policies.")
    assert [r["RoleName"] for r in iam.list_roles()["Roles"]] == ["Eyrie"]


def test_a_role_has_no_inline_policies_and_no_profiles(iam: Any, refused: Any) -> None:
    """Terraform asks before it takes a role for its own, and before it deletes one."""
    assert iam.list_role_policies(RoleName="Eyrie")["PolicyNames"] == []
    assert iam.list_instance_profiles_for_role(RoleName="Eyrie")["InstanceProfiles"] == []
    for operation in (iam.list_role_policies, iam.list_instance_profiles_for_role):
        assert refused(operation, RoleName="none")[0] == "NoSuchEntity"


def test_roles_are_listed_in_pages(iam: Any) -> None:
    for name in ("A", "B", "Z"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
    pages = iam.get_paginator("list_roles").paginate(PaginationConfig={"PageSize": 3})
    assert [[r["RoleName"] for r in page["Roles"]] for page in pages] == [["A", "B", "Eyrie"], ["Z"]]


def test_a_trust_policy_must_be_one(iam: Any, refused: Any) -> None:
    for text in ("no json", "[]", "{}"):
        code, _ = refused(iam.create_role, RoleName="R", AssumeRolePolicyDocument=text)
        assert code == "MalformedPolicyDocument"


def test_a_missing_parameter_is_a_validation_error(door: Any, refused: Any) -> None:
    client = door.client("iam", parameter_validation=False)
    assert refused(client.get_role)[0] == "ValidationError"
    client.close()


def test_everything_is_allowed_while_every_principal_is_root(iam: Any) -> None:
    found = iam.simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::123456789012:role/Eyrie",
        ActionNames=["sagemaker:CreateModel", "s3:GetObject"],
        ResourceArns=["arn:aws:s3:::a", "arn:aws:s3:::b"],
    )
    results = found["EvaluationResults"]
    assert [(r["EvalActionName"], r["EvalResourceName"], r["EvalDecision"]) for r in results] == [
        ("sagemaker:CreateModel", "arn:aws:s3:::a", "allowed"),
        ("sagemaker:CreateModel", "arn:aws:s3:::b", "allowed"),
        ("s3:GetObject", "arn:aws:s3:::a", "allowed"),
        ("s3:GetObject", "arn:aws:s3:::b", "allowed"),
    ]
    assert found["IsTruncated"] is False


def test_many_simulated_actions_come_in_pages(iam: Any) -> None:
    pages = iam.get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn="arn:aws:iam::123456789012:role/Eyrie",
        ActionNames=[f"s3:A{n}" for n in range(5)],
        PaginationConfig={"PageSize": 2},
    )
    names = [[r["EvalActionName"] for r in page["EvaluationResults"]] for page in pages]
    assert names == [["s3:A0", "s3:A1"], ["s3:A2", "s3:A3"], ["s3:A4"]]


def test_there_are_no_users(iam: Any, refused: Any) -> None:
    assert refused(iam.get_user) == ("ValidationError", "Must specify userName when calling with non-User credentials")
    assert refused(iam.get_user, UserName="u") == ("NoSuchEntity", "The user with name u cannot be found.")
