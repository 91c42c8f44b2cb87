"""A real objects server on a loopback port (or a Unix socket) in a thread of its own, and boto3 clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from eyrie.http1.unix import listen_unix
from eyrie.objects.app import objects_server
from eyrie.objects.store import ObjectStore
from eyrie.settings import Settings

T = TypeVar("T")

ROOT, OTHER = "123456789012", "210987654321"
KEYS = {ROOT: ("AKIAROOT", "root-secret"), OTHER: ("AKIAOTHER", "other-secret")}


@dataclass
class World:
    data: Path
    port: int  # 0 on a Unix socket
    store: ObjectStore
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, account: str = ROOT, region: str = "us-east-1", url: str | None = None, **config: Any) -> Any:
        key_id, secret = KEYS[account]
        return boto3.client(
            "s3",
            endpoint_url=url or self.url,
            region_name=region,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}, **config),
        )

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(30)


def write_credentials(data: Path) -> None:
    entries = [
        {"access_key_id": key_id, "secret_access_key": secret, "account": account}
        for account, (key_id, secret) in KEYS.items()
    ]
    (data / "credentials.json").write_text(json.dumps(entries))


@contextlib.contextmanager
def serving(data: Path, *, unix: bool = False, auth: bool = True) -> Iterator[World]:
    """The S3 API over `data`, on run/objects.sock or on a free port."""
    write_credentials(data)
    if unix:
        (data / "run").mkdir(exist_ok=True)
        listener = listen_unix(str(data / "run" / "objects.sock"))
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
    port = 0 if unix else listener.getsockname()[1]
    made: list[World] = []
    failed: list[BaseException] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        async with objects_server(Settings(data=data, auth=auth), listener) as store:
            made.append(World(data, port, store, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(60)
    try:
        if failed:
            raise failed[0]
        yield made[0]
    finally:
        if made:
            made[0].loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        listener.close()
    if failed:
        raise failed[0]
