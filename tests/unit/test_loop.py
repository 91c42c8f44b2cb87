"""The driver, whole: a store, the toy world behind real Unix sockets, real time. What wakes it, and that it rests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from toyworld import KEY, MemoryStore, SeededIdentity, ToyClock, World, wish

from eyrie.control import loop
from eyrie.control.loop import Loop
from eyrie.domain.endpoint import CapacityChange, EndpointStatus
from eyrie.domain.fleet import InstanceSpec, InstanceState, ObservedInstance
from eyrie.settings import Settings

SETTINGS = Settings(ping_period_ms=50, ping_timeout_ms=100, drain_ms=2_000, unknown_grace_ms=5_000)


class RealTime(ToyClock):
    """The event loop's time, as decisions see it."""

    def now_ms(self) -> int:
        self.ms = 1_000_000 + int(time.monotonic() * 1000)
        return self.ms


class SocketWorld(World):
    """The toy world, whose instances answer /ping on a socket each."""

    def __init__(self, folder: Path, clock: ToyClock) -> None:
        super().__init__(clock)
        self.folder = folder
        self.start_ms = 60
        self.loop = asyncio.get_running_loop()
        self.servers: dict[str, asyncio.Server] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def ensure(self, spec: InstanceSpec) -> None:
        self.clock.now_ms()
        super().ensure(spec)
        if spec.instance_id in self.instances and spec.instance_id not in self.servers:
            asyncio.run_coroutine_threadsafe(self.listen(spec.instance_id), self.loop).result(30)

    def inventory(self) -> list[ObservedInstance]:
        self.clock.now_ms()
        return [replace(o, socket=str(self.folder / o.instance_id)) for o in super().inventory()]

    async def listen(self, instance_id: str) -> None:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self.loop.create_task(self.answer(instance_id, reader, writer))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        path = str(self.folder / instance_id)
        self.servers[instance_id] = await asyncio.start_unix_server(accept, path)

    async def answer(self, instance_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clock.now_ms()
        if self.answers(instance_id):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        elif instance_id in self.instances and not self.instances[instance_id].hung:
            writer.write(b"HTTP/1.1 503 Loading\r\n\r\n")
        try:
            while await reader.read(1000):
                pass
        except ConnectionError:
            pass
        writer.transport.abort()

    async def close(self) -> None:
        for server in self.servers.values():
            server.close()
        await asyncio.gather(*self.tasks)


class Running:
    """One control on a world."""

    def __init__(self, world: SocketWorld, store: MemoryStore, seed: int) -> None:
        self.world = world
        self.loop = Loop(store, world, world, world, world.clock, SeededIdentity(seed), SETTINGS)

    def status(self) -> EndpointStatus | None:
        endpoint = self.loop.endpoints.get(KEY)
        return endpoint.status if endpoint else None

    def ready(self) -> list[str]:
        endpoint = self.loop.endpoints.get(KEY)
        instances = endpoint.instances if endpoint else ()
        return [i.instance_id for i in instances if i.state is InstanceState.READY]

    def routed(self) -> set[str]:
        table = self.world.tables.get(KEY)
        return {t.instance_id for v in table.variants for t in v.targets} if table else set()


@asynccontextmanager
async def control(world: SocketWorld, store: MemoryStore, seed: int = 1) -> AsyncIterator[Running]:
    running = Running(world, store, seed)
    task = asyncio.create_task(running.loop.run())
    try:
        yield running
        assert not task.done(), task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool], limit_s: float = 30) -> None:
    async with asyncio.timeout(limit_s):
        while not true():
            await asyncio.sleep(0.005)


def test_an_endpoint_lives_heals_changes_and_goes(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, store = SocketWorld(tmp_path, RealTime()), MemoryStore()
        async with control(world, store) as c:
            await asyncio.to_thread(c.loop.endpoints.create, KEY, wish(("A", 2)))
            await until(lambda: c.status() is EndpointStatus.IN_SERVICE)
            dead = c.ready()[0]
            world.kill(dead)
            c.loop.look_around()
            await until(lambda: dead not in c.routed() and len(c.routed()) == 2)
            hung = c.ready()[0]
            world.instances[hung].hung = True
            await until(lambda: hung not in c.routed() and len(c.routed()) == 2)
            await until(lambda: hung not in world.instances)
            c.loop.endpoints.update_weights(KEY, [CapacityChange("A", count=1)])
            await until(lambda: c.status() is EndpointStatus.IN_SERVICE and len(c.routed()) == 1)
            c.loop.endpoints.delete(KEY)
            await until(lambda: c.status() is None and not world.instances and not store.owed)
        assert world.wrongs == []
        await world.close()

    asyncio.run(scenario())


def test_the_next_control_adopts_takes_up_what_is_owed_and_ends_orphans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "ROUND_PERIOD_S", 0.3)

    async def scenario() -> None:
        world, store = SocketWorld(tmp_path, RealTime()), MemoryStore()
        async with control(world, store) as c:
            c.loop.endpoints.create(KEY, wish(("A", 2)))
            await until(lambda: c.status() is EndpointStatus.IN_SERVICE)
            kept = c.ready()[0]
        lost = next(i for i in world.instances if i != kept)
        world.kill(lost)
        orphan = replace(world.instances[kept].spec, instance_id="i-orphan")
        await asyncio.to_thread(world.ensure, orphan)
        route, table = store.owed.copy(), world.tables.pop(KEY)
        assert not route
        async with control(world, store, seed=2) as c:
            await until(lambda: kept in c.routed() and lost not in c.routed() and len(c.routed()) == 2)
            assert world.tables[KEY].generation > table.generation
            await until(lambda: "i-orphan" not in world.instances, limit_s=15)
        assert sum(world.starts.values()) == 4
        await world.close()

    asyncio.run(scenario())


def test_an_ejection_makes_it_look_sooner_than_the_next_ping(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, store = SocketWorld(tmp_path, RealTime()), MemoryStore()
        async with control(world, store) as c:
            c.loop.endpoints.create(KEY, wish(("A", 2)))
            await until(lambda: c.status() is EndpointStatus.IN_SERVICE)
            hung = c.ready()[0]
            world.instances[hung].hung = True
            c.loop.ejected(KEY, hung, "no byte in 1000 ms")
            await until(lambda: hung not in c.routed())
            await until(lambda: len(c.routed()) == 2 and hung not in world.instances)
            story = [e.what for e in store.story]
            assert f"instance {hung} UNKNOWN" in story
        await world.close()

    asyncio.run(scenario())
