"""Clients that are slow, silent, half gone or many, on real sockets: each is bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from http1_lab import Ear

from eyrie.http1.handlers import Request, Response, serve
from eyrie.http1.limits import Limits
from eyrie.http1.server import Connection, Server, listen
from eyrie.http1.sweep import Sweep
from eyrie.http1.unix import connect_unix, listen_unix

BIG = b"b" * 900_000  # more than the kernel takes of a Unix socket's


async def handler(request: Request) -> Response:
    if request.path == b"/big":
        return Response(200, [], BIG)
    if request.path == b"/wait":
        await asyncio.Event().wait()
    return Response(200, [], b"hello " + await request.read(10_000_000))


@contextlib.asynccontextmanager
async def serving(path: str, limits: Limits) -> AsyncIterator[Server]:
    server = await serve(handler, listen_unix(path), limits, Sweep(asyncio.get_running_loop(), period_ms=20))
    try:
        yield server
    finally:
        await server.close(1_000)


async def gone(server: Server, seconds: float = 5.0) -> float:
    """Until the server has no connection left; how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while server.connections:
            await asyncio.sleep(0.01)
    return time.monotonic() - began


def client(path: str, data: bytes) -> socket.socket:
    sock = connect_unix(path)
    sock.setblocking(True)
    sock.settimeout(5)
    sock.sendall(data)
    return sock


@pytest.mark.parametrize("keep", [b"close", b"keep-alive"])
def test_a_client_that_never_reads_its_reply_is_cut(tmp_path: Path, keep: bytes) -> None:
    async def main() -> None:
        path = str(tmp_path / "s")  # the reply is smaller than the write buffer: nobody is told to pause
        limits = Limits(write_buffer_bytes=2_000_000, send_idle_ms=200, idle_ms=200)
        async with serving(path, limits) as server:
            with client(path, b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: %b\r\n\r\n" % keep):
                await asyncio.sleep(0.1)
                assert len(server.connections) == 1
                assert await gone(server) < 3

    asyncio.run(main())


def test_a_client_that_reads_slowly_but_steadily_gets_its_reply_whole(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "s")
        limits = Limits(write_buffer_bytes=65_536, send_idle_ms=1_000, idle_ms=1_000)
        async with serving(path, limits) as server:
            loop = asyncio.get_running_loop()
            with client(path, b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as sock:
                sock.setblocking(False)
                got, began = 0, time.monotonic()
                while piece := await loop.sock_recv(sock, 60_000):
                    got += len(piece)
                    await asyncio.sleep(0.15)
            assert got > len(BIG)
            assert time.monotonic() - began > 2 * limits.send_idle_ms / 1000
            await gone(server)

    asyncio.run(main())


HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"GET / HTTP/1.1\r\nA: ", b"b"),
        (HEAD, b"A: b\r\n"),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
    ],
)
def test_what_drips_has_a_deadline(tmp_path: Path, start: bytes, drip: bytes) -> None:
    async def main() -> None:
        path = str(tmp_path / "s")
        async with serving(path, Limits(head_ms=300, body_idle_ms=300)) as server:
            reader, writer = await asyncio.open_unix_connection(sock=connect_unix(path))
            writer.write(start)
            began = time.monotonic()
            while not reader.at_eof() and time.monotonic() - began < 5:
                writer.write(drip)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(0.02):
                        if b"408" in await reader.readuntil(b"\r\n"):
                            break
            assert time.monotonic() - began < 3
            writer.close()
            await gone(server)

    asyncio.run(main())


def test_what_was_answered_reaches_a_client_that_stops_sending_with_its_request(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "s")
        server = await listen(Ear(), listen_unix(path))
        loop = asyncio.get_running_loop()
        for _ in range(20):
            with client(path, HEAD + b"Content-Length: 3\r\n\r\nabc") as sock:
                sock.shutdown(socket.SHUT_WR)  # both are there before the loop looks
                sock.setblocking(False)
                async with asyncio.timeout(30):
                    assert (await loop.sock_recv(sock, 10_000)).startswith(b"HTTP/1.1 200 ")
        await gone(server)
        await server.close(100)

    uvloop.run(main())


