"""Copies of requests through a worker on real sockets: what the shadow gets, and what it cannot do to production."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gateway_world import Call, World, answering, hanging, until, world
from test_gateway_bundles import alone_only, batching

from eyrie.gateway import shadow, shadow_pairs

SLUG = "123456789012.us-east-1.e"


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            made.gateway.feed.tell_meter = lambda: None  # type: ignore[method-assign]  # the test takes what was counted
            await test(made)

    asyncio.run(main())


def saying(body: bytes, status: int = 200) -> Callable[[Call], Awaitable[None]]:
    async def behave(call: Call) -> None:
        await call.answer(body, status)

    return behave


def pairs(w: World) -> dict[str, Any]:
    """What was told of the shadow since the last call."""
    found: dict[str, Any] = w.gateway.mirror.pairs.take().get(SLUG, {}).get("S", {})
    return found


def test_a_shadow_gets_the_request_and_the_client_only_productions_reply() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1", saying(b"0.5\n")), await w.instance("i-2", saying(b"0.9\n"))
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 1.0, [two])})
        got = await w.invoke(b"7,x\n", Accept="text/csv", **{"X-Amzn-SageMaker-Custom-Attributes": "in"})
        assert (got.body, got.headers["x-amzn-invoked-production-variant"]) == (b"0.5\n", "A")
        await until(lambda: w.gateway.mirror.idle and bool(two.calls))
        call = two.calls[0]
        assert (call.path, call.body, call.headers) == ("/invocations", b"7,x\n", one.calls[0].headers)
        told = pairs(w)
        assert told["outcomes"] == [1, 0, 0, 0]
        assert told["agreement"][:2] == [1, 0]
        assert told["difference"][1] > 0.39
        assert told["features"]["1"]["values"] == {"x": [1, 1]}
        assert told["latency"][0] == 1
        rollups = w.gateway.meter.take(1)["endpoints"][SLUG]  # type: ignore[index]
        assert rollups["S"]["i-2"]["shadow"] is True
        assert (rollups["S"]["i-2"]["n"], rollups["A"]["i-1"]["n"]) == (1, 1)
        assert "shadow" not in rollups["A"]["i-1"]
        assert w.gateway.mirror.bytes == 0

    run(test)


def test_a_share_of_the_requests_is_copied() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 0.3, [two])})
        for _ in range(100):
            assert (await w.invoke()).status == 200
        await until(lambda: w.gateway.mirror.idle)
        assert 12 <= len(two.calls) <= 50
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 0.0, [two])})
        before = len(two.calls)
        for _ in range(20):
            await w.invoke()
        assert len(two.calls) == before

    run(test)


def test_copies_that_follow_each_other_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "GATHERED_S", 3_600)

    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 1.0, [two])})
        await w.invoke()
        await until(lambda: len(two.calls) == 1)  # the first one waits for nobody
        for _ in range(shadow.GATHERED_MAX - 1):
            await w.invoke()
        assert (len(two.calls), w.gateway.mirror.idle) == (1, False)
        await w.invoke()
        await until(lambda: len(two.calls) == 1 + shadow.GATHERED_MAX)
        assert (await w.invoke(b"x" * shadow.GATHERED_BYTES_MAX)).status == 200
        await until(lambda: len(two.calls) == 2 + shadow.GATHERED_MAX)  # much waits for nobody either
        await until(lambda: w.gateway.mirror.idle)

    run(test)


async def following(w: World, bodies: list[bytes]) -> None:
    """Requests whose copies wait until they are many; until all are answered."""
    assert len(bodies) % shadow.GATHERED_MAX == 0
    for body in bodies:
        await w.invoke(body)
    await until(lambda: w.gateway.mirror.idle)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only their number sends copies, and comparing needs no rest, however slow the machine."""
    monkeypatch.setattr(shadow_pairs, "PART", 0)
    monkeypatch.setattr(shadow, "GATHERED_S", 3_600)
    monkeypatch.setattr(shadow, "GATHERED_MAX", 8)


