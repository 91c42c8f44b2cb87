"""Presigned S3 URLs of the old kind (AWSAccessKeyId, Expires, Signature), which boto3 still makes unless told
otherwise. Light.

The signature covers the head alone, so it is proven at once.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from eyrie.wire.auth_canonical import query_pairs
from eyrie.wire.auth_errors import Fault, auth_error
from eyrie.wire.credentials import Credentials, Identity
from eyrie.wire.dispatch import host_bucket

_EXPIRES_DIGITS_MAX = 12

# Parameters that name a sub-resource or change the reply, and so are signed.
_SIGNED_PARAMETERS = frozenset(
    b"accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics notification "
    b"object-lock partNumber policy replication requestPayment response-cache-control response-content-disposition "
    b"response-content-encoding response-content-language response-content-type response-expires restore select "
    b"select-type storageClass tagging torrent uploadId uploads versionId versioning versions website".split()
)


def check_v2(
    credentials: Credentials,
    region: str,
    method: bytes,
    path: bytes,
    query: bytes,
    headers: Mapping[bytes, bytes],
    now_ms: int,
) -> Identity:
    """Whose presigned URL it is; the region is ours, since the URL names none. Raises ApiError in S3's style."""
    given = query_pairs(query)
    known = credentials.get(given.get(b"AWSAccessKeyId", b""))
    if known is None:
        raise auth_error(Fault.UNKNOWN_KEY, "s3")
    expires, signature = given.get(b"Expires", b""), given.get(b"Signature", b"")
    if not signature or not expires.isdigit() or len(expires) > _EXPIRES_DIGITS_MAX:
        raise auth_error(Fault.MISSING, "s3")
    if now_ms > int(expires) * 1000:
        raise auth_error(Fault.EXPIRED, "s3")
    token = given.get(b"x-amz-security-token", b"")
    if not hmac.compare_digest(token, known.session_token.encode()):
        raise auth_error(Fault.BAD_TOKEN, "s3")
    head, (path_signed, parameters) = _head(method, headers, given, expires), _resource(path, query, headers)
    # botocore signs "/BUCKET/" for what it then asks as "/BUCKET"; others sign what they ask.
    bare = path_signed.count(b"/") == 1 and len(path_signed) > 1
    for resource in (path_signed, path_signed + b"/") if bare else (path_signed,):
        expected = hmac.digest(known.secret_access_key.encode(), head + resource + parameters, "sha1")
        if hmac.compare_digest(base64.b64encode(expected), signature):
            return Identity(known.access_key_id, known.account, region, "s3")
    raise auth_error(Fault.MISMATCH, "s3")


def _head(method: bytes, headers: Mapping[bytes, bytes], given: Mapping[bytes, bytes], expires: bytes) -> bytes:
    """What is signed, up to the resource."""
    custom = {name: value for name, value in given.items() if name.startswith(b"x-amz-")}
    custom.update({name: value for name, value in headers.items() if name.startswith(b"x-amz-")})
    lines = [
        method,
        *(headers.get(name) or given.get(name, b"") for name in (b"content-md5", b"content-type")),
        expires,
    ]
    lines.extend(name + b":" + custom[name].strip() for name in sorted(custom))
    return b"\n".join((*lines, b""))


def _resource(path: bytes, query: bytes, headers: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """The path that is signed, with the bucket that the host names, and the parameters that are."""
    bucket = host_bucket(headers.get(b"host", b"")).encode()
    resource = b"/" + bucket + path if bucket else path
    signed = []
    for pair in query.split(b"&"):
        name, equals, value = pair.partition(b"=")
        if name in _SIGNED_PARAMETERS:
            signed.append((name, name + equals + unquote_to_bytes(value)))
    signed.sort(key=lambda pair: pair[0])
    return resource, b"?" + b"&".join(text for _, text in signed) if signed else b""
