"""How long each of several containers took to answer: sums since the model was loaded, that GET /eyrie/times tells.

Control reads them each second, and the difference of two readings becomes the metric ContainerLatency. An answer in
pieces has taken until its last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from eyrie.domain.metrics import bucket_of
from eyrie.http1.application import Listener
from eyrie.modelserver.replier import Replier


class Times:
    """Durations by container. One event loop's."""

    def __init__(self, names: Iterable[str], clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds."""
        self.clock = clock
        self._us = dict.fromkeys(names, 0)  # in all
        self._buckets: dict[str, dict[int, int]] = {name: {} for name in self._us}  # of domain.metrics: how often

    def took(self, name: str, began_s: float) -> None:
        """A container has answered what it was asked at `began_s` of the clock."""
        us = int((self.clock() - began_s) * 1e6)
        self._us[name] += us
        buckets, bucket = self._buckets[name], bucket_of(us)
        buckets[bucket] = buckets.get(bucket, 0) + 1

    def as_json(self) -> dict[str, Any]:
        """`{CONTAINER: {"us": all microseconds, "buckets": {BUCKET: N}}}`"""
        return {name: {"us": us, "buckets": self._buckets[name]} for name, us in self._us.items()}


class Timed:
    """A client whose container is timed: everything else goes through."""

    __slots__ = ("_began_s", "_client", "_name", "_times", "context")

    def __init__(self, client: Replier, times: Times, name: str) -> None:
        self._client = client
        self._times = times
        self._name = name
        self._began_s = times.clock()
        self.context: Any = None

    @property
    def alive(self) -> bool:
        """Whether the client waits still."""
        return self._client.alive

    @property
    def writing_paused(self) -> bool:
        """Whether the client is behind."""
        return self._client.writing_paused

    @property
    def listener(self) -> Listener:
        """Who hears of the client."""
        return self._client.listener

    @listener.setter
    def listener(self, listener: Listener) -> None:
        self._client.listener = listener

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """The whole answer."""
        self._times.took(self._name, self._began_s)
        self._client.reply(status, lines, body)

    def start(self, status: int, lines: bytes, length: int | None) -> None:
        """The beginning of an answer in pieces."""
        self._client.start(status, lines, length)

    def write(self, piece: bytes) -> None:
        """A piece."""
        self._client.write(piece)

    def finish(self) -> None:
        """The answer is complete."""
        self._times.took(self._name, self._began_s)
        self._client.finish()

    def abort(self) -> None:
        """It will never be complete."""
        self._times.took(self._name, self._began_s)
        self._client.abort()
