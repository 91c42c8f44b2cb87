"""Who hears the answer to an invocation, and how it is told of an error.

A replier is the connection itself, or what stands between it and one container of a pipeline; `servable` and
`streaming` answer it.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from eyrie.http1.application import Listener
from eyrie.modelserver.codecs import Refused
from eyrie.modelserver.log import SPEAKER

log = logging.getLogger("eyrie.modelserver")

MESSAGE_CHARS_MAX = 2_000
TEXT_LINES = b"content-type: text/plain; charset=utf-8\r\n"
JSON_LINES = b"content-type: application/json\r\n"

Fields = Mapping[bytes, bytes]  # a request's headers, names in lower case


class Replier(Protocol):
    """Who hears the answer: what a servable uses of a connection."""

    context: Any  # the servable's own, while it works on the request
    listener: Listener  # hears of the client's leaving and of its pace

    @property
    def alive(self) -> bool:
        """Whether anybody waits for the answer still."""
        ...

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """The whole answer."""
        ...

    def start(self, status: int, lines: bytes, length: int | None) -> None:
        """The beginning of an answer in pieces."""
        ...

    def write(self, piece: bytes) -> None:
        """A piece."""
        ...

    def finish(self) -> None:
        """The answer is complete."""
        ...

    def abort(self) -> None:
        """It will never be complete."""
        ...

    @property
    def writing_paused(self) -> bool:
        """Whether the client is behind."""
        ...


class ClientLeft(Exception):
    """Nobody waits for this answer any more."""


@contextlib.contextmanager
def speaking(label: str) -> Iterator[None]:
    """What is logged here is the container's; "" where it is alone."""
    token = SPEAKER.set(label)
    try:
        yield
    finally:
        SPEAKER.reset(token)


def refuse(replier: Replier, error: BaseException, label: str = "") -> None:
    """Answer with an error's own status. What the server did wrong is logged whole; what the client did, in a line."""
    if isinstance(error, ClientLeft):
        return
    status, message = refusal_of(error)
    with speaking(label):
        if status >= 500:
            log.error("invocation failed with %d\n%s", status, "".join(traceback.format_exception(error)).rstrip())
        else:
            log.info("invocation refused with %d: %s", status, message.decode())
    replier.reply(status, TEXT_LINES, message)


def refusal_of(error: BaseException) -> tuple[int, bytes]:
    """The status and the body that an error is answered with."""
    status, message = status_of(error), str(error) or type(error).__name__
    if status >= 500:
        message = f"{type(error).__name__}: {message}"
    return status, message[:MESSAGE_CHARS_MAX].encode("utf-8", "backslashreplace")


def turn_away(replier: Replier) -> None:
    """Answer that the queue is full."""
    replier.reply(503, b"retry-after: 1\r\n" + TEXT_LINES, b"too many requests are waiting for this model")


def status_of(error: BaseException) -> int:
    """The HTTP status for an exception: a refusal's own, an exception's `status_code` (the toolkits' errors have one),
    else 500.
    """
    status = error.status if isinstance(error, Refused) else getattr(error, "status_code", None)
    return status if isinstance(status, int) and 400 <= status <= 599 else 500
