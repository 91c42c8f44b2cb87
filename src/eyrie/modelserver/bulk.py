"""`POST /eyrie/batch`: many requests in one message, each answered as it would have been alone.

A batch transform sends its records so, and a gateway its small requests: `u32 length, body` one after the other; the
headers are those of each. The answer is `u16 status, u32 length, body` in the same order, and `x-eyrie-content-type`
says what the successful ones are, `x-eyrie-effort` what they cost (`effort`). The requests go to the servable a window
at a time, so a row model predicts many of them in one call, and a full queue turns none away. A server for which that
is worth while says so in its replies (`OFFER`).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from eyrie.http1.application import Listener
from eyrie.modelserver.effort import Effort
from eyrie.modelserver.replier import TEXT_LINES, Fields, Replier
from eyrie.modelserver.servable import RowServable, Servable

PATH = b"/eyrie/batch"
BYTES_MAX = 4 << 20  # of a message, besides what one request alone may have
WINDOW = 256  # requests that are with the servable at once
_SIZE = struct.Struct("<I")
_HEAD = struct.Struct("<HI")
BATCH_LINES = b"content-type: application/x-eyrie-batch\r\n"
OFFER = b"x-eyrie-batch: 1\r\n"


def bodies_of(message: bytes) -> list[bytes] | None:
    """The requests of a message; None where it is none."""
    found: list[bytes] = []
    at, end = 0, len(message)
    while at < end:
        if end - at < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(message, at)
        at += _SIZE.size
        if size > end - at:
            return None
        found.append(message[at : at + size])
        at += size
    return found


def answer(
    servable: Servable,
    loop: asyncio.AbstractEventLoop,
    effort: Effort,
    client: Replier,
    message: bytes,
    fields: Fields,
) -> None:
    """Have every request of a message answered, then the message."""
    bodies = bodies_of(message)
    if not bodies:
        client.reply(400, TEXT_LINES, b"this is no batch of requests")
        return
    _Bulk(servable, loop.call_soon, effort, client, bodies, fields).advance()


class _Bulk:
    """One message that is being answered."""

    def __init__(
        self,
        servable: Servable,
        soon: Callable[[Callable[[], None]], object],
        effort: Effort,
        client: Replier,
        bodies: list[bytes],
        fields: Fields,
    ) -> None:
        self._servable, self._soon, self.client, self._bodies = servable, soon, client, bodies
        self._effort, self._began = effort, effort.begin()
        self._fields = fields if b"content-length" not in fields else _without_length(fields)
        self._rows = servable if isinstance(servable, RowServable) else None  # it looks at no header but those of types
        self._together = self._rows is not None  # they may be read and predicted as one
        self._kind = b""
        self._answers: list[tuple[int, bytes]] = [(0, b"")] * len(bodies)
        self._next = self._done = 0
        self._woken = False

    def advance(self) -> None:
        """Hand more requests to the servable, as many as the window has room for."""
        self._woken = False
        if self._rows is not None and self._together:
            some = self._bodies[self._next : self._next + WINDOW]
            self._together = self._rows.invoke_together(self.client, some, self._fields, self._answered_together)
            if self._together:
                self._next += len(some)
                return
        while self._next < len(self._bodies) and self._next - self._done < WINDOW:
            number, self._next = self._next, self._next + 1
            body, fields = self._bodies[number], self._fields
            if self._rows is None:
                fields = {**fields, b"content-length": b"%d" % len(body)}
            self._servable.invoke(_One(self, number), body, fields)

    def _answered_together(self, answers: list[bytes] | None, lines: bytes) -> None:
        """The requests that went as one have their answers; None: one of them is at fault, so each goes alone."""
        if answers is None:
            self._together = False
            self._next = self._done
        else:
            self._answers[self._done : self._next] = [(200, body) for body in answers]
            self._done = self._next
            self._note_kind(lines)
        self._go_on()

    def answered(self, number: int, status: int, lines: bytes, body: bytes) -> None:
        """A request has its answer."""
        self._answers[number] = (status, body)
        self._done += 1
        if status == 200:
            self._note_kind(lines)
        self._go_on()

    def _note_kind(self, lines: bytes) -> None:
        """The header lines of an answer say of which type the answers are."""
        if not self._kind and lines.startswith(b"content-type: "):
            self._kind = b"x-eyrie-%b\r\n" % lines.partition(b"\r\n")[0]

    def _go_on(self) -> None:
        """Answer the message, or go on with what is left of it."""
        if self._done == len(self._bodies):
            parts = [part for status, body in self._answers for part in (_HEAD.pack(status, len(body)), body)]
            self.client.reply(200, BATCH_LINES + self._kind + self._effort.line(self._began), b"".join(parts))
        elif not self._woken and self._next < len(self._bodies):
            self._woken = True
            self._soon(self.advance)  # not from within the servable, which may be in the middle of something


def _without_length(fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if name != b"content-length"}


class _One:
    """One request of a message: what the servable takes for its client."""

    __slots__ = ("_begun", "_bulk", "_number", "_pieces", "context")

    def __init__(self, bulk: _Bulk, number: int) -> None:
        self._bulk, self._number = bulk, number
        self.context: Any = None

    @property
    def alive(self) -> bool:
        """Whether the client waits still."""
        return self._bulk.client.alive

    @property
    def writing_paused(self) -> bool:
        """Never: what comes is gathered."""
        return False

    @property
    def listener(self) -> Listener:
        """Who hears of the client."""
        return self._bulk.client.listener

    @listener.setter
    def listener(self, listener: Listener) -> None:
        """The client is one for all its requests: nobody else may hear of it."""

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """The whole answer."""
        self._bulk.answered(self._number, status, lines, body)

    def start(self, status: int, lines: bytes, length: int | None) -> None:
        """The beginning of an answer in pieces."""
        self._begun, self._pieces = (status, lines), list[bytes]()

    def write(self, piece: bytes) -> None:
        """A piece."""
        self._pieces.append(piece)

    def finish(self) -> None:
        """The answer is complete."""
        self._bulk.answered(self._number, *self._begun, b"".join(self._pieces))

    def abort(self) -> None:
        """The answer will never be complete."""
        self._bulk.answered(self._number, 500, TEXT_LINES, b"the answer broke off; its log says why")