async def shadowed(w: World, behave: Callable[[Call], Awaitable[None]], timeout_ms: int = 60_000) -> Any:
    """The instance of a shadow that has said that it takes messages; production answers as it would."""
    one, two = await w.instance("i-1", saying(b"of 1")), await w.instance("i-2", batching)
    w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 1.0, [two])}, timeout_ms=timeout_ms)
    await w.invoke(b"1")
    await until(lambda: w.gateway.mirror.idle and bool(two.calls))
    two.behave = behave
    two.calls.clear()
    pairs(w)
    w.gateway.meter.take(1)
    return two


@pytest.mark.usefixtures("patient")
def test_small_copies_are_one_message_and_each_has_its_own_answer() -> None:
    async def test(w: World) -> None:
        two = await shadowed(w, batching)
        await following(w, [b"1", b"2", b"bad", b"1", b"2", b"2", b"2", b"2"])
        assert [call.path for call in two.calls] == ["/eyrie/batch"]
        told = pairs(w)
        assert told["outcomes"] == [7, 0, 1, 0]  # "bad" is the shadow's own error
        assert told["agreement"][:2] == [1, 1.0]  # one of a message is compared
        rollup = w.gateway.meter.take(2)["endpoints"][SLUG]["S"]["i-2"]  # type: ignore[index]
        assert (rollup["n"], rollup["e4"], rollup["em"], rollup["peak"]) == (8, 1, 1, 8)
        (endpoint,) = w.gateway.book.endpoints.values()
        assert endpoint.shadows["A", 0].instances[0].outstanding == 0
        assert w.gateway.mirror.bytes == 0

    run(test)


@pytest.mark.usefixtures("patient")
def test_a_message_that_is_not_understood_goes_as_single_copies() -> None:
    async def test(w: World) -> None:
        two = await shadowed(w, alone_only)
        await following(w, [b"1"] * 8)
        assert [call.path for call in two.calls] == ["/eyrie/batch"] + ["/invocations"] * 8
        await following(w, [b"1"] * 8)
        assert [call.path for call in two.calls[9:]] == ["/invocations"] * 8  # it is not asked again
        assert pairs(w)["outcomes"] == [16, 0, 0, 0]

    run(test)


@pytest.mark.usefixtures("patient")
def test_answers_that_are_not_as_many_are_none() -> None:
    async def too_few(call: Call) -> None:
        await call.answer(b"\xc8\x00\x01\x00\x00\x001", 200, "content-type: application/x-eyrie-batch\r\n")

    async def test(w: World) -> None:
        two = await shadowed(w, too_few)
        await following(w, [b"1"] * 8)
        assert pairs(w)["outcomes"] == [0, 0, 8, 0]
        two.behave = batching
        await following(w, [b"1"] * 8)
        assert [call.path for call in two.calls] == ["/eyrie/batch"] + ["/invocations"] * 8

    run(test)


@pytest.mark.usefixtures("patient")
def test_copies_in_messages_are_bounded_and_given_up_as_single_ones() -> None:
    async def test(w: World) -> None:
        two = await shadowed(w, hanging, timeout_ms=2_000)
        for _ in range(16):
            assert (await w.invoke(b"1")).status == 200
        await until(lambda: w.counter("shadow_dropped_requests") == 4)
        (endpoint,) = w.gateway.book.endpoints.values()
        assert endpoint.shadows["A", 0].instances[0].outstanding == 12
        await until(lambda: [call.path for call in two.calls] == ["/eyrie/batch"] * 2)
        await until(lambda: w.gateway.mirror.idle)  # their time is up
        assert w.counter("shadow_timeouts") == 12
        told = pairs(w)
        assert (told["outcomes"], told["dropped"]) == ([0, 0, 12, 0], {"requests": 4})
        assert endpoint.shadows["A", 0].instances[0].outstanding == 0
        assert w.gateway.mirror.bytes == 0

    run(test, shadow_requests_max=12)


@pytest.mark.usefixtures("patient")
def test_a_message_that_is_lost_is_an_error_of_each() -> None:
    async def dying(call: Call) -> None:
        await call.instance.kill()

    async def test(w: World) -> None:
        await shadowed(w, dying)
        await following(w, [b"1"] * 8)
        assert pairs(w)["outcomes"] == [0, 0, 8, 0]
        assert w.counter("retries") == 0
        assert w.gateway.invoker.poison.empty
        await following(w, [b"1"] * 8)
        assert w.counter("shadow_dropped_no_instance") == 8

    run(test)