class Slow(Ear):
    """Answers a request when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Connection] = []
        self.left = 0

    def gone(self, connection: Connection) -> None:
        self.left += 1

    def _over(self, connection: Connection) -> None:
        self.waiting.append(connection)

    async def answer(self) -> None:
        """The next request, once it has come."""
        async with asyncio.timeout(30):
            while not self.waiting:
                await asyncio.sleep(0.01)
        connection = self.waiting.pop(0)
        connection.reply(200, b"", connection.target)


def answers(sock: socket.socket) -> bytes:
    """All that comes until the server ends its side, read in a thread."""
    sock.settimeout(30)
    got = b""
    while piece := sock.recv(10_000):
        got += piece
    return got


async def half_closed(server: Server, count: int = 1) -> None:
    """Until the server has noticed that so many clients send no more."""
    async with asyncio.timeout(30):
        while sum(connection._ended for connection in server.connections) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_ends_its_sending_gets_its_answers(
    tmp_path: Path, run: Callable[[Any], None], family: socket.AddressFamily, requests: int
) -> None:
    async def main() -> None:
        application, path = Slow(), str(tmp_path / "s")
        bound = listen_unix(path) if family == socket.AF_UNIX else socket.create_server(("127.0.0.1", 0))
        server = await listen(application, bound)
        sock = client(path, b"") if family == socket.AF_UNIX else socket.create_connection(bound.getsockname())
        with sock:
            sock.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(requests)))
            sock.shutdown(socket.SHUT_WR)
            reading = asyncio.create_task(asyncio.to_thread(answers, sock))
            await half_closed(server)
            for _ in range(requests):
                await application.answer()
            got = await reading
            assert got.count(b"HTTP/1.1 200 OK") == requests
            assert [got.index(b"\r\n\r\n/%d" % n) for n in range(requests)] == sorted(
                got.index(b"\r\n\r\n/%d" % n) for n in range(requests)
            )
        await gone(server)
        assert application.left == 0
        await server.close(100)

    run(main())


@pytest.mark.parametrize("rest", [b"", b"GET /cut", b"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"])
def test_what_was_cut_short_is_not_waited_for_once_a_client_ends_its_sending(tmp_path: Path, rest: bytes) -> None:
    async def main() -> None:
        application, path = Slow(), str(tmp_path / "s")
        server = await listen(application, listen_unix(path))
        with client(path, b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n" + rest) as sock:
            sock.shutdown(socket.SHUT_WR)
            reading = asyncio.create_task(asyncio.to_thread(answers, sock))
            await half_closed(server)
            await application.answer()
            assert (await reading).count(b"HTTP/1.1 ") == 1
        await gone(server)
        assert application.left == (1 if b"Length" in rest else 0)
        await server.close(100)

    uvloop.run(main())


def test_a_client_that_sends_no_more_is_not_worked_for_any_longer_than_its_limit() -> None:
    async def main() -> None:
        application, bound = Slow(), socket.create_server(("127.0.0.1", 0))
        sweep = Sweep(asyncio.get_running_loop(), period_ms=20)
        server = await listen(application, bound, Limits(half_closed_ms=60), sweep)
        with socket.create_connection(bound.getsockname()) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(30):
                while not application.waiting:
                    await asyncio.sleep(0.01)
            assert application.left == 0
        await gone(server, 30)
        assert application.left == 1
        await server.close(100)

    uvloop.run(main())


@pytest.mark.parametrize("first", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_client_that_closes_while_it_is_worked_for_has_left(tmp_path: Path, first: int) -> None:
    async def main() -> None:
        application, path = Slow(), str(tmp_path / "s")
        server = await listen(application, listen_unix(path))
        with client(path, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") as sock:
            async with asyncio.timeout(30):
                while not application.waiting:
                    await asyncio.sleep(0.01)
            sock.shutdown(first)
            if first == socket.SHUT_WR:
                await half_closed(server)
        await gone(server, 30)
        assert application.left == 1
        await server.close(100)

    uvloop.run(main())


def test_a_flood_of_connections_is_refused_and_then_cut(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "s")
        async with serving(path, Limits(connections=20)) as server:
            socks = [connect_unix(path) for _ in range(20)]
            await asyncio.sleep(0.05)
            more = [connect_unix(path) for _ in range(80)]
            async with asyncio.timeout(30):
                while server.refused_connections < 80 or len(server.connections) > 41:
                    await asyncio.sleep(0.01)
            got = []
            for sock in more:
                sock.settimeout(30)
                sock.setblocking(True)
                with contextlib.suppress(ConnectionError):
                    got.append(sock.recv(1_000))
            assert sum(reply.startswith(b"HTTP/1.1 503") for reply in got) == 20
            for sock in (*socks, *more):
                sock.close()
            await gone(server)

    asyncio.run(main())
