"""ContainerLatency: readings of several containers become what happened between them."""

from __future__ import annotations

import json
from typing import Any

from eyrie.control.container_times import FIRST_LOOKS, SILENCE_MS, ContainerTimes
from eyrie.control.sampling import Watched
from eyrie.domain.metrics import Measured, bucket_of
from eyrie.domain.names import EndpointKey
from eyrie.domain.usage import InstanceUsage
from eyrie.ports import NoAnswer

KEY = EndpointKey("123456789012", "us-east-1", "pipe")


def usage(number: int = 1, containers: int = 2) -> InstanceUsage:
    made = (f"i-{number}", KEY, "v", "ml.m5.large", 2000, 1024, f"/{number}", 0, 0, 0, 0.0)
    return InstanceUsage(*made, containers=containers)


class Rooms:
    """Instances with workers, each of which tells what it is given; None: it does not answer."""

    def __init__(self, **told: list[Any]) -> None:
        self.told = told
        self.asked: list[tuple[str, int]] = []

    def workers(self, socket: str) -> list[int]:
        return list(range(len(self.told[socket.strip("/")])))

    def ask(self, socket: str, worker: int, method: str, target: str, *, timeout_s: float) -> tuple[int, bytes]:
        assert (method, target) == ("GET", "/eyrie/times")
        self.asked.append((socket, worker))
        told = self.told[socket.strip("/")][worker]
        if told is None:
            raise NoAnswer("silent")
        return (200, json.dumps(told).encode()) if isinstance(told, dict) else (404, b"no such path")


def times(*us: int) -> dict[str, Any]:
    buckets: dict[int, int] = {}
    for one in us:
        buckets[bucket_of(one)] = buckets.get(bucket_of(one), 0) + 1
    return {"us": sum(us), "buckets": buckets}


def heard(watch: ContainerTimes, *usages: InstanceUsage, at_ms: int = 1_000) -> dict[str, tuple[float, float]]:
    """Count and sum by container."""
    found: list[Measured] = watch.hear({u.instance_id: Watched(u, u) for u in usages}, at_ms)
    for one in found:
        assert (one.metric.namespace, one.metric.name) == ("AWS/SageMaker", "ContainerLatency")
        assert one.unit == "Microseconds"
        assert dict(one.metric.dimensions[1:]) == {"EndpointName": "pipe", "VariantName": "v"}
    return {one.metric.dimensions[0][1]: (one.summary.count, one.summary.total) for one in found}


def watching(rooms: Rooms) -> ContainerTimes:
    """One that has been there since before all instances."""
    made = ContainerTimes(rooms)  # type: ignore[arg-type]
    for _ in range(FIRST_LOOKS):
        assert made.hear({}, 0) == []
    return made


def test_of_instances_older_than_itself_it_tells_what_comes_from_now_on() -> None:
    rooms = Rooms(**{"1": [{"a": times(100)}], "2": [None]})
    watch = ContainerTimes(rooms)  # type: ignore[arg-type]
    watch.hear({}, 0)
    assert heard(watch, usage(1), usage(2)) == {}
    rooms.told |= {"1": [{"a": times(100, 30)}], "2": [{"a": times(500)}]}
    assert heard(watch, usage(1), usage(2), at_ms=2 * SILENCE_MS) == {"a": (1, 30)}
    rooms.told |= {"2": [{"a": times(500, 20)}]}
    assert heard(watch, usage(1), usage(2), at_ms=3 * SILENCE_MS) == {"a": (1, 20)}


def test_what_came_since_the_last_reading_is_recorded_over_all_workers() -> None:
    rooms = Rooms(**{"1": [{"a": times(100), "b": times()}, {"a": times(300), "b": times(7)}]})
    watch = watching(rooms)
    assert heard(watch, usage()) == {"a": (2, 400), "b": (1, 7)}
    assert heard(watch, usage()) == {}
    rooms.told["1"][1] = {"a": times(300, 50, 60), "b": times(7)}
    assert heard(watch, usage()) == {"a": (2, 110)}


def test_the_value_of_a_single_request_is_told_within_a_percent() -> None:
    rooms = Rooms(**{"1": [{"a": times(10_000)}]})
    watch = watching(rooms)
    heard(watch, usage())
    rooms.told["1"][0] = {"a": times(10_000, 500)}
    (one,) = watch.hear({"i-1": Watched(usage(), usage())}, 2_000)
    assert abs(one.summary.highest - 500) < 6
    assert abs(one.summary.lowest - 500) < 6


def test_a_worker_that_was_forked_anew_tells_from_its_beginning() -> None:
    rooms = Rooms(**{"1": [{"a": times(100, 100, 200)}]})
    watch = watching(rooms)
    heard(watch, usage())
    rooms.told["1"][0] = {"a": times(100)}
    assert heard(watch, usage()) == {"a": (1, 100)}


def test_instances_with_one_container_are_not_asked() -> None:
    rooms = Rooms(**{"1": [{}]})
    assert heard(watching(rooms), usage(containers=1)) == {}
    assert rooms.asked == []


def test_one_that_does_not_answer_is_left_alone_for_a_while_and_keeps_nobody() -> None:
    rooms = Rooms(**{"1": [None], "2": [{"a": times(5)}]})
    watch = watching(rooms)
    assert heard(watch, usage(1), usage(2), at_ms=0) == {"a": (1, 5)}
    rooms.told["1"] = [{"a": times(9)}]
    assert heard(watch, usage(1), usage(2), at_ms=SILENCE_MS - 1) == {}
    assert rooms.asked.count(("/1", 0)) == 1
    assert heard(watch, usage(1), usage(2), at_ms=SILENCE_MS) == {"a": (1, 9)}


def test_an_older_server_that_knows_no_such_path_is_no_trouble() -> None:
    assert heard(watching(Rooms(**{"1": ["none"]})), usage()) == {}
