"""What is captured, how it is written, where it goes, and when a file of records is done. Pure: chance and time are
arguments.

On the way of a captured reply: `gateway/capture` asks whether to keep it and how to write it; `control/captures` asks
for the name of the object that a file becomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyrie.domain.capture import CaptureFile, CaptureMode, CaptureRoute, Encoding
from eyrie.domain.names import EndpointKey

HOUR_MS = 3_600_000
_TEXT_TYPES = frozenset(
    {
        "application/jsonlines",
        "application/x-jsonlines",
        "application/jsonl",
        "application/x-ndjson",
        "application/xml",
        "application/yaml",
        "application/x-yaml",
        "application/javascript",
        "application/x-www-form-urlencoded",
        "application/csv",
    }
)
_BACKOFF_FIRST_MS = 1_000
_BACKOFF_MOST_MS = 60_000


def route_of(config: Mapping[str, Any] | None) -> CaptureRoute | None:
    """What a DataCaptureConfig (which was checked) has a gateway do; None: nothing."""
    if not config or not config.get("EnableCapture", True):
        return None
    modes = {CaptureMode(option["CaptureMode"]) for option in config["CaptureOptions"]}
    kinds = config.get("CaptureContentTypeHeader") or {}
    return CaptureRoute(
        percentage=config["InitialSamplingPercentage"],
        destination=config["DestinationS3Uri"].rstrip("/"),
        inputs=bool(modes & {CaptureMode.INPUT, CaptureMode.BOTH}),
        outputs=bool(modes & {CaptureMode.OUTPUT, CaptureMode.BOTH}),
        csv_types=tuple(kinds.get("CsvContentTypes", ())),
        json_types=tuple(kinds.get("JsonContentTypes", ())),
        kms_key=config.get("KmsKeyId") or "",
    )


def sampled(percentage: int, draw: float) -> bool:
    """Whether a request is captured; `draw` is in [0, 1)."""
    return draw * 100 < percentage


def encoding_of(content_type: str, route: CaptureRoute, text: bool) -> Encoding:
    """How data of this content type is written. `text`: text of other types is kept as text, and not as BASE64."""
    kind = media_type(content_type)
    if kind == "text/csv" or kind in map(media_type, route.csv_types):
        return Encoding.CSV
    if kind == "application/json" or kind in map(media_type, route.json_types):
        return Encoding.JSON
    if text and (kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+json", "+xml"))):
        return Encoding.TEXT
    return Encoding.BASE64


def media_type(content_type: str) -> str:
    """A content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def hour_of(at_ms: int) -> int:
    """The hour (UTC) that a moment is in, counted since the epoch."""
    return at_ms // HOUR_MS


def is_done(now_ms: int, began_ms: int, size: int, flush_ms: int, bytes_max: int) -> bool:
    """Whether a file goes to its bucket now: old enough, large enough, or its hour is over."""
    return now_ms - began_ms >= flush_ms or size >= bytes_max or hour_of(now_ms) != hour_of(began_ms)


def object_of(file: CaptureFile, day: str, clock: str) -> tuple[str, str]:
    """Bucket and key of the object that a file becomes. `day` is YYYY/mm/dd/hh, `clock` MM-SS-mmm, both of its first
    request.
    """
    bucket, _, prefix = file.destination.removeprefix("s3://").partition("/")
    name = EndpointKey.from_slug(file.slug).name
    parts = [prefix.strip("/"), name, file.variant, day, f"{clock}-{file.name}.jsonl"]
    return bucket, "/".join(part for part in parts if part)


def retry_in_ms(failures: int) -> int:
    """How long a destination is left alone after so many failures in a row (at least one)."""
    return int(min(_BACKOFF_MOST_MS, _BACKOFF_FIRST_MS * 2 ** min(failures - 1, 10)))
