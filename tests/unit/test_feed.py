"""Control's side of the feed: tables on disk, and what live workers are taken to serve and to have outstanding."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyrie.adapters import process_lock
from eyrie.adapters.feed import NOBODY, Feed
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, Target, VariantRoute
from eyrie.http1.unix import connect_unix, listen_unix

KEY = EndpointKey("123456789012", "us-east-1", "birds")
SLUG = KEY.slug


def route(generation: int, *instances: str) -> EndpointRoute:
    targets = tuple(Target(i, f"/slots/{i}/s", "a") for i in instances)
    variant = VariantRoute("A", 1.0, RoutingStrategy.RANDOM, "primary", targets)
    return EndpointRoute(KEY, generation, (variant,))


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.acks: list[set[EndpointKey]] = []
        self.idle: list[str] = []
        self.ejects: list[tuple[EndpointKey, str, str]] = []
        self.meters: list[dict[str, Any]] = []
        self.workers: list[int] = []
        self.uses: list[tuple[int, dict[EndpointKey, list[int]]]] = []

    def metered(self, told: dict[str, Any]) -> None:
        self.meters.append(told)

    def acknowledged(self, keys: set[EndpointKey]) -> None:
        self.acks.append(keys)

    def emptied(self, instance_ids: list[str]) -> None:
        self.idle += instance_ids

    def ejected(self, key: EndpointKey, instance_id: str, why: str) -> None:
        self.ejects.append((key, instance_id, why))

    def joined(self, worker: int) -> None:
        self.workers.append(worker)

    def left(self, worker: int) -> None:
        if worker in self.workers:
            self.workers.remove(worker)

    def used(self, worker: int, told: dict[EndpointKey, list[int]]) -> None:
        self.uses.append((worker, told))


class Worker:
    """The gateway's side, spoken by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, **line: Any) -> None:
        self.writer.write(json.dumps(line).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            found: dict[str, Any] = json.loads(await self.reader.readline())
            return found


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[tuple[Feed, Heard]]:
    feed, heard = Feed(data), Heard()
    await feed.start(heard, listen_unix(str(data / "run" / "feed.sock")), heard.metered)
    try:
        yield feed, heard
    finally:
        await feed.close()


async def connect(data: Path, name: str = "gateway-0", pid: int = 1) -> Worker:
    sock = connect_unix(str(data / "run" / "feed.sock"))
    worker = Worker(*await asyncio.open_unix_connection(sock=sock))
    worker.say(hello=name, pid=pid)
    return worker


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_table_is_written_whole_and_read_back_by_the_next_control(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    feed.publish(route(7, "i-1"))
    path = tmp_path / "routes" / f"{SLUG}.json"
    assert msgspec.json.decode(path.read_bytes(), type=EndpointRoute) == route(7, "i-1")
    (tmp_path / "routes" / "torn.half").write_bytes(b"{")
    again = Feed(tmp_path)
    assert again.published() == {KEY: 7}
    assert [p.name for p in (tmp_path / "routes").iterdir()] == [path.name]


def test_an_older_generation_is_refused(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    feed.publish(route(7, "i-1"))
    feed.publish(route(6, "i-0"))
    assert feed.published() == {KEY: 7}
    feed.withdraw(KEY, 6)
    assert feed.published() == {KEY: 7}
    feed.withdraw(KEY, 8)
    assert feed.published() == {}
    feed.publish(route(7, "i-1"))
    assert feed.published() == {}
    assert list((tmp_path / "routes").iterdir()) == []


def test_nobody_serves_where_no_worker_lives(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    feed.publish(route(7, "i-1"))
    assert feed.served(KEY) == NOBODY
    assert feed.idle("i-1")


def test_a_worker_that_lives_by_its_lock_and_is_not_connected_serves_the_oldest(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    lock = process_lock.take(tmp_path / "run" / "gateway-3.lock")
    try:
        assert feed.served(KEY) == 0
        assert not feed.idle("i-1")
    finally:
        os.close(lock)
    assert feed.served(KEY) == NOBODY


def test_the_slowest_worker_counts_and_hints_reach_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (feed, heard):
            one, two = await connect(tmp_path, "gateway-0", 1), await connect(tmp_path, "gateway-1", 2)
            await until(lambda: feed.workers() == ["gateway-0", "gateway-1"])
            assert feed.served(KEY) == 0  # they came, and have not said what they serve
            one.say(ack={}, gone=[])
            two.say(ack={}, gone=[])
            await until(lambda: feed.served(KEY) == NOBODY)
            await asyncio.to_thread(feed.publish, route(7, "i-1"))
            assert feed.served(KEY) == 0
            assert await one.hear() == {"routes": [SLUG]} == await two.hear()
            one.say(ack={SLUG: 7}, gone=[])
            await until(lambda: {KEY} in heard.acks)
            assert feed.served(KEY) == 0
            two.say(ack={SLUG: 7}, gone=[])
            await until(lambda: feed.served(KEY) == 7)
            feed.publish(route(8, "i-2"))
            one.say(ack={SLUG: 8}, gone=[])
            await until(lambda: len(heard.acks) == 5)
            assert feed.served(KEY) == 7
            two.writer.close()  # it died: nobody waits for it
            await until(lambda: feed.served(KEY) == 8)
            one.writer.close()

    run(scenario())


def test_a_withdrawn_endpoint_is_served_until_the_worker_says_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (feed, _):
            feed.publish(route(7, "i-1"))
            worker = await connect(tmp_path)
            worker.say(ack={SLUG: 7}, gone=[])
            await until(lambda: feed.served(KEY) == 7)
            feed.withdraw(KEY, 8)
            assert feed.served(KEY) == 7
            worker.say(ack={}, gone=[SLUG])
            await until(lambda: feed.served(KEY) == NOBODY)
            worker.writer.close()

    run(scenario())


def test_idle_is_what_every_worker_said_or_never_had(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (feed, heard):
            feed.publish(route(7, "i-1", "i-2"))
            old = await connect(tmp_path)
            old.say(busy=[])
            old.say(ack={SLUG: 7}, gone=[])
            await until(lambda: feed.served(KEY) == 7)
            feed.publish(route(8, "i-2"))
            old.say(ack={SLUG: 8}, gone=[])
            await until(lambda: feed.served(KEY) == 8)
            assert not feed.idle("i-1")
            old.say(idle=["i-1"])
            await until(lambda: feed.idle("i-1"))
            assert heard.idle == ["i-1"]
            back = await connect(tmp_path, "gateway-1", 2)  # comes with requests on one that left before
            back.say(busy=["i-1"])
            back.say(ack={SLUG: 8}, gone=[])
            await until(lambda: len(feed.workers()) == 2 and feed.served(KEY) == 8)
            assert not feed.idle("i-1")
            back.say(idle=["i-1"])
            await until(lambda: feed.idle("i-1"))
            fresh = await connect(tmp_path, "gateway-2", 3)  # never had it, and says so by not naming it
            await until(lambda: len(feed.workers()) == 3)
            assert not feed.idle("i-1")
            fresh.say(busy=[])
            fresh.say(ack={SLUG: 8}, gone=[])
            await until(lambda: feed.served(KEY) == 8 and feed.idle("i-1"))
            for worker in (old, back, fresh):
                worker.writer.close()

    run(scenario())


def test_ejections_are_passed_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (_, heard):
            worker = await connect(tmp_path)
            worker.say(eject={"instance": "i-1", "endpoint": SLUG, "why": "connection refused"})
            await until(lambda: heard.ejects == [(KEY, "i-1", "connection refused")])
            worker.say(meter={"anything": 1})
            await until(lambda: heard.meters == [{"anything": 1, "worker": "gateway-0"}])
            worker.writer.close()

    run(scenario())


@pytest.mark.parametrize(
    "line", [b"not json\n", b'["hello"]\n', b'{"hello": "x"}\n', b'{"ack": 3}\n', b'{"ack": {}, "gone": [1]}\n']
)
def test_a_worker_that_talks_nonsense_is_cut_off_and_counts_no_more(tmp_path: Path, line: bytes) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as (feed, _):
            worker = await connect(tmp_path)
            await until(lambda: feed.served(KEY) == 0)
            worker.writer.write(line)
            await until(lambda: feed.served(KEY) == NOBODY)
            worker.writer.close()

    run(scenario())
