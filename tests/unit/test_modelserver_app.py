"""The application on its event loop, its connections recording replies: who waits, who is refused, what runs where."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from eyrie.gateway.bundles import answers_of
from eyrie.http1.server import Connection, listen
from eyrie.http1.unix import listen_unix
from eyrie.modelserver import bulk, opening
from eyrie.modelserver.app import ModelServer, Phase
from eyrie.modelserver.servable import INLINE_BYTES_MAX
from eyrie.modelserver.threads import Pools

joblib = pytest.importorskip("joblib")
pytest.importorskip("sklearn")


class Recorder:
    """What a connection of http1 is to the application, with its replies kept."""

    def __init__(
        self, body: bytes, content_type: str = "text/csv", path: str = "/invocations", method: str = "POST"
    ) -> None:
        self.method, self.target = method.encode(), path.encode()
        self.fields = {b"content-type": content_type.encode()}
        self.data = body
        self.alive = True
        self.context: Any = None
        self.shape = None
        self.limit = 0
        self.replies: list[tuple[int, bytes, bytes]] = []

    def collect(self, limit: int) -> None:
        self.limit = limit

    def remember(self) -> None:
        """It knows no shapes."""

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        self.replies.append((status, lines, body))


class Unwritable:
    """A prediction that no encoding can show."""

    def __str__(self) -> str:
        raise RuntimeError("not to be written")


class Doubling:
    """A pickle that predicts twice the first column, and notes in which thread it did."""

    n_features_in_ = 1
    threads: tuple[list[str], ...] = ([],)
    gate: tuple[threading.Event, ...] = (threading.Event(),)

    def predict(self, rows: Any) -> Any:
        self.threads[0].append(threading.current_thread().name)
        if rows[0][0] == 7:
            assert self.gate[0].wait(20)
        if rows[0][0] == 9:
            return [Unwritable() for _ in rows]
        return rows[:, 0] * 2


@pytest.fixture
def unchanged() -> Iterator[None]:
    before = dict(os.environ)
    Doubling.threads[0].clear()
    Doubling.gate[0].clear()
    yield
    gc.unfreeze()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


async def send(server: ModelServer, *recorders: Recorder) -> None:
    """Hand requests over as http1 would, all in one turn of the loop."""
    for recorder in recorders:
        connection = cast(Connection, recorder)
        server.head(connection)
        if not recorder.replies:
            server.body(connection, recorder.data)
    await asyncio.sleep(0)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def started(tmp_path: Path) -> ModelServer:
    (tmp_path / "model").mkdir()
    joblib.dump(Doubling(), tmp_path / "model" / "model.joblib")
    exits: list[int] = []
    server = ModelServer(tmp_path, asyncio.get_running_loop(), Pools(), exits.append)
    claim = Recorder(json.dumps({"instance_id": "i-1", "containers": [{}]}).encode(), path="/eyrie/claim")
    await send(server, claim)
    assert claim.replies[0][0] == 202
    await until(lambda: server.phase is Phase.READY or exits)
    assert exits == []
    Doubling.threads[0].clear()
    return server


def test_a_large_body_is_worked_off_in_a_thread_and_small_ones_on_the_loop(tmp_path: Path, unchanged: None) -> None:
    async def run() -> None:
        server = await started(tmp_path)
        small, large = Recorder(b"1\n2"), Recorder(b"3\n" * INLINE_BYTES_MAX)
        await send(server, small, large)
        await until(lambda: small.replies and large.replies)
        assert json.loads(small.replies[0][2]) == [2.0, 4.0]
        assert json.loads(large.replies[0][2]) == [6.0] * INLINE_BYTES_MAX
        assert sorted(Doubling.threads[0]) == ["MainThread", "worker-0"]

    asyncio.run(run())


def test_many_requests_in_a_message_are_one_prediction_and_answered_apart(tmp_path: Path, unchanged: None) -> None:
    async def run() -> None:
        server = await started(tmp_path)
        alone = Recorder(b"4")
        bodies = [b"1", b"2,3", b"5"]
        message = Recorder(b"".join(len(b).to_bytes(4, "little") + b for b in bodies), path=bulk.PATH.decode())
        await send(server, alone, message)
        await until(lambda: alone.replies and message.replies)
        assert bulk.OFFER in alone.replies[0][1]
        status, lines, body = message.replies[0]
        assert status == 200
        assert b"x-eyrie-content-type: application/json" in lines
        assert re.search(rb"x-eyrie-effort: \d+ \d+\r\n", lines)
        answers = answers_of(body)
        assert [status for status, _ in answers] == [200, 400, 200]
        assert [json.loads(said) for status, said in answers if status == 200] == [[2.0], [10.0]]

    asyncio.run(run())


def message_of(bodies: list[bytes]) -> Recorder:
    return Recorder(b"".join(len(b).to_bytes(4, "little") + b for b in bodies), path=bulk.PATH.decode())


def test_the_rows_of_a_message_are_one_part_of_a_batch(tmp_path: Path, unchanged: None) -> None:
    async def run() -> None:
        server = await started(tmp_path)
        alone, good, bad = Recorder(b"4"), message_of([b"1", b"2\n", b"5"]), message_of([b"9"])
        await send(server, alone)
        await until(lambda: alone.replies)
        Doubling.threads[0].clear()
        await send(server, good)
        await until(lambda: good.replies)
        assert len(Doubling.threads[0]) == 1
        assert b"x-eyrie-content-type: application/json" in good.replies[0][1]
        assert answers_of(good.replies[0][2]) == [(200, b"[2.0]"), (200, b"[4.0]"), (200, b"[10.0]")]
        await send(server, bad)  # its prediction cannot be written
        await until(lambda: bad.replies)
        ((status, said),) = answers_of(bad.replies[0][2])
        assert (status, said) == (500, b"RuntimeError: not to be written")

    asyncio.run(run())


def test_a_message_of_more_rows_than_a_window_is_answered_whole(tmp_path: Path, unchanged: None) -> None:
    async def run() -> None:
        server = await started(tmp_path)
        alone, many = Recorder(b"4"), message_of([b"%d" % (10 + n) for n in range(2 * bulk.WINDOW + 3)])
        await send(server, alone)
        await until(lambda: alone.replies)
        await send(server, many)
        await until(lambda: many.replies)
        found = [json.loads(said)[0] for _, said in answers_of(many.replies[0][2])]
        assert found == [2.0 * (10 + n) for n in range(2 * bulk.WINDOW + 3)]

    asyncio.run(run())


def test_a_prediction_that_cannot_be_written_fails_its_own_request(tmp_path: Path, unchanged: None) -> None:
    async def run() -> None:
        server = await started(tmp_path)
        good, bad, beside = Recorder(b"1"), Recorder(b"9"), Recorder(b"2")
        await send(server, bad)
        await until(lambda: bad.replies)
        await send(server, good, beside)
        await until(lambda: good.replies and beside.replies)
        assert bad.replies[0][0] == 500
        assert b"RuntimeError: not to be written" in bad.replies[0][2]
        assert [r.replies[0][2] for r in (good, beside)] == [b"[2.0]", b"[4.0]"]

    asyncio.run(run())


def test_a_full_queue_answers_503_and_a_client_that_left_is_skipped(
    tmp_path: Path, unchanged: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(opening, "QUEUE_MAX", 1)

    async def run() -> None:
        server = await started(tmp_path)
        rows = b"7\n" * INLINE_BYTES_MAX
        requests = [Recorder(rows) for _ in range(5)]  # two threads, one place in the queue
        await send(server, *requests)
        refused = [r for r in requests if r.replies]
        assert [r.replies[0][0] for r in refused] == [503, 503]
        assert b"retry-after: 1" in refused[0].replies[0][1]
        await until(lambda: len(Doubling.threads[0]) == 2)
        waiting = requests[2]
        waiting.alive = False
        Doubling.gate[0].set()
        await until(lambda: requests[0].replies and requests[1].replies)
        late = Recorder(rows)
        await until(lambda: try_again(server, late))
        await until(lambda: late.replies)
        assert late.replies[0][0] == 200
        assert waiting.replies == []
        assert len(Doubling.threads[0]) == 3

    asyncio.run(run())


def try_again(server: ModelServer, recorder: Recorder) -> bool:
    """Send a request until it is not refused at once."""
    recorder.replies.clear()
    server.body(cast(Connection, recorder), recorder.data)
    return not recorder.replies


def test_pings_and_state_follow_the_phase(tmp_path: Path, unchanged: None) -> None:
    async def run() -> None:
        server = await started(tmp_path)
        ping, state = Recorder(b"", path="/ping", method="GET"), Recorder(b"", path="/eyrie/state", method="GET")
        await send(server, ping, state)
        assert ping.replies[0] == (200, b"", b"")
        assert json.loads(state.replies[0][2])["phase"] == "ready"
        server.phase = Phase.LOADING
        again, refused = Recorder(b"", path="/ping", method="GET"), Recorder(b"1")
        await send(server, again, refused)
        assert [again.replies[0][0], refused.replies[0][0]] == [503, 503]

    asyncio.run(run())


def test_heads_that_repeat_are_recognised_and_those_that_differ_still_count(tmp_path: Path, unchanged: None) -> None:
    async def run() -> None:
        server = await started(tmp_path)
        path = tmp_path / "s"
        http = await listen(server, listen_unix(str(path)))
        reader, writer = await asyncio.open_unix_connection(str(path))

        async def ask(body: bytes, kind: bytes = b"text/csv", accept: bytes = b"application/json") -> bytes:
            head = b"POST /invocations HTTP/1.1\r\nhost: m\r\ncontent-type: %b\r\naccept: %b\r\n" % (kind, accept)
            writer.write(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            reply = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in reply.split(b"\r\n") if line.startswith(b"content-length"))
            return reply[9:12] + b" " + await reader.readexactly(int(length.partition(b":")[2]))

        for _ in range(5):
            assert await ask(b"21") == b"200 [42.0]"
            assert await ask(b"1\n20\n") == b"200 [2.0, 40.0]"  # two rows, longer: of the same shape
        assert len(http.shapes) == 1
        assert await ask(b"21", accept=b"text/csv") == b"200 42.0\n"
        assert await ask(b"[[4]]", kind=b"application/json") == b"200 [8.0]"
        assert (await ask(b"[[4]]", kind=b"image/png")).startswith(b"415 ")
        assert await ask(b"x") == b'200 ["xx"]'
        assert (await ask(b"1,2")).startswith(b"400 ")
        assert (await ask(b"")).startswith(b"400 ")
        assert await ask(b"21") == b"200 [42.0]"
        writer.write(b"GET /ping HTTP/1.1\r\nhost: m\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        await http.close(0)

    asyncio.run(run())
