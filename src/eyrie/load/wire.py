"""One connection of a load test: a request's bytes out, the reply's status and length in, and nothing kept of it.

Replies that say their length are read by finding it; any other (chunked, or until the connection ends) by httptools.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol, cast

import httptools

HEAD_BYTES_MAX = 65_536
_LENGTH = b"\r\ncontent-length:"
_CLOSE = b"\r\nconnection: close"
_KIND = b"\r\nx-amzn-errortype:"


class Hearer(Protocol):
    """Who is told what becomes of requests."""

    def answered(self, wire: Wire, status: int, kind: str) -> None:
        """A whole reply; `kind` is the API's code of an error, "" where it has none. The wire may be used again, unless
        it is closing.
        """

    def failed(self, wire: Wire, why: str) -> None:
        """No reply will come, or none that can be read; the wire is of no use any more."""

    def idle_lost(self, wire: Wire) -> None:
        """The other side closed a connection that nobody waited on."""


class Wire(asyncio.Protocol):
    """A kept-alive connection with at most one request on it."""

    __slots__ = (
        "_hearer",
        "_kind",
        "_parser",
        "_rest",
        "_start",
        "_status",
        "_transport",
        "busy",
        "closing",
        "intended",
        "sent",
    )

    def __init__(self, hearer: Hearer) -> None:
        self._hearer = hearer
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._start = b""  # of a head that is not whole yet
        self._rest = -1  # bytes of the body still to come; -1: no head yet
        self._status, self._kind, self.closing = 0, "", False
        self.busy = False
        self.intended = 0.0  # CLOCK_MONOTONIC
        self.sent = 0.0

    def send(self, request: bytes, intended: float) -> None:
        """Send a request that was meant to begin at `intended`."""
        assert self._transport is not None
        self.busy, self.intended, self.sent = True, intended, monotonic()
        self._transport.write(request)

    def close(self) -> None:
        """End it; nothing is heard of it afterwards."""
        self.busy = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes of a reply."""
        if self._parser is not None:
            self._feed(data)
        elif self._rest >= 0:
            self._rest -= len(data)
            if self._rest <= 0:
                self._whole()
        elif self.busy:
            self._head(self._start + data if self._start else data)
        else:
            self.close()  # bytes that nobody asked for

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is closed."""
        if not self.busy:
            self._hearer.idle_lost(self)
            return
        self.busy = False
        self._hearer.failed(self, "connection lost")

    def _head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._start = data
            if len(data) > HEAD_BYTES_MAX:
                self._broken("no HTTP")
            return
        head = data[:end].lower()
        at = head.find(_LENGTH)
        if at < 0 or head[9:10] == b"1":
            self._start = b""
            self._parser = httptools.HttpResponseParser(self)
            self._feed(data)
            return
        try:
            self._status = int(head[9:12])
            length = int(head[at + len(_LENGTH) :].partition(b"\r\n")[0])
        except ValueError:
            self._broken("no HTTP")
            return
        self._start = b""
        self.closing = _CLOSE in head
        self._kind = "" if self._status == 200 else _error_kind(data[:end], head)
        self._rest = length - (len(data) - end - 4)
        if self._rest <= 0:
            self._whole()

    def _whole(self) -> None:
        self._rest, self.busy = -1, False
        if self.closing and self._transport is not None:
            self._transport.abort()
        self._hearer.answered(self, self._status, self._kind)

    def _broken(self, why: str) -> None:
        self.close()
        self._hearer.failed(self, why)

    # ---- the other framings, by httptools
    def _feed(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._parser = None
            self._broken("no HTTP")

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one line of the head."""
        if name.lower() == b"x-amzn-errortype":
            self._kind = value.decode("latin-1")

    def on_message_complete(self) -> None:
        """httptools: the reply is whole."""
        parser, self._parser = self._parser, None
        assert parser is not None
        self._status, self.closing = parser.get_status_code(), not parser.should_keep_alive()
        if 100 <= self._status < 200:
            return
        kind, self._kind = ("" if self._status == 200 else self._kind), ""
        self._kind = kind
        self._whole()


def _error_kind(head: bytes, lowered: bytes) -> str:
    """The code in x-amzn-errortype; "" where there is none."""
    at = lowered.find(_KIND)
    if at < 0:
        return ""
    return head[at + len(_KIND) :].partition(b"\r\n")[0].strip().partition(b":")[0].decode("latin-1")[:80]
