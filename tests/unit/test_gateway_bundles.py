"""Small requests that go to a target as one message, and what becomes of each when something goes wrong."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gateway_world import Call, World, hanging, leave, until, world

from eyrie.decide.gathering import (
    AT_ONCE,
    BUSY,
    EACH_S,
    ENOUGH_OUTSTANDING,
    ENOUGH_S,
    WAIT_MAX_S,
    Then,
    at_half,
    first_is_enough,
    half_of,
    next_first,
    then,
)
from eyrie.gateway.bundles import BODY_BYTES_MAX, answers_of
from eyrie.http1.connection import Connection
from eyrie.modelserver.bulk import bodies_of

OFFERING = "content-type: text/csv\r\nx-eyrie-batch: 1\r\n"
ANSWERING = "content-type: application/x-eyrie-batch\r\nx-eyrie-content-type: text/csv\r\n"


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            await test(made)

    asyncio.run(main())


def answer(body: bytes) -> tuple[int, bytes]:
    return (400, b"no number") if body == b"bad" else (200, b"of " + body)


async def batching(call: Call) -> None:
    """As our model server: alone or in a message, each request has the same answer."""
    if call.path == "/invocations":
        status, said = answer(call.body)
        await call.answer(said, status, OFFERING)
        return
    bodies = bodies_of(call.body)
    assert bodies
    parts = [struct.pack("<HI", status, len(said)) + said for status, said in map(answer, bodies)]
    await call.answer(b"".join(parts), 200, ANSWERING)


async def alone_only(call: Call) -> None:
    """It offers what it does not understand."""
    if call.path == "/invocations":
        await batching(call)
    else:
        await call.answer(b"no such path", 404)


async def all_at_once(w: World, bodies: list[bytes]) -> list[tuple[int, bytes]]:
    """The replies to requests that come in one turn of the loop, each on a connection of its own."""
    replies = await asyncio.gather(*(w.invoke(body) for body in bodies))
    return [(reply.status, reply.body) for reply in replies]


def paths(calls: list[Call]) -> list[str]:
    return [call.path for call in calls]


async def learnt(w: World, behave: Callable[[Call], Awaitable[None]] = batching) -> Any:
    """An instance of which the worker has heard that it takes messages."""
    instance = await w.instance("i-1", behave)
    w.publish({"v": (1.0, [instance])})
    assert (await w.invoke(b"first")).body == b"of first"
    instance.calls.clear()
    return instance


def test_requests_together_have_the_answers_that_they_have_alone() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w)
        bodies = [b"%d" % n for n in range(40)]
        assert await all_at_once(w, bodies) == [(200, b"of " + body) for body in bodies]
        assert "/eyrie/batch" in paths(instance.calls)
        assert len(instance.calls) < len(bodies)
        sent = next(call for call in instance.calls if call.path == "/eyrie/batch")
        assert sent.headers["content-type"] == "text/csv"
        (known,) = w.gateway.book.endpoints.values()
        assert not known.variants["v", 0].instances[0].invocations
        assert w.gateway.invoker.reserved_bytes == 0

    run(test)


def test_an_error_in_a_message_is_its_own_request_s() -> None:
    async def test(w: World) -> None:
        await learnt(w)
        bodies = [b"bad" if n % 5 == 0 else b"%d" % n for n in range(20)]
        replies = await asyncio.gather(*(w.invoke(body) for body in bodies))
        for body, reply in zip(bodies, replies, strict=True):
            if body == b"bad":
                assert reply.status == 424
                assert reply.json()["OriginalStatusCode"] == 400
                assert reply.json()["OriginalMessage"] == "no number"
            else:
                assert (reply.status, reply.body) == (200, b"of " + body)
            assert reply.headers["x-amzn-invoked-production-variant"] == "v"

    run(test)


def test_a_target_that_offers_nothing_gets_each_request_alone() -> None:
    async def test(w: World) -> None:
        instance = await w.instance("i-1")
        w.publish({"v": (1.0, [instance])})
        await all_at_once(w, [b"1"] * 20)
        assert set(paths(instance.calls)) == {"/invocations"}

    run(test)


def test_a_target_that_does_not_understand_its_own_offer_is_sent_no_more_messages() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w, alone_only)
        bodies = [b"%d" % n for n in range(20)]
        assert await all_at_once(w, bodies) == [(200, b"of " + body) for body in bodies]
        assert "/eyrie/batch" in paths(instance.calls)
        instance.calls.clear()
        assert await all_at_once(w, bodies) == [(200, b"of " + body) for body in bodies]
        assert "/eyrie/batch" not in paths(instance.calls)

    run(test)


def test_large_and_special_requests_go_alone() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w)
        large = b"1" * (BODY_BYTES_MAX + 1)
        plain = [w.invoke(b"small") for _ in range(4)]
        special = [w.invoke(b"x", **{"X-Amzn-SageMaker-Custom-Attributes": "a"}) for _ in range(4)]
        await asyncio.gather(*plain, *special, *(w.invoke(large) for _ in range(4)))
        alone = [call.body for call in instance.calls if call.path == "/invocations"]
        assert alone.count(large) == 4
        assert alone.count(b"x") == 4

    run(test)


def test_requests_of_a_message_that_was_lost_move_each_for_itself() -> None:
    async def test(w: World) -> None:
        lost, other = await learnt(w), await w.instance("i-2")
        lost.behave = hanging
        waiting = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(2 * AT_ONCE)]
        await until(lambda: paths(lost.calls) == ["/eyrie/batch"] * 2)
        w.publish({"v": (1.0, [lost, other])})
        await lost.kill()
        replies = await asyncio.gather(*waiting)
        assert [(reply.status, reply.body) for reply in replies] == [(200, b"i-2")] * 2 * AT_ONCE
        assert w.counter("poison") == 0
        assert w.counter("retries") == 2 * AT_ONCE  # each its own, whoever of them heard first of the loss
        assert paths(other.calls) == ["/invocations"] * 2 * AT_ONCE

    run(test, silence_ms=60_000)


def test_what_waits_for_a_target_that_ends_is_not_held_against_it() -> None:
    async def test(w: World) -> None:
        lost, other = await learnt(w), await w.instance("i-2")
        (endpoint,) = w.gateway.book.endpoints.values()
        target = endpoint.variants["v", 0].instances[0]
        lost.behave = hanging
        first = [asyncio.ensure_future(w.invoke(b"f%d" % n)) for n in range(AT_ONCE + 2)]
        await until(lambda: len(target.invocations) == len(first) and bool(lost.calls))
        w.publish({"v": (1.0, [lost, other])})
        await lost.kill()
        assert {reply.status for reply in await asyncio.gather(*first)} == {200}
        assert not target.invocations

    run(test, silence_ms=60_000)


def test_a_client_that_leaves_costs_the_others_of_its_message_nothing() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w)
        go = asyncio.Event()

        async def later(call: Call) -> None:
            await go.wait()
            await batching(call)

        instance.behave = later
        _, leaving = await w.connect()
        path = "/endpoints/e/invocations"
        leaving.write(w.sign(b"leaves", {}, path))
        staying = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(8)]
        await until(lambda: len(w.gateway.invoker.active) == 9)
        leave(leaving)
        await until(lambda: w.counter("clients_gone") == 1)
        go.set()
        assert [reply.status for reply in await asyncio.gather(*staying)] == [200] * 8
        assert w.gateway.invoker.reserved_bytes == 0

    run(test, silence_ms=60_000)


def test_a_message_whose_answers_cannot_be_told_apart_is_an_error_to_each() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w)

        async def garbled(call: Call) -> None:
            if call.path == "/invocations":
                await batching(call)
            else:
                await call.answer(b"what?", 200, ANSWERING)

        instance.behave = garbled
        statuses = {status for status, _ in await all_at_once(w, [b"%d" % n for n in range(20)])}
        assert statuses <= {200, 424}
        assert 424 in statuses

    run(test)


def test_answers_that_are_cut_are_none() -> None:
    whole = struct.pack("<HI", 200, 3) + b"abc" + struct.pack("<HI", 400, 0)
    assert answers_of(whole) == [(200, b"abc"), (400, b"")]
    assert all(len(answers_of(whole[:n])) < 2 for n in range(len(whole)))
    assert answers_of(b"") == []


def test_when_requests_leave() -> None:
    assert then(0, 1, 0, 0.0) is Then.GO, "alone, to an idle target: at once"
    assert then(0, 2, 0, 0.0) is Then.NEXT_TURN, "more may come"
    assert then(0, 2, 2, 0.0) is Then.GO, "no more came"
    assert then(AT_ONCE - 1, 1, 0, 0.0) is Then.GO
    assert then(AT_ONCE, 1, 0, WAIT_MAX_S / 2) is Then.ANSWER
    assert then(1_000, 20, 0, WAIT_MAX_S) is Then.GO, "a slow target is not waited for"


def test_when_the_first_worker_is_enough() -> None:
    assert first_is_enough(0.0, 0, 0.0, 0.0)
    assert not first_is_enough(ENOUGH_S, 0, 0.0, 0.0)
    assert not first_is_enough(0.0, ENOUGH_OUTSTANDING, 0.0, 0.0)


def test_a_quick_worker_may_take_as_much_longer_as_it_has_to_answer() -> None:
    assert first_is_enough(ENOUGH_S, 16, 0.0, 0.0)
    assert not first_is_enough(ENOUGH_S + 17 * EACH_S, 16, 0.0, 0.0)
    assert not first_is_enough(WAIT_MAX_S, ENOUGH_OUTSTANDING - 1, 0.0, 0.0), "such a one is not waited for either"


def test_a_worker_with_little_to_do_is_enough_although_its_answers_are_late() -> None:
    late_s = 10 * WAIT_MAX_S
    assert first_is_enough(late_s, 16, ENOUGH_S / 3, BUSY / 2), "the delay is the gateway's, or the host's"
    assert not first_is_enough(late_s, 16, ENOUGH_S / 3, BUSY), "it has no more to give"
    assert not first_is_enough(late_s, 16, ENOUGH_S, BUSY / 2), (
        "a message costs it much: another works on one meanwhile"
    )
    assert not first_is_enough(late_s, ENOUGH_OUTSTANDING, ENOUGH_S / 3, BUSY / 2)


def test_half_of_the_requests_leave_while_the_other_half_is_on_its_way() -> None:
    assert half_of(32, AT_ONCE) == 16
    assert half_of(31, AT_ONCE) == 16
    assert half_of(1, AT_ONCE) == AT_ONCE
    assert half_of(2, 16) == 15, "a moment in which few are there changes little"
    assert at_half(0, 16, 16)
    assert at_half(16, 16, 16)
    assert not at_half(0, 15, 16)
    assert not at_half(17, 16, 16), "a third message would be on its way"


def test_which_goes_first_the_next_message_or_the_answers() -> None:
    assert next_first(16, 16)
    assert next_first(8, 16)
    assert not next_first(7, 16), "those who are answered would go alone, and the next message with few"


def test_two_messages_are_on_their_way_and_what_comes_more_waits_for_an_answer() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w)
        (endpoint,) = w.gateway.book.endpoints.values()
        target = endpoint.variants["v", 0].instances[0]
        go = asyncio.Event()

        async def later(call: Call) -> None:
            await go.wait()
            await batching(call)

        instance.behave = later
        asked = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(2 * AT_ONCE)]
        await until(lambda: len(instance.calls) == 2)
        assert [len(bodies_of(call.body) or []) for call in instance.calls] == [AT_ONCE, AT_ONCE]
        gathering = target.gathering
        assert gathering is not None
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(gathering, "_alarm", asyncio.get_running_loop().call_later(60, lambda: None))
            target.answers_s = 0.0
            asked += [asyncio.ensure_future(w.invoke(b"m%d" % n)) for n in range(2 * AT_ONCE)]
            await until(lambda: gathering.waiting == 2 * AT_ONCE)
            assert len(instance.calls) == 2
            go.set()
            replies = await asyncio.gather(*asked)
        assert [reply.status for reply in replies] == [200] * 4 * AT_ONCE
        assert not target.invocations

    run(test, silence_ms=60_000)


def test_what_left_or_was_sent_because_its_message_was_full_waits_no_more() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w)
        (endpoint,) = w.gateway.book.endpoints.values()
        target = endpoint.variants["v", 0].instances[0]
        gathering = target.gathering
        assert gathering is not None
        instance.behave = hanging
        asked = [asyncio.ensure_future(w.invoke(b"%d" % n)) for n in range(2 * AT_ONCE)]
        await until(lambda: len(instance.calls) == 2)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(gathering, "_alarm", asyncio.get_running_loop().call_later(60, lambda: None))
            target.answers_s = 0.0
            _, leaving = await w.connect()
            leaving.write(w.sign(b"leaves", {}, "/endpoints/e/invocations"))
            await until(lambda: gathering.waiting == 1)
            leave(leaving)
            await until(lambda: gathering.waiting == 0)
            patched.setattr("eyrie.gateway.bundles.TOGETHER_MAX", 4)  # who left had been one of them
            patched.setattr(gathering, "_half", 60)
            asked += [asyncio.ensure_future(w.invoke(b"m%d" % n)) for n in range(4)]
            await until(lambda: len(instance.calls) == 3)
            assert gathering.waiting == 1
        for waits in asked:
            waits.cancel()

    run(test, silence_ms=60_000)


def test_a_worker_s_word_of_its_effort_is_heard() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w)
        (endpoint,) = w.gateway.book.endpoints.values()
        target = endpoint.variants["v", 0].instances[0]

        def telling(effort: str) -> Callable[[Call], Awaitable[None]]:
            async def behave(call: Call) -> None:
                bodies = bodies_of(call.body) if call.path == "/eyrie/batch" else None
                parts = [struct.pack("<HI", 200, 1) + b"1" for _ in bodies or []]
                lines = f"{ANSWERING}x-eyrie-effort: {effort}\r\n" if bodies else OFFERING
                await call.answer(b"".join(parts), 200, lines)

            return behave

        for effort in ("much", "300", "-1 5", "300 "):
            instance.behave = telling(effort)
            await all_at_once(w, [b"1"] * AT_ONCE)
            assert (target.message_s, target.busy) == (0.0, 0.0), effort
        instance.behave = telling("300 612")
        await all_at_once(w, [b"1"] * AT_ONCE)
        assert (target.message_s, target.busy) == (0.0003, 0.612)
        instance.behave = telling("1300 50")
        known = len(target.pool.heads)
        await all_at_once(w, [b"1"] * AT_ONCE)
        assert len(target.pool.heads) == known  # a head with its effort does not come again
        assert 0.0003 < target.message_s < 0.0006
        assert target.busy == 0.05

    run(test)


def test_what_waits_leaves_before_the_answers_go_out() -> None:
    async def test(w: World) -> None:
        instance = await learnt(w)
        (endpoint,) = w.gateway.book.endpoints.values()
        target = endpoint.variants["v", 0].instances[0]
        go = asyncio.Event()

        async def later(call: Call) -> None:
            await go.wait()
            await batching(call)

        instance.behave = later
        first = [asyncio.ensure_future(w.invoke(b"f%d" % n)) for n in range(8)]
        await until(lambda: sum(len(bodies_of(c.body) or [1]) for c in instance.calls) == 8)
        seen: list[int] = []  # requests that waited, each time that a client was handed its answer
        gathering = target.gathering
        assert gathering is not None
        reply = Connection.reply

        def noted(connection: Connection, status: int, lines: bytes, body: bytes) -> None:
            if body.startswith(b"of f"):
                seen.append(gathering.waiting)
            reply(connection, status, lines, body)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(gathering, "_alarm", asyncio.get_running_loop().call_later(60, lambda: None))
            patched.setattr(Connection, "reply", noted)
            target.answers_s = 0.0  # however slow this machine was: a slow target is not waited for
            second = [asyncio.ensure_future(w.invoke(b"s%d" % n)) for n in range(8)]
            await until(lambda: gathering.waiting == 8)
            go.set()
            replies = await asyncio.gather(*first, *second)
        assert [reply.status for reply in replies] == [200] * 16
        assert len(seen) == 8
        assert seen[-1] == 0

    run(test, silence_ms=60_000)
