"""DataCaptureConfig: what of it is checked when a config is created, and how an endpoint shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eyrie.adapters import capture_keys
from eyrie.control.unsupported import unsupported
from eyrie.decide.capture import media_type, route_of
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.wire.errors import validation

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SERVING = frozenset({EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING, EndpointStatus.UPDATE_ROLLBACK_FAILED})


def check(config: Mapping[str, Any] | None) -> None:
    """Raise ValidationException for a capture that could not be done. Patterns and ranges were checked before."""
    if config is None or route_of(config) is None:
        return
    destination = config["DestinationS3Uri"]
    if not destination.startswith("s3://"):
        raise unsupported(f"DataCaptureConfig.DestinationS3Uri {destination}", "captured data goes to an s3:// URI")
    bucket = destination.removeprefix("s3://").partition("/")[0]
    if not _BUCKET.fullmatch(bucket):
        raise validation(f'DataCaptureConfig.DestinationS3Uri "{destination}" does not name a bucket.')
    kinds = config.get("CaptureContentTypeHeader") or {}
    csv = set(map(media_type, kinds.get("CsvContentTypes", ())))
    both = sorted(csv & set(map(media_type, kinds.get("JsonContentTypes", ()))))
    if both:
        raise validation(f'Content type "{both[0]}" is both in CsvContentTypes and in JsonContentTypes.')
    if config.get("KmsKeyId") and not capture_keys.available():
        raise unsupported("DataCaptureConfig.KmsKeyId", f"to encrypt needs {capture_keys.EXTRA}")


def shown(endpoint: Endpoint) -> dict[str, Any] | None:
    """DescribeEndpoint's DataCaptureConfig; None where the endpoint has none."""
    config = endpoint.data_capture
    if not config:
        return None
    route = route_of(config)
    return {
        "EnableCapture": route is not None,
        "CaptureStatus": "Started" if route is not None and endpoint.status in _SERVING else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }
