"""More than five hundred malformed HTTP requests, generated in the same order every time.

Each is `(name, bytes)`; a server must answer it with 4xx or 505 and close, or just close where nothing can be
said. Used
against `http1` here and against a whole running Eyrie by the end-to-end tests.
"""

from __future__ import annotations

from collections.abc import Iterator

HOST = b"Host: localhost\r\n"
CONTROLS = [*range(9), *range(10, 32), 127]  # every control character but the tab


def requests() -> list[tuple[str, bytes]]:
    """All of them; names are unique."""
    found = [
        *_lines(),
        *_targets(),
        *_names(),
        *_values(),
        *_lengths(),
        *_chunks(),
        *_hosts(),
        *_framing(),
        *_oversized(),
    ]
    return [(f"{number:03d} {name}", data) for number, (name, data) in enumerate(found)]


def _head(line: bytes, *headers: bytes, host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


def _post(*headers: bytes, body: bytes = b"") -> bytes:
    return _head(b"POST / HTTP/1.1", *headers) + body


def _lines() -> Iterator[tuple[str, bytes]]:
    lines = [
        b"",
        b"GET",
        b"GET /",
        b"GET / ",
        b"/ HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET\t/\tHTTP/1.1",
        b"GET / HTTP",
        b"GET / HTTP/",
        b"GET / HTTP/1",
        b"GET / HTTP/1.",
        b"GET / HTTP/.1",
        b"GET / http/1.1",
        b"GET / HTTP/1,1",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/11.1",
        b"GET / HTTP/-1.1",
        b"GET / FTP/1.1",
        b"GET / RTSP/1.0",
        b"GET / ICE/1.0",
        b"GET / HTTPS/1.1",
        b"GET / SIP/2.0",
        b"get / HTTP/1.1",
        b"Get / HTTP/1.1",
        b"G@T / HTTP/1.1",
        b"GET, / HTTP/1.1",
        b"GE T / HTTP/1.1",
        b"TRACE / HTTP/1.1",
        b"CONNECT localhost:80 HTTP/1.1",
        b"CONNECT / HTTP/1.1",
        b"BREW / HTTP/1.1",
        b"SOURCE / HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"HTTP/1.1 200 OK",
        b"\xff\xfe\xfd",
        b"SSH-2.0-OpenSSH_9.2",
        b"*1\r\n$4\r\nPING",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x00",
        b"{}",
    ]
    for line in lines:
        yield f"line {line[:24]!r}", _head(line)
    for version in range(10):
        if version != 1:
            yield f"version {version}.0", _head(b"GET / HTTP/%d.0" % version)
            yield f"version 1.{version}", _head(b"GET / HTTP/1.%d" % version) if version else b"GET /\r\n\r\n"
    for control in CONTROLS:
        yield f"control {control} in the method", _head(b"GE" + bytes([control]) + b"T / HTTP/1.1")
    yield "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "bare LF after the line", b"GET / HTTP/1.1\n" + HOST + b"\r\n"
    yield "only bare LFs", b"GET / HTTP/1.1\nHost: localhost\n\n"
    yield "bare CR after the line", b"GET / HTTP/1.1\r" + HOST + b"\r\n"
    yield "many empty lines", b"\r\n" * 50 + _head(b"GET / HTTP/1.1")


def _targets() -> Iterator[tuple[str, bytes]]:
    targets = [
        b"*",
        b"a",
        b"?a=b",
        b"#",
        b"/#fragment",
        b"http://localhost/",
        b"HTTP://localhost/",
        b"https://localhost:443/a",
        b"ftp://localhost/",
        b"//",
        b"localhost:80",
        b"\\",
        b"%2f",
        b"[::1]",
        b"<a>",
    ]
    for target in targets:
        if target != b"//":  # is a path, if an odd one
            yield f"target {target!r}", _head(b"GET " + target + b" HTTP/1.1")
    for control in CONTROLS:
        yield f"control {control} in the target", _head(b"GET /a" + bytes([control]) + b"b HTTP/1.1")
    for byte in range(128, 256, 2):
        yield f"byte {byte} in the target", _head(b"GET /a" + bytes([byte]) + b" HTTP/1.1")


def _names() -> Iterator[tuple[str, bytes]]:
    for byte in [*CONTROLS, *b' ()/<=>?@[]{},;"\\\t', *range(128, 256, 4)]:
        yield f"byte {byte} in a header's name", _post(b"A" + bytes([byte]) + b"B: c")
    yield "a header without a name", _post(b": value")
    yield "a header without a colon", _post(b"Header")
    yield "a blank before the colon", _post(b"Header : value")
    yield "a tab before the colon", _post(b"Header\t: value")
    yield "a blank before the name", b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n"
    yield "a folded header", _post(b"A: b\r\n c")
    yield "a header folded by a tab", _post(b"A: b\r\n\tc")
    yield "a folded host", b"GET / HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n"


def _values() -> Iterator[tuple[str, bytes]]:
    for control in CONTROLS:
        yield f"control {control} in a value", _post(b"A: b" + bytes([control]) + b"c")
        yield f"control {control} at a value's start", _post(b"A:" + bytes([control]) + b"c")
    yield "bare LF in the headers", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\nC: d\r\n\r\n"
    yield "bare CR in the headers", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\rC: d\r\n\r\n"
    yield "CR CR LF", b"GET / HTTP/1.1\r\r\n" + HOST + b"\r\n"
    yield "bare LF before the empty line", b"GET / HTTP/1.1\r\nHost: localhost\n\r\n\r\n"


def _lengths() -> Iterator[tuple[str, bytes]]:
    values = [
        b"",
        b" ",
        b"-1",
        b"+1",
        b"1 1",
        b"1,1",
        b"1, 1",
        b"1;1",
        b"0x1",
        b"1e3",
        b"1.0",
        b"a",
        b"1a",
        b"\xd9\xa1",
        b"'1'",
        b"1_0",
        b"99999999999999999999",
        b"18446744073709551616",
        b"-0",
        b"null",
        b"NaN",
    ]
    for value in values:
        yield f"content-length {value!r}", _post(b"Content-Length: " + value, body=b"x")
    yield "two equal lengths", _post(b"Content-Length: 1", b"Content-Length: 1", body=b"x")
    yield "two lengths", _post(b"Content-Length: 1", b"Content-Length: 2", body=b"xx")
    yield "two lengths in other cases", _post(b"content-length: 1", b"CONTENT-LENGTH: 1", body=b"x")


def _framing() -> Iterator[tuple[str, bytes]]:
    body = b"1\r\nx\r\n0\r\n\r\n"
    for value in [
        b"",
        b"gzip",
        b"identity",
        b"chunked, identity",
        b"chunked, chunked",
        b"gzip, chunked",
        b"chunked;q=1",
        b"xchunked",
        b"chunkedx",
        b'"chunked"',
        b"chun ked",
        b"chunked,",
        b",chunked",
        b"deflate",
        b"compress, chunked",
        b"trailers",
        b"\x0bchunked",
        b"chunked\x00",
    ]:
        yield f"transfer-encoding {value!r}", _post(b"Transfer-Encoding: " + value, body=body)
    both = (b"Content-Length: 1", b"Transfer-Encoding: chunked")
    yield "length and chunked", _post(*both, body=body)
    yield "chunked and length", _post(*reversed(both), body=body)
    yield "length 0 and chunked", _post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=body)
    yield "chunked twice", _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=body)
    yield "chunked in HTTP/1.0", _head(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked") + body
    yield "blank before the colon of chunked", _post(b"Transfer-Encoding : chunked", body=body)
    yield "another expectation", _post(b"Expect: 200-ok", b"Content-Length: 1", body=b"x")
    yield "upgrade with a body", _post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 1", body=b"x")
    yield "two content types", _post(b"Content-Type: a/b", b"Content-Type: c/d")
    yield "two authorizations", _post(b"Authorization: a", b"Authorization: b")


def _chunks() -> Iterator[tuple[str, bytes]]:
    sizes = [
        b"",
        b" 1",
        b"1 ",
        b"g",
        b"0x1",
        b"-1",
        b"+1",
        b"1.0",
        b"1,1",
        b"\t1",
        b"1\t",
        b"fffffffffffffffff",
        b"10000000000000000",
        b"ffffffffffffffffffffffff",
        b"1\x00",
        b"one",
        b"\xff",
        b"1_0",
        b"'1'",
    ]
    for size in sizes:
        yield f"chunk size {size!r}", _post(b"Transfer-Encoding: chunked", body=size + b"\r\nx\r\n0\r\n\r\n")
    for control in CONTROLS:
        yield (
            f"control {control} in a chunk size",
            _post(b"Transfer-Encoding: chunked", body=b"1" + bytes([control]) + b"\r\nx\r\n0\r\n\r\n"),
        )
    bodies = {
        "bare LF after a size": b"1\nx\r\n0\r\n\r\n",
        "bare LF after a chunk": b"1\r\nx\n0\r\n\r\n",
        "bare CR after a size": b"1\rx\r\n0\r\n\r\n",
        "a chunk longer than its size": b"1\r\nxy\r\n0\r\n\r\n",
        "a chunk shorter than its size": b"3\r\nx\r\n0\r\n\r\nyyyy",
        "no line after a chunk": b"1\r\nx0\r\n\r\n",
        "a trailer without a colon": b"0\r\nTrailer\r\n\r\n",
        "a trailer with a blank before the colon": b"0\r\nTrailer : x\r\n\r\n",
        "a trailer with a control": b"0\r\nTrailer: a\x01\r\n\r\n",
        "a folded trailer": b"0\r\nTrailer: a\r\n b\r\n\r\n",
        "an extension with a control": b"1;a=\x01\r\nx\r\n0\r\n\r\n",
        "a bare LF in an extension": b"1;a\n\r\nx\r\n0\r\n\r\n",
    }
    for name, body in bodies.items():
        yield name, _post(b"Transfer-Encoding: chunked", body=body)


def _hosts() -> Iterator[tuple[str, bytes]]:
    yield "no host", b"GET / HTTP/1.1\r\n\r\n"
    yield "two hosts", _head(b"GET / HTTP/1.1", host=b"Host: a\r\nHost: b\r\n")
    yield "two equal hosts", _head(b"GET / HTTP/1.1", host=b"Host: a\r\nHost: a\r\n")
    yield "two hosts in other cases", _head(b"GET / HTTP/1.1", host=b"host: a\r\nHOST: a\r\n")
    hosts = [b"a b", b"a/b", b"a@b", b"a,b", b"http://a", b"a:b", b"a:999999", b"[::1", b"::1]", b"a?b", b"a#b", b"<a>"]
    hosts += [b"a\\b", b'"a"', b"a:80:80", b"[g::]", b"\xff", b"a\xc3\xa9", b"{a}", b"a|b", b"a^b", b"a`b"]
    for host in hosts:
        yield f"host {host!r}", _head(b"GET / HTTP/1.1", host=b"Host: " + host + b"\r\n")


def _oversized() -> Iterator[tuple[str, bytes]]:
    for size in (9_000, 40_000, 200_000):
        yield f"a target of {size} bytes", _head(b"GET /" + b"a" * size + b" HTTP/1.1")
        yield f"a target of {size} bytes that does not end", b"GET /" + b"a" * size
        yield f"a method of {size} bytes", _head(b"G" * size + b" / HTTP/1.1")
    for size in (33_000, 100_000, 250_000):
        yield f"a header of {size} bytes", _post(b"A: " + b"b" * size)
        yield f"a header of {size} bytes that does not end", b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * size
        yield f"a name of {size} bytes", _post(b"A" * size + b": b")
    for count in (101, 500, 3_000):
        yield f"{count} headers", _post(*(b"A%d: b" % n for n in range(count)))
        yield f"{count} headers of one name", _post(*(b"A: b" for _ in range(count)))
    yield (
        "endless chunk extensions",
        _post(b"Transfer-Encoding: chunked", body=b"".join(b"1;" + b"e" * 2_000 + b"\r\nx\r\n" for _ in range(100))),
    )
    yield (
        "endless trailers",
        _post(
            b"Transfer-Encoding: chunked",
            body=b"0\r\n" + b"".join(b"T%d: %b\r\n" % (n, b"x" * 500) for n in range(400)),
        ),
    )
