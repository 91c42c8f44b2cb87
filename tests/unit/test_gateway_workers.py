"""Instances of several workers as a gateway worker sees them: each worker is a target of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway_world import Call, FakeInstance, World, hanging, until, world


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            await test(made)

    asyncio.run(main())


async def by_number(call: Call) -> None:
    await call.answer(f"{call.instance.instance_id} {call.instance.worker}".encode())


async def instance(w: World, name: str, workers: int) -> list[FakeInstance]:
    return [await w.instance(name, by_number, worker=n) for n in range(workers)]


async def stuck_on(w: World, hung: FakeInstance) -> asyncio.Future[Any]:
    """A request that reached a worker that answers nothing."""
    had = len(hung.calls)
    while True:
        sent = asyncio.ensure_future(w.invoke())
        await until(lambda sent=sent: sent.done() or len(hung.calls) > had)  # type: ignore[misc]
        if not sent.done():
            return sent


def test_each_worker_is_counted_for_itself() -> None:
    async def test(w: World) -> None:
        first, *others = await instance(w, "i-1", 3)
        w.publish({"v": (1.0, [first])}, workers=3)
        assert {(await w.invoke()).body for _ in range(40)} == {b"i-1 0", b"i-1 1", b"i-1 2"}
        first.behave = hanging
        stuck = await stuck_on(w, first)
        assert {(await w.invoke()).body for _ in range(20)} == {b"i-1 1", b"i-1 2"}
        assert all(other.calls for other in others)
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)

    run(test, silence_ms=60_000)


def test_a_request_leaves_the_whole_instance_that_was_lost_to_it() -> None:
    async def test(w: World) -> None:
        one, two = await instance(w, "i-1", 2), await instance(w, "i-2", 2)
        for member in one:
            member.behave = hanging
        w.publish({"v": (1.0, [one[0], two[0]])}, workers=2)
        waiting = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(24)]
        await until(lambda: sum(len(i.calls) for i in (*one, *two)) == 24 and all(i.calls for i in one))
        for member in one:
            await member.kill()
        bodies = [(await reply).body for reply in waiting]
        assert set(bodies) <= {b"i-2 0", b"i-2 1"}
        assert w.counter("ejections") == 2

    run(test, silence_ms=60_000)


def test_the_death_of_an_instance_is_one_death_however_many_workers_it_had() -> None:
    """Requests with one body on each of its workers: none of them is poison."""

    async def test(w: World) -> None:
        one, two = await instance(w, "i-1", 2), await instance(w, "i-2", 2)
        for member in one:
            member.behave = hanging
        w.publish({"v": (1.0, [one[0], two[0]])}, workers=2)
        waiting = [asyncio.ensure_future(w.invoke(b"same")) for _ in range(24)]
        await until(lambda: sum(len(i.calls) for i in (*one, *two)) == 24 and all(i.calls for i in one))
        for member in one:
            await member.kill()
        assert {(await reply).status for reply in waiting} == {200}
        assert w.counter("poison") == 0

    run(test, silence_ms=60_000)


def test_a_worker_that_dies_alone_moves_its_requests_to_its_siblings_and_comes_back() -> None:
    async def test(w: World) -> None:
        first, second = await instance(w, "i-1", 2)
        second.behave = hanging
        w.publish({"v": (1.0, [first])}, workers=2)
        waiting = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(8)]
        await until(lambda: bool(second.calls))
        await second.kill()
        assert {(await reply).body for reply in waiting} == {b"i-1 0"}
        second.behave = by_number
        await second.start()
        await until(lambda: w.counter("readmissions") == 1)
        many = await asyncio.gather(*(w.invoke() for _ in range(20)))  # a tie goes to the first of two workers
        assert {reply.body for reply in many} == {b"i-1 0", b"i-1 1"}

    run(test, silence_ms=60_000)


def test_an_instance_is_idle_when_every_worker_is() -> None:
    async def test(w: World) -> None:
        first, second = await instance(w, "i-1", 2)
        other = await w.instance("i-2", by_number)
        release = asyncio.Event()

        async def slow(call: Call) -> None:
            await release.wait()
            await by_number(call)

        second.behave = slow
        w.publish({"v": (1.0, [first])}, workers=2)
        waiting = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(8)]
        await until(lambda: bool(second.calls))
        w.publish({"v": (1.0, [other])})
        book = w.gateway.book
        assert book.busy == ["i-1"]
        assert book.take_idle() == []
        release.set()
        await asyncio.gather(*waiting)
        await until(lambda: book.take_idle() == ["i-1"] or "i-1" in book.idle)
        assert book.busy == []

    run(test, silence_ms=60_000)
