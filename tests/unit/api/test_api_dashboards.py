"""CloudWatch's dashboards through boto3, in all three protocols."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from eyrie.control import api_dashboards

BODY = json.dumps({"widgets": [{"type": "text", "properties": {"markdown": "hä?"}}]})
WRONG = json.dumps({"widgets": [{"type": "text", "properties": {"markdown": 3}}]})


@pytest.fixture(params=["query", "json", "smithy-rpc-v2-cbor"])
def cw(door: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    client = door.client("cloudwatch")
    client.meta.service_model.metadata["protocol"] = request.param
    yield client
    client.close()


def test_a_dashboard_is_put_found_listed_and_deleted(cw: Any, door: Any) -> None:
    assert cw.put_dashboard(DashboardName="main", DashboardBody=BODY).get("DashboardValidationMessages", []) == []
    found = cw.get_dashboard(DashboardName="main")
    arn = "arn:aws:cloudwatch::123456789012:dashboard/main"
    assert (found["DashboardBody"], found["DashboardArn"]) == (BODY, arn)
    (entry,) = cw.list_dashboards(DashboardNamePrefix="ma")["DashboardEntries"]
    assert (entry["DashboardName"], entry["Size"], entry["DashboardArn"]) == ("main", len(BODY.encode()), arn)
    assert entry["LastModified"].timestamp() == door.clock.at_ms / 1000
    assert cw.list_dashboards(DashboardNamePrefix="x").get("DashboardEntries", []) == []
    west = door.client("cloudwatch", region="eu-west-1")  # a dashboard has no region
    assert west.get_dashboard(DashboardName="main")["DashboardBody"] == BODY
    west.close()
    other = door.client("cloudwatch", key=door.keys[1])
    assert other.list_dashboards()["DashboardEntries"] == []
    other.close()
    cw.delete_dashboards(DashboardNames=["main"])
    with pytest.raises(ClientError) as caught:
        cw.get_dashboard(DashboardName="main")
    assert caught.value.response["Error"]["Message"] == "Dashboard main does not exist"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert type(caught.value).__name__ in ("DashboardNotFoundError", "ResourceNotFound")


def test_what_is_wrong_with_a_body_is_told_by_place(cw: Any, refused: Any) -> None:
    with pytest.raises(ClientError) as caught:
        cw.put_dashboard(DashboardName="d", DashboardBody=WRONG)
    assert caught.value.response["Error"]["Code"] in ("InvalidParameterInput", "DashboardInvalidInputError")
    assert "/widgets/0/properties/markdown: Should be string" in caught.value.response["Error"]["Message"]
    told = caught.value.response["dashboardValidationMessages"]
    assert told == [{"DataPath": "/widgets/0/properties/markdown", "Message": "Should be string"}]
    assert "valid JSON object" in refused(cw.put_dashboard, DashboardName="d", DashboardBody="{")[1]
    assert "valid JSON object" in refused(cw.put_dashboard, DashboardName="d", DashboardBody="[" * 100_000)[1]
    assert "DashboardName" in refused(cw.put_dashboard, DashboardName="a b", DashboardBody=BODY)[1]
    assert cw.list_dashboards().get("DashboardEntries", []) == []
    warned = BODY.replace('"markdown"', '"size": 3, "markdown"')
    (message,) = cw.put_dashboard(DashboardName="d", DashboardBody=warned)["DashboardValidationMessages"]
    assert message["DataPath"] == "/widgets/0/properties/size"
    assert cw.get_dashboard(DashboardName="d")["DashboardBody"] == warned


def test_dashboards_are_deleted_together_or_not_at_all(cw: Any, refused: Any) -> None:
    for name in ("a", "b"):
        cw.put_dashboard(DashboardName=name, DashboardBody=BODY)
    assert "nothing does not exist" in refused(cw.delete_dashboards, DashboardNames=["a", "nothing"])[1]
    assert len(cw.list_dashboards()["DashboardEntries"]) == 2
    cw.delete_dashboards(DashboardNames=["a", "b", "a"])
    assert cw.list_dashboards().get("DashboardEntries", []) == []


def test_dashboards_come_in_pages_and_are_bounded(cw: Any, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_dashboards, "LIST_MAX", 2)
    monkeypatch.setattr(api_dashboards, "DASHBOARDS_MAX", 5)
    for n in range(5):
        cw.put_dashboard(DashboardName=f"d{n}", DashboardBody=BODY)
    cw.put_dashboard(DashboardName="d1", DashboardBody=BODY)  # in place of it
    assert "5 dashboards already" in refused(cw.put_dashboard, DashboardName="more", DashboardBody=BODY)[1]
    pages = cw.get_paginator("list_dashboards").paginate()
    assert [[e["DashboardName"] for e in page["DashboardEntries"]] for page in pages] == [
        ["d0", "d1"], ["d2", "d3"], ["d4"]
    ]  # fmt: skip
    assert "NextToken" in refused(cw.list_dashboards, NextToken="&")[1]
