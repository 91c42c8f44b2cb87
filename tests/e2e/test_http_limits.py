"""A gateway worker at its bounds, as a process of its own: ten thousand idle connections, bodies of 25 MB both ways."""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyrie.settings import Settings

from .test_gateway_process import Cluster

IDLE = 10_000
BODY_BYTES = 25 * 1_048_576
BUDGET_BYTES = 60 * 1_048_576  # two such bodies, and not three

ECHO = """
import asyncio, sys
from eyrie.http1.handlers import Request, Response, serve
from eyrie.http1.unix import listen_unix

async def handler(request: Request) -> Response:
    return Response(200, [(b"content-type", b"application/octet-stream")], await request.read(30_000_000))

async def main() -> None:
    await serve(handler, listen_unix(sys.argv[1]))
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Bounded:
    """One worker with these settings, and one instance that gives back what it gets."""

    def __init__(self, data: Path, **settings: int) -> None:
        self.cluster = Cluster(data)
        self.cluster.spawn("-c", ECHO, str(data / "box" / "i-1"))
        self.cluster.publish("i-1")
        fd = self.cluster.listener.fileno()
        argv = ("-m", "eyrie.app", "gateway", "--index", "0", "--listen-fd", str(fd))
        self.worker: subprocess.Popen[bytes] = self.cluster.spawn(
            *argv, env=Settings(data=data, drain_ms=1_000, **settings).to_env(), fds=(fd,)
        )
        self.cluster.wait_for(data / "box" / "i-1")
        self.cluster.wait_for(data / "run" / "gateway-0.sock")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.cluster.port), timeout=60)

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes of the worker's memory."""
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{what}:"))) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.worker.pid}/clear_refs").write_text("5")

    def stat(self, name: str) -> int:
        found = self.cluster.stats(0)[name]
        assert isinstance(found, int)
        return found

    def counter(self, name: str) -> int:
        counters = self.cluster.stats(0)["counters"]
        assert isinstance(counters, dict)
        return int(counters.get(name, 0))

    def until(self, name: str, value: int) -> None:
        deadline = time.monotonic() + 60
        while self.stat(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.stat(name)}, not {value}"
            time.sleep(0.02)


@contextlib.contextmanager
def open_files(soft: int) -> Iterator[None]:
    """This process may open so many files; children inherit it."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < soft:
        pytest.skip(f"this machine allows no more than {hard} open files a process")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def reply(sock: socket.socket) -> tuple[int, bytes]:
    """Status and body of one reply."""
    with sock.makefile("rb") as file:
        status = int(file.readline().split(b" ")[1])
        length = 0
        while line := file.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, file.read(length)


def test_ten_thousand_idle_connections_cost_little_and_nobody_else_anything(tmp_path: Path) -> None:
    with open_files(256):  # as a shell may have it; a worker helps itself
        bounded = Bounded(tmp_path, gateway_connections_max=IDLE + 100)
    with contextlib.ExitStack() as stack:
        stack.callback(bounded.cluster.end)
        stack.enter_context(open_files(IDLE + 500))
        before = bounded.memory()
        socks = [stack.enter_context(bounded.connect()) for _ in range(IDLE)]
        bounded.until("connections", IDLE)
        each = (bounded.memory() - before) / IDLE
        print(f"{each:.0f} bytes an idle connection")
        assert each < 8_192, f"{each:.0f} bytes an idle connection"
        for sock in (socks[0], socks[IDLE // 2], socks[-1]):  # also those that were silent so far
            sock.sendall(bounded.cluster.request(b"1,2"))
            assert reply(sock) == (200, b"1,2")
        began = time.monotonic()
        for n in range(50):
            with bounded.connect() as sock:
                sock.sendall(bounded.cluster.request(b"%d" % n))
                assert reply(sock) == (200, b"%d" % n)
        assert time.monotonic() - began < 30
        for sock in socks:
            sock.close()
        bounded.until("connections", 0)


def test_bodies_of_25_mb_go_both_ways_within_their_budget_and_are_refused_beyond_it(tmp_path: Path) -> None:
    bounded = Bounded(tmp_path, bodies_in_flight_bytes_max=BUDGET_BYTES)
    with contextlib.ExitStack() as stack:
        stack.callback(bounded.cluster.end)
        bodies = [bytes([n]) * BODY_BYTES for n in range(2)]
        with bounded.connect() as sock:
            sock.sendall(bounded.cluster.request(b"warm"))
            assert reply(sock) == (200, b"warm")
        bounded.forget_peak()
        before = bounded.memory()
        socks = [stack.enter_context(bounded.connect()) for _ in bodies]
        for sock, body in zip(socks, bodies, strict=True):
            sock.sendall(bounded.cluster.request(body)[:-1])  # all but the last byte: in flight until then
        bounded.until("reserved_bytes", 2 * BODY_BYTES)
        for _ in range(5):
            with bounded.connect() as sock:
                head, _, _ = bounded.cluster.request(bodies[0]).partition(b"\r\n\r\n")
                sock.sendall(head + b"\r\n\r\n" + bodies[0][:100_000])
                status, body = reply(sock)
                assert status == 503, body
                assert b"bodies are in flight" in json.loads(body)["Message"].encode()
        assert bounded.counter("bodies_in_flight_limit") == 5
        for sock, body in zip(socks, bodies, strict=True):
            sock.sendall(body[-1:])
        for sock, body in zip(socks, bodies, strict=True):
            status, got = reply(sock)
            assert (status, hashlib.sha256(got).digest()) == (200, hashlib.sha256(body).digest())
        bounded.until("reserved_bytes", 0)
        grown = bounded.memory("VmHWM") - before
        print(f"{grown / 1e6:.0f} MB for {2 * BODY_BYTES / 1e6:.0f} MB of bodies in flight")
        assert grown < 2.5 * BUDGET_BYTES, f"{grown / 1e6:.0f} MB for bodies of {2 * BODY_BYTES / 1e6:.0f} MB in flight"
        settled = bounded.memory()
        for _ in range(6):
            for sock, body in zip(socks, bodies, strict=True):
                sock.sendall(bounded.cluster.request(body))
                assert reply(sock)[0] == 200
        bounded.until("reserved_bytes", 0)
        deadline = time.monotonic() + 60
        while bounded.memory() - settled >= BODY_BYTES:  # the last of them may be on its way still
            assert time.monotonic() < deadline, "what large bodies took is not given back"
            time.sleep(0.02)


def test_readers_of_large_replies_that_do_not_read_hold_little_and_nobody_up(tmp_path: Path) -> None:
    bounded = Bounded(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(bounded.cluster.end)
        body = b"s" * (8 * 1_048_576)
        before = bounded.memory()
        socks = [stack.enter_context(bounded.connect()) for _ in range(16)]
        for sock in socks:
            sock.sendall(bounded.cluster.request(body))
        bounded.until("active", 16)
        bounded.until("reserved_bytes", 16 * len(body))
        fast = bounded.connect()
        with fast:
            fast.sendall(bounded.cluster.request(b"quick"))
            assert reply(fast) == (200, b"quick")
        grown = bounded.memory() - before
        assert grown < 2.5 * 16 * len(body)
        for sock in socks:
            sock.close()
        bounded.until("active", 0)
        bounded.until("reserved_bytes", 0)
