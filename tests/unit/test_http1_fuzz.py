"""What a stream of bytes means must not depend on how it was cut, and never be more than a strict reader finds in it.

Requests: a corpus and generated streams, each read whole, byte by byte and cut at random; what the server took for
whole requests is compared with h11. Replies: what a hostile container may send.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import h11
import pytest
from hostile_replies import GOOD, OK, not_replies, replies_with_more
from http1_lab import Meaning, meaning, told
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from malformed_http import requests

from eyrie.http1.limits import Limits
from eyrie.http1.upstream import Failure, Pool

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def fate(found: Meaning) -> tuple[object, ...]:
    """What a stream came to, but for the wording of its refusals."""
    whole = [(r.method, r.target, r.fields, r.body) for r in found.requests]
    return whole, [status < 400 for status in found.statuses], found.closed


# ---- requests ----

METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS"])
TARGETS = st.sampled_from([b"/x", b"/s", b"/", b"//"])
NAMES = st.sampled_from(
    [
        b"Content-Length",
        b"content-length",
        b"Transfer-Encoding",
        b"Content-Length ",
        b" Content-Length",
        b"Content\x00-Length",
        b"Host",
        b"Connection",
        b"X-A",
        b"Expect",
        b"Upgrade",
        b"Trailer",
    ]
)
VALUES = st.sampled_from(
    b"0|3|5|05|+5|5 |5,5||a|close|keep-alive|100-continue|h2c|upgrade|chunked|Chunked|chunked |\tchunked|\x0bchunked"
    b"|identity|gzip, chunked".split(b"|")
)
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\n\r\n"])
COLONS = st.sampled_from([b": ", b":", b" : ", b":\t"])
BODIES = st.sampled_from(
    [
        b"",
        b"abc",
        b"abcde",
        b"0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"03\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"ffffffffffffffff1\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\n\r\n" + GET,
    ]
)
LINE = st.tuples(METHODS, st.just(b" "), TARGETS, st.sampled_from([b" HTTP/1.1"] * 6 + [b" HTTP/1.0"]), ENDS)
HEADERS = st.lists(st.tuples(NAMES, COLONS, VALUES, ENDS).map(b"".join), max_size=3).map(b"".join)
REQUEST = st.tuples(LINE.map(b"".join), st.just(b"Host: a\r\n"), HEADERS, st.just(b"\r\n"), BODIES).map(b"".join)
STREAM = st.lists(st.one_of(REQUEST, st.sampled_from([GET, POST, CHUNKED + b"0\r\n\r\n"])), min_size=1, max_size=3)


def strictly(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The requests that h11 finds in a stream, up to what it does not like."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    found: list[tuple[bytes, bytes, bytes]] = []
    asked, body = b"", b""
    try:
        while (event := server.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                asked, target, body = event.method, event.target, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((asked, target, body))
                if server.our_state is h11.MIGHT_SWITCH_PROTOCOL:
                    break
                server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                server.send(h11.EndOfMessage())
                if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
                    break
                server.start_next_cycle()
            else:
                break
    except h11.RemoteProtocolError:
        pass
    return found


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(STREAM.map(b"".join), st.lists(st.integers(1, 200), max_size=6))
@example(GET + GET, [len(GET) + 3])  # the parser says nothing of a method until its blank
@example(POST + GET, [len(POST) + 3])
@example(CHUNKED + b"0\r\n\r\n" + GET, [len(CHUNKED) + 6])
@example(GET + b"\r\n" + GET, [len(GET) + 3])
def test_requests_mean_the_same_however_they_are_cut_and_no_more_than_a_strict_reader_finds(
    loop: asyncio.AbstractEventLoop, data: bytes, cuts: list[int]
) -> None:
    async def main() -> None:
        places = [0, *sorted(set(cuts)), len(data)]
        whole = meaning([data])
        assert fate(whole) == fate(meaning(cut(data, 1)))
        assert fate(whole) == fate(meaning([data[a:b] for a, b in itertools.pairwise(places)]))
        if b"\r\n\r\n\r\n" in data or b"abc\r\nG" in data:
            return  # an empty line before a request is to be ignored (RFC 9112, 2.2); h11 does not like it
        ours = [(r.method, r.target, r.body) for r in whole.requests]
        assert ours == strictly(data)[: len(ours)]

    loop.run_until_complete(main())


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 12), min_size=4, max_size=12), st.lists(st.integers(1, 900), max_size=8))
def test_heads_that_are_recognised_mean_what_they_mean_when_parsed(
    loop: asyncio.AbstractEventLoop, lengths: list[int], cuts: list[int]
) -> None:
    async def main() -> None:
        head = b"POST /x HTTP/1.1\r\nHost: a\r\nX-Long: %b\r\nContent-Length: %d\r\n\r\n"
        each = [head % (b"v" * 40, n) + b"b" * n for n in lengths]
        data = b"".join(each)
        places = [0, *sorted(set(cuts)), len(data)]
        plain = fate(meaning([data]))
        assert plain == fate(meaning(each, remember=True))
        assert plain == fate(meaning([data[a:b] for a, b in itertools.pairwise(places)], remember=True))

    loop.run_until_complete(main())


def test_every_malformed_request_has_one_fate_however_it_is_cut_and_whatever_came_before(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def main() -> None:
        wrong = []
        for name, data in requests():
            if len(data) > 20_000:
                continue
            found = fate(meaning([data]))
            others = [meaning(cut(data, 1)), meaning(cut(data, len(data) // 2 + 1))]
            after = fate(meaning([GET + data]))
            if any(fate(other) != found for other in others) or after[1] != [True, *found[1]]:  # type: ignore[misc]
                wrong.append(name)
        assert wrong == []

    loop.run_until_complete(main())


def test_what_follows_a_request_never_reaches_whoever_its_raw_bytes_go_to(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        raw = b"GET /raw HTTP/1.1\r\nHost: a\r\n\r\n"
        for beginning in (b"G", b"POST", b"DELETE "):
            found = meaning([raw + beginning])
            assert [r.body for r in found.requests] == [raw]

    loop.run_until_complete(main())


def test_framing_without_a_body_is_bounded_also_after_a_large_body(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        limits = Limits(chunk_overhead_bytes=10_000)
        body = b"%x\r\n%b\r\n" % (200_000, b"b" * 200_000)
        for rest in (b"0\r\nTrailer: " + b"x" * 60_000, b"1;" + b"x" * 60_000):
            found = meaning([CHUNKED, body, *cut(rest, 1_000)], limits)
            assert (found.statuses, found.closed, found.requests) == ([400], True, [])
        found = meaning([CHUNKED, body, b"0\r\nTrailer: " + b"x" * 5_000 + b"\r\n\r\n"], limits)
        assert found.statuses == [200]
        assert len(found.requests[0].body) == 200_000

    loop.run_until_complete(main())


# ---- replies ----


def test_nothing_that_is_no_reply_is_taken_for_one_however_it_is_cut(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        wrong = []
        for name, data in not_replies():
            for size in (16_384, 7, 1) if len(data) < 2_000 else (16_384,):
                found = told(cut(data, size))
                if found.whole or found.kept or found.failure not in (Failure.GARBAGE, Failure.LOST):
                    wrong.append(f"{name} in pieces of {size}: {found}")
        assert wrong == []

    assert len(not_replies()) > 80
    loop.run_until_complete(main())


def test_a_connection_on_which_more_came_than_was_asked_for_is_not_used_again(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        for name, data in replies_with_more():
            for size in (1_000_000, 60, 1):
                found = told(cut(data, size))
                assert (found.whole, found.status, found.body) == (True, 200, b"ok"), name
                assert not found.kept or data == GOOD + b"\r\n", (name, size)

    loop.run_until_complete(main())


def test_a_good_reply_is_the_same_however_it_is_cut(loop: asyncio.AbstractEventLoop) -> None:
    chunked = OK + b"transfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nt: v\r\n\r\n"
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + GOOD

    async def main() -> None:
        for data, kept in ((GOOD, True), (chunked, True), (interim, True), (OK + b"\r\nok", False)):
            for size in (1_000, 9, 1):
                found = told(cut(data, size))
                assert (found.status, found.body, found.whole, found.failure, found.kept) == (
                    200,
                    b"ok",
                    True,
                    None,
                    kept,
                )

    loop.run_until_complete(main())


def test_a_reply_whose_head_was_met_before_is_the_same_as_when_it_was_parsed(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        pool = Pool(loop, "/nowhere")
        assert told([GOOD], pool=pool).kept
        assert len(pool.heads) == 1
        for data in (GOOD, GOOD + GOOD, GOOD[:-1], GOOD + b"H"):
            known, parsed = told([data], pool=pool), told([data])
            assert (known.body, known.whole, known.failure, known.kept) == (
                parsed.body,
                parsed.whole,
                parsed.failure,
                parsed.kept,
            )

    loop.run_until_complete(main())
