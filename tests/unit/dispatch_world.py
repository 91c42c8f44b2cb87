"""The dispatch process's parts in this one, with an object store and instances that are played by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from eyrie.dispatch.app import Dispatch
from eyrie.domain.async_inference import AsyncRoute
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, Target, VariantRoute
from eyrie.http1.handlers import Request, Response, serve
from eyrie.http1.server import Server
from eyrie.http1.unix import listen_unix
from eyrie.settings import Settings
from eyrie.wire.credentials import Identity

KEY = EndpointKey("123456789012", "us-east-1", "birds")
SIGNER = Identity("123456789012", KEY.account, KEY.region, "sagemaker")
ROUTE = AsyncRoute("s3://b/out", "s3://b/bad", concurrency=4)
Handler = Callable[[Request], Awaitable[Response]]


class Objects:
    """A bucket `b`; `refuses` holds keys' prefixes that cannot be put, `away` answers 503 to everything."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, bytes]] = {}
        self.puts: list[str] = []
        self.refuses = ""
        self.away = False

    async def handle(self, request: Request) -> Response:
        key = unquote(request.path.decode()).removeprefix("/b/")
        if self.away:
            await request.read(1 << 24)
            return Response(503, [], b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")
        if request.method == b"PUT":
            body = await request.read(1 << 24)
            if self.refuses and key.startswith(self.refuses):
                return Response(404, [], b"<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>")
            self.puts.append(key)
            self.kept[key] = ((request.header(b"content-type") or b"").decode(), body)
            return Response(200)
        if key not in self.kept:
            return Response(404, [], b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")
        kind, body = self.kept[key]
        return Response(200, [(b"content-type", kind.encode())], body)


class Instance:
    """One instance: `answers` says what it does with a request."""

    def __init__(self, name: str, socket: Path, answers: Handler) -> None:
        self.name, self.socket, self.asked = name, socket, 0
        self._answers = answers
        self._server: Server | None = None

    async def open(self) -> None:
        self._server = await serve(self._handle, listen_unix(str(self.socket)))

    async def die(self) -> None:
        """As a SIGKILL would: every connection ends, nobody listens."""
        server, self._server = self._server, None
        if server is not None:
            for connection in tuple(server.connections):
                connection.abort()
            await server.close(0)
            self.socket.unlink(missing_ok=True)

    async def _handle(self, request: Request) -> Response:
        self.asked += 1
        return await self._answers(request)


class World:
    """One data directory, and what runs on it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.settings = Settings(data=data, auth=False)
        self.objects = Objects()
        self.instances: list[Instance] = []
        self.generation = 0
        self.dispatch: Dispatch
        self._works: list[asyncio.Task[None]] = []
        self._falls: list[asyncio.Task[None]] = []

    async def instance(self, answers: Handler) -> Instance:
        """One more instance, which listens."""
        name = f"i-{len(self.instances)}"
        made = Instance(name, self.data / name, answers)
        await made.open()
        self.instances.append(made)
        return made

    def publish(self, *instances: Instance, route: AsyncRoute | None = ROUTE) -> None:
        """A new table of the endpoint."""
        self.generation += 1
        targets = tuple(Target(i.name, str(i.socket), "a") for i in instances)
        variant = VariantRoute("v", 1.0, RoutingStrategy.RANDOM, "primary", targets)
        table = EndpointRoute(KEY, self.generation, (variant,), asynchronous=route)
        (self.data / "routes" / f"{KEY.slug}.json").write_bytes(msgspec.json.encode(table))
        if hasattr(self, "dispatch"):
            self.dispatch.tables.read([KEY.slug])

    def start(self) -> None:
        """The process begins."""
        self.dispatch = Dispatch(self.settings)
        self._works = self.dispatch.start()

    async def stop(self) -> None:
        """It ends at once, whatever is under way, as by a kill: what is not in its file is lost."""
        await self.dispatch.close(self._works, 0.0)

    def fall(self, *instances: Instance) -> None:
        """These die, and come back; by a task of its own, since who asks for it may die of it."""
        self._falls.append(asyncio.get_running_loop().create_task(_fall(instances)))

    async def ask(self, body: bytes | None = b"x", **params: Any) -> dict[str, Any]:
        """InvokeEndpointAsync."""
        given = {"EndpointName": KEY.name, **({} if body is None else {"Body": body}), **params}
        return await self.dispatch.acceptor.accept(SIGNER, "host", given)

    async def object(self, url: str) -> tuple[str, bytes]:
        """An object, once it is there."""
        key = url.removeprefix("s3://b/")
        await until(lambda: key in self.objects.kept)
        return self.objects.kept[key]


async def _fall(instances: tuple[Instance, ...]) -> None:
    for instance in instances:
        await instance.die()
        await instance.open()


async def until(seen: Callable[[], Any], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not seen():
            await asyncio.sleep(0.005)


async def echo(request: Request) -> Response:
    """Answers with what it was asked."""
    return Response(200, [(b"content-type", b"text/echo")], await request.read(1 << 24))


@contextlib.asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world with a running dispatch and no instance."""
    for folder in ("run", "routes"):
        (tmp_path / folder).mkdir()
    made = World(tmp_path)
    objects = await serve(made.objects.handle, listen_unix(str(tmp_path / "run" / "objects.sock")))
    made.publish()
    made.start()
    try:
        yield made
    finally:
        await made.stop()
        for instance in made.instances:
            await instance.die()
        await objects.close(0)
