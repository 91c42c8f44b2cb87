"""The bucket as a run sees it: calls that are tried again while the S3 API is away (it restarts in a second or two).

What is refused for good is a `BucketError`, and what does not get better is one too: the run ends with its reason, or
its object does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from eyrie.adapters.s3_client import S3Client, S3Refused, S3Unavailable, SigningKey

log = logging.getLogger("eyrie.transform")

T = TypeVar("T")
PATIENCE_S = 120.0  # how long the S3 API may be away
PAUSE_FIRST_S, PAUSE_MAX_S = 0.05, 2.0


class BucketError(Exception):
    """The bucket cannot be used; the message is for people."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where the S3 API is, and who asks."""

    place: Path | str  # its Unix socket, or http://HOST:PORT
    key: SigningKey
    region: str
    _own: threading.local = field(default_factory=threading.local)

    def client(self) -> S3Client:
        """This thread's own client."""
        known: S3Client | None = getattr(self._own, "client", None)
        if known is None:
            known = self._own.client = S3Client(self.place, self.key, self.region)
        return known

    def reader(self) -> S3Client:
        """A client of its own for a stream that is read bit by bit: whatever this thread does meanwhile would have to
        wait on `client` for the end of a reply that nobody reads. To be closed.
        """
        return S3Client(self.place, self.key, self.region)

    def call(self, work: Callable[[S3Client], T]) -> T:
        """Do something with a client, again and again while the S3 API is away. Raises BucketError, S3Refused."""
        pause_s, until = PAUSE_FIRST_S, time.monotonic() + PATIENCE_S
        while True:
            try:
                return work(self.client())
            except S3Unavailable as error:
                if time.monotonic() > until:
                    raise BucketError(f"InternalError: {error}") from None
                log.warning("the S3 API is away: %s", error)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)


def refused(error: S3Refused, url: str) -> BucketError:
    """A refusal as a sentence about an object."""
    if error.code in ("NoSuchKey", "NoSuchBucket", "404"):
        return BucketError(f"ClientError: there is nothing at {url}: {error}")
    if error.code == "PreconditionFailed":
        return BucketError(f"ClientError: {url} was replaced while the job ran")
    return BucketError(f"ClientError: {url} cannot be used: {error}")
