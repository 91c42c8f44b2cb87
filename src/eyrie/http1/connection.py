"""One client connection of the HTTP/1 server: a protocol class in callback style, no task and no timer a request.

An `Application` hears of each request on a `Connection`, in this order:

    head(connection)       method, target, headers (and the same as a dict, `fields`, where trailing blanks of a value
                           are kept), content_length (None: chunked) and raw_head are set. It calls
                               collect(limit)      -> later body(connection, data) with the whole body, or
                               stream(raw=False)   -> data(connection, piece) ..., then end(connection), or it
                               replies at once (what the client still sends is read and dropped, within bounds).
    too_large(connection)  instead of body(): the body passed the limit of collect(); must reply (413).
    gone(connection)       the client left before its reply was complete: cancel what works on it, send nothing more.
                           One that only ends its sending after a whole request is given some time for its reply.
    paused(connection), resumed(connection)    the client takes its reply too slowly / has caught up.

and replies, at any later time but once a request, with one of

    connection.reply(status, lines, body)      lines: header lines, each ended by CRLF, without framing headers
    connection.start(status, lines, length or None for chunked); connection.write(piece) ...; connection.finish()
    connection.write_raw(data) ...; connection.finish_raw(keep_alive)     bytes that somebody else framed

`connection.context` is the application's own slot a request, and `connection.listener` may be set to another object
that hears what follows the head. `pause_reading()` and `resume_reading()` hold a streamed body back. Requests that a
client pipelines are answered one after the other; what it sends ahead is bounded.

`connection.remember()` makes a shape of the current head, if it is worth one; when the head comes again (`shapes`),
`connection.shape` is that shape, `connection.values` what varied in it, and its body has come whole.

Heads are cut out by their empty line and bounded before the parser sees more; everything that HTTP/1.1 leaves open to
two readings is refused with 400 and the connection closed (tests/unit/malformed_http.py holds the list).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import select
from typing import TYPE_CHECKING, Any, cast

import httptools

from eyrie.http1.application import Listener
from eyrie.http1.replies import STATUS_LINES, has_body, refusal, status_line
from eyrie.http1.shapes import Shape

if TYPE_CHECKING:
    from eyrie.http1.server import Server

log = logging.getLogger(__name__)

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+;=-]+|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{0,5})?")
_FIRST_LINE = re.compile(rb"(?:\r\n)*[A-Z]+ [^ \r\n]+ HTTP/([0-9]\.[0-9])\r\n")
_EMPTY_LINE = b"\r\n\r\n"
_TOGETHER_BYTES_MAX = 16_384  # of a reply's body, to be sent together with other replies of the same turn
_ONCE = (b"host", b"content-length", b"transfer-encoding", b"expect", b"content-type", b"authorization")


class Refused(Exception):
    """A request that HTTP itself forbids or a limit stops; answered with this status and the connection closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# Where a connection stands. Plain integers, since they are compared several times a request; their order matters: up to
# BODY what arrives is parsed, up to REPLY the request can be answered.
_HEAD = 0  # idle, or reading a head
_BODY = 1  # reading a body; the reply may have begun
_REPLY = 2  # the request is complete, its reply is not
_LINGER = 3  # answered for good; what still comes is dropped
_CLOSED = 4

# What becomes of a body.
_UNDECIDED = 0
_COLLECT = 1
_STREAM = 2
_RAW = 3


class _NotAlone(Exception):
    """A read brought more than one request."""


