"""Requests to a container of somebody's own beside our models: what it answers, and what it does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from hosting_world import Recorder

from eyrie.modelserver.loopback import LoopbackServable, ping

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def heard(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One request's head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head, await reader.readexactly(length)


async def asked(serve: Serve, count: int = 1) -> list[Recorder]:
    """`count` requests, one after the other, to a container that serves each connection so."""
    loop = asyncio.get_running_loop()
    writers: list[asyncio.StreamWriter] = []

    async def remembered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(remembered, "127.0.0.1", 0)
    servable = LoopbackServable("mine", server.sockets[0].getsockname()[1], loop)
    clients = []
    for _ in range(count):
        client = Recorder("/invocations", content_type="text/csv", connection="close", x_more="1")
        servable.invoke(client, b"1,2", client.fields)
        async with asyncio.timeout(30):
            while not client.replies:
                await asyncio.sleep(0.001)
        clients.append(client)
    server.close()
    servable._pool.close()
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return clients


def answering(answer: bytes, then_close: bool = False) -> tuple[Serve, list[tuple[bytes, bytes]]]:
    requests: list[tuple[bytes, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                requests.append(await heard(reader))
                writer.write(answer)
                if then_close:
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    return serve, requests


def test_the_request_goes_on_as_it_is_and_the_answer_comes_back_over_a_kept_connection() -> None:
    answer = b"HTTP/1.1 422 No\r\nContent-Type: a/b\r\nX-Own: y\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n!"
    serve, requests = answering(answer)
    clients = asyncio.run(asked(serve, 2))
    assert [client.replies for client in clients] == [[(422, b"content-type: a/b\r\nx-own: y\r\n", b"!")]] * 2
    (head, body), _ = requests
    assert body == b"1,2"
    assert head.startswith(b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n")
    assert b"x-more: 1\r\n" in head
    assert b"connection" not in head


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"what?\r\n\r\n"])
def test_no_answer_is_an_error_that_names_it(answer: bytes) -> None:
    (client,) = asyncio.run(asked(answering(answer, then_close=True)[0]))
    status, _, text = client.replies[0]
    assert status == 502
    assert text.startswith(b"the container mine gave no answer")


def test_nobody_listens() -> None:
    async def ask() -> Recorder:
        client = Recorder("/invocations")
        LoopbackServable("mine", 1, asyncio.get_running_loop()).invoke(client, b"x", client.fields)
        async with asyncio.timeout(30):
            while not client.replies:
                await asyncio.sleep(0.001)
        return client

    assert asyncio.run(ask()).replies[0][0] == 502
    assert not asyncio.run(ping(1, 1.0))


@pytest.mark.parametrize(("line", "well"), [(b"HTTP/1.1 200 OK", True), (b"HTTP/1.1 503 No", False), (b"", False)])
def test_a_ping_is_well_when_it_is_200(line: bytes, well: bool) -> None:
    async def ask() -> bool:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(line + b"\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        found = await ping(server.sockets[0].getsockname()[1], 2.0)
        server.close()
        return found

    assert asyncio.run(ask()) is well
