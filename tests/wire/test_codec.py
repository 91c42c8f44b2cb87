"""What round trips do not show: hostile CBOR and XML, odd headers, hosts with buckets, replies without bodies."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import peer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.wire import cbor, query, values, xml
from eyrie.wire.errors import ApiError
from eyrie.wire.messages import Call, HttpRequest
from eyrie.wire.model import Models, UnknownService
from eyrie.wire.values import Malformed

CBOR_PATH = "/service/GraniteServiceVersion20100801/operation"

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=8), inner, max_size=30),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, database=None)
@given(PLAIN)
def test_cbor_is_what_another_library_says_it_is(value: Any) -> None:
    ours = cbor.dumps(value)
    for read in (cbor2.loads(ours), cbor.loads(cbor2.dumps(value)), cbor.loads(ours)):
        assert cbor2.dumps(read) == cbor2.dumps(value)  # compares NaN as well


@settings(max_examples=100, deadline=None, database=None)
@given(st.binary(max_size=40))
def test_no_bytes_make_the_cbor_reader_fail(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        cbor.loads(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x9b" + b"\xff" * 8,  # a list of 2**64 - 1 items
        b"\xbb" + b"\x7f" * 8,
        b"\x5b" + b"\x7f" * 8,
        b"\x81" * 5000,
        b"\x9f" * 5000,
        b"\xc1" * 5000,
        b"\x01\x01",
        b"\xa1\x01\x01",
        b"\x61\xff",
        b"\x7f\x41a\xff",
        b"\xc1\xfb" + b"\x7f" * 8,
        b"\xff",
        b"\x1c",
        b"\xf8\x20",
    ],
)
def test_malformed_cbor_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        cbor.loads(data)


def test_indefinite_lengths_are_read() -> None:
    assert cbor.loads(b"\xbf\x61a\x9f\x01\x02\xff\x61b\x7f\x61x\x61y\xff\xff") == {"a": [1, 2], "b": "xy"}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<a>",
        b"<a/><b/>",
        b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>" * 100 + b"</a>" * 100,
        b"\xff\xfe<a/>",
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b"<a>\x00</a>",
        b"<a>&nbsp;</a>",
    ],
)
def test_hostile_xml_is_refused(document: bytes) -> None:
    with pytest.raises(Malformed):
        xml.parse(document)


def test_xml_text_comes_back_as_it_went() -> None:
    text = "<&>\"' \r\n\t é \U0001f600"
    assert xml.parse(f"<a>{xml.escape(text)}</a>".encode()).text == text
    assert xml.parse(f"<a b={xml.quote(text)}/>".encode()).attributes["b"] == text
    assert xml.escape("\x00\x0b\ud800") == "\ufffd" * 3


@pytest.mark.parametrize(
    "form", [b"a.b.c=1&a.b=2", b"a=1&a.b=2", b"." * 100 + b"=1", b"a..b=1", b"=1", b"a.1.b=1&a.x=2"]
)
def test_odd_forms_are_trees(form: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert query.parse_form(form)


def test_form_lists_are_ordered_by_number(models: Models) -> None:
    form = b"Action=TagRole&Version=2010-05-08&RoleName=r" + b"".join(
        b"&Tags.member.%d.Key=k%d&Tags.member.%d.Value=v" % (i, i, i) for i in (10, 2, 1)
    )
    request = HttpRequest("POST", "/", "", {"content-type": "application/x-www-form-urlencoded"}, form)
    tags = peer.wire(models).decode(request).params["Tags"]
    assert [tag["Key"] for tag in tags] == ["k1", "k2", "k10"]


@pytest.mark.parametrize(
    ("text", "fmt", "expected"),
    [
        ("2026-11-21T08:40:02Z", "iso8601", datetime(2026, 11, 21, 8, 40, 2, tzinfo=UTC)),
        ("2026-11-21T08:40:02.123Z", "iso8601", datetime(2026, 11, 21, 8, 40, 2, 123000, tzinfo=UTC)),
        ("2026-11-21T10:40:02+02:00", "iso8601", datetime(2026, 11, 21, 8, 40, 2, tzinfo=UTC)),
        ("Sat, 21 Nov 2026 08:40:02 GMT", "rfc822", datetime(2026, 11, 21, 8, 40, 2, tzinfo=UTC)),
        ("1795250402.5", "unixtimestamp", datetime(2026, 11, 21, 8, 40, 2, 500000, tzinfo=UTC)),
    ],
)
def test_timestamps_in_all_formats(text: str, fmt: str, expected: datetime) -> None:
    assert values.timestamp_text(text, fmt) == expected
    assert values.timestamp_text(values.show_timestamp(expected, fmt), fmt) == expected.replace(
        microsecond=0 if fmt == "rfc822" else expected.microsecond
    )


@pytest.mark.parametrize("fmt", ["iso8601", "rfc822", "unixtimestamp"])
@pytest.mark.parametrize(
    "text", ["", "x", "9" * 400, "NaN", "Infinity", "2026-13-01T00:00:00Z", "1e999", "-1e300", "1_0"]
)
def test_odd_timestamps_are_refused(text: str, fmt: str) -> None:
    with pytest.raises(Malformed):
        values.timestamp_text(text, fmt)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
@settings(max_examples=50, deadline=None, database=None)
def test_timestamps_keep_their_microseconds(at: datetime) -> None:
    aware = at.replace(tzinfo=UTC)
    assert abs(values.timestamp_of(values.epoch_seconds(aware), "unixtimestamp") - aware) <= timedelta(microseconds=1)
    assert values.timestamp_text(values.show_timestamp(aware, "iso8601"), "iso8601") == aware


@pytest.mark.parametrize("text", ["", "x", "1.5", "+-1", "\u0661", "1" * 100, "0x1", "1_0", "99999999999"])
def test_odd_integers_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        values.integer_text(text, "integer")


def test_floats_that_json_does_not_have_are_words(models: Models) -> None:
    datapoints = [{"Average": value} for value in (math.inf, -math.inf)]
    call = Call("cloudwatch", "GetMetricStatistics", "json", {}, "id")
    body = peer.wire(models).encode(call, {"Label": "l", "Datapoints": datapoints}).body
    assert body == b'{"Label":"l","Datapoints":[{"Average":"Infinity"},{"Average":"-Infinity"}]}'


def test_what_the_output_does_not_have_is_left_out(models: Models) -> None:
    call = Call("sagemaker", "CreateModel", "json", {}, "id")
    body = peer.wire(models).encode(call, {"ModelArn": "a", "Secret": "x", "None": None}).body
    assert body == b'{"ModelArn":"a"}'


def test_no_header_can_split_a_reply(models: Models) -> None:
    call = Call("s3", "HeadObject", "rest-xml", {}, "id", method="HEAD")
    reply = peer.wire(models).encode(
        call, {"ContentType": "a\r\nSet-Cookie: x", "Metadata": {"k": "é\n"}, "ContentLength": 3}
    )
    assert all("\n" not in value and "\r" not in value for _, value in reply.headers)
    assert ("Content-Type", "a  Set-Cookie: x") in reply.headers
    assert reply.body == b""


@pytest.mark.parametrize(("region", "text"), [("eu-west-1", b">eu-west-1<"), (None, b"></LocationConstraint>")])
def test_the_location_of_a_bucket_is_its_root(models: Models, region: str | None, text: bytes) -> None:
    reply = peer.wire(models).encode(
        Call("s3", "GetBucketLocation", "rest-xml", {}, "id"), {"LocationConstraint": region}
    )
    assert text in reply.body


def test_a_bucket_in_the_host_is_the_paths_first_part(models: Models) -> None:
    request = HttpRequest("GET", "/a/b", "", {"host": "models.localhost:7777"})
    assert peer.wire(models).decode(request).params == {"Bucket": "models", "Key": "a/b"}


@pytest.mark.parametrize(
    ("method", "target", "headers", "operation"),
    [
        ("GET", "/", {}, "ListBuckets"),
        ("GET", "/b/", {}, "ListObjects"),
        ("GET", "/b?list-type=2", {}, "ListObjectsV2"),
        ("PUT", "/b/k", {}, "PutObject"),
        ("PUT", "/b/k", {"x-amz-copy-source": "a/b"}, "CopyObject"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", {}, "UploadPart"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", {"x-amz-copy-source": "a/b"}, "UploadPartCopy"),
        ("POST", "/b/k?uploads", {}, "CreateMultipartUpload"),
        ("POST", "/b/k?uploads=", {}, "CreateMultipartUpload"),
        ("GET", "/b/k?uploadId=u", {}, "ListParts"),
        ("DELETE", "/b/k?uploadId=u", {}, "AbortMultipartUpload"),
        ("HEAD", "/b/k", {}, "HeadObject"),
        ("GET", "/b/k?x-id=GetObject&unknown=1", {}, "GetObject"),
        ("GET", "/b//k//", {}, "GetObject"),
        ("GET", "/b/k?" + "&".join(f"a{i}=1" for i in range(1000)), {}, "GetObject"),
    ],
)
def test_s3_operations_by_method_path_and_query(
    models: Models, method: str, target: str, headers: dict[str, str], operation: str
) -> None:
    path, _, text = target.partition("?")
    wire = peer.wire(models)
    request = HttpRequest(method, path, text, headers)
    assert wire.locate(request).name == operation


def test_query_parameters_are_bounded(models: Models) -> None:
    query_ = "&".join(f"a{i}=1" for i in range(1001))
    with pytest.raises(ApiError, match="Too many query parameters"):
        peer.wire(models).locate(HttpRequest("GET", "/b/k", query_, {}))


def test_a_call_is_located_by_its_head_alone(models: Models) -> None:
    wire = peer.wire(models)
    assert wire.locate(HttpRequest("POST", "/", "", {"x-amz-target": "SageMaker.CreateModel"})).name == "CreateModel"
    with pytest.raises(ApiError, match="UnknownOperationException"):
        wire.locate(HttpRequest("POST", "/", "", {"x-amz-target": "SageMaker.Nothing"}))
    with pytest.raises(ApiError):
        wire.locate(HttpRequest("GET", "/b/%ff", "", {}))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_operation_that_the_head_names_is_posted(models: Models, method: str) -> None:
    for request in (
        HttpRequest(method, "/", "", {"x-amz-target": "SageMaker.DeleteModel"}),
        HttpRequest(method, f"{CBOR_PATH}/ListMetrics", "", {"smithy-protocol": "rpc-v2-cbor"}),
    ):
        with pytest.raises(ApiError, match="UnknownOperationException"):
            peer.wire(models).locate(request)


def test_an_operation_of_another_service_is_not_this_ones(models: Models) -> None:
    def scoped(service: str, **headers: str) -> dict[str, str]:
        scope = f"AWS4-HMAC-SHA256 Credential=K/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host"
        return {"authorization": scope, **{name.replace("_", "-"): value for name, value in headers.items()}}

    wire = peer.wire(models)
    cbor_ = {"smithy_protocol": "rpc-v2-cbor"}
    assert wire.locate(HttpRequest("POST", f"{CBOR_PATH}/ListMetrics", "", scoped("monitoring", **cbor_))).status == 200
    for request in (
        HttpRequest("POST", "/", "", scoped("sagemaker", x_amz_target="Nobody.ListModels")),
        HttpRequest("POST", "/", "", scoped("sagemaker", x_amz_target="Logs_20140328.ListTags")),
        HttpRequest("POST", "/", "", scoped("sagemaker", x_amz_target="ListModels")),
        HttpRequest("POST", "/service/Nobody/operation/ListMetrics", "", scoped("monitoring", **cbor_)),
    ):
        with pytest.raises(ApiError, match="UnknownOperationException"):
            wire.locate(request)


@pytest.mark.parametrize("name", ["", "nobody", "../sagemaker", "s3/2006-03-01", "S3", "a" * 100, "\x00"])
def test_a_service_that_does_not_exist(models: Models, name: str) -> None:
    with pytest.raises(UnknownService):
        models.service(name)


def test_lists_in_headers(models: Models) -> None:
    headers = {"x-amz-object-attributes": 'ETag, "a,b\\"c",,Checksum'}
    request = HttpRequest("GET", "/b/k", "attributes", headers)
    with pytest.raises(ApiError) as caught:
        peer.wire(models).decode(request)
    assert "Value '[ETag, a,b\"c, Checksum]' at 'objectAttributes'" in caught.value.message
