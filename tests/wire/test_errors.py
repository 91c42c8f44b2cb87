"""Errors in every protocol, as botocore's client reads them; and a refusal never fails, whatever it refuses."""

from __future__ import annotations

from typing import Any

import peer
import pytest

from eyrie.wire import errors
from eyrie.wire.errors import ApiError
from eyrie.wire.messages import Call, HttpRequest
from eyrie.wire.model import Models

ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"


def told(models: Models, service: str, protocol: str, error: ApiError, **call: Any) -> dict[str, Any]:
    wire = peer.wire(models)
    reply = wire.refuse(Call(service, "Any", protocol, {}, "request-1", **call), error)
    parsed = peer.parse_error(service, protocol, reply)
    assert parsed["ResponseMetadata"]["RequestId"] == "request-1"
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == reply.status
    return parsed


@pytest.mark.parametrize(
    ("service", "protocol"),
    [
        ("sagemaker", "json"),
        ("sagemaker-runtime", "rest-json"),
        ("sts", "query"),
        ("s3", "rest-xml"),
        ("cloudwatch", "smithy-rpc-v2-cbor"),
        ("cloudwatch", "json"),
        ("cloudwatch", "query"),
    ],
)
def test_code_message_and_request_id_arrive(models: Models, service: str, protocol: str) -> None:
    text = 'Could not find <endpoint> "é & co".'
    parsed = told(models, service, protocol, ApiError("SomethingElse", text, 418))
    assert parsed["Error"]["Code"] == "SomethingElse"
    assert parsed["Error"]["Message"] == text
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == 418


def test_modelled_errors_bring_their_members_and_status(models: Models) -> None:
    fields = {"OriginalStatusCode": 500, "OriginalMessage": "boom", "LogStreamArn": "arn:aws:logs:x"}
    parsed = told(
        models, "sagemaker-runtime", "rest-json", ApiError("ModelError", "Received server error", fields=fields)
    )
    assert {name: parsed[name] for name in fields} == fields
    assert parsed["Message"] == "Received server error"
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == 424
    sts = told(models, "sts", "query", ApiError("ExpiredTokenException", "late"))
    assert sts["Error"]["Code"] == "ExpiredTokenException"
    s3 = told(models, "s3", "rest-xml", ApiError("NoSuchKey", "gone", 404, {"Key": "a<b", "BucketName": "b"}))
    assert (s3["Error"]["Key"], s3["Error"]["BucketName"]) == ("a<b", "b")


def test_query_compatible_services_tell_both_codes(models: Models) -> None:
    error = ApiError("DashboardNotFoundError", "no such dashboard")
    parsed = told(models, "cloudwatch", "json", error, json_version="1.0", query_mode=True)
    assert parsed["Error"]["Code"] == "ResourceNotFound"
    assert parsed["Error"]["QueryErrorCode"] == "DashboardNotFoundError"
    assert parsed["Error"]["Type"] == "Sender"
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == 404
    same = told(models, "cloudwatch", "smithy-rpc-v2-cbor", ApiError("DashboardNotFoundError", "x"), query_mode=True)
    assert same["Error"] == {**parsed["Error"], "Message": "x"}
    assert told(models, "cloudwatch", "json", error)["Error"]["Code"] == "DashboardNotFoundError"
    assert told(models, "cloudwatch", "query", ApiError("ResourceNotFound", "x"))["Error"]["Type"] == "Sender"


def test_a_head_request_is_refused_without_a_body(models: Models) -> None:
    wire = peer.wire(models)
    reply = wire.refuse(HttpRequest("HEAD", "/bucket/key", "", {}), ApiError("404", "Not Found", 404))
    assert (reply.status, reply.body) == (404, b"")
    assert ("x-amzn-RequestId", reply.headers[0][1]) in reply.headers


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest("POST", "/", "", {}),
        HttpRequest("\xff", "\xff", "\xff=%", {"\xff": "\xff"}, b"\xff"),
        HttpRequest("POST", "/", "", {"x-amz-target": "No.Such"}),
        HttpRequest("POST", "/service/X/operation/Y", "", {"smithy-protocol": "rpc-v2-cbor"}),
        HttpRequest("POST", "/endpoints/x/invocations", "", {}),
        HttpRequest("GET", "/bucket", "", {}),
        HttpRequest("POST", "/", "", {"authorization": "AWS4-HMAC-SHA256 Credential=a/b/c/../aws4_request"}),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        errors.validation("\ud800 half a pair, \x00 and \x0b"),
        ApiError("Odd\r\nName: x", "m", 500, {"Nested": {"a": [object()]}, "None": None, "Bytes": b"\xff"}),
        errors.internal_failure(),
    ],
)
def test_a_refusal_never_fails(models: Models, request_: HttpRequest, error: ApiError) -> None:
    reply = peer.wire(models).refuse(request_, error)
    assert 400 <= reply.status <= 599
    assert any(name.lower() == "x-amzn-requestid" for name, _ in reply.headers)
    assert not any("\r" in value or "\n" in value for _, value in reply.headers)


def test_the_texts_that_sdks_match_on() -> None:
    assert errors.could_not_find("endpoint", ARN).message == f'Could not find endpoint "{ARN}".'
    assert errors.could_not_find("endpoint", ARN).code == "ValidationException"
    assert errors.already_exists("model", ARN).message == f'Cannot create already existing model "{ARN}".'
    limit = errors.resource_limit_exceeded("ml.m5.large for endpoint usage", 4, 4, 1)
    assert "'ml.m5.large for endpoint usage' is 4 Instances, with current utilization of 4 Instances" in limit.message


def test_an_operation_that_no_service_has_is_told_in_each_protocol(models: Models) -> None:
    wire = peer.wire(models)
    json_form = {"x-amz-target": "SageMaker.Nothing"}
    for request, code, status in (
        (HttpRequest("POST", "/", "", json_form), "UnknownOperationException", 400),
        (HttpRequest("POST", "/", "", {"x-amz-target": "X.Y"}), "UnknownOperationException", 400),
        (HttpRequest("POST", "/endpoints/x/nothing", "", {}), "UnknownOperationException", 404),
        (HttpRequest("PATCH", "/bucket/key", "", {}), "MethodNotAllowed", 405),
        (HttpRequest("GET", "/", "Action=Nothing&Version=2011-06-15", {}), "InvalidAction", 400),
    ):
        with pytest.raises(ApiError) as caught:
            wire.decode(request)
        assert (caught.value.code, caught.value.status) == (code, status)
