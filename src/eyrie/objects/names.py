"""Where an S3 request points: the bucket and key of its host and path, and what may be a name at all.

The second step of every S3 request (after `wire.dispatch`): path style `/BUCKET/KEY` or host style `BUCKET.localhost`.
Keys are bytes from here on: S3 orders them by their UTF-8 bytes, and so does the index.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from eyrie.objects.errors import refuse
from eyrie.wire.dispatch import RESERVED_BUCKETS, host_bucket

KEY_BYTES_MAX = 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IPV4 = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_FORBIDDEN_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_FORBIDDEN_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


class Place(NamedTuple):
    """Bucket "" is the service itself; key b"" is the bucket itself."""

    bucket: str
    key: bytes


def place(host: str, raw_path: str) -> Place:
    """The bucket and key that a request names. Raises ApiError (InvalidURI, KeyTooLongError)."""
    if not raw_path.startswith("/"):
        raise refuse("InvalidURI", URI=raw_path[:1024])
    bucket = host_bucket(host.encode("latin-1"))
    rest = raw_path[1:]
    if not bucket:
        bucket, _, rest = rest.partition("/")
        bucket = text_of(unquote_to_bytes(bucket))
    return Place(bucket, key_of(rest))


def key_of(raw: str) -> bytes:
    """A percent-encoded key as bytes. Raises ApiError (InvalidURI where it is not UTF-8, KeyTooLongError)."""
    key = unquote_to_bytes(raw)
    text_of(key)
    return checked_key(key)


def checked_key(key: bytes) -> bytes:
    """The key itself when its length is allowed. Raises ApiError (KeyTooLongError)."""
    if len(key) > KEY_BYTES_MAX:
        raise refuse("KeyTooLongError", Size=len(key), MaxSizeAllowed=KEY_BYTES_MAX)
    return key


def text_of(raw: bytes) -> str:
    """Bytes of a name as text. Raises ApiError (InvalidURI) where they are not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise refuse("InvalidURI", "The name is not UTF-8.") from None


def check_new_bucket(bucket: str) -> None:
    """Refuse a name that S3's rules forbid, or that would shadow a path of ours.

    Raises ApiError (InvalidBucketName).
    """
    if bucket in RESERVED_BUCKETS:
        raise refuse("InvalidBucketName", f"The name {bucket!r} is a path of this server.", BucketName=bucket)
    good = (
        _BUCKET.fullmatch(bucket)
        and ".." not in bucket
        and not _IPV4.fullmatch(bucket)
        and not bucket.startswith(_FORBIDDEN_PREFIXES)
        and not bucket.endswith(_FORBIDDEN_SUFFIXES)
    )
    if not good:
        raise refuse("InvalidBucketName", BucketName=bucket[:255])
