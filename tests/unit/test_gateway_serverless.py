"""Serverless endpoints in a gateway worker: held from zero, told to control, throttled beyond MaxConcurrency."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from pathlib import Path
from typing import Any

import gateway_world
from gateway_world import Call, World, hanging, leave, until

from eyrie.domain.routing import ServerlessRoute
from eyrie.gateway.serverless import PLACES, Places

Scene = Callable[[World], Coroutine[Any, Any, None]]
Words = list[dict[str, list[int]]]


def play(scene: Scene, **settings: Any) -> None:
    async def whole() -> None:
        async with gateway_world.world(**settings) as world:
            await scene(world)

    asyncio.run(whole())


def listen(world: World) -> Words:
    """What control would be told."""
    words: Words = []

    def tell(told: dict[str, list[int]]) -> bool:
        words.append(told)
        return True

    world.gateway.gates.tell = tell
    return words


def serverless(most: int = 200, **more: Any) -> dict[str, Any]:
    return {"serverless": ServerlessRoute(most, **more)}


class Gated:
    """An instance that answers when it is told to; it remembers how many it had at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.now = self.peak = self.served = 0

    async def __call__(self, call: Call) -> None:
        self.now += 1
        self.peak = max(self.peak, self.now)
        await self.open.wait()
        self.now -= 1
        self.served += 1
        await call.answer()


def test_from_zero_a_burst_is_held_told_at_once_and_answered_by_one_instance() -> None:
    async def scene(world: World) -> None:
        words = listen(world)
        world.publish({"A": (1.0, [])}, **serverless())
        asked = [asyncio.ensure_future(world.invoke()) for _ in range(50)]
        await until(lambda: world.counter("held") == 50)
        await until(lambda: bool(words) and max(w[1] for told in words for w in told.values()) == 50)
        assert not any(task.done() for task in asked)
        world.publish({"A": (1.0, [await world.instance("i-1")])}, **serverless())
        replies = await asyncio.gather(*asked)
        assert {r.status for r in replies} == {200}
        await until(lambda: next(iter(words[-1].values()))[0] == 0)

    play(scene, hold_ms=20)  # which is for other endpoints


def test_a_request_that_no_instance_comes_up_for_is_told_so() -> None:
    async def scene(world: World) -> None:
        world.publish({"A": (1.0, [])}, **serverless(hold_ms=100))
        reply = await world.invoke()
        assert (reply.status, reply.headers["x-amzn-errortype"]) == (429, "ModelNotReadyException")
        assert world.gateway.gates.stats().popitem()[1] == {"inside": 0, "waiting": 0}

    play(scene)


def test_beyond_max_concurrency_a_request_waits_a_moment_and_is_throttled() -> None:
    async def scene(world: World) -> None:
        world.publish({"A": (1.0, [await world.instance("i-1", hanging)])}, **serverless(2, wait_ms=100))
        world.gateway.feed.tell_meter = lambda: None  # type: ignore[method-assign]
        first = [asyncio.ensure_future(world.invoke()) for _ in range(2)]
        await until(lambda: len(world.instances["i-1"].calls) == 2)
        reply = await world.invoke()
        assert (reply.status, reply.headers["x-amzn-errortype"]) == (429, "ThrottlingException")
        assert "at most 2 requests at once (MaxConcurrency)" in reply.json()["Message"]
        assert world.counter("throttled") == 1
        told = world.gateway.meter.take(1)
        assert told is not None
        ((slug, variants),) = told["endpoints"].items()
        assert (slug, variants["A"][""]["e4"]) == ("123456789012.us-east-1.e", 1)  # among its variant's errors
        for task in first:
            task.cancel()

    play(scene)


def test_one_that_waits_goes_on_as_soon_as_another_ends_and_never_too_many_are_at_work() -> None:
    async def scene(world: World) -> None:
        gated = Gated()
        world.publish({"A": (1.0, [await world.instance("i-1", gated)])}, **serverless(3, wait_ms=5_000))
        asked = [asyncio.ensure_future(world.invoke()) for _ in range(20)]
        await until(lambda: gated.now == 3 and world.counter("waiting_for_concurrency") == 17)
        gated.open.set()
        assert {r.status for r in await asyncio.gather(*asked)} == {200}
        assert (gated.peak, gated.served) == (3, 20)

    play(scene)


def test_a_client_that_leaves_gives_its_place_back() -> None:
    async def scene(world: World) -> None:
        world.publish({"A": (1.0, [])}, **serverless(1, wait_ms=5_000))
        _, writer = await world.connect()
        writer.write(world.sign(b"1", {}, "/endpoints/e/invocations"))
        await until(lambda: world.counter("held") == 1)
        _, waiting = await world.connect()
        waiting.write(world.sign(b"1", {}, "/endpoints/e/invocations"))
        await until(lambda: world.counter("waiting_for_concurrency") == 1)
        leave(waiting)
        leave(writer)
        await until(lambda: world.gateway.gates.stats().popitem()[1] == {"inside": 0, "waiting": 0})
        world.publish({"A": (1.0, [await world.instance("i-1")])}, **serverless(1))
        assert (await world.invoke()).status == 200

    play(scene)


