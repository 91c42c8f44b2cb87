"""Which service and process a request is for, by its head alone; and that the tables agree with botocore's models."""

from __future__ import annotations

import subprocess
import sys

import peer
import pytest

from eyrie.wire import dispatch
from eyrie.wire.dispatch import RESERVED_BUCKETS, Destination, Kind, destination, host_bucket
from eyrie.wire.model import Models


def scoped(service: str) -> dict[bytes, bytes]:
    credential = f"AKID/20261121/us-east-1/{service}/aws4_request"
    return {b"authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0".encode()}


def where(method: str, target: str, headers: dict[bytes, bytes] | None = None) -> Destination:
    path, _, query = target.partition("?")
    return destination(method.encode(), path.encode(), query.encode(), (headers or {}).get)


@pytest.mark.parametrize("headers", [{}, scoped("sagemaker")])
@pytest.mark.parametrize("action", ["invocations", "invocations-response-stream"])
def test_invocations_are_the_gateways_own(headers: dict[bytes, bytes], action: str) -> None:
    found = where("POST", f"/endpoints/churn/{action}", headers)
    assert found == Destination(Kind.INVOKE, "sagemaker-runtime", "churn", action)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/endpoints/churn/async-invocations"),
        ("GET", "/endpoints/churn/invocations"),
        ("POST", "/endpoints/churn"),
        ("POST", "/endpoints//invocations"),
        ("POST", "/endpoints/churn/invocations/"),
    ],
)
def test_what_else_is_below_endpoints_is_controls(method: str, target: str) -> None:
    found = where(method, target, scoped("sagemaker"))
    assert (found.kind, found.service) == (Kind.CONTROL, "sagemaker-runtime")


def test_asynchronous_invocations_and_queues_are_dispatchs() -> None:
    found = where("POST", "/endpoints/churn/async-invocations", scoped("sagemaker"))
    assert found == Destination(Kind.DISPATCH, "sagemaker-runtime", "churn", "async-invocations")
    assert where("POST", "/", scoped("sqs")) == Destination(Kind.DISPATCH, "sqs")
    assert where("POST", "/", {b"x-amz-target": b"AmazonSQS.SendMessage"}) == Destination(Kind.DISPATCH, "sqs")


def test_an_endpoints_name_is_percent_decoded() -> None:
    assert where("POST", "/endpoints/a%2Db/invocations").endpoint == "a-b"
    assert where("POST", "/endpoints/%ff/invocations").endpoint == "\ufffd"


@pytest.mark.parametrize(
    ("scope", "service"),
    [
        ("sagemaker", "sagemaker"),
        ("monitoring", "cloudwatch"),
        ("logs", "logs"),
        ("sts", "sts"),
        ("x", "x"),
    ],
)
def test_the_credential_scope_names_the_service(scope: str, service: str) -> None:
    assert where("POST", "/", scoped(scope)) == Destination(Kind.CONTROL, service)
    misleading = {**scoped(scope), b"x-amz-target": b"Logs_20140328.GetLogEvents"}
    assert where("POST", "/", misleading).service == service


@pytest.mark.parametrize(
    "target", ["/", "/bucket", "/bucket/key", "/bucket/endpoints/x/invocations", "/metrics/x", "/v2/x"]
)
def test_the_scope_of_s3_is_objects_wherever_it_points(target: str) -> None:
    assert where("PUT", target, scoped("s3")) == Destination(Kind.OBJECTS, "s3")


def test_a_key_below_endpoints_of_a_bucket_in_the_host_is_an_object() -> None:
    headers = {**scoped("s3"), b"host": b"models.localhost:7777"}
    found = where("POST", "/endpoints/churn/invocations", headers)
    assert found == Destination(Kind.OBJECTS, "s3", bucket="models")


def test_presigned_queries_have_a_scope_too() -> None:
    s3 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20261121%2Fus-east-1%2Fs3%2Faws4_request"
    assert where("GET", f"/service/key?{s3}").kind is Kind.OBJECTS
    assert where("GET", "/service/key?AWSAccessKeyId=AKID&Signature=x&Expires=1").kind is Kind.OBJECTS
    sts = s3.replace("s3", "sts")
    assert where("GET", f"/?Action=GetCallerIdentity&{sts}") == Destination(Kind.CONTROL, "sts")


