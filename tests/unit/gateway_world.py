"""A gateway worker in this process, on real sockets, with instances that behave as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, ShadowRoute, Target, VariantRoute
from eyrie.gateway.app import VARYING, Gateway, limits_of
from eyrie.http1.limits import Limits
from eyrie.http1.server import Server, listen
from eyrie.http1.sweep import Sweep
from eyrie.http1.unix import listen_unix
from eyrie.settings import Settings

ACCESS, SECRET, ACCOUNT, REGION = "AKIDTEST", "a-secret", "123456789012", "us-east-1"

# of every variant alike
VARIANT_FIELDS = ("mode", "execution", "containers", "model_cache", "capture", "sticky", "serverless")

Behaviour = Callable[["Call"], Awaitable[None]]


@dataclass
class Reply:
    """A reply as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Call:
    """A request as an instance sees it."""

    instance: FakeInstance
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    async def answer(self, body: bytes = b"ok", status: int = 200, lines: str = "content-type: text/csv\r\n") -> None:
        self.writer.write(f"HTTP/1.1 {status} X\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)
        await self.writer.drain()


async def answering(call: Call) -> None:
    await call.answer(call.instance.instance_id.encode())


async def hanging(call: Call) -> None:
    await asyncio.Event().wait()


@dataclass
class FakeInstance:
    """A container on a Unix socket; `behave` can be exchanged at any time."""

    instance_id: str
    folder: Path
    behave: Behaviour = answering
    ping_status: int | None = 200  # None: no answer
    calls: list[Call] = field(default_factory=list)
    pings: int = 0
    connections: int = 0
    left: int = 0  # connections that the gateway ended
    worker: int = 0  # its number, where the instance has several
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def socket(self) -> str:
        return str(self.folder / f"{self.instance_id}.s") + (f".{self.worker}" if self.worker else "")

    async def start(self) -> FakeInstance:
        self._server = await asyncio.start_unix_server(self._connected, sock=listen_unix(self.socket))
        return self

    async def kill(self) -> None:
        """As kill -9 does it: the listener and every connection end at once."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._call(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left += 1
        except asyncio.CancelledError:
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _call(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        call = Call(self, method, path, headers, body, writer)
        if path == "/ping":
            self.pings += 1
            if self.ping_status is None:
                await asyncio.Event().wait()
            await call.answer(b"", self.ping_status or 200)
            return
        self.calls.append(call)
        watch = asyncio.ensure_future(reader.read(1))  # a gateway that cancels hangs up
        work = asyncio.ensure_future(self.behave(call))
        await asyncio.wait((watch, work), return_when=asyncio.FIRST_COMPLETED)
        if watch.done() and not work.done():
            work.cancel()
            raise ConnectionResetError
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await work


class World:
    """One worker, its data folder, its instances and a client."""

    def __init__(self, data: Path, **settings: Any) -> None:
        self.settings = Settings(data=data, **{"hold_ms": 2_000, "silence_ms": 300, "ping_timeout_ms": 300, **settings})
        self.data = data
        self.generation = 0
        self.instances: dict[str, FakeInstance] = {}
        self.gateway: Gateway
        self.server: Server
        self.port = 0

    async def instance(self, instance_id: str, behave: Behaviour = answering, worker: int = 0) -> FakeInstance:
        found = await FakeInstance(instance_id, self.data / "box", behave, worker=worker).start()
        self.instances[instance_id + (f".{worker}" if worker else "")] = found
        return found

    def publish(
        self, variants: dict[str, tuple[float, list[FakeInstance]]], name: str = "e", read: bool = True, **more: Any
    ) -> None:
        """Write an endpoint's table as control does."""
        self.generation += 1
        strategy = more.pop("strategy", RoutingStrategy.LEAST_OUTSTANDING_REQUESTS)
        workers = more.pop("workers", 1)  # of each instance
        kept = {name: more.pop(name) for name in VARIANT_FIELDS if name in more}
        routes = tuple(
            VariantRoute(
                variant,
                weight,
                strategy,
                "primary",
                _targets(instances, workers),
                **kept,
            )
            for variant, (weight, instances) in variants.items()
        )
        key = EndpointKey(ACCOUNT, REGION, name)
        shadows = tuple(
            ShadowRoute(VariantRoute(shadow, 0.0, strategy, "primary", _targets(instances, workers)), source, share)
            for shadow, (source, share, instances) in more.pop("shadows", {}).items()
        )
        table = EndpointRoute(key, more.pop("generation", self.generation), routes, shadows=shadows, **more)
        path = self.data / "routes" / f"{key.slug}.json"
        path.with_suffix(".new").write_bytes(msgspec.json.encode(table))
        os.replace(path.with_suffix(".new"), path)
        if read:
            self.gateway.book.read([key.slug])

    def sign(
        self, body: bytes, headers: dict[str, str], path: str, method: str = "POST", secret: str = SECRET
    ) -> bytes:
        """The bytes of a signed request."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = AWSRequest(method, url, headers={"Content-Type": "text/csv", **headers}, data=body)
        SigV4Auth(Credentials(ACCESS, secret), "sagemaker", REGION).add_auth(request)
        lines = {"Host": f"127.0.0.1:{self.port}", **dict(request.headers.items()), "Content-Length": str(len(body))}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        return head.encode("latin-1") + b"\r\n" + body

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, data: bytes) -> Reply:
        """Send bytes on a new connection and read one reply."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            return await read_reply(reader)
        except asyncio.CancelledError:
            leave(writer)
            raise
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def invoke(self, body: bytes = b"1,2", name: str = "e", action: str = "invocations", **headers: str) -> Reply:
        """InvokeEndpoint, once; header names with _ for -."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.send(self.sign(body, named, f"/endpoints/{name}/{action}"))

    def counter(self, name: str) -> int:
        return self.gateway.meter.counters.get(name, 0)


def _targets(instances: list[FakeInstance], workers: int) -> tuple[Target, ...]:
    return tuple(Target(i.instance_id, i.socket, "a", workers) for i in instances)


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """One reply from a connection, interim ones left out."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    status = int(first.split(" ")[1])
    if status == 100:
        return await read_reply(reader)
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(status, headers, body)


def leave(writer: asyncio.StreamWriter) -> None:
    """Reset a client's connection: an ordinary close looks to the server like a client that ends its sending."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def world(limits: Limits | None = None, **settings: Any) -> AsyncIterator[World]:
    """A running worker on a fresh data folder."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for name in ("run", "routes", "box"):
            (data / name).mkdir()
        entry = {"access_key_id": ACCESS, "secret_access_key": SECRET, "account": ACCOUNT}
        (data / "credentials.json").write_text(json.dumps([entry]))
        made = World(data, **settings)
        loop = asyncio.get_running_loop()
        made.gateway = Gateway(made.settings, "gateway-0", loop, Sweep(loop, period_ms=50))
        made.gateway.start()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        made.port = listener.getsockname()[1]
        bounds = limits or limits_of(made.settings)
        made.server = await listen(made.gateway, listener, bounds, made.gateway.sweep, VARYING)
        try:
            yield made
        finally:
            await made.server.close(1_000)
            made.gateway.stop()
            for instance in made.instances.values():
                await instance.kill()
            await asyncio.sleep(0)
