"""Which service and which process a request is for, told by its head alone.

The first step of every request in a gateway worker (and again in the process that answers it): credential scope
first, also of a presigned query; then the X-Amz-Target prefix; the path of CBOR and of the REST services; the Action
of a query. Light: no botocore here; `tests/wire/test_dispatch.py` holds these tables to botocore's models.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

Header = Callable[[bytes], "bytes | None"]  # value of a header by its lower-case name


class Kind(Enum):
    """Who answers."""

    INVOKE = "invoke"  # the gateway worker itself: POST /endpoints/NAME/invocations[-response-stream]
    OBJECTS = "objects"  # the S3 API
    DISPATCH = "dispatch"  # asynchronous invocations, and the SQS API
    CONTROL = "control"  # every other AWS API
    INFER = "infer"  # the gateway worker itself: the Open Inference Protocol, /v2/...
    OWN = "own"  # pages of Eyrie's own (/eyrie, /metrics, ...): nothing of AWS
    CONSOLE = "console"  # /console and below: the console process


class Destination(NamedTuple):
    """Where a request goes. `service` is boto3's name; "" when the head does not tell (an unsigned form)."""

    kind: Kind
    service: str
    endpoint: str = ""  # INVOKE: the endpoint's name, percent-decoded
    action: str = ""  # INVOKE: what follows the name: "invocations" or "invocations-response-stream"
    bucket: str = ""  # OBJECTS: the bucket, where the host names it


# Signing name of the credential scope -> boto3's service name, where they differ.
_SERVICE_OF_SIGNING_NAME = {
    b"monitoring": "cloudwatch",
    b"tagging": "resourcegroupstaggingapi",
    b"servicequotas": "service-quotas",
}

_SIGNING_NAME_OF_SERVICE = {
    "cloudwatch": "monitoring",
    "resourcegroupstaggingapi": "tagging",
    "service-quotas": "servicequotas",
    "sagemaker-runtime": "sagemaker",
    "sagemaker-metrics": "sagemaker",
    "sagemaker-featurestore-runtime": "sagemaker",
    "sagemaker-inference-router-runtime": "sagemaker",
}

# X-Amz-Target prefix (also the service in a CBOR path) -> boto3's service name.
SERVICE_OF_TARGET = {
    b"SageMaker": "sagemaker",
    b"AnyScaleFrontendService": "application-autoscaling",
    b"GraniteServiceVersion20100801": "cloudwatch",
    b"Logs_20140328": "logs",
    b"AWSEvents": "events",
    b"AmazonSQS": "sqs",
    b"com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101": "cloudtrail",
    b"AmazonEC2ContainerRegistry_V20150921": "ecr",
    b"AmazonEC2ContainerServiceV20141113": "ecs",
    b"TrentService": "kms",
    b"secretsmanager": "secretsmanager",
    b"ServiceQuotasV20190624": "service-quotas",
    b"ResourceGroupsTaggingAPI_20170126": "resourcegroupstaggingapi",
}

# Version of a query-protocol request -> boto3's service name.
SERVICE_OF_VERSION = {
    "2011-06-15": "sts",
    "2010-05-08": "iam",
    "2010-03-31": "sns",
    "2010-08-01": "cloudwatch",
    "2012-11-05": "sqs",
    "2010-05-15": "cloudformation",
}

# First path segment -> service, of the REST services that sign as "sagemaker".
_SAGEMAKER_PATHS = {
    b"endpoints": "sagemaker-runtime",
    b"BatchPutMetrics": "sagemaker-metrics",
    b"BatchGetMetrics": "sagemaker-metrics",
    b"FeatureGroup": "sagemaker-featurestore-runtime",
    b"BatchGetRecord": "sagemaker-featurestore-runtime",
    b"BatchWriteRecord": "sagemaker-featurestore-runtime",
    b"inference-routers": "sagemaker-inference-router-runtime",
}

_OWN = frozenset({b"eyrie", b"metrics", b"health", b"healthz", b"ready", b"favicon.ico", b"robots.txt", b"_nicegui"})
_CONSOLE_PATHS = frozenset({b"console"})
_CONTROL_PATHS = frozenset({b"service"})
_INFER_PATHS = frozenset({b"v2"})

RESERVED_BUCKETS = frozenset(
    name.decode()
    for name in _OWN
    | _CONSOLE_PATHS
    | _CONTROL_PATHS
    | _INFER_PATHS
    | _SAGEMAKER_PATHS.keys()
    | {b"invocations", b"ping", b"openai"}
)
"""Bucket names that would shadow a path of ours: CreateBucket refuses them."""

_INVOKE_ACTIONS = {name.encode(): name for name in ("invocations", "invocations-response-stream")}

_INVOKE = Kind.INVOKE
_OBJECTS = Destination(Kind.OBJECTS, "s3")
_UNKNOWN = Destination(Kind.CONTROL, "")
_OWN_PAGE = Destination(Kind.OWN, "")
_CONSOLE = Destination(Kind.CONSOLE, "console")
_INFER = Destination(Kind.INFER, "")


