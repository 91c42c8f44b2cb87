"""Answers in pieces: what user code yields is sent as it comes, as fast as its client reads.

The pieces are drawn in the worker thread that runs the request, and written on the event loop. No more than AHEAD_BYTES
wait between the two: a client that is slow stops the generator at its next piece, one that leaves ends it
(GeneratorExit). What it raises before its first piece is an error like any other; afterwards the reply is cut without
its end, which is how whoever reads it can tell, and the traceback is in the log.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from eyrie.http1.server import Connection
from eyrie.modelserver.replier import Replier, refuse, speaking

log = logging.getLogger("eyrie.modelserver")

AHEAD_BYTES = 65_536
PIECE_BYTES_MAX = 65_536  # of one write; a longer piece is cut up


class Stream:
    """One answer in pieces. `run` belongs to the worker thread, everything else to the event loop."""

    def __init__(self, replier: Replier, soon: Callable[..., object], label: str = "") -> None:
        """`soon` is the loop's call_soon_threadsafe; `label`: the container's mark in the log, of several."""
        self._replier = replier
        self._soon = soon
        self._label = label
        self._change = threading.Condition()
        self._ahead = 0  # bytes drawn and not taken by the client's buffer
        self._held = 0  # of those, the ones written while the client was behind
        self._gone = False
        self._begun = False
        self._ended = False

    # ------------------------------------------------------------------------------------------- in the worker thread
    def run(self, status: int, lines: bytes, pieces: Iterator[Any]) -> None:
        """Draw pieces and send them until they end, the client leaves or one fails. Never raises."""
        self._soon(self._listen)
        try:
            for piece in pieces:
                if not self._send(status, lines, as_bytes(piece)):
                    return
            self._soon(self._finish, status, lines)
        except BaseException as error:  # foreign code's boundary: also SystemExit must not end the worker
            self._soon(self._fail, error)
        finally:
            self._close(pieces)

    def _send(self, status: int, lines: bytes, data: bytes) -> bool:
        for start in range(0, len(data), PIECE_BYTES_MAX):
            part = data[start : start + PIECE_BYTES_MAX]
            with self._change:
                self._ahead += len(part)
                self._soon(self._write, status, lines, part)
                self._change.wait_for(lambda: self._ahead <= AHEAD_BYTES or self._gone)
        return not self._gone

    def _close(self, pieces: Iterator[Any]) -> None:
        close = getattr(pieces, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException as error:  # the same boundary: clean-up code of the user's generator
            log.error("closing a stream failed\n%s", "".join(traceback.format_exception(error)).rstrip())

    # ---------------------------------------------------------------------------------------------- on the event loop
    def _listen(self) -> None:
        if self._replier.alive:
            self._replier.listener = self
        else:
            self._leave()

    def _write(self, status: int, lines: bytes, data: bytes) -> None:
        replier = self._replier
        if self._ended or self._gone or not replier.alive:
            self._leave()
            return
        if not self._begun:
            self._begun = True
            replier.start(status, lines, None)
        replier.write(data)
        if replier.writing_paused:
            self._held += len(data)
        else:
            self._release(len(data))

    def _finish(self, status: int, lines: bytes) -> None:
        if self._ended or self._gone or not self._replier.alive:
            return
        self._ended = True
        if self._begun:
            self._replier.finish()
        else:
            self._replier.reply(status, lines, b"")

    def _fail(self, error: BaseException) -> None:
        if self._ended or self._gone:
            return
        self._ended = True
        if self._begun:
            with speaking(self._label):
                log.error("an answer broke off\n%s", "".join(traceback.format_exception(error)).rstrip())
            self._replier.abort()
        else:
            refuse(self._replier, error, self._label)

    def _release(self, count: int) -> None:
        with self._change:
            self._ahead -= count
            self._change.notify()

    def _leave(self) -> None:
        with self._change:
            self._gone = True
            self._change.notify()

    # --------------------------------------------------------------------------------------- what the connection says
    def gone(self, connection: Connection) -> None:
        """The client left: the generator ends at its next piece."""
        self._leave()

    def paused(self, connection: Connection) -> None:
        """The client is behind: `_write` has seen it."""

    def resumed(self, connection: Connection) -> None:
        """The client has caught up."""
        held, self._held = self._held, 0
        self._release(held)

    def body(self, connection: Connection, data: bytes) -> None:
        """Never called: the request was whole."""

    def data(self, connection: Connection, piece: bytes) -> None:
        """Never called: the request was whole."""

    def end(self, connection: Connection) -> None:
        """Never called: the request was whole."""

    def too_large(self, connection: Connection) -> None:
        """Never called: the request was whole."""


def as_bytes(piece: Any) -> bytes:
    """A piece as it is sent. Raises TypeError for what is neither bytes nor text."""
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece)
    raise TypeError(f"a streamed answer yielded {type(piece).__name__}; its pieces must be bytes or str")


def drawn(pieces: AsyncIterator[Any]) -> Iterator[Any]:
    """An asynchronous iterator's pieces, drawn on an event loop of this thread's own."""
    ended = object()

    async def step() -> Any:
        return await anext(pieces, ended)

    async def close() -> None:
        aclose = getattr(pieces, "aclose", None)
        if aclose is not None:
            await aclose()

    with asyncio.Runner() as runner:
        try:
            while (piece := runner.run(step())) is not ended:
                yield piece
        finally:
            runner.run(close())
