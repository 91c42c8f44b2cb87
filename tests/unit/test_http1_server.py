"""The server on real sockets: keep-alive, pipelining, limits, deadlines, streaming, leaving clients."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from eyrie.http1.handlers import BodyTooLarge, Handler, Request, Response, serving
from eyrie.http1.limits import Limits
from eyrie.http1.server import Server
from eyrie.http1.unix import connect_unix, listen_unix

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire:
    """A raw connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def reply(self) -> tuple[str, bytes]:
        head = await self.head()
        length = int(next(v for k, v in (x.split(": ") for x in head.split("\r\n")[1:-2]) if k == "content-length"))
        return head, await self.reader.readexactly(length)

    async def closed(self) -> bool:
        return await self.reader.read(1) == b""


Test = Callable[[Callable[[], Awaitable[Wire]], Server], Awaitable[None]]


def run(handler: Handler, test: Test, limits: Limits | None = None, loop: str = "uvloop") -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        wires: list[Wire] = []

        async def connect() -> Wire:
            wires.append(Wire(*await asyncio.open_connection("127.0.0.1", port)))
            return wires[-1]

        async with asyncio.timeout(30), serving(handler, listener, limits) as server:
            try:
                await test(connect, server)
            finally:
                for wire in wires:
                    wire.writer.transport.abort()
                await asyncio.sleep(0)

    (uvloop.run if loop == "uvloop" else asyncio.run)(main())


