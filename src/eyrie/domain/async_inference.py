"""Asynchronous inference: where an endpoint's results go, one request that waits for its turn, and what came of it.

`AsyncRoute` travels in the route table; a `Waiting` request has been accepted durably; an `Outcome` is decided once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

INPUT_BYTES_MAX = 1 << 30  # of a request by its location: 1 GB
INLINE_BYTES_MAX = 128_000  # of a request in its call
TTL_DEFAULT_S = 21_600
TIMEOUT_DEFAULT_S = 900


@dataclass(frozen=True, slots=True)
class AsyncRoute:
    """AsyncInferenceConfig of an endpoint, as far as it says what becomes of a request."""

    output_path: str = ""  # s3://BUCKET/PREFIX; empty: results are only told to the success topic
    failure_path: str = ""  # empty: failures are only told to the error topic
    success_topic: str = ""  # ARNs
    error_topic: str = ""
    responses_in: tuple[str, ...] = ()  # IncludeInferenceResponseIn
    concurrency: int = 0  # MaxConcurrentInvocationsPerInstance; 0: ours to choose


class Ended(StrEnum):
    """How a request came to its end: invocationStatus of the notification."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    EXPIRED = "Expired"


@dataclass(frozen=True, slots=True)
class Place:
    """An object: bucket and key."""

    bucket: str
    key: str

    @property
    def url(self) -> str:
        """Its s3:// address."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that was accepted. Times are milliseconds since the epoch by the clock of decisions."""

    number: int  # order of acceptance; rises for ever
    slug: str  # of its endpoint
    inference_id: str
    accepted_ms: int
    expires_ms: int
    timeout_s: int  # of one invocation, real time
    content_type: str
    accept: str
    attributes: str  # CustomAttributes
    location: str  # s3:// address of its input; empty: the input is in the queue
    output: str  # s3:// address that its result will have; empty: none
    failure: str
    losses: int = 0  # instances that died with it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: decided once, stored durably, then made visible."""

    ended: Ended
    content_type: str
    reason: str = ""  # of a failure, for people
    body: bytes = b""  # of a small result, or the text of a failure
    spool: str = ""  # name of the file that holds a large result
    size: int = 0  # of the result, in bytes
    variant: str = ""
    model_us: int = 0  # how long the instance took
