"""ContainerLatency: how long each of several containers of an instance took, heard from its model servers each second.

The name and dimensions are CloudWatch's (`AWS/SageMaker`: EndpointName, VariantName, ContainerName). The servers tell
sums since their beginning; what is recorded is the difference of two readings. Of instances that are older than this
control the first reading is only where that begins: the control before has recorded most of it. One of `Sampling`'s
listeners, in its thread: an instance that does not answer at once is left alone for a while.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from eyrie.control.metering import NAMESPACE, durations
from eyrie.control.sampling import Watched
from eyrie.domain.metrics import Dimensions, Measured, Metric, Summary
from eyrie.domain.usage import InstanceUsage
from eyrie.ports import ModelRooms, NoAnswer

NAME, UNIT = "ContainerLatency", "Microseconds"
ANSWER_TIMEOUT_S = 0.5
SILENCE_MS = 10_000  # for which one that did not answer is not asked
FIRST_LOOKS = 2  # Sampling tells of an instance at its second look: what that one tells of was there at the first

Told = Mapping[str, Mapping[str, Any]]  # by container: "us" and "buckets"
Worker = tuple[str, int]  # instance id and number


class ContainerTimes:
    """The last reading of each worker of each instance that has several containers."""

    def __init__(self, rooms: ModelRooms) -> None:
        self._rooms = rooms
        self._last: dict[Worker, Told] = {}
        self._silent: dict[str, int] = {}  # instances that did not answer: until when they are not asked
        self._looks = 0
        self._older: set[str] = set()  # instances that were there before this control

    def hear(self, watched: Mapping[str, Watched], now_ms: int) -> list[Measured]:
        """What the containers of all instances did since the last look."""
        usages = [known.after for known in watched.values() if known.after.containers > 1]
        here = {usage.instance_id for usage in usages}
        self._looks += 1
        self._older = self._older & here if self._looks > FIRST_LOOKS else here
        self._last = {worker: told for worker, told in self._last.items() if worker[0] in here}
        self._silent = {i: until for i, until in self._silent.items() if i in here and until > now_ms}
        found: dict[Metric, Summary] = {}
        for usage in usages:
            if usage.instance_id not in self._silent:
                for metric, summary in self._of_instance(usage, now_ms):
                    found.setdefault(metric, Summary()).merge(summary)
        return [Measured(metric, now_ms, summary, UNIT) for metric, summary in found.items()]

    def _of_instance(self, usage: InstanceUsage, now_ms: int) -> Iterator[tuple[Metric, Summary]]:
        for number in self._rooms.workers(usage.socket):
            try:
                told = self._ask(usage.socket, number)
            except (NoAnswer, ValueError):
                self._silent[usage.instance_id] = now_ms + SILENCE_MS
                return
            before = self._last.get((usage.instance_id, number))
            self._last[usage.instance_id, number] = told
            if before is None and usage.instance_id in self._older:
                continue
            for container, now in told.items():
                summary = difference((before or {}).get(container), now)
                if summary.count:
                    yield Metric(usage.endpoint.scope, NAMESPACE, NAME, _dimensions(usage, container)), summary

    def _ask(self, socket: str, number: int) -> Told:
        """Raises NoAnswer, or ValueError for what is no answer of ours."""
        status, body = self._rooms.ask(socket, number, "GET", "/eyrie/times", timeout_s=ANSWER_TIMEOUT_S)
        told = json.loads(body) if status == 200 else None
        if not isinstance(told, dict):
            raise ValueError(f"{socket} answered {status}")
        return told


def difference(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Summary:
    """What came between two readings of a container. A server that began again tells less than before: all is new."""
    old: Mapping[str, int] = before["buckets"] if before is not None else {}
    new: Mapping[str, int] = now["buckets"]
    if before is None or any(new.get(bucket, 0) < times for bucket, times in old.items()):
        return durations(new, float(now["us"]))
    more = {bucket: times - old.get(bucket, 0) for bucket, times in new.items() if times > old.get(bucket, 0)}
    return durations(more, float(now["us"] - before["us"]))


def _dimensions(usage: InstanceUsage, container: str) -> Dimensions:
    return (("ContainerName", container), ("EndpointName", usage.endpoint.name), ("VariantName", usage.variant))
