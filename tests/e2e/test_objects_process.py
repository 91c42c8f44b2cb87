"""The objects process itself: killed in the middle, started again; its memory while large objects stream through."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from eyrie.http1.unix import connect_unix
from eyrie.settings import Settings

from .objects_world import KEYS, ROOT, write_credentials

MB = 1 << 20


class Process:
    """`python -m eyrie.app objects` on a data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.socket = data / "run" / "objects.sock"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, **Settings(data=self.data).to_env()}
        self._child = subprocess.Popen([sys.executable, "-m", "eyrie.app", "objects"], env=environment)
        until(self.accepts)

    def accepts(self) -> bool:
        try:
            connect_unix(str(self.socket)).close()
        except OSError:
            return False
        return True

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self._child is not None
        self._child.send_signal(number)
        code = self._child.wait(60)
        self._child = None
        return code

    def stop(self) -> None:
        if self._child is not None:
            self.kill(signal.SIGTERM)

    @property
    def peak_mb(self) -> float:
        assert self._child is not None
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def blobs(self) -> list[Path]:
        return [path for path in (self.data / "blobs").rglob("*") if path.is_file()]


def until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


class Relay:
    """Accepts TCP and joins each connection to the process's Unix socket."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = connect_unix(str(self._process.socket))
            except OSError:
                client.close()
                continue
            server.setblocking(True)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(MB):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    write_credentials(tmp_path)
    for folder in ("run", "logs"):  # as the supervisor does
        (tmp_path / folder).mkdir()
    made = Process(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def s3(process: Process) -> Iterator[Any]:
    relay = Relay(process)
    key_id, secret = KEYS[ROOT]
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{relay.port}",
        region_name="us-east-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.create_bucket(Bucket="bkt")
    yield client
    client.close()
    relay.close()


class Stalling:
    """A body of 20 MB that stops after 10 MB until it is told to go on."""

    def __init__(self) -> None:
        self.halfway, self.go_on = threading.Event(), threading.Event()
        self._at = 0

    def __len__(self) -> int:
        return 20 * MB

    def read(self, size: int = -1) -> bytes:
        if self._at >= 10 * MB:
            self.halfway.set()
            self.go_on.wait(120)
        size = min(MB if size < 0 else size, 20 * MB - self._at)
        self._at += size
        return b"n" * size


def test_killed_during_a_put_it_shows_the_old_object_and_sweeps_the_rest(process: Process, s3: Any) -> None:
    s3.put_object(Bucket="bkt", Key="k", Body=b"old")
    bodies: list[Stalling] = []
    failures: list[Exception] = []

    def put(key: str, body: Stalling) -> None:
        # signed without the body's hash, so that nothing reads it before it is sent
        url = s3.generate_presigned_url("put_object", Params={"Bucket": "bkt", "Key": key})
        import urllib.request

        request = urllib.request.Request(
            url, data=body, method="PUT", headers={"Content-Type": "", "Content-Length": str(20 * MB)}
        )
        try:
            urllib.request.urlopen(request).close()
        except OSError as error:
            failures.append(error)

    threads = []
    for key in ("k", "new"):
        bodies.append(Stalling())
        threads.append(threading.Thread(target=put, args=(key, bodies[-1])))
        threads[-1].start()
    for body in bodies:
        assert body.halfway.wait(60)
    until(lambda: len(process.blobs()) == 3)  # the old one, and two being written
    process.kill()
    for body in bodies:
        body.go_on.set()
    for thread in threads:
        thread.join(120)
    assert len(failures) == 2
    process.start()
    assert s3.get_object(Bucket="bkt", Key="k")["Body"].read() == b"old"
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="bkt", Key="new")
    until(lambda: len(process.blobs()) == 1)


def test_killed_again_and_again_it_loses_nothing_it_answered_for(process: Process, s3: Any) -> None:
    answered: dict[str, bytes] = {}
    for round_ in range(3):
        stop = threading.Event()

        def write(worker: int, round_: int = round_, stop: threading.Event = stop) -> None:
            number = 0
            while not stop.is_set():
                key, body = f"{worker}-{number % 20}", f"{round_},{number};".encode() * 50
                with contextlib.suppress(ClientError, BotoCoreError):
                    s3.put_object(Bucket="bkt", Key=key, Body=body)
                    answered[key] = body
                number += 1

        before = len(answered)
        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
        for thread in threads:
            thread.start()
        until(lambda before=before: len(answered) >= before + 15 or len(answered) == 60)  # type: ignore[misc]
        # An overwrite may be durable whose answer was never sent, so each worker ends on its own terms first.
        process.kill()
        stop.set()
        for thread in threads:
            thread.join(120)
        process.start()
        for key, body in answered.items():
            found = s3.get_object(Bucket="bkt", Key=key)["Body"].read()
            assert found == found[: len(found) // 50] * 50
            assert _when(found) >= _when(body), (key, found, body)  # what was answered, or a later one that was not
            answered[key] = found
    listed = s3.list_objects_v2(Bucket="bkt")["KeyCount"]
    assert listed >= len(answered)
    until(lambda: len(process.blobs()) == listed)


def _when(body: bytes) -> tuple[int, int]:
    round_, number = body.partition(b";")[0].split(b",")
    return int(round_), int(number)


def test_sigterm_finishes_what_was_begun(process: Process, s3: Any) -> None:
    s3.put_object(Bucket="bkt", Key="big", Body=b"x" * (30 * MB))
    body = s3.get_object(Bucket="bkt", Key="big")["Body"]
    first = body.read(MB)
    stopping = threading.Thread(target=process.stop)
    stopping.start()
    until(lambda: not process.accepts())
    assert len(first + body.read()) == 30 * MB
    stopping.join(120)
    assert not process.socket.exists()
    process.start()


def test_large_objects_stream_in_constant_memory(process: Process, s3: Any, tmp_path: Path) -> None:
    def upload_and_download(source: Path) -> None:
        into = tmp_path / "copy"
        s3.upload_file(str(source), "bkt", "file")
        with source.open("rb") as file:
            s3.put_object(Bucket="bkt", Key="single", Body=file)
        for key in ("file", "single"):
            s3.download_file("bkt", key, str(into))
            assert same(source, into)

    sizes = {}
    for megabytes in (10, 100):
        source = tmp_path / f"{megabytes}"
        with source.open("wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(MB))
        upload_and_download(source)
        sizes[megabytes] = process.peak_mb
    assert sizes[100] < sizes[10] + 40, sizes


def same(one: Path, other: Path) -> bool:
    with one.open("rb") as a, other.open("rb") as b:
        return all(x == y for x, y in zip(_pieces(a), _pieces(b), strict=True))


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(MB):
        yield piece
