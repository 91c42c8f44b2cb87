"""What an application of the HTTP/1 server hears; `server` says in which order, and what it may do then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from eyrie.http1.server import Connection


class Listener(Protocol):
    """Who hears of a request after its head."""

    def body(self, connection: Connection, data: bytes) -> None:
        """The whole body, after `collect`."""

    def data(self, connection: Connection, piece: bytes) -> None:
        """A piece of the body, after `stream`."""

    def end(self, connection: Connection) -> None:
        """The streamed body is complete."""

    def too_large(self, connection: Connection) -> None:
        """The body passed the limit of `collect`; must reply."""

    def gone(self, connection: Connection) -> None:
        """The client left before its reply was complete."""

    def paused(self, connection: Connection) -> None:
        """The client does not keep up with its reply."""

    def resumed(self, connection: Connection) -> None:
        """The client has caught up."""


class Application(Listener, Protocol):
    """What a server serves. Calls come from the event loop and must not block; see the module's docstring."""

    def head(self, connection: Connection) -> None:
        """A request's head was read."""
