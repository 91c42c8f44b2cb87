"""Serverless variants: what one may use, how many requests at once it takes, and what is known of its use.

`Serverless` is a ServerlessConfig as it is wanted now; decide/serverless makes a number of instances of it and `Use`.
"""

from __future__ import annotations

from dataclasses import dataclass

MEMORY_MB = (1024, 2048, 3072, 4096, 5120, 6144)
CONCURRENCY_MAX = 200
BODY_BYTES_MAX = 4 << 20  # of a request to it
STARTUP_TIMEOUT_S = 180  # from the start of an instance to its first 200 from /ping


@dataclass(frozen=True, slots=True)
class Serverless:
    """What a serverless variant is allowed."""

    memory_mb: int  # cap of each instance
    max_concurrency: int  # requests at once, of the variant
    provisioned: int = 0  # ProvisionedConcurrency: requests at once that instances are kept ready for
    at_once: int = 0  # requests at once that one instance serves, where its model says so; 0: by its memory


Mark = tuple[int, int]  # requests at once, and when there last were so many: milliseconds since the epoch


@dataclass(frozen=True, slots=True)
class Use:
    """What the gateway workers told of the requests of one endpoint, those that wait for an instance included."""

    now: int  # at once
    since_ms: int  # since when every request is known of; before that there may have been any number
    marks: tuple[Mark, ...] = ()  # falling numbers, rising times: the highest number of any time back from now
