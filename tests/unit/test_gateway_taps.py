"""Taps: told what was answered, after the client has it; nothing where there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from gateway_world import ACCOUNT, REGION, Call, World, until, world

from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, VariantRoute
from eyrie.gateway.taps import Exchange, tap_of

SM = "X-Amzn-SageMaker-"
ROUTE = VariantRoute("v", 1.0, RoutingStrategy.RANDOM, "primary")
TABLE = EndpointRoute(EndpointKey(ACCOUNT, REGION, "e"), 1, (ROUTE,))


class Heard:
    """A tap that remembers."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def answered(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


def run(test: Callable[[World, list[Exchange]], Awaitable[None]], auth: bool = True) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(auth=auth) as made:
            heard = Heard()
            made.gateway.book.tap_makers = (lambda table, route: heard,)
            await test(made, heard.exchanges)

    asyncio.run(main())


def test_a_whole_reply_is_told_with_all_that_was_said() -> None:
    async def test(w: World, heard: list[Exchange]) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])})
        reply = await w.invoke(b"1,2", **{f"{SM}Inference-Id": "id-7", f"{SM}Custom-Attributes": "a=b"})
        (told,) = heard
        assert (told.status, told.origin, told.body, told.reply_body) == (200, 200, b"1,2", b"i-1")
        assert (told.content_type, told.reply_type) == ("text/csv", "text/csv")
        assert (told.inference_id, told.custom_attributes, told.target_model) == ("id-7", "a=b", None)
        assert (told.endpoint.key.name, told.variant.name, told.instance.instance_id) == ("e", "v", "i-1")
        assert told.event_id == reply.headers["x-amzn-requestid"]
        assert told.model_us > 0
        assert told.at_ms > 1_600_000_000_000
        assert told.face is None

    run(test)


def test_requests_that_are_known_by_their_shape_are_told_too() -> None:
    async def test(w: World, heard: list[Exchange]) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])})
        reader, writer = await w.connect()
        for n in range(6):
            writer.write(w.sign(b"%d" % n, {}, "/endpoints/e/invocations"))
            await reader.readuntil(b"i-1")
        writer.close()
        assert [told.body for told in heard] == [b"%d" % n for n in range(6)]
        assert {told.content_type for told in heard} == {"text/csv"}
        assert any(told.fields is None for told in heard)
        assert len({told.event_id for told in heard}) == 6

    run(test)


def test_an_error_of_the_model_is_told_with_its_status_and_what_it_said() -> None:
    async def test(w: World, heard: list[Exchange]) -> None:
        async def failing(call: Call) -> None:
            await call.answer(b"no such row", 500)

        w.publish({"v": (1.0, [await w.instance("i-1", failing)])})
        assert (await w.invoke()).status == 424
        (told,) = heard
        assert (told.status, told.origin, told.reply_body) == (424, 500, b"no such row")

    run(test)


def test_a_reply_in_pieces_is_kept_and_one_beyond_the_bound_is_not() -> None:
    async def long(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/csv\r\ntransfer-encoding: chunked\r\n\r\n")
        left = int(call.body)
        while left:
            piece = b"x" * min(left, 500_000)
            call.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await call.writer.drain()
            left -= len(piece)
        call.writer.write(b"0\r\n\r\n")
        await call.writer.drain()

    async def test(w: World, heard: list[Exchange]) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1", long)])})
        for size in (1_000_000, 7_000_000):
            assert len((await w.invoke(b"%d" % size)).body) == size
        first, second = heard
        assert first.reply_body == b"x" * 1_000_000
        assert second.reply_body is None
        assert w.counter("replies_not_kept") == 1
        assert w.gateway.invoker.reserved_bytes == 0

    run(test)


def test_a_stream_is_told_without_its_body_and_a_reply_that_breaks_off_as_599() -> None:
    async def half(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await call.writer.drain()
        call.writer.close()

    async def test(w: World, heard: list[Exchange]) -> None:
        one = await w.instance("i-1")
        w.publish({"v": (1.0, [one])})
        assert (await w.invoke(action="invocations-response-stream")).status == 200
        await until(lambda: bool(heard))
        assert (heard[0].status, heard[0].reply_body) == (200, None)
        one.behave = half
        assert (await w.invoke(action="invocations-response-stream")).status == 200
        await until(lambda: len(heard) == 2)
        assert (heard[1].status, heard[1].origin, heard[1].reply_body) == (599, 200, None)

    run(test)


def test_an_infer_request_is_told_as_the_container_and_as_the_client_saw_it() -> None:
    async def in_csv(call: Call) -> None:
        await call.answer(b"0.5\n0.25\n")

    async def test(w: World, heard: list[Exchange]) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1", in_csv)])})
        x = {"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}
        body = json.dumps({"id": "r-1", "inputs": [x]}).encode()
        head = b"POST /v2/models/e/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        reply = await w.send(head + body)
        assert reply.status == 200
        (told,) = heard
        assert told.reply_body == b"0.5\n0.25\n"
        assert told.body != body
        assert told.inference_id == "r-1"
        assert told.face is not None
        assert (told.face.content_type, told.face.body) == ("application/json", body)
        assert (told.face.reply_type, told.face.reply_body) == ("application/json", reply.body)

    run(test, auth=False)


def test_several_taps_hear_it_and_none_is_none() -> None:
    first, second = Heard(), Heard()
    assert tap_of([lambda table, route: None], TABLE, ROUTE) is None
    both = tap_of([lambda t, r: first, lambda t, r: None, lambda t, r: second], TABLE, ROUTE)
    assert both is not None
    both.answered("it")  # type: ignore[arg-type]
    assert first.exchanges == second.exchanges == ["it"]
