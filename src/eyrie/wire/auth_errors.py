"""How a failed authentication is told, in each style of AWS service: one table of codes, statuses and texts. Light."""

from __future__ import annotations

from enum import Enum

from eyrie.wire.errors import ApiError


class Style(Enum):
    """Which family of names and statuses a service uses for errors of authentication."""

    JSON = "json"
    REST = "rest-json"
    QUERY = "query"
    S3 = "s3"


class Fault(Enum):
    """What is wrong with a signature."""

    MISSING = "missing"
    INCOMPLETE = "incomplete"
    UNKNOWN_KEY = "unknown key"
    BAD_TOKEN = "bad token"
    MISMATCH = "mismatch"
    SKEWED = "skewed"
    WRONG_SCOPE = "wrong scope"
    UNSIGNED_HEADERS = "unsigned headers"
    EXPIRED = "expired"  # a presigned URL past its time
    BAD_PAYLOAD = "bad payload"
    UNSUPPORTED = "unsupported"


_QUERY_STYLE = frozenset({"sts", "iam", "sns", "cloudformation"})
_REST_STYLE = frozenset(
    {
        "sagemaker-runtime",
        "sagemaker-metrics",
        "sagemaker-featurestore-runtime",
        "sagemaker-inference-router-runtime",
    }
)

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_BAD_TOKEN = (
    "The security token included in the request is invalid: this access key has no such session token. "
    "Is AWS_SESSION_TOKEN left over from another account?"
)

# (code, text) of each fault; an empty text is given by the one who raises it.
_JSON = {
    Fault.MISSING: ("MissingAuthenticationTokenException", "Missing Authentication Token"),
    Fault.INCOMPLETE: ("IncompleteSignatureException", ""),
    Fault.UNKNOWN_KEY: ("UnrecognizedClientException", "The security token included in the request is invalid."),
    Fault.BAD_TOKEN: ("UnrecognizedClientException", _BAD_TOKEN),
    Fault.MISMATCH: ("InvalidSignatureException", _MISMATCH),
    Fault.SKEWED: ("InvalidSignatureException", ""),
    Fault.WRONG_SCOPE: ("InvalidSignatureException", ""),
    Fault.UNSIGNED_HEADERS: ("InvalidSignatureException", ""),
    Fault.EXPIRED: ("InvalidSignatureException", ""),
    Fault.BAD_PAYLOAD: ("InvalidSignatureException", ""),
    Fault.UNSUPPORTED: ("IncompleteSignatureException", ""),
}
_QUERY = {
    Fault.MISSING: ("MissingAuthenticationToken", "Request is missing Authentication Token"),
    Fault.INCOMPLETE: ("IncompleteSignature", ""),
    Fault.UNKNOWN_KEY: ("InvalidClientTokenId", "The security token included in the request is invalid."),
    Fault.BAD_TOKEN: ("InvalidClientTokenId", _BAD_TOKEN),
    Fault.MISMATCH: ("SignatureDoesNotMatch", _MISMATCH),
    Fault.SKEWED: ("SignatureDoesNotMatch", ""),
    Fault.WRONG_SCOPE: ("SignatureDoesNotMatch", ""),
    Fault.UNSIGNED_HEADERS: ("SignatureDoesNotMatch", ""),
    Fault.EXPIRED: ("RequestExpired", ""),
    Fault.BAD_PAYLOAD: ("SignatureDoesNotMatch", ""),
    Fault.UNSUPPORTED: ("IncompleteSignature", ""),
}
_S3 = {
    Fault.MISSING: ("AccessDenied", "Access Denied"),
    Fault.INCOMPLETE: ("AuthorizationHeaderMalformed", ""),
    Fault.UNKNOWN_KEY: ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    Fault.BAD_TOKEN: ("InvalidToken", "The provided token is malformed or otherwise invalid."),
    Fault.MISMATCH: (
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
    ),
    Fault.SKEWED: (
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    ),
    Fault.WRONG_SCOPE: ("AuthorizationHeaderMalformed", ""),
    Fault.UNSIGNED_HEADERS: ("AccessDenied", "There were headers present in the request which were not signed"),
    Fault.EXPIRED: ("AccessDenied", "Request has expired"),
    Fault.BAD_PAYLOAD: (
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
    Fault.UNSUPPORTED: ("InvalidRequest", ""),
}
_TABLES = {Style.JSON: _JSON, Style.REST: _JSON, Style.QUERY: _QUERY, Style.S3: _S3}

# Faults that S3 answers with 400; the json services answer all of them with 400, the others all with 403.
_S3_BAD_REQUEST = frozenset(
    {Fault.INCOMPLETE, Fault.BAD_TOKEN, Fault.WRONG_SCOPE, Fault.BAD_PAYLOAD, Fault.UNSUPPORTED}
)


def style_of(service: str) -> Style:
    """The style of a service, by boto3's name."""
    if service == "s3":
        return Style.S3
    if service in _QUERY_STYLE:
        return Style.QUERY
    return Style.REST if service in _REST_STYLE else Style.JSON


def auth_error(fault: Fault, service: str, detail: str = "") -> ApiError:
    """The error that `service` (boto3's name) answers for a fault; `detail` is used where the table has no text."""
    style = style_of(service)
    code, text = _TABLES[style][fault]
    bad_request = style is Style.JSON or (style is Style.S3 and fault in _S3_BAD_REQUEST)
    return ApiError(code, text or detail, 400 if bad_request else 403)