@pytest.mark.parametrize(
    ("target", "service"),
    [
        ("/BatchPutMetrics", "sagemaker-metrics"),
        ("/FeatureGroup/x", "sagemaker-featurestore-runtime"),
        ("/nothing", "sagemaker"),
    ],
)
def test_the_services_that_sign_as_sagemaker_are_told_apart_by_path(target: str, service: str) -> None:
    assert where("PUT", target, scoped("sagemaker")).service == service


def test_unsigned_requests_go_by_target_path_and_form() -> None:
    assert where("POST", "/", {b"x-amz-target": b"SageMaker.ListModels"}).service == "sagemaker"
    assert where("POST", "/", {b"x-amz-target": b"Nobody.Nothing"}) == Destination(Kind.CONTROL, "")
    cbor = "/service/GraniteServiceVersion20100801/operation/ListMetrics"
    assert where("POST", cbor) == Destination(Kind.CONTROL, "cloudwatch")
    assert where("POST", "/") == Destination(Kind.CONTROL, "")
    assert where("GET", "/?Action=GetCallerIdentity&Version=2011-06-15") == Destination(Kind.CONTROL, "")
    assert where("GET", "/bucket/key") == Destination(Kind.OBJECTS, "s3")
    assert where("GET", "/") == Destination(Kind.OBJECTS, "s3")


@pytest.mark.parametrize("target", ["/metrics", "/eyrie/story/x", "/favicon.ico"])
def test_our_own_pages(target: str) -> None:
    assert where("GET", target).kind is Kind.OWN


@pytest.mark.parametrize("target", ["/console", "/console/endpoints/x", "/console/_nicegui/static/x.js"])
def test_the_consoles_pages(target: str) -> None:
    assert where("GET", target) == Destination(Kind.CONSOLE, "console")
    assert where("POST", target).kind is Kind.CONSOLE
    assert where("GET", "/consoles").kind is Kind.OBJECTS


def test_every_path_of_ours_is_no_buckets_name() -> None:
    assert {"endpoints", "v2", "console", "metrics", "service", "eyrie", "BatchPutMetrics"} <= RESERVED_BUCKETS
    for name in RESERVED_BUCKETS - {"invocations", "ping", "openai"}:
        assert where("GET", f"/{name}/x").kind is not Kind.OBJECTS, name


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("127.0.0.1:7777", ""),
        ("localhost:7777", ""),
        ("localhost", ""),
        ("[::1]:7777", ""),
        ("eyrie.example.com", ""),
        ("models.localhost:7777", "models"),
        ("my.models.localhost", "my.models"),
        ("models.s3.localhost:7777", "models"),
        ("s3.localhost:7777", ""),
        ("s3.us-east-1.localhost:7777", ""),
        ("models.s3.amazonaws.com", "models"),
        ("models.s3.us-east-1.amazonaws.com", "models"),
        ("models.s3-us-west-2.amazonaws.com", "models"),
        ("my.s3.models.s3.amazonaws.com", "my.s3.models"),
        ("s3.us-east-1.amazonaws.com", ""),
        ("MODELS.localhost", "models"),
        ("", ""),
    ],
)
def test_buckets_in_hosts(host: str, bucket: str) -> None:
    assert host_bucket(host.encode()) == bucket


@pytest.mark.parametrize(
    "odd", [b"", b"/aws4_request", b"AWS4-HMAC-SHA256 Credential=/aws4_request", b"\xff" * 90, b"Bearer x"]
)
def test_odd_authorizations_go_somewhere(odd: bytes) -> None:
    assert destination(b"GET", b"/x", b"", {b"authorization": odd}.get).kind in Kind
    assert destination(b"", b"", b"X-Amz-Credential=%", {}.get).kind in Kind


def test_the_tables_are_the_models(models: Models) -> None:
    for prefix, name in dispatch.SERVICE_OF_TARGET.items():
        assert models.service(name).target_prefix == prefix.decode(), name
    for version, name in dispatch.SERVICE_OF_VERSION.items():
        assert peer.service_model(name).api_version == version, name
    for name in {*dispatch.SERVICE_OF_TARGET.values(), "sts", "iam", "sns", "sagemaker-runtime", "sagemaker-metrics"}:
        assert dispatch.signing_name(name) == models.service(name).signing_name, name


def test_gateway_workers_need_no_botocore() -> None:
    code = "import sys, eyrie.wire.auth, eyrie.wire.dispatch; print([m for m in sys.modules if m.startswith('boto')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
