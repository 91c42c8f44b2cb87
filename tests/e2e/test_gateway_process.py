"""Gateway workers as processes on one listener: instances stopped and killed under load, a worker told to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, Target, VariantRoute
from eyrie.settings import Settings

INSTANCE = """
import asyncio, os, sys
from eyrie.http1.handlers import Request, Response, serve
from eyrie.http1.unix import listen_unix

async def handler(request: Request) -> Response:
    body = await request.read(1_000_000)
    while body == b"slow" and not os.path.exists(sys.argv[2] + ".go"):
        await asyncio.sleep(0.01)
    return Response(200, [(b"content-type", b"text/csv")], sys.argv[1].encode())

async def main() -> None:
    await serve(handler, listen_unix(sys.argv[2]))
    await asyncio.Event().wait()

asyncio.run(main())
"""
KEY = EndpointKey("123456789012", "us-east-1", "e")


class Cluster:
    """Workers and instances in one data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        for name in ("run", "routes", "logs", "box"):
            (data / name).mkdir()
        entry = {"access_key_id": "AKIDTEST", "secret_access_key": "secret", "account": KEY.account}
        (data / "credentials.json").write_text(json.dumps([entry]))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.children: list[subprocess.Popen[bytes]] = []

    def spawn(
        self, *argv: str, env: dict[str, str] | None = None, fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-P", *argv], env={**os.environ, **(env or {})}, pass_fds=fds)
        self.children.append(child)
        return child

    def instance(self, name: str) -> subprocess.Popen[bytes]:
        return self.spawn("-c", INSTANCE, name, str(self.data / "box" / name))

    def publish(self, *names: str) -> None:
        least = RoutingStrategy.LEAST_OUTSTANDING_REQUESTS
        targets = tuple(Target(name, str(self.data / "box" / name), "a") for name in names)
        table = EndpointRoute(KEY, time.time_ns(), (VariantRoute("v", 1.0, least, "primary", targets),))
        path = self.data / "routes" / f"{KEY.slug}.json"
        path.with_suffix(".new").write_bytes(msgspec.json.encode(table))
        os.replace(path.with_suffix(".new"), path)

    def worker(self, index: int) -> subprocess.Popen[bytes]:
        fd = self.listener.fileno()
        argv = ("-m", "eyrie.app", "gateway", "--index", str(index), "--listen-fd", str(fd))
        return self.spawn(*argv, env=Settings(data=self.data, drain_ms=5_000).to_env(), fds=(fd,))

    def wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline, f"{path} did not appear"
            time.sleep(0.02)

    def stats(self, index: int) -> dict[str, object]:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(60)
            line.connect(str(self.data / "run" / f"gateway-{index}.sock"))
            line.sendall(b"stats\n")
            with line.makefile("rb") as answer:
                return dict(json.loads(answer.readline()))

    def request(self, body: bytes) -> bytes:
        path = "/endpoints/e/invocations"
        request = AWSRequest("POST", f"http://127.0.0.1:{self.port}{path}", data=body)
        SigV4Auth(Credentials("AKIDTEST", "secret"), "sagemaker", "us-east-1").add_auth(request)
        lines = {"Host": f"127.0.0.1:{self.port}", **dict(request.headers.items()), "Content-Length": str(len(body))}
        return (
            f"POST {path} HTTP/1.1\r\n{''.join(f'{k}: {v}' + chr(13) + chr(10) for k, v in lines.items())}\r\n".encode()
            + body
        )

    def end(self) -> None:
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
                child.kill()
            child.wait()
        self.listener.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    names = ("i-1", "i-2", "i-3")
    for name in names:
        made.instance(name)
    made.publish(*names)
    for index in range(2):
        made.worker(index)
    for name in names:
        made.wait_for(tmp_path / "box" / name)
    for index in range(2):
        made.wait_for(tmp_path / "run" / f"gateway-{index}.sock")
    yield made
    made.end()


class Load:
    """Clients that invoke without pause, each on a kept connection; every failure on the wire is noted."""

    def __init__(self, cluster: Cluster, clients: int = 8) -> None:
        self.cluster = cluster
        self.answered = 0
        self.failed: list[str] = []
        self.last: dict[str, float] = {}
        self.slowest_s = 0.0
        self._clients = clients
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.ensure_future(self._client(n)) for n in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.cluster.port)
        request = self.cluster.request(b"%d" % number)
        while not self._stop:
            began = time.monotonic()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            body = (await reader.readexactly(length)).decode()
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if head.startswith("HTTP/1.1 200 "):
                self.answered += 1
                self.last[body] = time.monotonic()
            else:
                self.failed.append(head.split("\r\n")[0] + " " + body)
            await asyncio.sleep(0.005)
        writer.close()
        await writer.wait_closed()


def test_instances_stopped_and_killed_under_load_cost_no_request(cluster: Cluster) -> None:
    async def main() -> tuple[Load, float]:
        async with Load(cluster) as load:
            await until(lambda: load.answered > 300)
            stopped = time.monotonic()
            cluster.children[0].send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.3)
            await until(lambda: load.answered > 1_500 and time.monotonic() - stopped > 4.0)
            cluster.children[1].kill()
            answered = load.answered
            await until(lambda: load.answered > answered + 500)
            cluster.children[0].send_signal(signal.SIGCONT)
            back = time.monotonic()
            await until(lambda: load.last["i-1"] > back)
        return load, back - stopped

    load, stopped_s = asyncio.run(main())
    assert load.failed == []
    assert load.slowest_s < stopped_s  # the requests on the stopped instance did not wait for it: they moved


def test_a_worker_that_is_told_to_end_answers_what_it_has_and_the_other_takes_over(cluster: Cluster) -> None:
    async def slow() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        writer.write(cluster.request(b"slow"))
        reply = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return reply

    async def main() -> None:
        waiting = [asyncio.ensure_future(slow()) for _ in range(8)]
        await until(lambda: sum(int(str(cluster.stats(n)["active"])) for n in range(2)) == 8)
        cluster.children[3].terminate()
        for name in ("i-1", "i-2", "i-3"):
            (cluster.data / "box" / f"{name}.go").touch()
        replies = [await reply for reply in waiting]
        assert all(reply.startswith(b"HTTP/1.1 200 ") for reply in replies)
        assert await asyncio.to_thread(cluster.children[3].wait, 60) == 0
        assert not (cluster.data / "run" / "gateway-0.sock").exists()
        assert (await slow()).startswith(b"HTTP/1.1 200 ")

    asyncio.run(main())


async def until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
