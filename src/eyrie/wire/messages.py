"""What passes between the HTTP stack, the codec and the handlers: requests, replies and decoded calls.

Light: imported by gateway workers too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request as it was received, its body whole."""

    method: str
    path: str  # raw, percent-encoded, without the query
    query: str  # raw, without the "?"
    headers: Mapping[str, str]  # names lower case; repeated ones joined by ","
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """One HTTP reply. Content-Length is the HTTP stack's business, and not among the headers."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Call:
    """One decoded and validated API call, spelled as boto3 spells it."""

    service: str  # boto3's name: "sagemaker", "cloudwatch", "s3", ...
    operation: str  # "CreateModel"
    protocol: str  # what the client speaks: json | rest-json | query | rest-xml | smithy-rpc-v2-cbor
    params: dict[str, Any]  # as boto3 takes them: datetimes, bytes, Decimal-free numbers
    request_id: str
    json_version: str = "1.1"  # of the json protocol: "1.0" or "1.1"
    query_mode: bool = False  # the client asked for old query error codes (x-amzn-query-mode)
    method: str = "POST"  # HEAD replies have no body
    extra: Mapping[str, Any] = field(default_factory=dict)  # for the handler chain: who calls, when
