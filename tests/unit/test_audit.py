"""The audit: which calls are kept, what is told of them, and that what is secret is not."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from eyrie.console import audit_page
from eyrie.console.client import Client, Trouble
from eyrie.control.audit import GROUP, OWN, PARAMS_CHARS_MAX, Audit, Deed, changes, record
from eyrie.control.log_book import LogBook
from eyrie.domain.logs import LogGroup
from eyrie.domain.names import Scope
from eyrie.ports import Clock
from eyrie.wire.credentials import Identity

SIGNER = Identity("AKIA0000000000000000", "123456789012", "eu-west-1", "sagemaker")


def deed(operation: str = "CreateEndpoint", service: str = "sagemaker", **params: Any) -> Deed:
    return Deed(service, operation, params, SIGNER, "request-1", "Boto3/1.40")


@pytest.mark.parametrize(
    ("service", "operation", "kept"),
    [
        ("sagemaker", "CreateEndpoint", True),
        ("sagemaker", "UpdateEndpointWeightsAndCapacities", True),
        ("application-autoscaling", "PutScalingPolicy", True),
        ("logs", "CreateLogGroup", True),
        ("sagemaker", "DescribeEndpoint", False),
        ("logs", "PutLogEvents", False),
        ("cloudwatch", "PutMetricData", False),
        ("cloudwatch", "GetMetricData", False),
        (OWN, "POST /eyrie/deployments/iris", True),
        (OWN, "GET /eyrie/status", False),
    ],
)
def test_what_changes_something_is_kept(service: str, operation: str, kept: bool) -> None:
    assert changes(service, operation) is kept


def test_a_record_says_who_did_what_and_what_came_of_it() -> None:
    told = json.loads(record(1_700_000_000_123, deed(EndpointName="iris")))
    assert told["eventTime"] == "2023-11-14T22:13:20.123+00:00"
    assert told["eventSource"] == "sagemaker.amazonaws.com"
    assert told["eventName"] == "CreateEndpoint"
    assert told["awsRegion"] == "eu-west-1"
    assert told["userIdentity"] == {"accountId": "123456789012", "accessKeyId": "AKIA0000000000000000"}
    assert told["requestParameters"] == {"EndpointName": "iris"}
    assert "errorCode" not in told
    refused = Deed("sagemaker", "DeleteModel", {}, SIGNER, "r", error=("ValidationException", "not there"))
    assert json.loads(record(0, refused))["errorCode"] == "ValidationException"


def test_variables_and_secrets_are_not_told() -> None:
    container = {"Image": "i", "Environment": {"PASSWORD": "hunter2"}}
    line = record(0, deed("CreateModel", ModelName="m", PrimaryContainer=container, body=b"\x00" * 9))
    assert "hunter2" not in line
    told = json.loads(line)["requestParameters"]
    assert told["PrimaryContainer"]["Environment"] == {"PASSWORD": "(hidden)"}
    assert told["body"] == "(9 bytes)"


def test_parameters_are_bounded() -> None:
    told = json.loads(record(0, deed(EndpointName="iris", Tags=[{"Key": "k", "Value": "v" * 9}] * 1_000)))
    assert told["requestParameters"]["EndpointName"] == "iris"
    assert len(json.dumps(told)) < PARAMS_CHARS_MAX


class Book:
    """The part of a LogBook that the audit writes to."""

    def __init__(self) -> None:
        self.put: dict[str, list[tuple[int, str]]] = {}

    def append_all(self, group: LogGroup, by_stream: dict[str, list[tuple[int, str]]], now_ms: int) -> None:
        assert (group.scope, group.name) == (Scope("123456789012", "eu-west-1"), GROUP)
        for stream, events in by_stream.items():
            self.put.setdefault(stream, []).extend(events)


class Stopped:
    def now_ms(self) -> int:
        return 5


def test_the_calls_that_change_something_are_written() -> None:
    book = Book()
    audit = Audit(cast(LogBook, book), cast(Clock, Stopped()))
    audit.take(deed(EndpointName="iris"))
    audit.take(deed("DescribeEndpoint"))
    audit.write()
    (line,) = book.put["sagemaker"]
    assert (line[0], json.loads(line[1])["requestParameters"]) == (5, {"EndpointName": "iris"})


class Lines:
    """A client whose log has these lines."""

    def __init__(self, lines: list[str], code: str = "") -> None:
        self._lines, self._code = lines, code

    def newest_lines(self, group: str, most: int, pattern: str = "", since_ms: float = 0.0) -> list[dict[str, Any]]:
        if self._code:
            raise Trouble("no such group", self._code)
        return [{"message": line} for line in self._lines]


def test_the_page_shows_what_was_done_and_what_was_refused() -> None:
    lines = [record(0, deed(EndpointName="<iris>")), "no JSON"]
    refused = Deed("sagemaker", "DeleteModel", {"ModelName": "m"}, SIGNER, "r", error=("ValidationException", "why"))
    lines.append(record(0, refused))
    lines.append(record(0, deed("POST /eyrie/deployments/churn", OWN, do="abort")))
    deeds = audit_page.deeds_of(cast(Client, Lines(lines)), "", 0.0)
    shown = audit_page.deeds_table(deeds, 1_000.0, "nothing")
    assert len(deeds) == 3
    for text in (
        "&lt;iris&gt;",
        "CreateEndpoint",
        "refused",
        "ValidationException: why",
        ">churn<",
        "AKIA0000000000000000",
    ):
        assert text in shown
    assert "<iris>" not in shown
    assert shown.index("POST /eyrie") < shown.index("DeleteModel") < shown.index("CreateEndpoint")


def test_nothing_was_changed_yet() -> None:
    assert audit_page.deeds_of(cast(Client, Lines([], "ResourceNotFoundException")), "", 0.0) == []
    assert "nothing" in audit_page.deeds_table([], 0.0, "nothing")
    with pytest.raises(Trouble):
        audit_page.deeds_of(cast(Client, Lines([], "ThrottlingException")), "", 0.0)


def test_a_search_is_for_the_words_as_they_are() -> None:
    assert audit_page.pattern_of('iris -x "y" {') == '"iris" "-x" "y" "{"'