def test_a_shadow_is_no_target_of_the_traffic() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 0.0, [two])})
        got = await w.invoke(b"1", **{"X-Amzn-SageMaker-Target-Variant": "S"})
        assert got.status == 400
        w.publish({"A": (1.0, [])}, shadows={"S": ("A", 1.0, [two])})
        assert (await w.invoke()).status == 503
        assert two.calls == []

    run(test, hold_ms=100)


def test_a_hanging_shadow_is_dropped_beyond_its_bound_and_production_answers() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2", hanging)
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 1.0, [two])}, timeout_ms=2_000)
        for _ in range(12):
            assert (await w.invoke()).status == 200
        await until(lambda: w.counter("shadow_dropped_requests") == 8)
        assert len(w.gateway.mirror.active) == 4
        assert pairs(w)["dropped"] == {"requests": 8}
        assert w.counter("retries") == 0
        assert w.gateway.invoker.poison.empty
        await until(lambda: not w.gateway.mirror.active)  # their time is up
        assert w.counter("shadow_timeouts") == 4
        assert pairs(w)["outcomes"] == [0, 0, 4, 0]
        assert (await w.invoke()).status == 200

    run(test, shadow_requests_max=4)


def test_bytes_that_copies_hold_are_bounded() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2", hanging)
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 1.0, [two])})
        for _ in range(5):
            assert (await w.invoke(b"x" * 4_000)).status == 200
        await until(lambda: w.counter("shadow_dropped_bytes") == 3)
        assert len(w.gateway.mirror.active) == 2
        assert w.gateway.mirror.bytes <= 10_000
        w.publish({"A": (1.0, [one])})
        await until(lambda: not w.gateway.mirror.active)  # its instance has left: nobody waits for it
        assert w.gateway.mirror.bytes == 0

    run(test, shadow_bytes_max=10_000)


def test_a_dead_shadow_costs_production_nothing() -> None:
    async def test(w: World) -> None:
        async def dying(call: Call) -> None:
            await call.instance.kill()

        one, two = await w.instance("i-1", answering), await w.instance("i-2", dying)
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 1.0, [two])})
        for _ in range(10):
            assert (await w.invoke()).status == 200
        await until(lambda: w.counter("shadow_dropped_no_instance") > 0)
        told = pairs(w)
        assert told["outcomes"][2] >= 1
        assert w.counter("retries") == 0
        assert w.gateway.invoker.poison.empty
        assert [i.ejected for v in w.gateway.book.endpoints.values() for i in v.variants["A", 0].instances] == [""]

    run(test)


def test_errors_of_both_sides_are_told_apart() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1", saying(b"bad", 500)), await w.instance("i-2", saying(b"1"))
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 1.0, [two])})
        assert (await w.invoke()).status == 424
        await until(lambda: not w.gateway.mirror.active and len(two.calls) == 1)
        one.behave, two.behave = saying(b"1"), saying(b"no", 503)
        assert (await w.invoke()).status == 200
        await until(lambda: not w.gateway.mirror.active and len(two.calls) == 2)
        assert pairs(w)["outcomes"] == [0, 1, 1, 0]
        rollup = w.gateway.meter.take(1)["endpoints"][SLUG]["S"]["i-2"]  # type: ignore[index]
        assert (rollup["n"], rollup["e5"], rollup["em"]) == (2, 1, 1)

    run(test)


def test_requests_of_a_session_are_not_copied() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"A": (1.0, [one])}, shadows={"S": ("A", 1.0, [two])})
        await w.invoke(b"1", **{"X-Amzn-SageMaker-Session-Id": "NEW_SESSION"})
        await until(lambda: w.counter("shadow_dropped_session") == 1)
        assert two.calls == []

    run(test)


def test_while_traffic_shifts_each_fleet_has_its_own_shadow() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"A": (1.0, [one])}, shadows={"S": ("B", 1.0, [two])})  # of a variant that is not in the table
        assert (await w.invoke()).status == 200
        assert w.gateway.mirror.active == set()
        assert two.calls == []

    run(test)
