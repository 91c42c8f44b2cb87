"""InvokeEndpointWithResponseStream through a worker on real sockets: parts as they come, failures before and within."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from botocore.eventstream import EventStreamBuffer
from gateway_world import Call, FakeInstance, World, hanging, until, world

SM = "X-Amzn-SageMaker-"
STREAM = "invocations-response-stream"


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            await test(made)

    asyncio.run(main())


class Chunked:
    """A streamed reply of an instance: `send` pieces, then `end`."""

    def __init__(self, call: Call) -> None:
        self._writer = call.writer

    async def begin(self, lines: str = "content-type: text/plain\r\n", status: int = 200) -> None:
        self._writer.write(f"HTTP/1.1 {status} X\r\n{lines}transfer-encoding: chunked\r\n\r\n".encode())
        await self._writer.drain()

    async def send(self, piece: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()


class Client:
    """A streamed reply as it comes over the wire."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, headers: dict[str, str]
    ) -> None:
        self._reader = reader
        self.writer = writer
        self.status = status
        self.headers = headers
        self._buffer = EventStreamBuffer()

    @classmethod
    async def ask(cls, w: World, body: bytes = b"1", **headers: str) -> Client:
        reader, writer = await w.connect()
        writer.write(w.sign(body, headers, f"/endpoints/e/{STREAM}"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip()
        first, *lines = head.split("\r\n")
        named = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        return cls(reader, writer, int(first.split(" ")[1]), named)

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        """Events as (type, payload), as they come; ends where the reply ends well."""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            self._buffer.add_data((await self._reader.readexactly(size + 2))[:-2])
            for event in self._buffer:
                yield event.headers.get(":event-type") or event.headers[":exception-type"], event.payload
        await self._reader.readexactly(2)
        self.writer.close()
        await self.writer.wait_closed()


def test_parts_come_as_they_are_made() -> None:
    async def test(w: World) -> None:
        go_on = asyncio.Event()

        async def behave(call: Call) -> None:
            reply = Chunked(call)
            await reply.begin(f"content-type: text/plain\r\n{SM}Custom-Attributes: out\r\nx-secret: no\r\n")
            await reply.send(b"one")
            await go_on.wait()
            await reply.send(b"two")
            await reply.end()

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        headers = {"Content-Type": "text/csv", f"{SM}Accept": "text/plain", f"{SM}Custom-Attributes": "in"}
        client = await Client.ask(w, b"1,2", **headers)
        assert client.status == 200
        assert client.headers["content-type"] == "application/vnd.amazon.eventstream"
        assert client.headers["x-amzn-sagemaker-content-type"] == "text/plain"
        assert client.headers["x-amzn-invoked-production-variant"] == "v"
        assert client.headers["x-amzn-sagemaker-custom-attributes"] == "out"
        assert len(client.headers["x-amzn-requestid"]) == 36
        assert "x-secret" not in client.headers
        found = []
        async for event in client:  # the second is made only once the first is here
            found.append(event)
            go_on.set()
        assert found == [("PayloadPart", b"one"), ("PayloadPart", b"two")]
        call = one.calls[0]
        assert (call.path, call.headers["accept"], call.body) == ("/invocations", "text/plain", b"1,2")
        assert call.headers["x-amzn-sagemaker-custom-attributes"] == "in"
        assert (w.gateway.invoker.active, w.gateway.invoker.reserved_bytes) == (set(), 0)

    run(test)


def test_a_model_that_does_not_stream_answers_in_parts_too() -> None:
    async def test(w: World) -> None:
        big = bytes(range(256)) * 6_000

        async def behave(call: Call) -> None:
            await call.answer(b"" if call.body == b"empty" else big if call.body == b"big" else b"0.5")

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        assert [event async for event in await Client.ask(w)] == [("PayloadPart", b"0.5")]
        assert [event async for event in await Client.ask(w, b"empty")] == []
        parts = [event async for event in await Client.ask(w, b"big")]
        assert b"".join(payload for _, payload in parts) == big

    run(test)


def test_the_chunks_of_a_streaming_model_pass_through_invoke_endpoint_as_they_come() -> None:
    async def test(w: World) -> None:
        go_on = asyncio.Event()

        async def behave(call: Call) -> None:
            reply = Chunked(call)
            await reply.begin()
            await reply.send(b"one")
            await go_on.wait()
            await reply.send(b"two")
            await reply.end()

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        reader, writer = await w.connect()
        writer.write(w.sign(b"1", {}, "/endpoints/e/invocations"))
        assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(8) == b"3\r\none\r\n"
        go_on.set()
        assert await reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        writer.close()

    run(test)


def test_what_fails_before_the_first_byte_is_a_plain_error() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            reply = Chunked(call)
            await reply.begin(status=422)
            await reply.send(b"not ")
            await reply.send(b"so")
            await reply.end()

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        got = await w.invoke(action=STREAM)
        assert (got.status, got.headers["x-amzn-errortype"]) == (424, "ModelError")
        assert (got.json()["OriginalStatusCode"], got.json()["OriginalMessage"]) == (422, "not so")
        assert (await w.invoke(name="missing", action=STREAM)).status == 400
        tampered = w.sign(b"1", {}, f"/endpoints/e/{STREAM}")[:-1] + b"2"
        assert (await w.send(tampered)).status == 403
        for name, value in (("Session-Id", "NEW_SESSION"), ("Target-Variant", "other")):
            got = await w.send(w.sign(b"1", {f"{SM}{name}": value}, f"/endpoints/e/{STREAM}"))
            assert (got.status, got.headers["x-amzn-errortype"]) == (400, "ValidationError")

    run(test)


async def cut(call: Call) -> None:
    reply = Chunked(call)
    await reply.begin()
    await reply.send(b"one")
    call.writer.transport.abort()


def test_an_instance_that_ends_within_a_reply_is_an_exception_event() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1", cut)
        w.publish({"v": (1.0, [one])})
        client = await Client.ask(w)
        first, second = [event async for event in client]
        assert first == ("PayloadPart", b"one")
        assert second[0] == "ModelStreamError"
        assert json.loads(second[1])["ErrorCode"] == "StreamBroken"
        assert (w.gateway.invoker.active, w.gateway.invoker.reserved_bytes) == (set(), 0)

    run(test)


def test_an_instance_that_ends_before_its_reply_costs_the_client_nothing() -> None:
    async def test(w: World) -> None:
        async def die(call: Call) -> None:
            call.writer.transport.abort()

        async def answer(call: Call) -> None:
            await call.answer(b"fine")

        one, two = await w.instance("i-1", die), await w.instance("i-2", answer)
        w.publish({"v": (1.0, [one, two])})
        for _ in range(8):
            assert [event async for event in await Client.ask(w)] == [("PayloadPart", b"fine")]
        assert w.counter("retries") >= 1

    run(test)


def test_the_deadline_of_the_first_byte_and_that_of_the_whole_are_two() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            reply = Chunked(call)
            await reply.begin()
            await reply.send(b"one")
            await asyncio.Event().wait()

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])}, timeout_ms=200)
        loop = asyncio.get_running_loop()
        began = loop.time()
        events = [event async for event in await Client.ask(w)]
        assert 0.6 <= loop.time() - began < 3
        assert [kind for kind, _ in events] == ["PayloadPart", "ModelStreamError"]
        assert json.loads(events[1][1])["ErrorCode"] == "ModelInvocationTimeExceeded"
        one.behave = hanging
        got = await w.invoke(action=STREAM)
        assert (got.status, got.json()["OriginalStatusCode"]) == (424, 0)

    run(test, stream_timeout_ms=600)


