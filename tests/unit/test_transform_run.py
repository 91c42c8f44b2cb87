"""Parts of a transform's run: many requests in one message, an output that is taken up again, a stream that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyrie.adapters.s3_client import S3Refused, SigningKey
from eyrie.decide import transform_plan
from eyrie.decide.transform_split import splitter
from eyrie.domain.transform import Assemble, InputObject, Mark, Split, TransformSpec
from eyrie.modelserver import bulk
from eyrie.modelserver.effort import Effort
from eyrie.transform import sink as sinks
from eyrie.transform import source
from eyrie.transform.bucket import BucketError, Door
from eyrie.transform.results import written
from eyrie.transform.sink import Restart, Sink
from eyrie.transform.wire import Reply


# ----------------------------------------------------------------------------------------------------------- in a batch
class Client:
    alive = True
    status, body = 0, b""

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        self.status, self.body = status, body


class Echo:
    """Answers at once, later, in pieces, or not well."""

    parallel, busy = 1, False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.most = self._now = 0

    def invoke(self, replier: Any, body: bytes, fields: Any) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        number = int(body)
        if number % 3 == 0:
            self._answer(replier, body)
        else:
            self._loop.call_soon(self._answer, replier, body)

    def _answer(self, replier: Any, body: bytes) -> None:
        self._now -= 1
        if int(body) % 2:
            replier.start(201, b"", None)
            replier.write(b"<" + body)
            replier.write(b">")
            replier.finish()
        else:
            replier.reply(200, b"", b"(" + body + b")")


def test_many_requests_in_one_message_are_answered_in_order() -> None:
    async def ask(count: int) -> tuple[Client, Echo]:
        loop = asyncio.get_running_loop()
        client, echo = Client(), Echo(loop)
        bodies = [str(number).encode() for number in range(count)]
        message = b"".join(struct.pack("<I", len(body)) + body for body in bodies)
        bulk.answer(echo, loop, Effort(), client, message, {b"content-type": b"text/csv"})  # type: ignore[arg-type]
        while not client.status:
            await asyncio.sleep(0)
        for broken in (b"", b"\x05\0\0\0abc", b"\x01"):
            refused = Client()
            bulk.answer(echo, loop, Effort(), refused, broken, {})  # type: ignore[arg-type]
            assert refused.status == 400
        return client, echo

    client, echo = asyncio.run(ask(2_000))
    at, found = 0, []
    while at < len(client.body):
        status, size = struct.unpack_from("<HI", client.body, at)
        found.append((status, client.body[at + 6 : at + 6 + size]))
        at += 6 + size
    assert found == [(201, b"<%d>" % n) if n % 2 else (200, b"(%d)" % n) for n in range(2_000)]
    assert echo.most <= bulk.WINDOW


@pytest.mark.parametrize(
    ("text", "answer", "records"),
    [(b"1\n2\n", b"a\nb\n", 2), (b"1\n2\n", b"a\nb", 2), (b"1\n\n2\n", b"a\nb\n", 2), (b"1\n\r\n2", b"a,b", 2)],
)
def test_records_are_counted_without_the_blank_ones(text: bytes, answer: bytes, records: int) -> None:
    spec = TransformSpec("s3://b/in", "s3://b/out", split=Split.LINE, assemble=Assemble.LINE)
    cut = splitter(Split.LINE, 100, single=False)
    (payload,) = [*cut.feed(text), *cut.finish()]
    found = written(spec, None, payload, Reply(200, answer), 0, lambda bodies: [])
    assert (found.records, found.line, found.end) == (records, payload.lines, len(text))


# ------------------------------------------------------------------------------------------------------------ an output
@dataclass
class Bucket:
    """What a sink uses of the S3 API."""

    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def call(self, work: Any) -> Any:
        return work(self)

    def put_bytes(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        self.objects[key] = body

    def begin_upload(self, bucket: str, key: str, content_type: str) -> str:
        self.uploads[f"u{len(self.uploads)}"] = {}
        return f"u{len(self.uploads) - 1}"

    def put_part(self, bucket: str, key: str, upload_id: str, number: int, body: bytes) -> str:
        if upload_id not in self.uploads:
            raise S3Refused("NoSuchUpload", "gone")
        self.uploads[upload_id][number] = body
        return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'

    def complete_upload(self, bucket: str, key: str, upload_id: str, etags: list[str]) -> None:
        if upload_id not in self.uploads:
            raise S3Refused("NoSuchUpload", "gone")
        parts = self.uploads.pop(upload_id)
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))
        sums = b"".join(hashlib.md5(parts[n], usedforsecurity=False).digest() for n in sorted(parts))
        self.etags[key] = f'"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(parts)}"'

    def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        self.uploads.pop(upload_id, None)

    def head(self, bucket: str, key: str) -> tuple[int, str]:
        if key not in self.etags:
            raise S3Refused("404", "no")
        return len(self.objects[key]), self.etags[key]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(st.integers(0, 25), max_size=14),
    marks=st.sets(st.integers(0, 14)),
    deaths=st.lists(st.integers(0, 15), max_size=4),
    twice=st.booleans(),
)
def test_an_output_is_the_same_however_often_its_run_dies(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    writes: list[int],
    marks: set[int],
    deaths: list[int],
    twice: bool,
) -> None:
    monkeypatch.setattr(sinks, "part_bytes", lambda number: 10 + number % 3)
    folder, bucket = tmp_path_factory.mktemp("sink"), Bucket()
    pieces = [bytes([65 + number]) * size for number, size in enumerate(writes)]
    mark, at = Mark(), 0  # what is on disk: a mark, and how many pieces are before it
    for death in [*(death for death in deaths if death < len(pieces)), 99]:
        sink = Sink(bucket, "b", "k", "text/csv", folder, "out")  # type: ignore[arg-type]
        sink.open(mark)
        for number in range(at, len(pieces)):
            if number == death:
                break
            sink.write(pieces[number])
            if number in marks:
                mark, at = sink.noted(mark), number + 1
                sink.tidy()
        if death < len(pieces):
            sink.close()
            continue
        mark, at = sink.noted(mark), len(pieces)
        sink.finish()
        if twice:  # it dies before it could say that it is done
            sink.close()
            again = Sink(bucket, "b", "k", "text/csv", folder, "out")  # type: ignore[arg-type]
            again.open(mark)
            again.finish()
            again.remove()
        sink.remove()
    assert bucket.objects == {"k": b"".join(pieces)}
    assert list(folder.iterdir()) == [] or len(deaths) > 0


def test_an_upload_that_is_gone_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "part_bytes", lambda number: 4)
    bucket = Bucket()
    sink = Sink(bucket, "b", "k", "text/csv", tmp_path, "out")  # type: ignore[arg-type]
    sink.open(Mark())
    sink.write(b"abcdef")
    bucket.uploads.clear()
    with pytest.raises(Restart):
        sink.finish()
    sink.close()
    lost = Sink(bucket, "b", "k", "text/csv", tmp_path, "other")  # type: ignore[arg-type]
    with pytest.raises(Restart):
        lost.open(Mark(kept=3))
    assert transform_plan.part_bytes(0) >= 5 << 20


# ------------------------------------------------------------------------------------------------------------- a stream
class Store(BaseHTTPRequestHandler):
    """An object of `LARGE` bytes, and room for others; one request of a connection after the other, as HTTP has it."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self._answer("GET " + self.headers.get("Range", "all"))
        self.send_header("Content-Length", str(LARGE))
        self.end_headers()
        with contextlib.suppress(OSError):  # the reader may leave
            self.wfile.write(bytes(LARGE))

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer("PUT")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        self.send_response(200)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Listening(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        return self.socket.accept()[0], ("", 0)  # what the handler takes for a peer


LARGE = 24 << 20  # more than sockets hold: who does not read it keeps its sender waiting


def test_a_thread_writes_to_the_bucket_while_a_stream_of_its_own_is_not_read_to_its_end(tmp_path: Path) -> None:
    place = tmp_path / "s3.sock"
    Store.asked.clear()
    with Listening(str(place), Store) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        door = Door(place, SigningKey("AKIA", "secret"), "us-east-1")
        stream = source.raw(door, InputObject("b", "k", "k", LARGE), 0)
        read = len(next(stream))
        for _ in range(2):
            door.call(lambda s3: s3.put_bytes("b", "out", bytes(9 << 20), "text/csv"))
            read += len(next(stream))
        read += sum(map(len, stream))
        door.client().__exit__(None, None, None)
        server.shutdown()
        thread.join()
    assert read == LARGE
    assert Store.asked == ["GET all", "PUT", "PUT"]  # nothing was cut, and nothing asked for again


def test_gzip_is_undone_member_by_member_or_refused() -> None:
    one = InputObject("b", "k.gz", "k.gz", 1)
    packed = zlib.compress(b"a" * 5_000, wbits=31) + zlib.compress(b"b" * 5_000, wbits=31)

    def cut(data: bytes, size: int) -> Iterator[bytes]:
        return (data[at : at + size] for at in range(0, len(data), size))

    for size in (1, 7, 10_000):
        assert b"".join(source._unzipped(cut(packed, size), one)) == b"a" * 5_000 + b"b" * 5_000
    with pytest.raises(BucketError, match="breaks off"):
        list(source._unzipped(cut(packed[:-3], 9), one))
    with pytest.raises(BucketError, match="no gzip"):
        list(source._unzipped(iter([b"plain text"]), one))
    assert b"".join(source._skipped(iter([b"abc", b"def"]), 4)) == b"ef"
    assert replace(one, key="x").url == "s3://b/x"
