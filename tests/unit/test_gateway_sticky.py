"""Sticky sessions through workers on real sockets: found by any worker, gone with their instance, ended by time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway_world import Call, FakeInstance, Reply, World, answering, hanging, until, world

from eyrie.gateway.sessions import Sessions, signing_key

SM = "X-Amzn-SageMaker-"
LONG = "2033-05-18T03:33:20Z"


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            await test(made)

    asyncio.run(main())


async def stateful(call: Call) -> None:
    """A container that keeps sessions: it opens, counts on, and closes."""
    said = call.headers.get("x-amzn-sagemaker-session-id")
    lines = "content-type: text/plain\r\n"
    if said == "NEW_SESSION":
        lines += f"{SM}New-Session-Id: s-{call.instance.instance_id}; Expires={LONG}\r\n"
    elif call.body == b"close":
        lines += f"{SM}Closed-Session-Id: {said}\r\n"
    await call.answer(f"{call.instance.instance_id} {said}".encode(), lines=lines)


async def ask(w: World, session: str, body: bytes = b"1", action: str = "invocations", **more: str) -> Reply:
    headers = {f"{SM}Session-Id": session, **{SM + name.replace("_", "-"): value for name, value in more.items()}}
    return await w.send(w.sign(body, headers, f"/endpoints/e/{action}"))


async def begun(w: World) -> tuple[str, str]:
    """A new session: its id, and the instance that holds it."""
    got = await ask(w, "NEW_SESSION")
    assert got.status == 200
    told, _, end = got.headers["x-amzn-sagemaker-new-session-id"].partition(";")
    assert end == f" Expires={LONG}"
    return told, got.body.decode().split(" ")[0]


async def three(w: World) -> list[FakeInstance]:
    instances = [await w.instance(f"i-{n}", stateful) for n in range(3)]
    w.publish({"v": (1.0, instances)})
    return instances


def test_requests_of_a_session_meet_their_instance_and_no_other() -> None:
    async def test(w: World) -> None:
        await three(w)
        sessions = [await begun(w) for _ in range(6)]
        assert len({holder for _, holder in sessions}) > 1
        for token, holder in sessions * 3:
            got = await ask(w, token)
            assert (got.status, got.body.decode()) == (200, f"{holder} s-{holder}")
            assert "x-amzn-sagemaker-new-session-id" not in got.headers

    run(test)


def test_another_worker_finds_the_session() -> None:
    async def test(w: World) -> None:
        await three(w)
        token, holder = await begun(w)
        w.gateway.invoker.sessions = Sessions(signing_key(w.data / "credentials.json"))  # as one that starts has it
        for _ in range(5):
            assert (await ask(w, token)).body.decode() == f"{holder} s-{holder}"

    run(test)


def test_a_closed_session_is_told_by_the_id_that_the_client_has() -> None:
    async def test(w: World) -> None:
        await three(w)
        token, _ = await begun(w)
        assert (await ask(w, token, b"close")).headers["x-amzn-sagemaker-closed-session-id"] == token

    run(test)


def test_a_stream_joins_a_session() -> None:
    async def test(w: World) -> None:
        await three(w)
        token, holder = await begun(w)
        for _ in range(5):
            got = await ask(w, token, action="invocations-response-stream")
            assert got.status == 200
            assert f"{holder} s-{holder}".encode() in got.body

    run(test)


def test_ids_that_lead_nowhere_are_refused() -> None:
    async def test(w: World) -> None:
        instances = await three(w)
        token, _ = await begun(w)
        for bad in ("nope", token[:-1], "a" * 257, "new_session"):
            got = await ask(w, bad)
            assert (got.status, got.headers["x-amzn-errortype"]) == (400, "ValidationError")
            assert "not found" in got.json()["Message"]
        w.publish({"v": (1.0, instances), "other": (1.0, [])})
        got = await ask(w, token, Target_Variant="other")
        assert (got.status, "not one of variant other" in got.json()["Message"]) == (400, True)
        assert (await ask(w, token, Target_Variant="v")).status == 200
        for instance in instances:
            instance.behave = lambda call: call.answer(lines=f"{SM}New-Session-Id: s; Expires=2020-01-01T00:00:00Z\r\n")
        got = await ask(w, "NEW_SESSION")
        token = got.headers["x-amzn-sagemaker-new-session-id"].partition(";")[0]
        assert "has expired" in (await ask(w, token)).json()["Message"]

    run(test)


def test_a_session_of_an_instance_that_left_is_gone() -> None:
    async def test(w: World) -> None:
        instances = await three(w)
        token, holder = await begun(w)
        w.publish({"v": (1.0, [i for i in instances if i.instance_id != holder])})
        got = await ask(w, token)
        assert (got.status, got.headers["x-amzn-errortype"]) == (400, "ValidationError")
        assert "the instance that held it is gone" in got.json()["Message"]

    run(test)


def test_a_request_whose_instance_dies_under_it_is_not_moved() -> None:
    async def test(w: World) -> None:
        instances = {i.instance_id: i for i in await three(w)}
        token, holder = await begun(w)
        instances[holder].behave = hanging
        calls = {name: len(i.calls) for name, i in instances.items()}
        asked = asyncio.ensure_future(ask(w, token))
        await until(lambda: len(instances[holder].calls) > calls[holder])
        await instances[holder].kill()
        got = await asked
        assert (got.status, "is gone" in got.json()["Message"]) == (400, True)
        assert all(len(i.calls) == calls[name] for name, i in instances.items() if name != holder)
        assert w.gateway.invoker.active == set()

    run(test)


def test_a_session_waits_for_an_instance_that_is_out_of_the_route_for_a_while() -> None:
    async def test(w: World) -> None:
        await three(w)
        token, holder = await begun(w)
        endpoint = next(iter(w.gateway.book.endpoints.values()))
        target = endpoint.target(holder)
        assert target is not None
        target.ejected = "said the test"
        endpoint.reweigh()
        got = await ask(w, token)  # the sweep takes it back in, and the request goes on
        assert (got.status, got.body.decode()) == (200, f"{holder} s-{holder}")
        assert w.counter("held") == 1

    run(test)


def test_a_container_that_names_no_good_id_is_a_model_error() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await call.answer(b"x", lines=f"{SM}New-Session-Id: a b\r\n")

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        for action in ("invocations",):
            got = await ask(w, "NEW_SESSION", action=action)
            assert (got.status, got.headers["x-amzn-errortype"]) == (424, "ModelError")
            assert "session id" in got.json()["OriginalMessage"]
        assert (w.gateway.invoker.active, w.gateway.invoker.reserved_bytes) == (set(), 0)
        one.behave = answering
        got = await ask(w, "NEW_SESSION")  # a container that knows no sessions
        assert (got.status, "x-amzn-sagemaker-new-session-id" in got.headers) == (200, False)

    run(test)
