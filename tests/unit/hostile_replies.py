"""What a hostile or broken container may send in place of a reply, generated in the same order every time.

Each is `(name, bytes)`: nothing of them may be taken for a whole reply, or, where a whole reply stands first, for a
connection that another request may use.
"""

from __future__ import annotations

from collections.abc import Iterator

OK = b"HTTP/1.1 200 OK\r\n"
GOOD = OK + b"content-type: text/csv\r\ncontent-length: 2\r\n\r\nok"
CONTROLS = [*range(1, 9), *range(10, 13), *range(14, 32), 127, 0]


def not_replies() -> list[tuple[str, bytes]]:
    """Bytes that are no whole reply, however they are read."""
    found = [*_lines(), *_framing(), *_chunks(), *_headers(), *_endless()]
    return [(f"{number:03d} {name}", data) for number, (name, data) in enumerate(found)]


def replies_with_more() -> list[tuple[str, bytes]]:
    """A whole reply `ok`, and bytes after it that nobody asked for."""
    more = {
        "a second reply": GOOD,
        "another's answer": OK + b"content-length: 6\r\n\r\nforged",
        "the beginning of a second reply": b"HTTP/1.1 200",
        "one byte": b"x",
        "an empty line": b"\r\n",
        "an interim reply": b"HTTP/1.1 100 Continue\r\n\r\n",
        "zeros": b"\0" * 100,
        "a request": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    }
    return [(name, GOOD + data) for name, data in more.items()]


def _lines() -> Iterator[tuple[str, bytes]]:
    lines = [
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 2",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 abc OK",
        b"HTTP/1.1 -200 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/9.9 200 OK",
        b"HTTP/1 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"200 OK",
        b"GET / HTTP/1.1",
        b"\x16\x03\x01\x02\x00",
        b"{}",
        b"<html>",
        b"Traceback (most recent call last):",
    ]
    for line in lines:
        yield f"line {line[:20]!r}", line + b"\r\ncontent-length: 2\r\n\r\nok"
    for control in CONTROLS:
        if control not in (10, 13):
            yield f"control {control} in the version", b"HTTP/1.1" + bytes([control]) + b"200 OK\r\n\r\n"
    yield "nothing but zeros", b"\0" * 4_000
    yield "switching protocols", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello"


def _framing() -> Iterator[tuple[str, bytes]]:
    for value in (b"-1", b"+2", b"2x", b"0x2", b"2,2", b"2 2", b"99999999999999999999", b"1e1"):
        yield f"length {value!r}", OK + b"content-length: " + value + b"\r\n\r\nok"
    yield "two lengths", OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nokk"
    yield "two equal lengths", OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok"
    yield "length and chunked", OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    yield "chunked and length", OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    yield "shorter than its length", OK + b"content-length: 10\r\n\r\nok"


def _chunks() -> Iterator[tuple[str, bytes]]:
    head = OK + b"transfer-encoding: chunked\r\n\r\n"
    for size in (b"", b"g", b"-2", b"0x2", b"ffffffffffffffffff", b" 2", b"2\x01"):
        yield f"chunk size {size!r}", head + size + b"\r\nok\r\n0\r\n\r\n"
    yield "no last chunk", head + b"2\r\nok\r\n"
    yield "a chunk longer than its size", head + b"1\r\nok\r\n0\r\n\r\n"
    yield "a chunk without an end", head + b"2\r\nokX\r\n0\r\n\r\n"
    yield "bare LF after a chunk", head + b"2\r\nok\n0\r\n\r\n"
    yield "cut in a trailer", head + b"2\r\nok\r\n0\r\ntrailer: x"


def _headers() -> Iterator[tuple[str, bytes]]:
    for control in (0, 1, 8, 11, 12, 31, 127):
        if control != 127:
            value = b"content-type: a" + bytes([control]) + b"b"
            yield f"control {control} in a value", OK + value + b"\r\ncontent-length: 2\r\n\r\nok"
        name = b"content" + bytes([control]) + b"type: a"
        yield f"control {control} in a name", OK + name + b"\r\ncontent-length: 2\r\n\r\nok"
    yield "no colon", OK + b"content-type\r\ncontent-length: 2\r\n\r\nok"
    yield "a blank before the colon", OK + b"content-length : 2\r\n\r\nok"
    yield "bare CR", OK + b"content-type: a\rx-evil: b\r\ncontent-length: 2\r\n\r\nok"
    yield "the head never ends", OK + b"content-type: a\r\n"


def _endless() -> Iterator[tuple[str, bytes]]:
    yield "a head of 800 KB", OK + b"a: " + b"b" * 800_000 + b"\r\ncontent-length: 2\r\n\r\nok"
    many = b"".join(b"h%d: 0123456789\r\n" % n for n in range(50_000))
    yield "50,000 headers", OK + many + b"content-length: 2\r\n\r\nok"
    yield "40,000 interim replies", b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000 + GOOD
    yield "interim replies and nothing else", b"HTTP/1.1 102 Processing\r\n\r\n" * 10
    chunked = OK + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n"
    yield "an endless trailer", chunked + b"0\r\ntrailer: " + b"x" * 800_000 + b"\r\n\r\n"
    yield "an endless chunk extension", chunked + b"2;" + b"x" * 800_000 + b"\r\nok\r\n0\r\n\r\n"
    yield "50,000 trailers", chunked + b"0\r\n" + many + b"\r\n"
