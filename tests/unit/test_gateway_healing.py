"""A worker among instances that die, hang, lie and come back, and what it costs the client: nothing where it can be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from gateway_world import Call, Reply, World, answering, hanging, until, world

SM = "X-Amzn-SageMaker-"


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            await test(made)

    asyncio.run(main())


async def dying(call: Call) -> None:
    """The model takes its whole process with it."""
    asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(call.instance.kill()))
    await asyncio.Event().wait()


def test_a_dead_instance_costs_nothing_and_leaves_the_route_at_once() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1", hanging), await w.instance("i-2")
        w.publish({"v": (1.0, [one, two])})
        waiting = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(24)]
        await until(lambda: len(one.calls) + len(two.calls) == 24 and len(one.calls) > 0)
        had = len(one.calls)
        await one.kill()
        assert [(await reply).status for reply in waiting] == [200] * 24
        assert w.counter("retries") == had
        assert w.counter("ejections") == 1
        for _ in range(5):
            assert (await w.invoke()).status == 200

    run(test, silence_ms=60_000)


def test_a_hung_instance_is_found_by_its_silence_and_its_requests_move() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"v": (1.0, [one, two])})
        for _ in range(6):
            await w.invoke()
        one.behave, one.ping_status = hanging, None  # as SIGSTOP does it: it accepts, and that is all
        waiting = [asyncio.ensure_future(w.invoke()) for _ in range(24)]
        replies = [await reply for reply in waiting]
        assert [(r.status, r.body) for r in replies] == [(200, b"i-2")] * 24
        assert w.counter("ejections") == 1
        pings = one.pings
        one.behave, one.ping_status = answering, 200  # SIGCONT
        await until(lambda: w.counter("readmissions") == 1)
        assert one.pings > pings
        assert {(await w.invoke()).body for _ in range(20)} == {b"i-1", b"i-2"}

    run(test)


def test_a_slow_model_that_answers_ping_is_left_alone() -> None:
    async def test(w: World) -> None:
        release = asyncio.Event()

        async def slow(call: Call) -> None:
            await release.wait()
            await answering(call)

        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"v": (1.0, [one, two])})
        for _ in range(6):
            await w.invoke()
        one.behave = two.behave = slow
        waiting = [asyncio.ensure_future(w.invoke()) for _ in range(4)]
        await until(lambda: one.pings >= 1 and two.pings >= 1)
        release.set()
        assert [(await reply).status for reply in waiting] == [200] * 4
        assert w.counter("ejections") == w.counter("retries") == 0

    run(test)


def test_the_last_instance_is_never_ejected_for_silence() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"v": (1.0, [one, two])})
        for _ in range(6):
            await w.invoke()
        for instance in (one, two):
            instance.behave, instance.ping_status = hanging, None
        waiting = [asyncio.ensure_future(w.invoke()) for _ in range(4)]
        await until(lambda: one.pings + two.pings >= 4)
        assert w.counter("ejections") == 0
        release = [call for i in (one, two) for call in i.calls[-2:]]
        assert len(release) == 4
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(test)


def test_a_request_that_killed_two_instances_is_not_sent_to_a_third() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await (dying(call) if call.body == b"poison" else answering(call))

        instances = [await w.instance(f"i-{n}", behave) for n in range(4)]
        w.publish({"v": (1.0, instances)})
        got = await w.invoke(b"poison")
        assert (got.status, got.headers["x-amzn-errortype"]) == (424, "ModelError")
        assert "Two instances ended" in got.json()["OriginalMessage"]
        assert (await w.invoke(b"poison")).status == 424  # refused for a while
        assert sum(1 for i in instances for call in i.calls if call.body == b"poison") == 2
        assert (await w.invoke(b"harmless")).status == 200
        assert w.counter("poison") == 1

    run(test)


def test_a_request_that_keeps_two_instances_silent_is_answered_by_the_second_in_the_end() -> None:
    async def test(w: World) -> None:
        done = asyncio.Event()

        async def behave(call: Call) -> None:  # as one that holds the interpreter while it computes: no pong either
            if call.body == b"long":
                call.instance.ping_status = None
                await done.wait()
            await answering(call)

        instances = [await w.instance(f"i-{n}", behave) for n in range(4)]
        w.publish({"v": (1.0, instances)})
        waiting = asyncio.ensure_future(w.invoke(b"long"))
        await until(lambda: w.counter("ejections") == 2)
        done.set()
        assert (await waiting).status == 200
        assert (w.counter("retries"), w.counter("poison")) == (1, 0)
        assert sum(1 for i in instances for call in i.calls if call.body == b"long") == 2

    run(test)


def test_a_bystander_of_a_death_is_not_taken_for_poison() -> None:
    async def test(w: World) -> None:
        instances = [await w.instance(f"i-{n}", hanging) for n in range(2)]
        instances.append(await w.instance("i-2"))
        w.publish({"v": (1.0, instances[:1])})
        for victim, other in ((0, 1), (1, 2)):
            waiting = asyncio.ensure_future(w.invoke(b"same"))
            await until(lambda v=victim: len(instances[v].calls) > 0)  # type: ignore[misc]
            instances[other].behave = answering
            w.publish({"v": (1.0, [instances[victim], instances[other]])})
            await instances[victim].kill()
            assert (await waiting).status == 200
            instances[other].behave = hanging
            w.publish({"v": (1.0, [instances[other]])})
            instances[other].calls.clear()

    run(test, silence_ms=60_000)


def test_instances_that_are_ended_after_they_left_the_route_do_not_speak_against_their_requests() -> None:
    async def test(w: World) -> None:
        retired = [await w.instance(f"i-{n}", hanging) for n in range(2)]
        release = asyncio.Event()

        async def late(call: Call) -> None:
            await release.wait()
            await answering(call)

        last = await w.instance("i-2", late)
        w.publish({"v": (1.0, retired)})
        waiting = [asyncio.ensure_future(w.invoke(b"same")) for _ in range(8)]
        await until(lambda: sum(len(one.calls) for one in retired) == 8)
        assert all(one.calls for one in retired)
        w.publish({"v": (1.0, [last])})
        for one in retired:  # control does so, where an instance has not answered all within the drain limit
            await one.kill()
        await until(lambda: len(last.calls) == 8)
        release.set()
        assert [(await reply).status for reply in waiting] == [200] * 8
        assert w.counter("poison") == 0
        assert w.gateway.invoker.poison.empty

    run(test, silence_ms=60_000)


def test_a_death_in_the_middle_of_a_reply_is_never_retried() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            await call.writer.drain()
            await asyncio.sleep(0.05)
            await dying(call)

        one, two = await w.instance("i-1", behave), await w.instance("i-2", behave)
        w.publish({"v": (1.0, [one, two])})
        try:
            await w.invoke()
            raise AssertionError("the client must see that the reply is cut")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        assert len(one.calls) + len(two.calls) == 1

    run(test)


def test_garbage_in_place_of_a_reply_is_a_model_error() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            call.writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            await call.writer.drain()

        w.publish({"v": (1.0, [await w.instance("i-1", behave)])})
        got = await w.invoke()
        assert (got.status, got.json()["ErrorCode"]) == (424, "SERVER_ERROR_FROM_MODEL")
        assert "not HTTP" in got.json()["OriginalMessage"]

    run(test)


def test_a_reply_with_an_endless_head_is_cut_off() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            call.writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                call.writer.write(b"x-more: " + b"y" * 1_000 + b"\r\n")
                await call.writer.drain()

        w.publish({"v": (1.0, [await w.instance("i-1", behave)])})
        assert (await w.invoke()).status == 424

    run(test)


def test_a_stale_connection_is_replayed_and_counts_as_nothing() -> None:
    async def test(w: World) -> None:
        async def once(call: Call) -> None:  # keep-alive is promised and not kept
            await answering(call)
            call.writer.transport.abort()

        one = await w.instance("i-1", once)
        w.publish({"v": (1.0, [one])})
        for _ in range(10):
            assert (await w.invoke()).status == 200
        assert len(one.calls) == 10
        assert w.counter("retries") == w.counter("ejections") == 0

    run(test)


def test_a_connection_that_ends_just_as_it_is_used_again_is_stale_and_no_failure() -> None:
    async def test(w: World) -> None:
        w.gateway.feed.tell_meter = lambda: None  # type: ignore[method-assign]  # the test takes what was counted
        used: set[int] = set()

        async def once(call: Call) -> None:  # a second request on a connection meets its end
            if id(call.writer) in used:
                call.writer.transport.abort()
                return
            used.add(id(call.writer))
            await answering(call)

        w.publish({"v": (1.0, [await w.instance("i-1", once)])})
        kept = []
        for _ in range(10):
            assert (await w.invoke()).status == 200
            kept += [call.writer for call in w.instances["i-1"].calls]  # so that no id comes twice
        assert w.counter("retries") == w.counter("ejections") == 0
        assert w.counter("replays") == 9  # all but the first: each is told of, as control hears it
        told = w.gateway.meter.take(1)
        assert told is not None
        (slug,) = (endpoint.slug for endpoint in w.gateway.book.endpoints.values())
        assert told["replays"] == {slug: {"v": {"i-1": 9}}}
        assert w.gateway.meter.sources["replays"]() == {}

    run(test)


def test_a_request_never_goes_back_to_the_instance_that_lost_it() -> None:
    async def test(w: World) -> None:
        async def losing(call: Call) -> None:  # one worker of a container dies, the container goes on
            call.writer.transport.abort()

        w.publish({"v": (1.0, [await w.instance("i-1", losing), await w.instance("i-2")])})
        assert [(await w.invoke(b"%d" % n)).body for n in range(20)] == [b"i-2"] * 20
        assert w.counter("ejections") == 0

    run(test)


def test_requests_wait_for_an_instance_to_come_up() -> None:
    async def test(w: World) -> None:
        w.publish({"v": (1.0, [])})
        waiting = [asyncio.ensure_future(w.invoke()) for _ in range(5)]
        await until(lambda: w.counter("held") == 5)
        w.publish({"v": (1.0, [await w.instance("i-1")])})
        assert [(await reply).status for reply in waiting] == [200] * 5

    run(test)


def test_a_request_of_the_only_instance_that_died_waits_for_its_replacement() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1", hanging)
        w.publish({"v": (1.0, [one])})
        waiting = asyncio.ensure_future(w.invoke())
        await until(lambda: len(one.calls) == 1)
        await one.kill()
        await until(lambda: w.counter("held") == 1)
        w.publish({"v": (1.0, [await w.instance("i-2")])})
        got = await waiting
        assert (got.status, got.body) == (200, b"i-2")

    run(test, silence_ms=60_000)


def test_waiting_ends_with_503_and_with_the_endpoint() -> None:
    async def test(w: World) -> None:
        w.publish({"v": (1.0, [])})
        got = await w.invoke()
        assert (got.status, got.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
        waiting = asyncio.ensure_future(w.invoke())
        await until(lambda: w.counter("held") == 2)
        (w.data / "routes" / "123456789012.us-east-1.e.json").unlink()
        w.gateway.book.read_all()
        assert (await waiting).json()["Message"] == "Endpoint e of account 123456789012 not found."

    run(test, hold_ms=300)


def test_the_retry_budget_ends_retries() -> None:
    async def test(w: World) -> None:
        budget = w.gateway.invoker.budget
        while budget.withdraw(w.gateway.sweep.now):
            pass
        one, two = await w.instance("i-1", hanging), await w.instance("i-2", hanging)
        w.publish({"v": (1.0, [one, two])})
        waiting = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(2)]
        await until(lambda: len(one.calls) == len(two.calls) == 1)
        budget.per_second = 0.0
        await one.kill()
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        reply: Reply = done.pop().result()
        assert (reply.status, reply.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
        assert w.counter("retry_budget_limit") == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(test, silence_ms=60_000)


def test_an_instance_whose_backlog_is_full_is_passed_over() -> None:
    async def test(w: World) -> None:
        two = await w.instance("i-2")
        stuck = await w.instance("i-1")
        await stuck.kill()
        listener = socket.socket(socket.AF_UNIX)
        (w.data / "box" / "i-1.s").unlink(missing_ok=True)
        listener.bind(stuck.socket)
        listener.listen(0)
        filler = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for client in filler:
            client.setblocking(False)
            if client.connect_ex(stuck.socket):
                break
        w.publish({"v": (1.0, [stuck, two])})
        assert [(await w.invoke()).body for _ in range(6)] == [b"i-2"] * 6
        for sock in (*filler, listener):
            sock.close()

    run(test)


def test_an_older_generation_is_refused_and_idle_is_told_when_the_last_request_is_answered() -> None:
    async def test(w: World) -> None:
        release = asyncio.Event()

        async def slow(call: Call) -> None:
            await release.wait()
            await answering(call)

        one, two = await w.instance("i-1", slow), await w.instance("i-2")
        w.publish({"v": (1.0, [one])}, generation=5)
        waiting = asyncio.ensure_future(w.invoke())
        await until(lambda: len(one.calls) == 1)
        w.publish({"v": (1.0, [two])}, generation=6)
        assert w.gateway.book.take_idle() == []
        release.set()
        assert (await waiting).body == b"i-1"
        assert list(w.gateway.book.idle) + w.gateway.book.take_idle() == ["i-1"]
        w.publish({"v": (1.0, [one])}, generation=5)
        assert (await w.invoke()).body == b"i-2"
        endpoint = next(iter(w.gateway.book.endpoints.values()))
        assert endpoint.generation == 6

    run(test, silence_ms=60_000)
