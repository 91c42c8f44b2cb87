"""Heads that a connection recognises are read exactly as the parser reads them, and nothing else is recognised."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.http1.limits import Limits
from eyrie.http1.server import Connection, Server
from eyrie.http1.shapes import LENGTH_ONLY, PATH, Shapes, Varying
from eyrie.http1.sweep import Sweep

VARYING = {b"x-date": Varying(rb"[0-9T]{4}"), b"authorization": Varying(rb"[0-9a-f]{4}", after=b"Signature=")}
Seen = tuple[bytes, bytes, dict[bytes, bytes], int | None, bytes, bytes, bool]


class Wire(asyncio.Transport):
    """What a client would get."""

    def __init__(self) -> None:
        super().__init__()
        self.got = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.got += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Recorder:
    """Answers every request with its body, remembers heads where it is told to, and notes what it saw."""

    def __init__(self, remembers: bool = True, limit: int = 100, streams: bool = False) -> None:
        self.seen: list[Seen] = []
        self.known: list[bool] = []
        self.too_long = 0
        self._remembers = remembers
        self._limit = limit
        self._streams = streams
        self._pieces: list[bytes] = []

    def head(self, connection: Connection) -> None:
        self.known.append(connection.shape is not None)
        if self._streams:
            connection.stream()
        else:
            connection.collect(self._limit)

    def body(self, connection: Connection, data: bytes) -> None:
        c = connection
        self.seen.append((c.method, c.target, dict(c.fields), c.content_length, c.raw_head, data, c.http_1_0))
        if self._remembers:
            connection.remember()
        connection.reply(200, b"", data)

    def data(self, connection: Connection, piece: bytes) -> None:
        self._pieces.append(piece)

    def end(self, connection: Connection) -> None:
        pieces, self._pieces = self._pieces, []
        self.body(connection, b"".join(pieces))

    def too_large(self, connection: Connection) -> None:
        self.too_long += 1
        connection.reply(413, b"", b"")

    def gone(self, connection: Connection) -> None:
        pass

    paused = resumed = gone


def exchange(recorder: Recorder, *reads: bytes, varying: Mapping[bytes, Varying] = VARYING) -> bytes:
    """One connection that gets these reads; what it answered."""

    async def main() -> bytes:
        server = Server(recorder, Limits(), Sweep(asyncio.get_running_loop()), varying)
        server.date = b""
        connection, wire = Connection(server), Wire()
        connection.connection_made(wire)
        for read in reads:
            if not wire.closed:
                connection.data_received(read)
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return wire.got

    return asyncio.run(main())


def request(body: bytes = b"1,2", date: bytes = b"2026", signature: bytes = b"beef", more: bytes = b"") -> bytes:
    lines = b"Host: a\r\nX-Date: %b\r\nX-Fixed:  two  words \r\n%b"
    lines += b"Authorization: Key=k, Signature=%b\r\ncontent-Length: %d"
    return b"POST /in HTTP/1.1\r\n" + lines % (date, more, signature, len(body)) + b"\r\n\r\n" + body


@pytest.mark.parametrize("streams", [False, True])
def test_a_known_head_reads_as_the_parser_reads_it(streams: bool) -> None:
    requests = [request(b"b" * n, b"%04d" % n, b"%04x" % n) for n in (1, 2, 3, 40, 0, 99)]
    with_shapes, without = Recorder(streams=streams), Recorder(False, streams=streams)
    assert exchange(with_shapes, *requests) == exchange(without, *requests)
    assert with_shapes.seen == without.seen
    assert len(with_shapes.seen) == 6
    assert with_shapes.known == [False, False, True, True, True, True]
    assert not any(without.known)


def test_only_a_whole_request_alone_is_recognised() -> None:
    one = request()
    reads = [one, one, one[:50], one[50:], one[:-1], one[-1:], one + one, one + one[:20], one[20:], one]
    with_shapes, without = Recorder(), Recorder(False)
    assert exchange(with_shapes, *reads) == exchange(without, *reads)
    assert with_shapes.seen == without.seen
    assert len(with_shapes.seen) == 9
    assert sum(with_shapes.known) == 1


def test_a_body_over_the_limit_is_refused_also_with_a_known_head() -> None:
    recorder = Recorder(limit=10)
    exchange(recorder, request(), request(), request(b"x" * 11))
    assert (recorder.known, recorder.too_long) == ([False, False, True], 1)


@pytest.mark.parametrize(
    "other",
    [
        request(signature=b"BEEF"),
        request(signature=b"beef "),
        request(date=b"2026\r\nX-More: 1"),
        request(date=b"20\r\n"),
        request(more=b"Transfer-Encoding: chunked\r\n"),
        request(more=b"Content-Length: 3\r\n"),
        request().replace(b"content-Length: 3", b"content-Length: +3"),
        request().replace(b"content-Length: 3", b"content-Length: 3, 3"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"Host: a", b"Host: b"),
        request().replace(b"POST /in", b"POST /out"),
    ],
)
def test_what_differs_elsewhere_takes_the_ordinary_way(other: bytes) -> None:
    with_shapes, without = Recorder(), Recorder(False)
    assert exchange(with_shapes, request(), request(), other) == exchange(without, request(), request(), other)
    assert with_shapes.seen == without.seen
    assert not any(with_shapes.known)


PIECES = [b"", b"\r\n", b"\n", b" ", b"0", b":", b"\0", b"9", b"\r\nTransfer-Encoding: chunked"]


@st.composite
def _spoilt(draw: st.DrawFn) -> bytes:
    data = bytearray(request(draw(st.binary(max_size=8))))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1))
        piece = draw(st.sampled_from(PIECES))
        data[at : at + draw(st.integers(0, 3))] = piece
    return bytes(data)


@settings(max_examples=300, deadline=None)
@given(st.lists(_spoilt(), min_size=1, max_size=3))
def test_a_spoilt_request_is_read_the_same_with_and_without_a_known_head(spoilt: list[bytes]) -> None:
    with_shapes, without = Recorder(), Recorder(False)
    reads = [request(), request(), *spoilt]
    assert exchange(with_shapes, *reads) == exchange(without, *reads)
    assert with_shapes.seen == without.seen


def _one_of(path: bytes, body: bytes = b"1,2") -> bytes:
    return request(body).replace(b"POST /in ", b"POST %b " % path)


def test_heads_that_differ_in_their_target_are_of_one_shape_where_the_server_says_so() -> None:
    varying = {**VARYING, PATH: Varying(rb"/m/[0-9a-f]{4}/do")}
    paths = [b"/m/%04x/do" % n for n in range(40)]
    reads = [_one_of(path, path[:n]) for n, path in enumerate(paths)]
    with_shapes, without = Recorder(), Recorder(False)
    assert exchange(with_shapes, *reads, varying=varying) == exchange(without, *reads, varying=varying)
    assert with_shapes.seen == without.seen
    assert [seen[1] for seen in with_shapes.seen] == paths
    assert with_shapes.known == [False, False] + [True] * 38


@pytest.mark.parametrize(
    "path",
    [
        b"/m/00G0/do",
        b"/m/000/do",
        b"/m/0000/do/",
        b"/m/0000/do?a",
        b"/m/0000/dont",
        b"/m/00 0/do",
        b"/m/0000/do HTTP/1.0",
    ],
)
def test_a_target_of_another_form_takes_the_ordinary_way(path: bytes) -> None:
    varying = {**VARYING, PATH: Varying(rb"/m/[0-9a-f]{4}/do")}
    reads = [_one_of(b"/m/0001/do"), _one_of(b"/m/0002/do"), _one_of(path)]
    with_shapes, without = Recorder(), Recorder(False)
    assert exchange(with_shapes, *reads, varying=varying) == exchange(without, *reads, varying=varying)
    assert with_shapes.seen == without.seen
    assert not any(with_shapes.known)


def test_a_client_whose_heads_always_differ_is_asked_ever_more_rarely() -> None:
    recorder = Recorder()
    exchange(recorder, *(request(more=b"X-Nonce: %d\r\n" % n) for n in range(20)))
    assert not any(recorder.known)


def _of(shapes: Shapes, head: bytes, now_s: float) -> object:
    lines = head[:-4].split(b"\r\n")[1:]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    return shapes.of(head, fields, b"POST", b"/in", now_s)


def test_patterns_are_made_in_their_time_and_shared() -> None:
    shapes = Shapes({**LENGTH_ONLY, **VARYING})
    one, two = request(b"")[:], request(b"", more=b"X: 1\r\n")
    first = _of(shapes, one, 1.0)
    assert first is not None
    assert _of(shapes, two, 1.01) is None  # too soon for another
    assert _of(shapes, one, 1.01) is first
    assert _of(shapes, two, 2.0) is not None
    for n in range(600):
        _of(shapes, request(b"", more=b"X: %d\r\n" % n), 3.0 + n)
    assert len(shapes) <= 256


@pytest.mark.parametrize(
    "line", [b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: x", b"X: " + b"x" * 3000]
)
def test_heads_that_ask_for_more_have_no_shape(line: bytes) -> None:
    shapes = Shapes(LENGTH_ONLY)
    assert _of(shapes, request(b""), 1.0) is not None
    assert _of(shapes, request(b"", more=line + b"\r\n"), 2.0) is None


def test_a_varying_value_of_another_form_has_no_shape() -> None:
    assert _of(Shapes({**LENGTH_ONLY, **VARYING}), request(b"", date=b"yesterday"), 1.0) is None
    assert re.fullmatch(VARYING[b"x-date"].form, b"2026")
