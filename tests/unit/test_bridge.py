"""The bridge between an instance's Unix socket and its container's port, with containers that are a few lines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eyrie.http1.unix import listen_unix
from eyrie.modelserver.bridge import BUFFER_BYTES_MAX, LOOPBACK, Bridge, accepts

Container = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PATIENCE_S = 10.0


@asynccontextmanager
async def bridged(folder: Path, container: Container | None, connections_max: int = 16) -> AsyncIterator[Bridge]:
    """A bridge to a container; None: nobody listens on the port."""
    writers: list[asyncio.StreamWriter] = []

    async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await (container or _nobody)(reader, writer)

    server = await asyncio.start_server(kept, LOOPBACK, 0)
    bridge = Bridge(server.sockets[0].getsockname()[1], connections_max)
    if container is None:
        server.close()
        await server.wait_closed()
    await bridge.start(listen_unix(str(folder / "s")))
    try:
        yield bridge
    finally:
        await bridge.close()
        server.close()
        for writer in writers:
            writer.transport.abort()
        for _ in range(5):  # turns of the loop, in which what was aborted is closed
            await asyncio.sleep(0)


async def _nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def connected(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(folder / "s"))


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test

    asyncio.run(bounded())


def test_bytes_go_both_ways_on_a_kept_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with bridged(tmp_path, echo) as bridge:
            reader, writer = await connected(tmp_path)
            for text in (b"one", b"two"):
                writer.write(text)
                assert await reader.readexactly(3) == text
            assert bridge.connections == 1
            writer.close()
            while bridge.connections:
                await asyncio.sleep(0)

    run(test())


def test_large_bodies_pass_unchanged(tmp_path: Path) -> None:
    body = bytes(range(256)) * 100_000  # 25.6 MB

    async def test() -> None:
        async with bridged(tmp_path, echo):
            reader, writer = await connected(tmp_path)
            writer.write(body)
            assert await reader.readexactly(len(body)) == body
            writer.close()

    run(test())


def test_whoever_is_slow_holds_up_the_other_side(tmp_path: Path) -> None:
    """A container that does not read: no more is taken from the client than the buffers on the way hold."""
    halt = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await halt.wait()
        writer.close()

    async def test() -> None:
        async with bridged(tmp_path, deaf):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            client.connect(str(tmp_path / "s"))
            sent, quiet = 0, 0
            while quiet < 50:
                try:
                    sent += client.send(bytes(65_536))
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                    await asyncio.sleep(0.002)
            assert sent < 16_000_000 + BUFFER_BYTES_MAX  # the kernel's buffers, which grow to some megabytes
            halt.set()
            client.close()

    run(test())


def test_what_the_container_said_last_arrives(tmp_path: Path) -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"x" * 300_000)
        writer.close()

    async def test() -> None:
        async with bridged(tmp_path, short):
            reader, writer = await connected(tmp_path)
            writer.write(b"?")
            assert await reader.read() == b"x" * 300_000
            writer.close()

    run(test())


def test_a_client_that_leaves_is_told_to_the_container(tmp_path: Path) -> None:
    left: asyncio.Queue[bytes] = asyncio.Queue()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.put(await reader.read())
        writer.close()

    async def test() -> None:
        async with bridged(tmp_path, waits):
            _, writer = await connected(tmp_path)
            writer.write(b"half a requ")
            await writer.drain()
            writer.close()
            assert await left.get() == b"half a requ"

    run(test())


def test_a_port_that_nobody_listens_on_ends_the_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with bridged(tmp_path, None) as bridge:
            reader, writer = await connected(tmp_path)
            with pytest.raises((ConnectionError, AssertionError)):
                assert await reader.read() != b""
            while bridge.connections:
                await asyncio.sleep(0)
            assert bridge.failed == 1
            assert not await accepts(bridge.port)
            writer.close()

    run(test())


def test_connections_beyond_the_bound_are_answered(tmp_path: Path) -> None:
    async def test() -> None:
        async with bridged(tmp_path, echo, connections_max=1) as bridge:
            first, kept = await connected(tmp_path)
            kept.write(b"a")
            assert await first.readexactly(1) == b"a"
            second, refused = await connected(tmp_path)
            assert (await second.read()).startswith(b"HTTP/1.1 503 ")
            assert bridge.refused == 1
            refused.close()
            kept.close()
            while bridge.connections:
                await asyncio.sleep(0)
            third, again = await connected(tmp_path)
            again.write(b"b")
            assert await third.readexactly(1) == b"b"
            again.close()

    run(test())