def destination(method: bytes, path: bytes, query: bytes, header: Header) -> Destination:
    """Where the request goes: `path` and `query` raw, `header` gives a value by its lower-case name."""
    if path.startswith(b"/endpoints/"):
        authorization = header(b"authorization")
        if authorization is not None and b"/sagemaker/aws4_request" in authorization:
            return _runtime(method, path)  # the common case, as short as it can be
    scope = scope_service(query, header)
    if path.startswith(b"/endpoints/") and scope in (b"sagemaker", b""):
        return _runtime(method, path)
    if scope == b"s3" or b"AWSAccessKeyId=" in query:
        return _objects(header)
    if scope:
        service = _service(scope, path, header)
        return Destination(Kind.DISPATCH if service == "sqs" else Kind.CONTROL, service)
    return _unsigned(method, path, query, header)


def scope_service(query: bytes, header: Header) -> bytes:
    """The service that the credential scope names, of the Authorization header or of a presigned query; b"" where
    there is none.
    """
    authorization = header(b"authorization")
    if authorization is not None:
        end = authorization.find(b"/aws4_request")
        return authorization[authorization.rfind(b"/", 0, end) + 1 : end] if end > 0 else b""
    if b"X-Amz-Credential=" not in query:
        return b""
    credential = query.partition(b"X-Amz-Credential=")[2].partition(b"&")[0]
    parts = unquote_to_bytes(credential).split(b"/")
    return parts[-2] if len(parts) >= 5 else b""


def signing_name(service: str) -> str:
    """The name in the credential scope of a service, by boto3's name."""
    return _SIGNING_NAME_OF_SERVICE.get(service, service)


def host_bucket(host: bytes) -> str:
    """The bucket that a virtual-hosted-style host names, "" if none: BUCKET.s3.anything, BUCKET.s3-anything or
    BUCKET.localhost.
    """
    name = host.rpartition(b":")[0] if b":" in host and not host.endswith(b"]") else host
    name = name.rstrip(b".").lower()
    for mark in (b".s3.", b".s3-"):
        cut = name.rfind(mark)
        if cut > 0:
            return name[:cut].decode("latin-1")
    if not name.endswith(b".localhost"):
        return ""
    bucket = name[: -len(b".localhost")]
    if bucket.endswith(b".s3"):
        return bucket[:-3].decode("latin-1")
    return "" if bucket == b"s3" or bucket.startswith((b"s3.", b"s3-")) else bucket.decode("latin-1")


def _runtime(method: bytes, path: bytes) -> Destination:
    name, _, action = path[11:].partition(b"/")
    plain = name.isascii() and b"%" not in name
    endpoint = name.decode() if plain else unquote_to_bytes(name).decode("utf-8", "replace")
    if method == b"POST" and name:
        invoked = _INVOKE_ACTIONS.get(action)
        if invoked is not None:
            return Destination(_INVOKE, "sagemaker-runtime", endpoint, invoked)
        if action == b"async-invocations":
            return Destination(Kind.DISPATCH, "sagemaker-runtime", endpoint, "async-invocations")
    return Destination(Kind.CONTROL, "sagemaker-runtime", endpoint, action.decode("utf-8", "replace"))


def _objects(header: Header) -> Destination:
    bucket = host_bucket(header(b"host") or b"")
    return _OBJECTS._replace(bucket=bucket) if bucket else _OBJECTS


def _service(scope: bytes, path: bytes, header: Header) -> str:
    if scope == b"sagemaker":
        if path == b"/" or header(b"x-amz-target") is not None:
            return "sagemaker"
        return _SAGEMAKER_PATHS.get(path.split(b"/", 2)[1] if path.startswith(b"/") else b"", "sagemaker")
    return _SERVICE_OF_SIGNING_NAME.get(scope) or scope.decode("utf-8", "replace")


def _unsigned(method: bytes, path: bytes, query: bytes, header: Header) -> Destination:
    target = header(b"x-amz-target")
    if target is not None:
        service = SERVICE_OF_TARGET.get(target.rpartition(b".")[0], "")
        return Destination(Kind.DISPATCH if service == "sqs" else Kind.CONTROL, service)
    first = path.split(b"/", 2)[1] if path.startswith(b"/") else b""
    if first in _INFER_PATHS:
        return _INFER
    if first in _OWN:
        return _OWN_PAGE
    if first in _CONSOLE_PATHS:
        return _CONSOLE
    if first == b"service":
        parts = path.split(b"/", 3)
        return Destination(Kind.CONTROL, SERVICE_OF_TARGET.get(parts[2], "") if len(parts) > 2 else "")
    if first in _SAGEMAKER_PATHS:
        return Destination(Kind.CONTROL, _SAGEMAKER_PATHS[first])
    if first in _CONTROL_PATHS or _is_form(method, path, query, header):
        return _UNKNOWN
    return _objects(header)


def _is_form(method: bytes, path: bytes, query: bytes, header: Header) -> bool:
    """A query-protocol request that no scope tells: its Action and Version are in the body or in the query."""
    if path not in (b"/", b""):
        return False
    return method == b"POST" or query.startswith(b"Action=") or b"&Action=" in query
