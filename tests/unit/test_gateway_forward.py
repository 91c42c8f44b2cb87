"""What a worker forwards: unchanged bytes both ways, in constant memory, also while the other process restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from gateway_world import Reply, World, leave, read_reply, until, world

from eyrie.http1.handlers import Handler, Request, Response, serving
from eyrie.http1.unix import listen_unix

S3_SCOPE = b"Authorization: AWS4-HMAC-SHA256 Credential=A/20261121/us-east-1/s3/aws4_request, x\r\n"


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            await test(made)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def process(w: World, name: str, handler: Handler) -> AsyncIterator[None]:
    async with serving(handler, listen_unix(str(w.data / "run" / f"{name}.sock"))):
        yield


def named(name: bytes) -> Handler:
    async def handler(request: Request) -> Response:
        seen = {k.decode(): v.decode() for k, v in request.headers}
        body = await request.read(1_000_000)
        return Response(200, [(b"x-from", name), (b"x-seen", json.dumps(seen).encode())], request.target + b"|" + body)

    return handler


def head(method: bytes, path: bytes, *lines: bytes) -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (method, path, b"".join(line + b"\r\n" for line in lines))


def test_requests_go_where_their_head_says_and_unchanged() -> None:
    async def test(w: World) -> None:
        async with process(w, "control", named(b"control")), process(w, "objects", named(b"objects")):
            target = b"X-Amz-Target: SageMaker.ListModels"
            got = await w.send(head(b"POST", b"/", target, b"x-OdD: v", b"Content-Length: 2") + b"{}")
            assert (got.headers["x-from"], got.body) == ("control", b"/|{}")
            seen = json.loads(got.headers["x-seen"])
            assert seen == {"host": "h", "x-amz-target": "SageMaker.ListModels", "x-odd": "v", "content-length": "2"}
            got = await w.send(head(b"GET", b"/bucket/a%20key?x=1", S3_SCOPE.strip()))
            assert (got.headers["x-from"], got.body) == ("objects", b"/bucket/a%20key?x=1|")
            chunked = head(b"POST", b"/", target, b"Transfer-Encoding: chunked") + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
            assert (await w.send(chunked)).body == b"/|ab"

    run(test)


def test_a_connection_is_kept_across_forwards_and_invocations() -> None:
    async def test(w: World) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])})
        async with process(w, "control", named(b"control")):
            reader, writer = await w.connect()
            for _ in range(5):
                writer.write(head(b"GET", b"/eyrie/status") + w.sign(b"1", {}, "/endpoints/e/invocations"))
                assert (await read_reply(reader)).headers["x-from"] == "control"
                assert (await read_reply(reader)).body == b"i-1"
            writer.write(head(b"GET", b"/eyrie/status", b"Connection: close"))
            assert (await read_reply(reader)).headers["connection"] == "close"
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(test)


def test_expect_100_continue_passes_through() -> None:
    async def picky(request: Request) -> Response:
        return Response(403, []) if request.path == b"/b/no" else await named(b"objects")(request)

    async def test(w: World) -> None:
        async with process(w, "objects", picky):
            reader, writer = await w.connect()
            expect = (S3_SCOPE.strip(), b"Expect: 100-continue", b"Content-Length: 3")
            writer.write(head(b"PUT", b"/b/k", *expect))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"abc")
            assert (await read_reply(reader)).body == b"/b/k|abc"
            writer.write(head(b"PUT", b"/b/no", *expect))
            assert (await read_reply(reader)).status == 403
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(test)


def test_large_bodies_pass_in_constant_memory_both_ways() -> None:
    size, peak = 64 * 1_048_576, 0

    async def handler(request: Request) -> Response:
        async def back() -> AsyncIterator[bytes]:
            async for piece in request.stream():
                yield piece

        return Response(200, [], back(), length=size)

    async def test(w: World) -> None:
        nonlocal peak
        async with process(w, "objects", handler):
            reader, writer = await w.connect()
            writer.write(head(b"PUT", b"/b/k", S3_SCOPE.strip(), b"Content-Length: %d" % size))

            async def send() -> None:
                for _ in range(size // 65_536):
                    writer.write(b"z" * 65_536)
                    await writer.drain()

            sending = asyncio.ensure_future(send())
            await reader.readuntil(b"\r\n\r\n")
            got = 0
            while got < size:
                got += len(await reader.read(65_536))
                for connection in w.server.connections:
                    if connection.transport is not None:
                        peak = max(peak, connection.transport.get_write_buffer_size())
            await sending
            writer.close()
            await writer.wait_closed()
        assert peak < 2_000_000

    run(test)


def test_a_process_that_does_not_read_holds_the_client_back() -> None:
    release = asyncio.Event()

    async def handler(request: Request) -> Response:
        await release.wait()
        return Response(200, [], b"%d" % len(await request.read(100_000_000)))

    async def test(w: World) -> None:
        async with process(w, "objects", handler):
            reader, writer = await w.connect()
            writer.write(head(b"PUT", b"/b/k", S3_SCOPE.strip(), b"Content-Length: 50000000"))
            sent = 0

            async def send() -> None:
                nonlocal sent
                for _ in range(500):
                    writer.write(b"x" * 100_000)
                    await writer.drain()
                    sent += 1

            sending = asyncio.ensure_future(send())
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 400
            release.set()
            assert (await read_reply(reader)).body == b"50000000"
            await sending
            writer.close()
            await writer.wait_closed()

    run(test)


def test_head_requests_pass() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, [], b"", length=12_345)

    async def test(w: World) -> None:
        async with process(w, "objects", handler):
            reader, writer = await w.connect()
            for _ in range(3):
                writer.write(head(b"HEAD", b"/b/k", S3_SCOPE.strip()))
                assert b"content-length: 12345\r\n" in await reader.readuntil(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()

    run(test)


def test_a_request_waits_while_the_process_restarts_and_gets_503_when_it_does_not_come_back() -> None:
    async def test(w: World) -> None:
        body = head(b"POST", b"/", b"X-Amz-Target: SageMaker.ListModels", b"Content-Length: 3") + b"abc"
        waiting = [asyncio.ensure_future(w.send(body)) for _ in range(3)]
        await until(lambda: w.counter("forwards_held") == 3)
        async with process(w, "control", named(b"control")):
            assert [(await reply).body for reply in waiting] == [b"/|abc"] * 3
        got: Reply = await w.send(body)
        assert (got.status, got.json()["__type"]) == (503, "ServiceUnavailable")
        got = await w.send(head(b"GET", b"/b/k", S3_SCOPE.strip()))
        assert (got.status, got.headers["content-type"]) == (503, "application/xml")
        assert b"<Code>ServiceUnavailable</Code>" in got.body

    run(test, forward_wait_ms=1_000)


def test_a_process_that_ends_in_the_middle_is_told_and_a_get_is_tried_again() -> None:
    began = 0

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal began
        await reader.readuntil(b"\r\n\r\n")
        began += 1
        writer.transport.abort()

    async def test(w: World) -> None:
        server = await asyncio.start_unix_server(dying, sock=listen_unix(str(w.data / "run" / "control.sock")))
        post = head(b"POST", b"/", b"X-Amz-Target: SageMaker.CreateModel", b"Content-Length: 3") + b"abc"
        got = await w.send(post)
        assert (got.status, got.json()["__type"], began) == (500, "InternalFailure", 1)
        waiting = asyncio.ensure_future(w.send(head(b"GET", b"/eyrie/status")))
        await until(lambda: began > 1)
        server.close()
        await server.wait_closed()
        async with process(w, "control", named(b"control")):
            assert (await waiting).headers["x-from"] == "control"

    run(test)


def test_a_client_that_leaves_cancels_the_forward() -> None:
    cancelled = asyncio.Event()

    async def handler(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async def test(w: World) -> None:
        async with process(w, "control", handler):
            _, writer = await w.connect()
            writer.write(head(b"GET", b"/eyrie/status"))
            await until(lambda: len(w.gateway.forwarder.active) == 1)
            leave(writer)
            await cancelled.wait()
            await until(lambda: not w.gateway.forwarder.active)

    run(test)


def test_bytes_that_are_not_http_from_the_process_never_reach_the_client_as_a_reply() -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\x01garbage\r\n\r\n")
        await writer.drain()
        writer.close()

    async def test(w: World) -> None:
        path = str(w.data / "run" / "control.sock")
        server = await asyncio.start_unix_server(garbage, sock=listen_unix(path))
        reader, writer = await w.connect()
        writer.write(head(b"GET", b"/eyrie/status"))
        assert b"garbage" not in await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(test)


def test_the_listener_can_be_inherited_from_a_worker() -> None:
    async def test(w: World) -> None:
        from eyrie.gateway.door import Door

        shared = socket.create_server(("127.0.0.1", 0))
        path = w.data / "run" / "gateway-0.sock"
        door = Door(path, shared, lambda: w.gateway.stats(w.server))
        door.open()

        def ask() -> tuple[bytes, list[int]]:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(5)
                line.connect(str(path))
                line.sendall(b"listener\n")
                said, fds, _, _ = socket.recv_fds(line, 4096, 1)
                return said, fds

        said, fds = await asyncio.to_thread(ask)
        assert json.loads(said) == {"listener": True}
        with socket.socket(fileno=fds[0]) as inherited:
            assert inherited.getsockname() == shared.getsockname()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"stats\n")
        stats = json.loads(await reader.readline())
        assert stats["worker"] == "gateway-0"
        writer.close()
        await writer.wait_closed()
        await door.close()
        assert not path.exists()
        shared.close()

    run(test)


def test_the_console_is_asked_where_one_was_ever_started() -> None:
    async def test(w: World) -> None:
        missing = await w.send(head(b"GET", b"/console"))
        assert missing.status == 404
        assert b"eyrie[console]" in missing.body
        (w.data / "run" / "console.lock").touch()
        async with process(w, "console", named(b"console")):
            found = await w.send(head(b"POST", b"/console/x?y=1", b"Content-Length: 2") + b"{}")
            assert (found.headers["x-from"], found.body) == ("console", b"/console/x?y=1|{}")

    run(test)


def test_a_console_that_is_away_is_told_in_plain_words() -> None:
    async def test(w: World) -> None:
        (w.data / "run" / "console.lock").touch()
        found = await w.send(head(b"GET", b"/console"))
        assert (found.status, found.headers["content-type"]) == (503, "text/plain; charset=utf-8")

    run(test, forward_wait_ms=300)
