"""The look that control takes each second: what is recorded of instances and of the host, and that nothing stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from eyrie.control import sampling
from eyrie.control.sampling import HOST_EVERY, Sampling
from eyrie.domain.credits import Credits
from eyrie.domain.metrics import Measured, Summary
from eyrie.domain.names import EndpointKey, Scope
from eyrie.domain.usage import HostUsage, InstanceUsage
from eyrie.ports import MetricsFull

KEY = EndpointKey("123456789012", "us-east-1", "churn")
FIRST = InstanceUsage("i-1", KEY, "v", "ml.m5.large", 2000, 1024, "/s", 0, 0, 512 << 20, 30.0)


class World:
    """The ports that a look needs: readings in their order, and what was recorded."""

    def __init__(self, *readings: Sequence[InstanceUsage]) -> None:
        self.readings = list(readings)
        self.measured: list[Measured] = []
        self.full = False
        self.looks = 0

    def now_ms(self) -> int:
        return 5_000

    def read(self) -> Any:
        self.looks += 1
        if not self.readings:
            raise OSError("no reading")
        return self.readings.pop(0)

    def record(self, measured: Sequence[Measured]) -> None:
        if self.full:
            raise MetricsFull("no room")
        self.measured += measured

    def keep(self) -> None: ...

    def series(self, *_: object) -> list[Any]:
        return []

    def summaries(self, *_: object) -> dict[int, Summary]:
        return {}

    def throttle(self, instance_id: str, vcpu_milli: int) -> bool:
        return False

    def remember(self, instance_id: str, credits: Credits) -> None: ...

    def recall(self, instance_id: str) -> Credits | None:
        return None


class Host:
    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> HostUsage:
        self.reads += 1
        return HostUsage("box", 0, {"user": self.reads, "idle": self.reads}, {"MemTotal": 10, "MemAvailable": 4})


def made(world: World, host: Host, **more: Any) -> Sampling:
    return Sampling(world, world, world, host, Scope(), **more)


def totals(world: World) -> dict[tuple[str, str, tuple[str, ...]], float]:
    return {
        (m.metric.namespace, m.metric.name, tuple(value for _, value in m.metric.dimensions)): m.summary.total
        for m in world.measured
    }


def test_an_instance_is_recorded_from_its_second_look_on_under_its_variant_and_alone() -> None:
    world = World([FIRST], [replace(FIRST, at_us=1_000_000, cpu_us=500_000)], [])
    looking = made(world, Host(), models_of=lambda socket: 3)
    looking.look()
    assert world.measured == []
    looking.look()
    found = totals(world)
    namespace = "/aws/sagemaker/Endpoints"
    assert found[namespace, "CPUUtilization", ("churn", "v")] == 50
    assert found[namespace, "CPUUtilization", ("churn", "i-1", "v")] == 50
    assert found[namespace, "MemoryUtilization", ("churn", "v")] == 50
    assert found[namespace, "LoadedModelCount", ("churn", "v")] == 3
    assert looking.used()["i-1"][1]["DiskUtilization"] == 30
    looking.look()  # it is gone
    assert looking.used() == {}


def test_the_host_is_looked_at_less_often() -> None:
    world, host = World(*[[] for _ in range(2 * HOST_EVERY)]), Host()
    looking = made(world, host)
    for _ in range(2 * HOST_EVERY):
        looking.look()
    assert host.reads == 2
    assert totals(world)["CWAgent", "cpu_usage_user", ("cpu-total", "box")] == 50


def test_no_room_and_no_reading_cost_one_look(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "EVERY_S", 0.001)
    world = World([FIRST], [replace(FIRST, at_us=1_000_000)])
    world.full = True

    async def scenario() -> None:
        running = asyncio.create_task(made(world, Host()).run())
        async with asyncio.timeout(30):
            while world.looks < 5:
                await asyncio.sleep(0.001)
        assert not running.done()
        running.cancel()

    asyncio.run(scenario())
    assert "dropped" in caplog.text
    assert "could not be read" in caplog.text
