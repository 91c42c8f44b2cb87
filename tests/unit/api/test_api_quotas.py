"""Service Quotas: the limits, raising them at once or when somebody says so, and that what is raised holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from eyrie.control import api_quotas, quotas

SERVICE = "sagemaker"
BY_TYPE = "ml.m5.large for endpoint usage"


@pytest.fixture
def sq(door: Any) -> Iterator[Any]:
    client = door.client("service-quotas")
    yield client
    client.close()


def code(sq: Any, name: str) -> str:
    found = [q for page in pages(sq, "list_service_quotas") for q in page["Quotas"] if q["QuotaName"] == name]
    return str(found[0]["QuotaCode"])


def pages(sq: Any, operation: str, **params: Any) -> Iterator[dict[str, Any]]:
    yield from sq.get_paginator(operation).paginate(ServiceCode=SERVICE, **params)


def test_services_and_limits_are_listed_in_pages(sq: Any) -> None:
    assert [s["ServiceCode"] for s in sq.list_services()["Services"]] == [SERVICE]
    found = [q for page in pages(sq, "list_service_quotas", PaginationConfig={"PageSize": 7}) for q in page["Quotas"]]
    names = {q["QuotaName"]: q for q in found}
    assert len(names) == len(found) == len({q["QuotaCode"] for q in found})
    assert names[BY_TYPE]["Value"] == 500.0
    assert names[BY_TYPE]["Adjustable"] is True
    assert names[quotas.INSTANCES]["Value"] == 500.0
    payload = names["Maximum payload of a real-time request"]
    assert (payload["Value"], payload["Unit"], payload["Adjustable"]) == (25.0, "Megabytes", False)
    assert "ml.m5.large for transform job usage" in names


def test_an_increase_is_granted_at_once_and_holds(sq: Any, deployed: Any, refused: Any) -> None:
    deployed("e", InitialInstanceCount=499)
    assert refused(deployed, name="f", InitialInstanceCount=2)[0] == "ResourceLimitExceeded"
    wanted = code(sq, quotas.INSTANCES)
    made = sq.request_service_quota_increase(ServiceCode=SERVICE, QuotaCode=wanted, DesiredValue=600)
    assert made["RequestedQuota"]["Status"] == "APPROVED"
    text = refused(deployed, name="f2", InitialInstanceCount=2)[1]
    assert text.startswith(f"The account-level service limit '{BY_TYPE}' is 500 Instances, with current utilization")
    sq.request_service_quota_increase(ServiceCode=SERVICE, QuotaCode=code(sq, BY_TYPE), DesiredValue=600)
    deployed("g", InitialInstanceCount=2)
    assert sq.get_service_quota(ServiceCode=SERVICE, QuotaCode=wanted)["Quota"]["Value"] == 600.0
    assert sq.get_aws_default_service_quota(ServiceCode=SERVICE, QuotaCode=wanted)["Quota"]["Value"] == 500.0
    history = sq.list_requested_service_quota_change_history(ServiceCode=SERVICE)["RequestedQuotas"]
    assert {(h["QuotaName"], h["DesiredValue"], h["Status"]) for h in history} == {
        (quotas.INSTANCES, 600.0, "APPROVED"),
        (BY_TYPE, 600.0, "APPROVED"),
    }
    (of_one,) = sq.list_requested_service_quota_change_history_by_quota(ServiceCode=SERVICE, QuotaCode=wanted)[
        "RequestedQuotas"
    ]
    again = sq.get_requested_service_quota_change(RequestId=of_one["Id"])["RequestedQuota"]
    assert again["QuotaArn"].endswith(f":{SERVICE}/{wanted}")


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"ServiceCode": "ec2"}, "NoSuchResourceException"),
        ({"QuotaCode": "L-NOTHING"}, "NoSuchResourceException"),
        ({"DesiredValue": 500.0}, "IllegalArgumentException"),
        ({"DesiredValue": 500.5}, "IllegalArgumentException"),
        ({"DesiredValue": 1e7}, "IllegalArgumentException"),
    ],
)
def test_what_cannot_be_raised_is_refused(sq: Any, refused: Any, params: dict[str, Any], error: str) -> None:
    given = {"ServiceCode": SERVICE, "QuotaCode": quotas.Quota(BY_TYPE, 0).code, "DesiredValue": 501.0, **params}
    assert refused(sq.request_service_quota_increase, **given)[0] == error


def test_payloads_cannot_be_raised(sq: Any, refused: Any) -> None:
    given = {"QuotaCode": code(sq, "Maximum payload of a real-time request"), "DesiredValue": 100.0}
    found = refused(sq.request_service_quota_increase, ServiceCode=SERVICE, **given)
    assert found[0] == "IllegalArgumentException"
    assert "not adjustable" in found[1]
    bad = refused(sq.list_service_quotas, ServiceCode=SERVICE, NextToken="abc")
    assert bad[0] == "InvalidPaginationTokenException"


def test_a_request_may_wait_until_somebody_decides(
    sq: Any, door: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = {("service-quotas", n): o for n, o in api_quotas.operations(False, 1 << 20).items()}
    monkeypatch.setattr(door.app, "_table", {**door.app._table, **waiting})
    wanted = {"ServiceCode": SERVICE, "QuotaCode": quotas.Quota(BY_TYPE, 0).code, "DesiredValue": 700.0}
    asked = sq.request_service_quota_increase(**wanted)["RequestedQuota"]
    assert asked["Status"] == "PENDING"
    assert refused(sq.request_service_quota_increase, **wanted)[0] == "ResourceAlreadyExistsException"
    context = made_context(door)
    assert quotas.limit(door.store, context.scope, BY_TYPE, 500) == 500
    told = api_quotas.decide(context, f"{api_quotas.PATH}{asked['Id']}/approve")
    assert told["status"] == "APPROVED"
    assert quotas.limit(door.store, context.scope, BY_TYPE, 500) == 700
    with pytest.raises(Exception, match="APPROVED already"):
        api_quotas.decide(context, f"{api_quotas.PATH}{asked['Id']}/deny")
    second = sq.request_service_quota_increase(**{**wanted, "DesiredValue": 800.0})["RequestedQuota"]
    assert api_quotas.decide(context, f"{api_quotas.PATH}{second['Id']}/deny")["status"] == "DENIED"
    assert sq.get_service_quota(ServiceCode=SERVICE, QuotaCode=wanted["QuotaCode"])["Quota"]["Value"] == 700.0


def made_context(door: Any) -> Any:
    """A call's surroundings, as the door makes them."""
    from eyrie.wire.credentials import Identity

    return door.app._context(Identity("AKIA", "123456789012", "us-east-1", "sagemaker"))


def test_a_kind_may_have_more_than_its_default(sq: Any, sm: Any, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from eyrie.control import records

    monkeypatch.setattr(records, "DOCUMENTS_MAX", 1)

    def group(name: str) -> None:
        container = {"Image": "eyrie/xgboost"}
        sm.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn="arn:aws:iam::123456789012:role/r")

    group("a")
    with pytest.raises(ClientError, match="ResourceLimitExceeded"):
        group("b")
    name = quotas.OF_KIND.format("Model")
    sq.request_service_quota_increase(ServiceCode=SERVICE, QuotaCode=quotas.Quota(name, 0).code, DesiredValue=10_001)
    group("b")