async def echo(request: Request) -> Response:
    return Response(200, [(b"x-path", request.path)], await request.read(10_000_000))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_connection_is_kept_for_many_requests(loop: str) -> None:
    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        for n in range(50):  # a parser asked too late whether to keep the connection would have closed it
            wire.writer.write(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" % n)
            head, body = await wire.reply()
            assert f"x-path: /{n}" in head
            assert "connection" not in head
            assert body == b"abc"
        assert len(server.connections) == 1

    run(echo, test, loop=loop)


@pytest.mark.parametrize(
    ("request_bytes", "kept"),
    [
        (GET, True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", True),
    ],
)
def test_connections_stay_or_close_as_the_client_asks(request_bytes: bytes, kept: bool) -> None:
    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(request_bytes)
        head, _ = await wire.reply()
        assert ("connection: close" in head) is not kept
        if kept:
            wire.writer.write(request_bytes)
            await wire.reply()
        else:
            assert await wire.closed()

    run(echo, test)


def test_pipelined_requests_are_answered_in_order_and_bounded() -> None:
    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(
            b"".join(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" % n for n in range(500))
        )
        wire.writer.write(b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\n" + GET)
        for n in range(500):
            assert f"x-path: /{n}\r\n" in (await wire.reply())[0]
        assert (await wire.reply())[1] == b"y"
        assert "x-path: /\r\n" in (await wire.reply())[0]

    run(echo, test, Limits(pipelined_bytes=1_000))


def test_a_client_that_pipelines_and_does_not_read_stops_being_served() -> None:
    served = 0

    async def big(request: Request) -> Response:
        nonlocal served
        served += 1
        return Response(200, [], b"x" * 100_000)

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(GET * 1_000)
        before = -1
        while before != served:
            before = served
            await asyncio.sleep(0.1)
        assert served < 500
        for _ in range(1_000):
            assert len((await wire.reply())[1]) == 100_000

    run(big, test)


def test_requests_may_come_byte_by_byte() -> None:
    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        data = b"\r\nPOST /abc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        data += b"3\r\n\r\n\r\r\n1;x=y\r\nb\r\n0\r\nT: x\r\n\r\n"
        for n in range(len(data)):
            wire.writer.write(data[n : n + 1])
            await asyncio.sleep(0)
        assert (await wire.reply())[1] == b"\r\n\rb"

    run(echo, test)


def test_expect_100_continue_is_answered_when_the_body_is_wanted() -> None:
    async def picky(request: Request) -> Response:
        if request.path == b"/no":
            return Response(403, [])
        return await echo(request)

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await wire.head() == "HTTP/1.1 100 Continue\r\n\r\n"
        wire.writer.write(b"ok")
        assert (await wire.reply())[1] == b"ok"
        wire.writer.write(b"PUT /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        head, _ = await wire.reply()
        assert head.startswith("HTTP/1.1 403 ")
        assert await wire.closed()

    run(picky, test)


def test_head_has_no_body_but_its_length() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, [], b"", length=5_000_000_000) if request.path == b"/long" else Response(200, [], b"body")

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD /long HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        assert "content-length: 4\r\n" in await wire.head()
        assert "content-length: 5000000000\r\n" in await wire.head()
        assert (await wire.reply())[1] == b"body"

    run(handler, test)


def test_a_body_too_large_is_413_and_reaches_a_client_that_is_still_sending() -> None:
    async def small(request: Request) -> Response:
        return Response(200, [], await request.read(1_000))

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(200):
            wire.writer.write(b"x" * 100_000)
            await wire.writer.drain()
        assert (await wire.reply())[0].startswith("HTTP/1.1 413 ")
        assert await wire.closed()

    run(small, test)


def test_an_exception_is_a_500_with_a_request_id_and_costs_nobody_else_anything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: Request) -> Response:
        if request.path == b"/boom":
            raise RuntimeError("a mistake")
        return Response(200, [], b"fine")

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(b"GET /boom HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        head, body = await wire.reply()
        assert head.startswith("HTTP/1.1 500 ")
        request_id = next(line for line in head.split("\r\n") if line.startswith("x-amzn-requestid: "))[18:]
        assert request_id.encode() in body
        assert request_id in caplog.text
        assert (await wire.reply())[1] == b"fine"

    with caplog.at_level(logging.ERROR):
        run(handler, test)


def test_a_response_that_would_break_out_of_its_header_is_refused() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, [(b"x", b"a\r\nset-cookie: b")], b"")

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(GET)
        head, _ = await wire.reply()
        assert head.startswith("HTTP/1.1 500 ")
        assert "set-cookie" not in head

    run(handler, test)


def test_large_bodies_stream_both_ways_in_constant_memory() -> None:
    """128 MB up and down; five gigabytes would only take longer."""
    size = 128 * 1_048_576

    async def handler(request: Request) -> Response:
        async def doubled() -> AsyncIterator[bytes]:
            async for piece in request.stream():
                yield piece

        return Response(200, [], doubled(), length=size)

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wire.writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)

        async def send() -> None:
            piece = b"z" * 1_048_576
            for _ in range(size // len(piece)):
                wire.writer.write(piece)
                await wire.writer.drain()

        sending = asyncio.ensure_future(send())
        assert f"content-length: {size}" in await wire.head()
        got = 0
        while got < size:
            got += len(await wire.reader.read(1_048_576))
        await sending
        assert got == size
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kilobytes

    run(handler, test)


def test_a_slow_reader_holds_the_handler_back() -> None:
    made = 0

    async def handler(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            nonlocal made
            for _ in range(1_000):
                made += 1
                yield b"x" * 65_536

        return Response(200, [], pieces())

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(GET)
        before = -1
        while before != made:
            before = made
            await asyncio.sleep(0.1)
        assert made < 500

    run(handler, test)


def test_a_handler_that_does_not_read_holds_the_client_back() -> None:
    release = asyncio.Event()

    async def handler(request: Request) -> Response:
        await release.wait()
        return Response(200, [], b"%d" % len(await request.read(100_000_000)))

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n")
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(500):
                wire.writer.write(b"x" * 100_000)
                await wire.writer.drain()
                sent += 1

        sending = asyncio.ensure_future(send())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 400
        release.set()
        assert (await wire.reply())[1] == b"50000000"
        await sending

    run(handler, test)


def test_a_client_that_leaves_cancels_its_handler() -> None:
    cancelled = asyncio.Event()

    async def handler(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(GET)
        await asyncio.sleep(0)
        sock = wire.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset; FIN only ends sending
        wire.writer.close()
        await cancelled.wait()

    run(handler, test)


def test_deadlines_of_heads_bodies_and_idle_connections() -> None:
    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        idle, head, drip, body = [await connect() for _ in range(4)]
        head.writer.write(b"GET / HTTP/1.1\r\nHost:")
        body.writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")

        async def dripping() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"s" * 1_000:
                drip.writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        task = asyncio.ensure_future(dripping())
        assert (await head.reply())[0].startswith("HTTP/1.1 408 ")
        assert (await drip.reply())[0].startswith("HTTP/1.1 408 ")
        assert (await body.reply())[0].startswith("HTTP/1.1 408 ")
        assert await idle.closed()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(echo, test, Limits(idle_ms=300, head_ms=300, body_idle_ms=300))


def test_a_connection_too_many_gets_503() -> None:
    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        first = await connect()
        first.writer.write(GET)
        await first.reply()
        second = await connect()
        assert (await second.reply())[0].startswith("HTTP/1.1 503 ")
        assert await second.closed()
        first.writer.write(GET)
        await first.reply()
        assert server.refused_connections == 1

    run(echo, test, Limits(connections=1))


def test_closing_lets_what_was_begun_end() -> None:
    release = asyncio.Event()

    async def handler(request: Request) -> Response:
        await release.wait()
        return Response(200, [], b"done")

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        busy, idle = await connect(), await connect()
        busy.writer.write(GET)
        idle.writer.write(b"")
        while not any(c.context for c in server.connections):
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(server.close(5_000))
        assert await idle.closed()
        release.set()
        head, body = await busy.reply()
        assert "connection: close" in head
        assert body == b"done"
        await closing

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        from eyrie.http1.handlers import serve

        server = await serve(handler, listener)
        wires: list[Wire] = []

        async def connect() -> Wire:
            wires.append(Wire(*await asyncio.open_connection("127.0.0.1", port)))
            return wires[-1]

        async with asyncio.timeout(60):
            await test(connect, server)
        for wire in wires:
            wire.writer.close()
            await wire.writer.wait_closed()

    asyncio.run(main())


def test_a_server_that_ends_still_answers_on_a_connection_that_was_just_used() -> None:
    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        used, unused = await connect(), await connect()
        for wire in (used, unused):
            wire.writer.write(GET)
            await wire.reply()
        server.stop_accepting(quiet_ms=600)
        used.writer.write(GET)  # it was on its way when the end began
        head, _ = await used.reply()
        assert "connection: close" in head
        assert await used.closed()
        assert await unused.closed()  # once it was idle for as long

    run(echo, test)


def test_read_says_too_large_before_reading() -> None:
    async def handler(request: Request) -> Response:
        with pytest.raises(BodyTooLarge):
            await request.read(10)
        return Response(418, [])

    async def test(connect: Callable[[], Awaitable[Wire]], server: Server) -> None:
        wire = await connect()
        wire.writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
        assert (await wire.reply())[0].startswith("HTTP/1.1 418 ")

    run(handler, test)


def test_unix_paths_of_any_length(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    path = str(folder / "s")
    assert len(path) > 200
    for _ in range(2):  # the second time over the socket file that the first one left
        listener = listen_unix(path)
        client = connect_unix(path)
        listener.setblocking(True)
        accepted, _ = listener.accept()
        for sock in (accepted, client, listener):
            sock.close()
    with pytest.raises(ConnectionRefusedError):
        connect_unix(path)
    with pytest.raises(FileNotFoundError):
        connect_unix(path + "x")
