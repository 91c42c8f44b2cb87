"""Malformed HTTP against the server: 4xx (or 505) and closed, or just closed; and it still serves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
from malformed_http import HOST, requests

from eyrie.http1.handlers import Request, Response, serving
from eyrie.http1.limits import Limits

ALL = requests()


async def hello(request: Request) -> Response:
    body = await request.read(1_000_000)
    return Response(200, [], b"hello " + body)


async def exchange(port: int, data: bytes, pieces: int = 1) -> bytes:
    """Send, wait for the close, return what came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            if pieces > 1:
                await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        try:
            async with asyncio.timeout(30):
                return await reader.read()
        except ConnectionError:
            return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def judge(name: str, got: bytes) -> str | None:
    """Why this answer is wrong, or None."""
    if not got:
        return None
    first = got.split(b"\r\n", 1)[0].decode("latin-1")
    status = first.split(" ")[1]
    if not (status.startswith("4") or status == "505"):
        return f"{name}: {first}"
    if b"connection: close" not in got.lower():
        return f"{name}: does not say that it closes"
    return None if got.count(b"HTTP/1.1 ") == 1 else f"{name}: more than one answer"


@pytest.mark.parametrize("pieces", [1, 7])
def test_every_malformed_request_is_refused_and_the_server_still_serves(pieces: int) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        wrong: list[str] = []
        silent = 0
        async with serving(hello, listener, Limits(head_ms=800)):
            gate = asyncio.Semaphore(32)

            async def one(name: str, data: bytes) -> None:
                nonlocal silent
                async with gate:
                    try:
                        got = await exchange(port, data, pieces)
                    except TimeoutError:
                        wrong.append(f"{name}: not closed")
                        return
                silent += not got
                if (reason := judge(name, got)) is not None:
                    wrong.append(reason)

            await asyncio.gather(*(one(name, data) for name, data in ALL))
            got = await exchange(port, b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert not wrong, "\n".join(wrong[:20])
        assert got.startswith(b"HTTP/1.1 200 ")
        assert silent < len(ALL) // 20

    assert len(ALL) >= 500
    assert len({name for name, _ in ALL}) == len(ALL)
    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 60
