"""SigV4 against botocore's own signers, as the oracle: what they sign is accepted, and no part of it may change."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.wire.auth import Claim, Verifier
from eyrie.wire.credentials import Credential, Credentials, Identity
from eyrie.wire.errors import ApiError

KEY, SECRET, ACCOUNT = "AKIDEYRIE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "123456789012"
TOKEN_KEY, TOKEN = "ASIAEYRIE", "FwoGZXIvYXdzE//token+with/odd=="
KNOWN = Credentials([Credential(KEY, SECRET, ACCOUNT), Credential(TOKEN_KEY, SECRET, "210987654321", TOKEN)])
NOW = datetime.datetime(2026, 11, 21, 8, 40, 2, tzinfo=datetime.UTC)
NOW_MS = int(NOW.timestamp() * 1000)
BASE = "http://127.0.0.1:7777"

Head = dict[str, Any]


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
    monkeypatch.setattr(botocore.auth.time, "time", lambda: NOW_MS / 1000)


def signed(
    signer: type = botocore.auth.SigV4Auth,
    *,
    method: str = "POST",
    url: str = BASE + "/endpoints/churn/invocations",
    headers: dict[str, str] | None = None,
    body: bytes = b"1,2,3",
    service: str = "sagemaker",
    key: str = KEY,
    secret: str = SECRET,
    token: str | None = None,
    **options: Any,
) -> Head:
    """A request as botocore signs it, in the form that our HTTP stack hands it on."""
    request = AWSRequest(method=method, url=url, headers=headers or {}, data=body)
    signer(BotoCredentials(key, secret, token), service, "eu-west-1", **options).add_auth(request)
    parts = urlsplit(request.url)
    lower: dict[bytes, bytes] = {b"host": parts.netloc.encode()}
    for name in request.headers:
        values = [value.strip() for value in request.headers.get_all(name)]
        lower[name.lower().encode()] = ",".join(values).encode()
    return {
        "method": method.encode(),
        "path": parts.path.encode() or b"/",
        "query": parts.query.encode(),
        "headers": lower,
        "body": body,
    }


def claim(head: Head, service: str, verifier: Verifier | None = None, now_ms: int = NOW_MS) -> Claim:
    verifier = verifier or Verifier(KNOWN)
    return verifier.check_head(head["method"], head["path"], head["query"], head["headers"], service, now_ms)


def verify(head: Head, service: str = "sagemaker-runtime", **options: Any) -> Identity:
    return claim(head, service, **options).check_body(head["body"])


def refused(head: Head, service: str = "sagemaker-runtime", **options: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        verify(head, service, **options)
    return caught.value


def test_a_signed_request_names_its_caller() -> None:
    assert verify(signed()) == Identity(KEY, ACCOUNT, "eu-west-1", "sagemaker")


PATHS = [
    "/",
    "/endpoints/churn/invocations",
    "/endpoints/a%20b/invocations",
    "/endpoints/a%2Fb/invocations",
    "/a//b",
    "/a/./b/../c",
    "/a/b/",
    "/%E2%82%AC/x",
    "/a+b=c,d;e'f(g)*h!@$&",
    "/~home/x-y_z.t",
    "/a%7eb",
    "/...",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_as_the_services_sign_them(path: str) -> None:
    assert verify(signed(url=BASE + path)).account == ACCOUNT


@pytest.mark.parametrize("path", [*PATHS, "/bucket/key//with///slashes", "/bucket/%25", "/bucket/a%20b%2Bc"])
def test_paths_as_s3_signs_them(path: str) -> None:
    head = signed(botocore.auth.S3SigV4Auth, url=BASE + path, service="s3", method="PUT")
    assert verify(head, "s3").service == "s3"


QUERIES = [
    "a=1",
    "b=2&a=1",
    "a=2&a=1",
    "uploads",
    "uploads=",
    "prefix=a%2Fb&delimiter=%2F&list-type=2",
    "a=b%20c&A=1&a-b=2&a.b=3",
    "x=%E2%82%AC",
    "a=1&&b=2",
    "a==b",
    "x-id=%7e",
    "partNumber=1&uploadId=x%2By",
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(("signer", "service"), [("SigV4Auth", "sagemaker"), ("S3SigV4Auth", "s3")])
def test_queries_are_sorted_and_encoded(signer: str, service: str, query: str) -> None:
    head = signed(getattr(botocore.auth, signer), url=f"{BASE}/bucket/key?{query}", service=service)
    assert verify(head, service).service == service


def test_a_query_that_was_signed_encoded_anew_is_the_same_query() -> None:
    head = signed(url=BASE + "/x?a=b%2Ac")
    assert verify({**head, "query": b"a=b*c"}).account == ACCOUNT


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Amzn-SageMaker-Custom-Attributes": "a  b   c"},
        {"X-Amzn-SageMaker-Custom-Attributes": "  lead and trail  "},
        {"Content-Type": "text/csv", "Accept": "*/*", "X-Amz-Meta-A": "1"},
        {"Empty": ""},
        {"X-Amzn-Trace-Id": "unsigned", "User-Agent": "unsigned", "Expect": "100-continue"},
        {"Date": "Sat, 21 Nov 2026 08:40:02 GMT"},
    ],
)
def test_headers_are_folded_and_trimmed(headers: dict[str, str]) -> None:
    assert verify(signed(headers=headers)).account == ACCOUNT


def test_repeated_headers_are_one() -> None:
    request = AWSRequest(method="POST", url=BASE + "/x", data=b"")
    request.headers["X-Twice"] = "one"
    request.headers["X-Twice"] = "two  three"
    botocore.auth.SigV4Auth(BotoCredentials(KEY, SECRET), "sagemaker", "eu-west-1").add_auth(request)
    lower = {name.lower().encode(): ",".join(request.headers.get_all(name)).encode() for name in request.headers}
    lower[b"host"] = b"127.0.0.1:7777"
    head = {"method": b"POST", "path": b"/x", "query": b"", "headers": lower, "body": b""}
    assert verify(head).account == ACCOUNT


def test_session_tokens_must_be_the_keys_own() -> None:
    assert verify(signed(key=TOKEN_KEY, token=TOKEN)).account == "210987654321"
    assert refused(signed(key=TOKEN_KEY)).code == "UnrecognizedClientException"
    assert refused(signed(key=TOKEN_KEY, token="another")).code == "UnrecognizedClientException"
    assert "AWS_SESSION_TOKEN" in refused(signed(token="left over")).message


def _flipped(raw: bytes, at: int = -1) -> bytes:
    changed = bytearray(raw)
    changed[at] = changed[at] ^ 1
    return bytes(changed)


TAMPERINGS: dict[str, Callable[[Head], Head]] = {
    "method": lambda head: {**head, "method": b"PUT"},
    "path": lambda head: {**head, "path": head["path"] + b"x"},
    "path case": lambda head: {**head, "path": head["path"].upper()},
    "query value": lambda head: {**head, "query": head["query"][:-1] + b"9"},
    "query added": lambda head: {**head, "query": head["query"] + b"&z=1"},
    "query dropped": lambda head: {**head, "query": b""},
    "body": lambda head: {**head, "body": head["body"] + b"\n"},
    "host": lambda head: _with(head, b"host", b"127.0.0.1:7778"),
    "signed header": lambda head: _with(head, b"content-type", b"text/plain"),
    "signed header gone": lambda head: {**head, "headers": _without(head["headers"], b"content-type")},
    "date": lambda head: _with(head, b"x-amz-date", b"20261121T084003Z"),
    "unsigned x-amz header": lambda head: _with(head, b"x-amz-acl", b"public-read"),
    "signature": lambda head: _with(head, b"authorization", _flipped(head["headers"][b"authorization"])),
    "region": lambda head: _replaced(head, b"eu-west-1", b"eu-west-2"),
    "service": lambda head: _replaced(head, b"/sagemaker/", b"/s3/"),
    "day": lambda head: _replaced(head, b"20261121/", b"20261122/"),
    "key": lambda head: _replaced(head, KEY.encode(), TOKEN_KEY.encode()),
    "fewer signed headers": lambda head: _replaced(head, b"content-type;", b""),
    "no host signed": lambda head: _replaced(head, b"host;", b""),
}


def _with(head: Head, name: bytes, value: bytes) -> Head:
    return {**head, "headers": {**head["headers"], name: value}}


def _without(headers: dict[bytes, bytes], name: bytes) -> dict[bytes, bytes]:
    return {key: value for key, value in headers.items() if key != name}


def _replaced(head: Head, old: bytes, new: bytes) -> Head:
    authorization = head["headers"][b"authorization"]
    assert old in authorization
    return _with(head, b"authorization", authorization.replace(old, new, 1))


@pytest.mark.parametrize("part", TAMPERINGS)
def test_no_part_may_change(part: str) -> None:
    head = signed(url=BASE + "/endpoints/churn/invocations?a=1&b=2", headers={"Content-Type": "text/csv"})
    warm = Verifier(KNOWN)
    assert verify(head, verifier=warm).account == ACCOUNT
    tampered = TAMPERINGS[part](head)
    assert tampered != head
    assert refused(tampered).status == 403
    assert refused(tampered, verifier=warm).status == 403  # caches decide nothing
    assert verify(head, verifier=warm).account == ACCOUNT


@settings(max_examples=25, deadline=None, database=None)
@given(
    path=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#"), max_size=30),
    names=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=6), max_size=4),
    body=st.binary(max_size=40),
    s3=st.booleans(),
)
def test_whatever_botocore_signs(path: str, names: list[str], body: bytes, s3: bool) -> None:
    from urllib.parse import quote

    query = "&".join(f"{quote(name, safe='-_.~')}={i}" for i, name in enumerate(names) if name)
    signer = botocore.auth.S3SigV4Auth if s3 else botocore.auth.SigV4Auth
    service = "s3" if s3 else "sagemaker"
    head = signed(signer, url=f"{BASE}/{path}?{query}", body=body, service=service)
    assert verify(head, service).account == ACCOUNT
    assert refused({**head, "body": body + b"x"}, service).status in (400, 403)


def test_an_unknown_key_is_told_in_each_services_words() -> None:
    assert refused(signed(key="AKIDNOBODY")).code == "UnrecognizedClientException"
    assert refused(signed(key="AKIDNOBODY", service="sts"), "sts").code == "InvalidClientTokenId"
    s3 = signed(botocore.auth.S3SigV4Auth, key="AKIDNOBODY", service="s3")
    assert refused(s3, "s3").code == "InvalidAccessKeyId"
    assert refused(signed(key="AKIDNOBODY"), "sagemaker").status == 400


def test_a_wrong_secret_is_told_in_each_services_words() -> None:
    assert refused(signed(secret="no")).code == "InvalidSignatureException"
    assert refused(signed(secret="no", service="iam"), "iam").code == "SignatureDoesNotMatch"
    s3 = signed(botocore.auth.S3SigV4Auth, secret="no", service="s3")
    assert (refused(s3, "s3").code, refused(s3, "s3").status) == ("SignatureDoesNotMatch", 403)


@pytest.mark.parametrize("apart_s", [901, 86_400, -901])
def test_clocks_may_differ_by_fifteen_minutes_at_most(apart_s: int) -> None:
    head = signed()
    error = refused(head, now_ms=NOW_MS + apart_s * 1000)
    assert error.message.startswith("Signature expired" if apart_s > 0 else "Signature not yet current")
    assert verify(head, now_ms=NOW_MS + 900_000).account == ACCOUNT
    assert verify(head, now_ms=NOW_MS - 900_000).account == ACCOUNT


def test_a_signature_that_was_good_grows_old_also_where_it_is_remembered() -> None:
    verifier, head = Verifier(KNOWN), signed()
    assert verify(head, verifier=verifier).account == ACCOUNT
    for apart_ms in (900_001, -900_001):
        assert refused(head, verifier=verifier, now_ms=NOW_MS + apart_ms).message.startswith("Signature ")


@pytest.mark.parametrize("warm", [False, True])
def test_a_scope_of_another_service_is_told(warm: bool) -> None:
    verifier, head = Verifier(KNOWN), signed(service="logs")
    if warm:
        assert verify(head, "logs", verifier=verifier).service == "logs"
    for service, expected in (("sagemaker-runtime", "sagemaker"), ("cloudwatch", "monitoring"), ("s3", "s3")):
        error = refused(head, service, verifier=verifier)
        assert error.message == f"Credential should be scoped to correct service: '{expected}'."
    assert verify(head, "", verifier=verifier).service == "logs"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "MissingAuthenticationTokenException"),
        (b"", "IncompleteSignatureException"),
        (b"Basic dXNlcg==", "IncompleteSignatureException"),
        (b"AWS4-HMAC-SHA256", "IncompleteSignatureException"),
        (b"AWS4-HMAC-SHA256 Credential=a", "IncompleteSignatureException"),
        (
            b"AWS4-HMAC-SHA256 Credential=AKIDEYRIE/1/2/3, SignedHeaders=host, Signature=" + b"0" * 64,
            "IncompleteSignature",
        ),
        (
            b"AWS4-HMAC-SHA256 Credential=////, SignedHeaders=host, Signature=" + b"0" * 64,
            "IncompleteSignatureException",
        ),
        (b"AWS4-HMAC-SHA256 " + b"x" * 5000 + b", Signature=" + b"0" * 64, "IncompleteSignatureException"),
        (
            b"AWS4-HMAC-SHA256 Credential=AKIDEYRIE/20261121/r/sagemaker/aws4_request,SignedHeaders=host,Signature=zz",
            "IncompleteSignatureException",
        ),
    ],
)
def test_a_malformed_authorization_is_refused(authorization: bytes | None, code: str) -> None:
    head = signed()
    headers = _without(head["headers"], b"authorization")
    if authorization is not None:
        headers[b"authorization"] = authorization
    error = refused({**head, "headers": headers})
    assert error.code.startswith(code)
    assert error.status == 403


@pytest.mark.parametrize(
    "date",
    [
        b"",
        b"now",
        b"2026-11-21T08:40:02Z",
        b"20261321T084002Z",
        b"2026112\xb9T084002Z",
        b"20261121 21 Nov 2026 08:40:02 GMT",
    ],
)
def test_a_malformed_date_is_refused(date: bytes) -> None:
    assert refused(_with(signed(), b"x-amz-date", date)).status == 403


def test_order_and_spacing_of_the_authorization_do_not_matter() -> None:
    head = signed()
    algorithm, _, rest = head["headers"][b"authorization"].partition(b" ")
    shuffled = algorithm + b" " + b",".join(reversed(rest.split(b", ")))
    assert verify(_with(head, b"authorization", shuffled)).account == ACCOUNT


# --- presigned URLs


@pytest.mark.parametrize("query", ["", "?versionId=7", "?response-content-type=text%2Fplain&x-id=GetObject"])
def test_presigned_s3_urls(query: str) -> None:
    head = signed(
        botocore.auth.S3SigV4QueryAuth, method="GET", url=f"{BASE}/b/a%20b{query}", body=b"", service="s3", expires=60
    )
    assert verify(head, "s3") == Identity(KEY, ACCOUNT, "eu-west-1", "s3")
    assert verify(head, "s3", now_ms=NOW_MS + 60_000).account == ACCOUNT
    late = refused(head, "s3", now_ms=NOW_MS + 61_000)
    assert (late.code, late.message, late.status) == ("AccessDenied", "Request has expired", 403)
    for old, new in ((b"Expires=60", b"Expires=600"), (b"X-Amz-Date=2026", b"X-Amz-Date=2027"), (b"host", b"date")):
        assert refused({**head, "query": head["query"].replace(old, new)}, "s3").status in (400, 403)
    assert refused({**head, "method": b"PUT"}, "s3").code == "SignatureDoesNotMatch"
    assert refused({**head, "path": b"/b/other"}, "s3").code == "SignatureDoesNotMatch"
    assert refused({**head, "query": head["query"] + b"&versionId=8"}, "s3").code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("expires", [b"0", b"604801", b"-1", b"x", b"", b"99999999999999999999"])
def test_presigned_urls_last_a_week_at_most(expires: bytes) -> None:
    head = signed(botocore.auth.S3SigV4QueryAuth, method="GET", body=b"", service="s3", expires=60)
    error = refused({**head, "query": head["query"].replace(b"Expires=60", b"Expires=" + expires)}, "s3")
    assert error.code == "AuthorizationHeaderMalformed"


def test_presigned_urls_are_not_for_the_future() -> None:
    head = signed(botocore.auth.S3SigV4QueryAuth, method="GET", body=b"", service="s3", expires=86_400)
    assert verify(head, "s3", now_ms=NOW_MS - 900_000).account == ACCOUNT
    assert refused(head, "s3", now_ms=NOW_MS - 901_000).code == "RequestTimeTooSkewed"


def test_a_presigned_put_takes_any_body_and_no_unsigned_amz_header() -> None:
    head = signed(botocore.auth.S3SigV4QueryAuth, method="PUT", body=b"", service="s3", expires=60)
    assert verify({**head, "body": b"anything"}, "s3").account == ACCOUNT
    assert refused(_with(head, b"x-amz-acl", b"public-read"), "s3").code == "AccessDenied"


def test_a_presigned_sts_url() -> None:
    url = BASE + "/?Action=GetCallerIdentity&Version=2011-06-15"
    head = signed(botocore.auth.SigV4QueryAuth, method="GET", url=url, body=b"", service="sts", expires=60)
    assert verify(head, "sts").service == "sts"
    assert (
        refused({**head, "query": head["query"].replace(b"GetCaller", b"SetCaller")}, "sts").code
        == "SignatureDoesNotMatch"
    )
    assert refused(head, "sts", now_ms=NOW_MS + 61_000).code == "RequestExpired"


def test_a_presigned_url_with_a_session_token() -> None:
    head = signed(
        botocore.auth.S3SigV4QueryAuth, method="GET", body=b"", service="s3", key=TOKEN_KEY, token=TOKEN, expires=60
    )
    assert verify(head, "s3").account == "210987654321"
    bare = head["query"].replace(b"X-Amz-Security-Token", b"X-Amz-Insecurity-Token")
    assert refused({**head, "query": bare}, "s3").code == "InvalidToken"


@pytest.mark.parametrize("query", ["", "?versionId=7", "?uploadId=a%2Bb&partNumber=2", "?x=unsigned"])
@pytest.mark.parametrize("headers", [{}, {"x-amz-acl": "private"}, {"Content-Type": "text/csv", "Content-MD5": "m=="}])
def test_old_presigned_urls_which_boto3_still_makes(query: str, headers: dict[str, str]) -> None:
    request = AWSRequest(method="GET", url=f"{BASE}/b/a%20b{query}", headers=headers)
    request.auth_path = None
    botocore.auth.HmacV1QueryAuth(BotoCredentials(KEY, SECRET), expires=60).add_auth(request)
    parts = urlsplit(request.url)
    head = {
        "method": b"GET",
        "path": parts.path.encode(),
        "query": parts.query.encode(),
        "headers": {b"host": b"127.0.0.1:7777"},
        "body": b"",
    }
    assert verify(head, "s3").account == ACCOUNT
    assert refused(head, "s3", now_ms=NOW_MS + 61_000).message == "Request has expired"
    assert refused({**head, "path": b"/b/other"}, "s3").code == "SignatureDoesNotMatch"
    assert refused({**head, "method": b"DELETE"}, "s3").code == "SignatureDoesNotMatch"
    assert refused({**head, "query": head["query"] + b"&acl"}, "s3").code == "SignatureDoesNotMatch"
    assert refused({**head, "query": head["query"].replace(KEY.encode(), b"X")}, "s3").code == "InvalidAccessKeyId"


@pytest.mark.parametrize("signed_path", ["/b", "/b/"])
def test_an_old_presigned_url_of_a_bucket_is_signed_with_or_without_a_slash_at_its_end(signed_path: str) -> None:
    request = AWSRequest(method="GET", url=f"{BASE}/b?list-type=2&location")
    request.auth_path = signed_path  # botocore's own is the longer one, and it asks for the shorter
    botocore.auth.HmacV1QueryAuth(BotoCredentials(KEY, SECRET), expires=60).add_auth(request)
    parts = urlsplit(request.url)
    head = {"method": b"GET", "query": parts.query.encode(), "headers": {b"host": b"127.0.0.1:7777"}, "body": b""}
    assert verify({**head, "path": b"/b"}, "s3").account == ACCOUNT
    assert refused({**head, "path": b"/c"}, "s3").code == "SignatureDoesNotMatch"
    assert refused({**head, "path": b"/"}, "s3").code == "SignatureDoesNotMatch"


def test_an_old_presigned_url_of_a_bucket_in_the_host() -> None:
    request = AWSRequest(method="GET", url="http://models.localhost:7777/a/b?versionId=1")
    request.auth_path = "/models/a/b"
    botocore.auth.HmacV1QueryAuth(BotoCredentials(KEY, SECRET), expires=60).add_auth(request)
    parts = urlsplit(request.url)
    head = {"method": b"GET", "path": b"/a/b", "query": parts.query.encode(), "body": b""}
    assert verify({**head, "headers": {b"host": b"models.localhost:7777"}}, "s3").account == ACCOUNT
    assert refused({**head, "headers": {b"host": b"others.localhost:7777"}}, "s3").code == "SignatureDoesNotMatch"


# --- payloads of S3


def test_s3_proves_the_head_before_the_body_is_read() -> None:
    head = signed(botocore.auth.S3SigV4Auth, method="PUT", service="s3", body=b"payload")
    found = claim(head, "s3")
    assert found.check_signature().account == ACCOUNT
    assert found.payload == head["headers"][b"x-amz-content-sha256"]
    with pytest.raises(ApiError, match="XAmzContentSHA256Mismatch"):
        found.check_body(b"another")


def test_s3_wants_the_payload_hash() -> None:
    head = signed(service="s3")
    with pytest.raises(ApiError, match="x-amz-content-sha256"):
        claim(head, "s3").check_signature()


def test_unsigned_payloads_are_s3s_alone() -> None:
    request = {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    assert verify(signed(headers=request, service="s3"), "s3").account == ACCOUNT
    assert refused(signed(headers=request)).code == "InvalidSignatureException"


# --- authentication off


@pytest.mark.parametrize(
    ("key", "account"),
    [("000000000042", "000000000042"), (KEY, ACCOUNT), ("test", "111122223333"), (TOKEN_KEY, "210987654321")],
)
def test_without_authentication_the_credentials_are_believed(key: str, account: str) -> None:
    verifier = Verifier(KNOWN, auth=False, account="111122223333", region="us-west-2")
    identity = verify(signed(key=key, secret="whatever"), verifier=verifier)
    assert identity == Identity(key, account, "eu-west-1", "sagemaker")


def test_without_authentication_nothing_is_needed() -> None:
    verifier = Verifier(KNOWN, auth=False, account="111122223333", region="us-west-2")
    head = {"method": b"GET", "path": b"/", "query": b"", "headers": {}, "body": b""}
    assert verify(head, "cloudwatch", verifier=verifier) == Identity("", "111122223333", "us-west-2", "monitoring")
    presigned = signed(botocore.auth.S3SigV4QueryAuth, method="GET", body=b"", service="s3", expires=60, secret="no")
    assert verify(presigned, "s3", verifier=verifier).account == ACCOUNT


GROUPS = {b"x-amz-date": 1, b"authorization": 2, b"x-amz-content-sha256": 3, b"amz-sdk-invocation-id": 4}


def again(verifier: Verifier, first: Head, head: Head, now_ms: int = NOW_MS) -> Claim | None:
    """The claim of `head` by the form of `first`, as a gateway gets it from the parts that differ."""
    accepted = claim(first, "sagemaker-runtime", verifier)
    accepted.check_body(first["body"])
    groups = {name: number for name, number in GROUPS.items() if name in first["headers"]}
    groups = {name: number for number, name in enumerate(groups, 1)}
    form = verifier.form(accepted, first["method"], first["path"], first["headers"], groups)
    assert form is not None
    values = [head["headers"][name].rpartition(b"Signature=")[2] for name in groups]
    matched = re.fullmatch(b",".join([b"([^,]*)"] * len(values)), b",".join(values))
    assert matched is not None
    return form.claim(matched, now_ms)


@pytest.mark.parametrize("path", ["/", "/endpoints/churn/invocations", "/endpoints/a%20b/invocations", "/~home/x-y_z"])
def test_the_form_of_a_head_proves_the_next_one(path: str) -> None:
    verifier = Verifier(KNOWN)
    odd = {"x-amz-note": " 100%  of %b ", "Content-Type": "text/csv"}
    first, second = (
        signed(url=BASE + path, headers={"amz-sdk-invocation-id": f"id-{n}", **odd}, body=b"b" * n) for n in (1, 2)
    )
    claimed = again(verifier, first, second)
    assert claimed is not None
    assert claimed.check_body(b"bb") == verify(second)
    for wrong in (b"b", b"bbb", b""):
        with pytest.raises(ApiError):
            again(verifier, first, second).check_body(wrong)  # type: ignore[union-attr]


def test_a_form_proves_no_other_signature_and_no_other_id() -> None:
    verifier = Verifier(KNOWN)
    first, second = (signed(headers={"amz-sdk-invocation-id": f"id-{n}"}) for n in (1, 2))
    for name, value in ((b"amz-sdk-invocation-id", b"id-3"), (b"authorization", b"Signature=" + b"0" * 64)):
        claimed = again(verifier, first, _with(second, name, value))
        assert claimed is not None
        with pytest.raises(ApiError) as caught:
            claimed.check_body(second["body"])
        assert caught.value.code == "InvalidSignatureException"


def test_a_form_leaves_what_is_old_or_new_to_the_whole_check() -> None:
    verifier, head = Verifier(KNOWN), signed()
    assert again(verifier, head, head, NOW_MS + 899_000) is not None
    assert again(verifier, head, head, NOW_MS + 901_000) is None
    assert again(verifier, head, _with(head, b"x-amz-date", b"20261121T084003Z")) is None  # not seen yet
    assert again(verifier, head, _with(head, b"x-amz-date", b"20261122T000000Z")) is None


def test_heads_without_a_form() -> None:
    verifier, head = Verifier(KNOWN), signed()
    accepted = claim(head, "sagemaker-runtime", verifier)
    groups = {b"x-amz-date": 1, b"authorization": 2}
    assert verifier.form(accepted, b"POST", head["path"], head["headers"], groups) is not None
    assert verifier.form(accepted, b"PUT", head["path"], head["headers"], groups) is None
    assert verifier.form(accepted, b"POST", b"/endpoints/other/invocations", head["headers"], groups) is None
    assert verifier.form(accepted, b"POST", head["path"], head["headers"], {b"x-amz-date": 1}) is None
    trusted = Verifier(KNOWN, auth=False)
    believed = claim(head, "sagemaker-runtime", trusted)
    assert trusted.form(believed, b"POST", head["path"], head["headers"], groups) is None


def test_caches_stay_bounded() -> None:
    verifier = Verifier(KNOWN)
    head = signed()
    for i in range(2000):
        found = _with(_replaced(head, b"eu-west-1", b"r%d" % i), b"x-%d" % i, b"")
        verifier.check_head(b"POST", b"/p/%d" % i, b"", found["headers"], "sagemaker-runtime", NOW_MS)
    for i in range(100):
        found = _with(head, b"x-%d" % i, b"")
        verifier.check_head(b"POST", b"/p", b"", found["headers"], "sagemaker-runtime", NOW_MS)
    assert max(len(scope.passed) for scope in verifier._scopes.values()) <= 8
    assert max(len(verifier._scopes), len(verifier._keys), len(verifier._stamps), len(verifier._targets)) <= 1024
