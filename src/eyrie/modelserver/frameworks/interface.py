"""The two kinds of model that the server knows: one that maps rows to rows, which can be batched, and one that
answers whole requests.

`loader` makes one of them out of a model folder; `app` asks no more of a framework than what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from eyrie.modelserver.codecs import Array, RowShape


class LoadError(Exception):
    """A model that cannot be served as it is; the message is one plain line for its owner."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One POST /invocations, as a model that answers whole requests sees it."""

    body: bytes
    content_type: str  # "" when the client sent none
    accept: str  # "" when the client sent none
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to one invocation."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class RowModel(Protocol):
    """A model of rows: requests are stacked, predicted in one call and taken apart again."""

    @property
    def title(self) -> str:
        """What it is, for the log: framework, version, kind, columns."""
        ...

    @property
    def shape(self) -> RowShape:
        """The rows it takes."""
        ...

    @property
    def offers(self) -> tuple[str, ...]:
        """The content types that it can answer in."""
        ...

    @property
    def default_accept(self) -> str:
        """The content type of an answer when the client does not mind."""
        ...

    @property
    def empty_status(self) -> int:
        """The HTTP status that an empty body gets: 204 where the real container answers so, else 400."""
        ...

    def predict(self, rows: Array) -> Array:
        """One prediction a row of a 2-D array, along the first axis. Thread-safe. Raises BadPayload for rows it
        refuses.
        """
        ...

    def encode(self, values: Array, kind: str) -> bytes:
        """The reply's body for the predictions of one request. Raises NotAcceptable."""
        ...


@runtime_checkable
class CallModel(Protocol):
    """A model that answers whole requests: user code. It runs in worker threads, never on the event loop."""

    @property
    def title(self) -> str:
        """What it is, for the log."""
        ...

    @property
    def workers(self) -> int:
        """How many requests it takes at once, each in a thread of its own."""
        ...

    def call(self, invocation: Invocation) -> Answer:
        """Answer one request. Raises Refused for what the client did wrong, anything else for what the code did."""
        ...
