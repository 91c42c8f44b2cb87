"""Data capture: which requests and replies of a variant are kept, and the record that each becomes.

A record is one line of JSON in an object of the user's bucket, as SageMaker writes it:

    {"captureData": {"endpointInput": {"observedContentType", "mode": "INPUT", "data", "encoding"},
                     "endpointOutput": {... "mode": "OUTPUT" ...}},
     "eventMetadata": {"eventId", "inferenceId"?, "customAttributes"?: [...], "inferenceTime"}, "eventVersion": "0"}
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CaptureMode(StrEnum):
    """What of an exchange is kept; SageMaker's spellings of a CaptureOption."""

    INPUT = "Input"
    OUTPUT = "Output"
    BOTH = "InputAndOutput"


class Encoding(StrEnum):
    """How the data of a record is written. TEXT is Eyrie's own: text of a type that is neither CSV nor JSON."""

    CSV = "CSV"
    JSON = "JSON"
    BASE64 = "BASE64"
    TEXT = "TEXT"


@dataclass(frozen=True, slots=True)
class CaptureRoute:
    """What a gateway worker must know to capture a variant; part of its route."""

    percentage: int  # of the requests that were answered well, 0 to 100
    destination: str  # s3://BUCKET/PREFIX, without a slash at its end
    inputs: bool
    outputs: bool
    csv_types: tuple[str, ...] = ()  # content types besides text/csv that are written as CSV
    json_types: tuple[str, ...] = ()  # and besides application/json, as JSON
    kms_key: str = ""  # KmsKeyId; "" for none: objects are not encrypted


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """What is known of a file of records, from which the name of its object follows. The first line of the file."""

    slug: str  # of the endpoint
    variant: str
    destination: str
    kms_key: str
    began_ms: int  # when its first request was answered: all others are of the same hour (UTC)
    name: str  # unique among all files


@dataclass(frozen=True, slots=True)
class Captured:
    """One side of a record, as it is read back."""

    content_type: str
    encoding: Encoding
    data: str


@dataclass(frozen=True, slots=True)
class CaptureRecord:
    """A record, as it is read back."""

    event_id: str
    inference_time: str  # YYYY-MM-DDThh:mm:ssZ
    input: Captured | None = None
    output: Captured | None = None
    inference_id: str | None = None
    custom_attributes: tuple[str, ...] = ()
    target_model: str | None = None  # Eyrie's own, of a multi-model endpoint