class Connection(asyncio.Protocol):
    """One client connection, and the request that is being read or answered on it."""

    __slots__ = (
        "_arrived",
        "_collect_limit",
        "_collect_since",
        "_complete",
        "_consuming",
        "_ended",
        "_expects_continue",
        "_fields",
        "_framing_bytes",
        "_head",
        "_head_bytes",
        "_head_done",
        "_hold",
        "_keep",
        "_limits",
        "_linger_left",
        "_met",
        "_mode",
        "_parser",
        "_phase",
        "_pieces",
        "_reading_paused",
        "_received",
        "_remaining",
        "_repeated",
        "_reply_chunked",
        "_reply_left",
        "_reply_started",
        "_seen_host",
        "_seen_target",
        "_server",
        "_shape",
        "_since",
        "_spoilt",
        "_sweep",
        "_tail",
        "_unsent",
        "_writing_paused",
        "content_length",
        "context",
        "http_1_0",
        "listener",
        "method",
        "shape",
        "target",
        "transport",
        "values",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.limits
        self._sweep = server.sweep
        self._parser: Any = httptools.HttpRequestParser(self)
        self._seen_host: bytes | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._consuming = False
        self._ended = False  # the client sends no more, and still reads
        self._since = server.sweep.now
        self._linger_left = 0
        self._hold = b""
        self._phase = _HEAD
        self.transport: asyncio.Transport | None = None
        self.method = b""
        self.http_1_0 = False
        self._repeated = 0  # header lines whose name had come before
        self._spoilt = ""  # why the head cannot be accepted, found while it was parsed
        self._seen_target: bytes | None = None
        self._shape: Shape | None = None  # what this client's heads look like
        self._met = 0  # heads of other shapes than that
        self._collect_limit = 0
        self._collect_since = 0.0
        self._remaining = 0  # bytes of the body still to come; of a chunked one, its bytes on the wire so far
        self._arrived = 0  # bytes of a body since its deadline was moved
        self._framing_bytes = 0  # of a chunked body, since its last byte that was no framing
        self._unsent = 0  # bytes of replies that the client had not taken when somebody looked
        self._tail = b""  # the last bytes of the segment before, where an empty line may have begun
        self._reply_chunked = False
        self._reply_left: int | None = None
        self._reset()

    def _reset(self) -> None:
        """Ready for the next request; what only a body or a reply in pieces needs is set where those begin."""
        self.target = b""
        self._fields: dict[bytes, bytes] | None = {}  # None: not yet made of `values`
        self.shape: Shape | None = None  # of the current head, where the connection knew it
        self._head = b""  # what was read of the head, and maybe of what follows it
        self._head_bytes = 0  # where the head ends in it; 0 while it has not
        self.content_length: int | None = 0
        self.context: Any = None
        self.listener: Listener = self._server.application
        self._pieces: list[bytes] = []
        self._received = 0  # bytes of the body, as far as they count against a limit
        self._expects_continue = False
        self._head_done = False
        self._complete = False
        self._keep = False
        self._mode = _UNDECIDED
        self._reply_started = False

    # --- what the application calls ----------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the current request can still be answered."""
        return self._phase <= _REPLY

    @property
    def writing_paused(self) -> bool:
        """Whether the client is behind with its reply."""
        return self._writing_paused

    @property
    def reply_started(self) -> bool:
        """Whether the head of the reply was written."""
        return self._reply_started

    @property
    def fields(self) -> dict[bytes, bytes]:
        """The headers by name in lower case, repeated ones joined by commas; trailing blanks of values are kept."""
        fields = self._fields
        if fields is None:
            assert self.shape is not None
            fields = self._fields = self.shape.fields(self.values)
        return fields

    @property
    def raw_head(self) -> bytes:
        """The head as it came over the wire, its empty line included."""
        return self._head[: self._head_bytes]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers, names in lower case, repeated ones joined by commas, no blanks around values."""
        return [(name, value.rstrip(b" \t")) for name, value in self.fields.items()]

    @property
    def peer(self) -> str:
        """The client's address, for logs."""
        address = self.transport.get_extra_info("peername") if self.transport is not None else None
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"

    def collect(self, limit: int) -> None:
        """Gather the body, `limit` bytes at most, and hand it over whole to `body` (or call `too_large`)."""
        self._mode = _COLLECT
        self._collect_limit = limit

    def stream(self, raw: bool = False) -> None:
        """Hand the body over in pieces to `data`, then `end`; raw: as it is on the wire, chunk framing included, and
        without answering `Expect: 100-continue` (whoever gets the raw bytes does).
        """
        self._mode = _RAW if raw else _STREAM

    def remember(self) -> Shape | None:
        """The shape of the current head, to recognise it by from now on; None where there is none, or where this client
        changes its heads so often that it does not pay. For heads that the application accepted.
        """
        self._met += 1
        if self._met < 2 or self._met & (self._met - 1):  # the second, the fourth, the eighth ...
            return None
        if not self._keep or self.http_1_0 or self._head_bytes > self._limits.head_bytes // 2 or self._spoilt:
            return None
        if self._head.count(b"\r\n", 0, self._head_bytes) != len(self.fields) + 2:  # a header came twice
            return None
        server = self._server
        self._shape = server.shapes.of(self.raw_head, self.fields, self.method, self.target, self._sweep.now)
        return self._shape

    def accept_body(self) -> None:
        """Tell a client that asked with `Expect: 100-continue` to go on; `collect` does it by itself, `stream` leaves
        the moment open.
        """
        if self._expects_continue and not self._complete and self.transport is not None:
            self._expects_continue = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def pause_reading(self) -> None:
        """Stop taking body bytes from the client."""
        if not self._reading_paused and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take body bytes again."""
        if self._reading_paused and self.transport is not None:
            self._reading_paused = False
            self._since = self._sweep.now
            self.transport.resume_reading()

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer whole. `lines` are header lines without framing (no content-length, no connection)."""
        transport = self.transport
        if transport is None or self._phase > _REPLY:
            return
        server = self._server
        keep = self._keep and not server.draining
        if keep and status == 200 and not self.http_1_0 and self.method != b"HEAD":
            framing = b"content-length: %d\r\n" % len(body)
        else:
            framing = self._framing(status, len(body), keep)
            if not has_body(self.method, status):
                body = b""
        line = STATUS_LINES.get(status) or status_line(status)
        data = b"%b%b%b%b\r\n%b" % (line, lines, server.date, framing, body)
        if len(body) <= _TOGETHER_BYTES_MAX:
            server.outbox.put(transport, data)
        else:
            server.outbox.flush()
            transport.write(data)
        self._reply_started = True
        self._finished(keep)

    def start(self, status: int, lines: bytes, length: int | None) -> None:
        """Begin a reply in pieces; `length` None where it is not known."""
        if self.transport is None or self._phase > _REPLY:
            return
        bodied = has_body(self.method, status)
        self._reply_chunked = length is None and bodied and not self.http_1_0
        if length is None and bodied and self.http_1_0:
            self._keep = False
        keep = self._keep and not self._server.draining
        framing = self._framing(status, length, keep)
        if self._reply_chunked:
            framing = b"transfer-encoding: chunked\r\n" + framing
        self._keep = keep
        self._reply_left = length if bodied else 0
        self._reply_started = True
        self._write(b"%b%b%b%b\r\n" % (status_line(status), lines, self._server.date, framing))

    def _framing(self, status: int, length: int | None, keep: bool) -> bytes:
        """The header lines that say how long a reply is and whether the connection stays."""
        framing = b"" if length is None or status < 200 or status == 204 else b"content-length: %d\r\n" % length
        if not keep:
            return framing + b"connection: close\r\n"
        return framing + b"connection: keep-alive\r\n" if self.http_1_0 else framing

    def write(self, piece: bytes) -> None:
        """The next piece of a begun reply; what exceeds the announced length is dropped."""
        if self.transport is None or not piece or self._phase > _REPLY:
            return
        self._since = self._sweep.now
        if self._reply_left is not None:
            piece = piece[: self._reply_left]
            self._reply_left -= len(piece)
            self._write(piece)
        elif self._reply_chunked:
            self._write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self._write(piece)

    def finish(self) -> None:
        """End a begun reply. One that is shorter than announced cuts the connection, so that the client sees it."""
        if self.transport is None or self._phase > _REPLY:
            return
        if self._reply_left:
            self.abort()
            return
        if self._reply_chunked:
            self._write(b"0\r\n\r\n")
        self._finished(self._keep)

    def write_raw(self, data: bytes) -> None:
        """Bytes of a reply that somebody else framed."""
        if self.transport is not None and self._phase <= _REPLY:
            self._reply_started = True
            self._since = self._sweep.now
            self._write(data)

    def finish_raw(self, keep_alive: bool) -> None:
        """End of a raw reply, which told the client whether the connection stays."""
        if self._phase <= _REPLY:
            self._finished(keep_alive and self._keep and not self._server.draining)

    def _write(self, data: bytes) -> None:
        """Write directly, after what waits for the end of the turn."""
        if self.transport is not None:
            self._server.outbox.flush()
            self.transport.write(data)

    def _close(self) -> None:
        """End the connection when what was written is sent, or the client takes none of it any more."""
        self._phase = _CLOSED
        self._since = self._sweep.now
        if self.transport is not None:
            self._server.outbox.flush()
            self.transport.close()

    def refuse(self, status: int, message: str) -> None:
        """Answer with the server's own error and close (a reply that has begun is cut instead); the application hears
        `gone`.
        """
        self._keep = False
        if self._reply_started or self._phase > _REPLY:
            self.abort()
            return
        known = self._mode != _UNDECIDED and self._phase != _HEAD
        self._phase = _BODY  # so that finishing lingers: there may be bytes that nobody parsed
        self.reply(status, *refusal(status, message))
        if known:
            self.listener.gone(self)

    def abort(self) -> None:
        """Cut the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    # --- what the event loop calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        server = self._server
        if not server.admit(self):
            if len(server.connections) > 2 * self._limits.connections:  # so many are being refused already
                self.abort()
            else:
                self.refuse(503, "too many connections")

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        phase = self._phase
        if phase > _BODY:
            self._read_ahead(data)
            return
        self._consuming = True
        try:
            if phase == _BODY:
                self._arrived += len(data)
                if self._arrived >= self._limits.body_step_bytes:
                    self._arrived = 0
                    self._since = self._sweep.now
            elif not self._head:  # a head has one deadline, however it drips
                self._since = self._sweep.now
                if self._read_alone(data):
                    data = b""
            while data and (self._phase == _BODY or (self._phase == _HEAD and not self._writing_paused)):
                data = self._step(data)
        except Refused as refused:
            data = b""
            self.refuse(refused.status, str(refused))
        except Exception:  # the loop boundary: an application's mistake costs its own request only
            data = b""
            log.exception("a request failed in the application")
            self.refuse(500, "internal failure")
        self._consuming = False
        if data and self._phase in (_HEAD, _REPLY):
            self._keep_for_later(data)
        elif self._reading_paused and self._phase == _HEAD and not self._writing_paused:
            self.resume_reading()  # an application that replies at once may have left it so

    def _read_ahead(self, data: bytes) -> None:
        """Bytes that come while a reply is under way, or after it."""
        if self._phase == _REPLY:
            self._keep_for_later(data)
        elif self._phase == _LINGER:
            self._linger_left -= len(data)
            if self._linger_left < 0:
                self.abort()

    def eof_received(self) -> bool:
        """The client will send no more. While what it sent whole is unanswered the connection stays for the answers,
        but not for long: over TCP a client that has closed its socket looks the same until something is written.
        """
        self._since = self._sweep.now
        self._ended = (self._phase == _REPLY or bool(self._hold)) and not self._hung_up()
        return self._ended

    def _hung_up(self) -> bool:
        """Whether the other end of the socket is closed for both directions, or was reset."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None:
            return False
        state = select.poll()
        state.register(sock.fileno(), 0)  # errors and hang-ups are told unasked
        return bool(state.poll(0))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        unanswered = self._mode != _UNDECIDED and self._phase in (_BODY, _REPLY)
        self._phase = _CLOSED
        self.transport = None
        self._server.forget(self)
        if unanswered:
            self.listener.gone(self)

    def pause_writing(self) -> None:
        """The reply's buffer is full."""
        self._writing_paused = True
        self._since = self._sweep.now
        if self._phase <= _REPLY and self._mode != _UNDECIDED:
            self.listener.paused(self)

    def resume_writing(self) -> None:
        """The reply's buffer has emptied."""
        self._writing_paused = False
        self._since = self._sweep.now
        if self._phase <= _REPLY and self._mode != _UNDECIDED:
            self.listener.resumed(self)
        elif self._phase == _HEAD:
            self._go_on()

    # --- what the parser calls: facts are noted, nothing is decided inside of it -------------------------------------

    def on_url(self, url: bytes) -> None:
        """The request target, or a part of it; that of a second request means that the first was not alone."""
        if self._head_done:
            raise _NotAlone
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line, or a trailer once the head is done: those are dropped."""
        if self._head_done:
            return
        name = name.lower()
        fields = self._fields
        if fields is None or name in fields:
            self._repeat(name, value)
        else:
            fields[name] = value

    def _repeat(self, name: bytes, value: bytes) -> None:
        """Headers that come more than once are joined by commas; those that must not, spoil the request."""
        self._repeated += 1
        if name in _ONCE:
            self._spoilt = f"the header {name.decode()} may come only once"
        elif self._repeated <= self._limits.header_count:
            self.fields[name] = self.fields[name].rstrip(b" \t") + b"," + value

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._head_done = True
        self.method = self._parser.get_method()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The request is complete. Whether the connection stays must be asked here: the parser forgets it right
        after.
        """
        self._keep = self._parser.should_keep_alive()
        self._complete = True

    # --- reading -----------------------------------------------------------------------------------------------------

    def _step(self, data: bytes) -> bytes:
        """Parse one segment of `data`; what is left of it belongs to the next step or request."""
        if self._phase == _HEAD:
            size = self._cut(data)
            if size == len(data):
                self._read_head(data)
                return b""
            self._read_head(data[:size])
            return data[size:]
        size = self._remaining if self.content_length is not None else self._cut(data)
        if size >= len(data):
            self._read_body(data)
            return b""
        self._read_body(data[:size])
        return data[size:]

    def _cut(self, data: bytes) -> int:
        """Where the next empty line of `data` ends, also one that began in the segment before; heads and chunked
        bodies end with one.
        """
        tail = self._tail
        if tail:
            end = (tail + data[:3]).find(_EMPTY_LINE)
            if end >= 0:
                return end + 4 - len(tail)
        end = data.find(_EMPTY_LINE)
        return end + 4 if end >= 0 else len(data)

    def _parser_stopped(self, error: Exception) -> None:
        """A request that asks for another protocol is answered in this one, unless it has a body; any other stop is
        final.
        """
        if not isinstance(error, httptools.HttpParserUpgrade):
            raise Refused(*self._why_refused(error)) from None
        self._parser = httptools.HttpRequestParser(self)
        if self.method == b"CONNECT" or b"content-length" in self.fields or b"transfer-encoding" in self.fields:
            raise Refused(400, "upgrading the protocol is not supported") from None

    def _why_refused(self, error: Exception) -> tuple[int, str]:
        if b"PRI * HTTP/2" in self._head:
            return 505, "HTTP/2 is not spoken here"
        return 400, f"not HTTP/1.1: {error}"

    def _read_alone(self, data: bytes) -> bool:
        """Most often a read brings one request and nothing else: parse it in one go. False where it was otherwise, and
        nothing has happened.
        """
        if data[0] < 65 or self._writing_paused:
            return False
        shape = self._shape
        if shape is not None:
            values = shape.match(data)
            if values is not None:
                size = values.end()
                length = int(values[shape.length_group])
                if len(data) - size == length:
                    self._begin_again(shape, values, size, length)
                    return True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            self._head_done = False
        size = data.find(_EMPTY_LINE) + 4
        if not self._head_done or (self._complete and not self._ends_here(data, size)):
            self._parser = httptools.HttpRequestParser(self)
            self._reset()
            self._repeated = 0
            self._spoilt = ""
            return False
        self._head = data
        self._begin(size)
        return True

    def _ends_here(self, data: bytes, size: int) -> bool:
        """Whether a request that is complete takes all of `data`: the parser says nothing of the first letters of the
        next one, up to its blank.
        """
        if b"transfer-encoding" in self.fields:
            return data.endswith(_EMPTY_LINE)
        return len(data) - size == sum(map(len, self._pieces))

    def _read_head(self, segment: bytes) -> None:
        limits = self._limits
        self._head = head = self._head + segment if self._head else segment
        if len(head) > limits.head_bytes:
            raise Refused(*self._why_too_long())
        try:
            self._parser.feed_data(segment)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
            self._parser_stopped(error)
        if self._head_done:
            self._tail = b""
            self._begin(len(head))
            return
        if head.startswith(b"\r\n") and not head.strip(b"\r\n"):
            if len(head) > 4:
                raise Refused(400, "empty lines where a request should be")
        elif b"\n" in segment and b"\n" in head.lstrip(b"\r\n") and not _FIRST_LINE.match(head):
            raise Refused(400, "the first line is no HTTP/1 request line")
        self._tail = head[-3:] if head.strip(b"\r\n") else b""
        if len(self.fields) + self._repeated > limits.header_count:
            raise Refused(431, f"more than {limits.header_count} headers")

    def _why_too_long(self) -> tuple[int, str]:
        limits = self._limits
        if b"\n" not in self._head[: limits.head_bytes]:
            return 414, f"the request target is longer than {limits.target_bytes} bytes"
        return 431, f"the head is longer than {limits.head_bytes} bytes"

    def _begin(self, size: int) -> None:
        """A head of `size` bytes is complete: check what the parser leaves open, then let the application decide."""
        fields = self.fields
        if self._repeated or len(fields) > self._limits.header_count:
            self._check_count()
        target = self.target
        start = len(self.method) + 1 + len(target)
        if target != self._seen_target or not self._head.startswith(b" HTTP/1.1\r\n", start):
            self._check_line(target)
        elif self.method not in _METHODS:
            raise Refused(400, "this method is not served")
        if size > self._limits.head_bytes:
            raise Refused(*self._why_too_long())
        self._head_bytes = size
        host = fields.get(b"host")
        if host is None or host != self._seen_host:
            self._check_host(host)
        if b"content-length" in fields:
            self.content_length = self._remaining = int(fields[b"content-length"])
        elif b"transfer-encoding" in fields or not self._complete:
            self._check_chunked(fields)
        if b"expect" in fields:
            self._check_expectation(fields[b"expect"])
        if self._complete:
            self._phase = _REPLY
        else:
            self._phase = _BODY
            self._arrived = 0
            self._since = self._sweep.now
        self._server.application.head(self)
        length = self.content_length
        if self._mode == _COLLECT and self._complete and length is not None and length <= self._collect_limit:
            pieces = self._pieces
            self.listener.body(self, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        elif self._phase == _BODY or self._phase == _REPLY:  # else it has answered
            self._take_body(self._head[size:])

    def _begin_again(self, shape: Shape, values: re.Match[bytes], size: int, length: int) -> None:
        """A whole request came whose head, of `size` bytes, has a known shape."""
        data = values.string
        self.shape = shape
        self.values = values
        self.method = shape.method
        self.target = values[shape.target_group] if shape.target_group else shape.target
        self.http_1_0 = False
        self._fields = None
        self._head = data
        self._head_bytes = size
        self.content_length = self._remaining = length
        self._complete = self._keep = True
        self._phase = _REPLY
        self._server.application.head(self)
        body = data[size:]
        if self._mode == _COLLECT and length <= self._collect_limit:
            self.listener.body(self, body)
        elif self._phase == _REPLY:  # else it has answered
            self._pieces = [body] if body else []
            self._take_body(body)

    def _take_body(self, rest: bytes) -> None:
        """The application knows the head: hand over what of the body has come, ask for the rest."""
        if self._mode == _UNDECIDED:
            self.collect(self._limits.body_bytes)
        if self._mode == _COLLECT:
            if self.content_length is not None and self.content_length > self._collect_limit:
                self.listener.too_large(self)
                return
            if self._expects_continue and not rest:
                self.accept_body()
            self._collect_since = self._sweep.now
        if rest or self._complete:
            self._pass_on(rest)

    def _check_count(self) -> None:
        count = len(self.fields) + self._repeated
        self._repeated = 0
        if count > self._limits.header_count:
            raise Refused(431, f"more than {self._limits.header_count} headers")
        if self._spoilt:
            raise Refused(400, self._spoilt)

    def _check_line(self, target: bytes) -> None:
        """Everything about the request line; a connection that repeats its target with HTTP/1.1 skips it."""
        line = _FIRST_LINE.match(self._head)
        if line is None:  # RTSP, repeated blanks, HTTP/0.9
            raise Refused(400, "the first line is no HTTP/1 request line")
        version = line[1]
        if version not in (b"1.0", b"1.1"):
            raise Refused(505 if version >= b"2" else 400, f"HTTP/{version.decode()} is not spoken here")
        self.http_1_0 = version == b"1.0"
        if self.method not in _METHODS:
            raise Refused(400, "this method is not served")
        if len(target) > self._limits.target_bytes:
            raise Refused(414, f"the request target is longer than {self._limits.target_bytes} bytes")
        if target[:1] != b"/" or b"#" in target or not target.isascii():
            raise Refused(400, "the request target must be a path")
        self._seen_target = None if self.http_1_0 else target

    def _check_host(self, host: bytes | None) -> None:
        if (host is None and not self.http_1_0) or (host is not None and not _HOST.fullmatch(host.strip())):
            raise Refused(400, "a request needs exactly one valid Host header")
        self._seen_host = host

    def _check_chunked(self, fields: dict[bytes, bytes]) -> None:
        if fields.get(b"transfer-encoding", b"").strip().lower() != b"chunked" or self.http_1_0:
            raise Refused(400, "only `Transfer-Encoding: chunked` is understood, with HTTP/1.1")
        self.content_length = None
        self._remaining = self._framing_bytes = 0

    def _check_expectation(self, expected: bytes) -> None:
        if self.http_1_0:
            return
        if expected.strip().lower() != b"100-continue":
            raise Refused(417, "no such expectation is met here")
        self._expects_continue = not self._complete

    def _read_body(self, segment: bytes) -> None:
        try:
            self._parser.feed_data(segment)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
            self._parser_stopped(error)
        self._pass_on(segment)

    def _pass_on(self, segment: bytes) -> None:
        """A segment of the body was parsed: to the application with it, or to what is collected for it."""
        if self.content_length is None:
            self._tail = (self._tail + segment)[-3:]
            self._check_overhead(len(segment))
        else:
            self._remaining -= len(segment)
            self._received += len(segment)
        listener = self.listener
        pieces = self._pieces
        if self._mode == _COLLECT:
            if self._received > self._collect_limit:
                self._pieces = []
                listener.too_large(self)
            elif self._complete:
                self._phase = _REPLY
                listener.body(self, pieces[0] if len(pieces) == 1 else b"".join(pieces))
            return
        self._pieces = []
        piece = segment if self._mode == _RAW else b"".join(pieces)
        if piece:
            listener.data(self, piece)
        if self._complete and self._phase in (_BODY, _REPLY):
            self._phase = _REPLY
            listener.end(self)

    def _check_overhead(self, segment_bytes: int) -> None:
        """A chunked body must not be made of framing: `_remaining` counts the wire here, `_received` the body."""
        self._remaining += segment_bytes
        before = self._received
        if self._mode == _COLLECT:
            self._received = sum(map(len, self._pieces)) if len(self._pieces) < 64 else self._compact()
        else:
            self._received += sum(map(len, self._pieces))
        self._framing_bytes = 0 if self._received > before else self._framing_bytes + segment_bytes
        allowed = self._limits.chunk_overhead_bytes
        if self._remaining > 16 * self._received + allowed or self._framing_bytes > allowed:
            raise Refused(400, "a chunked body made of framing")

    def _compact(self) -> int:
        self._pieces = [b"".join(self._pieces)]
        return len(self._pieces[0])

    def _keep_for_later(self, data: bytes) -> None:
        """What the client pipelines waits, bounded, until the reply before it is finished."""
        self._hold = self._hold + data if self._hold else data
        if len(self._hold) > self._limits.pipelined_bytes:
            self.pause_reading()

    # --- after a reply -----------------------------------------------------------------------------------------------

    def _finished(self, keep: bool) -> None:
        if self._phase == _REPLY and keep and not self._server.draining:
            self._reset()
            self._phase = _HEAD
            if self._consuming or self._writing_paused:
                return  # the loop that is reading goes on by itself; a client that does not read gets no further reply
            if self._hold or self._ended:
                self._go_on()
            elif self._reading_paused:
                self.resume_reading()
        elif self._phase == _REPLY and not self._hold:
            self._close()
        else:
            self._linger()

    def _go_on(self) -> None:
        """Answer what was pipelined, and read on."""
        data, self._hold = self._hold, b""
        if data:
            self.data_received(data)
        if self._ended and self._phase <= _BODY and not self._hold:  # no more will come
            self._server.outbox.flush()
            if self.transport is not None:
                self.transport.close()
        elif self._phase == _HEAD or len(self._hold) <= self._limits.pipelined_bytes:
            self.resume_reading()

    def _linger(self) -> None:
        """An early answer reaches the client only when what it still sends is read: closing on unread bytes would
        reset the connection.
        """
        self._phase = _LINGER
        self._linger_left = self._limits.linger_bytes
        self._since = self._sweep.now
        self._pieces = []
        self._hold = b""
        self.resume_reading()
        if self.transport is not None and self.transport.can_write_eof():
            self._server.outbox.flush()
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()

    def overdue(self, now: float) -> None:
        """Called by the sweep: end what has taken too long. Times of replies are the application's own."""
        limits = self._limits
        waited_ms = (now - self._since) * 1000
        phase = self._phase
        if self._ended and phase == _REPLY and (waited_ms > limits.half_closed_ms or self._hung_up()):
            self.abort()
        elif phase == _CLOSED or (self._writing_paused and phase != _LINGER):
            self._overdue_sending(now)
        elif phase == _HEAD:
            if not self._head:
                if waited_ms > limits.idle_ms:
                    self._close()
            elif waited_ms > limits.head_ms:
                self.refuse(408, "the head did not end in time")
        elif phase == _BODY and not self._reading_paused:
            dripping = self._mode == _COLLECT and (now - self._collect_since) * 1000 > limits.collect_ms
            if waited_ms > limits.body_idle_ms or dripping:
                self.refuse(408, "the body did not arrive in time")
        elif phase == _LINGER and waited_ms > limits.linger_ms:
            self.abort()

    def _overdue_sending(self, now: float) -> None:
        """The client has yet to take what was written: it may take long, but not stop."""
        if self.transport is None:
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent = unsent
            self._since = now
        elif (now - self._since) * 1000 > self._limits.send_idle_ms:
            self.abort()

    def shut(self, quiet_s: float) -> None:
        """The server is closing: a connection that has been idle for as long ends now, a busy one after its reply."""
        if self._phase == _HEAD and self.transport is not None and self._sweep.now - self._since >= quiet_s:
            self._close()
