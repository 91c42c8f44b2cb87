"""A model that costs almost nothing: a fixed row for every request, on Unix sockets, raw uvloop and httptools."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httptools
import uvloop

REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: text/csv; charset=utf-8\r\ncontent-length: 19\r\n\r\n0.13370001316070557"


class Upstream(asyncio.Protocol):
    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(REPLY)


async def main(paths: list[str]) -> None:
    loop = asyncio.get_running_loop()
    servers = []  # one that nobody holds is collected, and its socket refuses
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
        servers.append(await loop.create_unix_server(Upstream, path, backlog=4096))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