def test_where_instances_cannot_start_the_reason_is_told_at_once() -> None:
    async def scene(world: World) -> None:
        words = listen(world)
        world.publish({"A": (1.0, [])}, **serverless())
        held = asyncio.ensure_future(world.invoke())
        await until(lambda: world.counter("held") == 1)
        world.publish({"A": (1.0, [])}, **serverless(trouble="this model does not load"))
        for reply in (await held, await world.invoke()):
            assert (reply.status, reply.json()["OriginalMessage"]) == (424, "this model does not load")
        before = len(words)
        assert (await world.invoke()).status == 424
        await until(lambda: len(words) > before)  # control goes on to hear of it, and tries again
        assert next(iter(words[-1].values()))[1] == 1

    play(scene)


def test_provisioned_requests_and_those_beyond_are_told_apart() -> None:
    async def scene(world: World) -> None:
        words = listen(world)
        world.publish({"A": (1.0, [await world.instance("i-1", hanging)])}, **serverless(10, provisioned=2))
        asked = [asyncio.ensure_future(world.invoke()) for _ in range(5)]
        await until(lambda: len(world.instances["i-1"].calls) == 5)
        await until(lambda: sum(w[2] for told in words for w in told.values()) == 2)
        await until(lambda: sum(w[3] for told in words for w in told.values()) == 3)
        for task in asked:
            task.cancel()

    play(scene)


def test_a_request_of_a_serverless_endpoint_that_gets_instances_meanwhile_goes_on() -> None:
    async def scene(world: World) -> None:
        world.publish({"A": (1.0, [])}, **serverless(1, wait_ms=5_000))
        asked = [asyncio.ensure_future(world.invoke()) for _ in range(2)]
        await until(lambda: world.counter("held") == 1 and world.counter("waiting_for_concurrency") == 1)
        world.publish({"A": (1.0, [await world.instance("i-1")])})
        assert {r.status for r in await asyncio.gather(*asked)} == {200}
        assert world.gateway.book.find("123456789012", "us-east-1", "e").gate is None  # type: ignore[union-attr]

    play(scene)


def test_a_deleted_endpoint_answers_those_that_wait() -> None:
    async def scene(world: World) -> None:
        world.publish({"A": (1.0, [])}, **serverless(1, wait_ms=5_000))
        asked = [asyncio.ensure_future(world.invoke()) for _ in range(2)]
        await until(lambda: world.counter("held") == 1 and world.counter("waiting_for_concurrency") == 1)
        slug = "123456789012.us-east-1.e"
        os.unlink(world.data / "routes" / f"{slug}.json")
        world.gateway.book.read([slug])
        assert {r.status for r in await asyncio.gather(*asked)} == {400}

    play(scene)


def test_an_endpoint_made_anew_counts_what_is_left_of_the_one_before() -> None:
    async def scene(world: World) -> None:
        gated = Gated()
        one = await world.instance("i-1", gated)
        world.publish({"A": (1.0, [one])}, **serverless(1, wait_ms=5_000))
        first = asyncio.ensure_future(world.invoke())
        await until(lambda: gated.now == 1)
        slug = "123456789012.us-east-1.e"
        os.unlink(world.data / "routes" / f"{slug}.json")
        world.gateway.book.read([slug])
        world.publish({"A": (1.0, [one])}, **serverless(1, wait_ms=5_000))
        second = asyncio.ensure_future(world.invoke())
        await until(lambda: world.counter("waiting_for_concurrency") == 1)
        gated.open.set()
        assert [(await task).status for task in (first, second)] == [200, 200]
        assert gated.peak == 1

    play(scene)


def test_a_place_is_taken_while_a_request_is_under_way_and_free_for_other_workers_afterwards() -> None:
    async def scene(world: World) -> None:
        first = int.from_bytes(blake2b(b"123456789012.us-east-1.e", digest_size=5).digest()) * PLACES
        path = world.data / "run" / "concurrency.lock"
        gated = Gated()
        world.publish({"A": (1.0, [await world.instance("i-1", gated)])}, **serverless(1))
        asked = asyncio.ensure_future(world.invoke())
        await until(lambda: gated.now == 1)
        assert not await asyncio.to_thread(another_takes, path, first)
        gated.open.set()
        assert (await asked).status == 200
        assert await asyncio.to_thread(another_takes, path, first)

    play(scene)


def another_takes(path: Path, place: int) -> bool:
    """Whether another process can take a place."""
    program = f"import fcntl; fcntl.lockf(open({str(path)!r}, 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, {place})"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_places_are_shared_by_processes_and_given_back_by_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "concurrency.lock"
    program = (
        "import sys, pathlib; from eyrie.gateway.serverless import Places; "
        f"p = Places(pathlib.Path({str(path)!r})); print(p.take(5), p.take(1 << 50), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline().split() == ["True", "True"]
    places = Places(path)
    assert [places.take(n) for n in (4, 5, 6, 1 << 50)] == [True, False, True, False]
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    assert places.take(5)
    places.give(5)
    places.close()