def test_a_client_that_leaves_ends_the_work() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            reply = Chunked(call)
            await reply.begin()
            await reply.send(b"one")
            await asyncio.Event().wait()

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        client = await Client.ask(w)
        client.writer.transport.abort()
        await until(lambda: one.left == 1)
        await until(lambda: not w.gateway.invoker.active)

    run(test)


def test_a_client_that_does_not_read_holds_the_instance_back() -> None:
    async def test(w: World) -> None:
        sent = 0

        async def behave(call: Call) -> None:
            nonlocal sent
            reply = Chunked(call)
            await reply.begin()
            for _ in range(1_000):
                await reply.send(bytes(65_536))
                sent += 1
            await reply.end()

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        client = await Client.ask(w)
        seen = -1
        while seen != sent:  # until it stands still
            seen = sent
            await asyncio.sleep(0.2)
        assert sent < 400  # of 1,000: what fits into the buffers on the way
        total = 0
        async for _, payload in client:
            total += len(payload)
        assert total == 65_536_000

    run(test)


def test_a_worker_that_stops_says_so_within_the_stream() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            reply = Chunked(call)
            await reply.begin()
            await reply.send(b"one")
            await asyncio.Event().wait()

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        client = await Client.ask(w)
        found = []
        async for event in client:
            found.append(event)
            w.gateway.invoker.break_off()
        assert [kind for kind, _ in found] == ["PayloadPart", "InternalStreamFailure"]
        await until(lambda: one.left == 1)

    run(test)


def test_a_stream_does_not_make_its_instance_seem_slow() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            reply = Chunked(call)
            await reply.begin()
            await reply.send(b"one")
            await asyncio.sleep(0.3)
            await reply.end()

        one: FakeInstance = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        assert len([event async for event in await Client.ask(w)]) == 1
        (variant,) = next(iter(w.gateway.book.endpoints.values())).variants.values()
        assert 0 < variant.slowest_s < 0.2

    run(test)
