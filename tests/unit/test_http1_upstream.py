"""Connections to an upstream: what one client did to its own must not reach the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

from eyrie.http1.handlers import Request, Response, serving
from eyrie.http1.unix import listen_unix
from eyrie.http1.upstream import Channel, Failure, Pool

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Slow:
    """A client that is behind with every piece, and never catches up."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.got = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def reply_whole(self, *_: object) -> None:
        raise AssertionError("raw replies come in pieces")

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert status == 200

    def reply_data(self, piece: bytes) -> None:
        self.got += piece
        assert self.channel is not None
        self.channel.pause_reading()

    def reply_end(self) -> None:
        self.channel = None  # so nobody will resume it
        self.done.set_result(None)

    def reply_failed(self, failure: Failure, began: bool) -> None:
        self.done.set_exception(ConnectionError(failure.name))

    def writable(self, writable: bool) -> None:
        """It sends nothing."""


def test_a_connection_whose_client_was_slow_to_the_end_serves_the_next(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, [], b"hello")

    async def main() -> None:
        path = str(tmp_path / "s")
        async with serving(handler, listen_unix(path)):
            pool = Pool(asyncio.get_running_loop(), path)
            for _ in range(3):
                sink = Slow()
                pool.send(sink, HEAD, raw=True)
                await asyncio.wait_for(sink.done, 30)
                assert sink.got.endswith(b"\r\n\r\nhello")
                assert len(pool.idle) == 1
            pool.close()

    asyncio.run(main())
