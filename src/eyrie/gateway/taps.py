"""Taps: whoever wants to see what a variant answered, after its client has the reply.

On the path: `invocation` asks a variant for its tap once a reply is handed to the client's connection, and tells it the
exchange. A variant without one costs a request that one look. Taps are made from the route table, one of each kind a
variant at most (`TapMaker`s, which `app` lists), and made anew with every table; what must outlive that is their
maker's.

A tap is called on the event loop: it may not raise, may not block, and does at once only what takes a microsecond or
two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from eyrie.domain.routing import EndpointRoute, VariantRoute

if TYPE_CHECKING:
    from eyrie.gateway.routes import Endpoint, Instance, Variant

KEPT_BYTES_MAX = 6_291_456  # of a reply that comes in pieces: a longer one is told without its body

_SM = b"x-amzn-sagemaker-"
_INFERENCE_ID = _SM + b"inference-id"
_CUSTOM_ATTRIBUTES = _SM + b"custom-attributes"
_TARGET_MODEL = _SM + b"target-model"
_CONTENT_TYPE = b"content-type"

Headers = Sequence[tuple[bytes, bytes]]


class Face(NamedTuple):
    """What a client sent and got where that is not what the container was sent and answered (the infer request of
    /v2)."""

    content_type: str
    body: bytes
    reply_type: str
    reply_body: bytes


class Exchange(NamedTuple):
    """A request that was answered, and its answer. What is seldom asked for is read from the headers when it is."""

    instance: Instance
    kinds: tuple[bytes | None, bytes | None]  # Content-Type and Accept that the container was sent
    fields: dict[bytes, bytes] | None  # the request's headers; None: none of the runtime's own
    body: bytes  # that the container was sent
    status: int  # on the client's wire; 599: the reply broke off
    origin: int  # status that the container answered; 0: it answered none
    reply_headers: Headers  # of the container, names in lower case
    reply_body: bytes | None  # of the container; None: streamed, too long to keep, or never came
    model_us: int
    at_ms: int  # wall clock, milliseconds since the epoch
    request_id: tuple[bytes, int]  # its two parts: `event_id` has them together
    face: Face | None = None

    @property
    def event_id(self) -> str:
        """The request id, which the client has too."""
        prefix, number = self.request_id
        return f"{prefix.decode()}{number:x}"

    @property
    def variant(self) -> Variant:
        """The variant that answered."""
        return self.instance.variant

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint."""
        return self.instance.endpoint

    @property
    def content_type(self) -> str:
        """Of the body; "" where the client named none."""
        kind = self.kinds[0]
        return kind.decode("latin-1").strip() if kind is not None else ""

    @property
    def reply_type(self) -> str:
        """Of the reply, parameters included; "" where the container named none."""
        found = next((value for name, value in self.reply_headers if name == _CONTENT_TYPE), b"")
        return found.decode("latin-1").strip()

    @property
    def inference_id(self) -> str | None:
        """InferenceId."""
        return self._field(_INFERENCE_ID)

    @property
    def custom_attributes(self) -> str | None:
        """CustomAttributes of the request."""
        return self._field(_CUSTOM_ATTRIBUTES)

    @property
    def target_model(self) -> str | None:
        """TargetModel."""
        return self._field(_TARGET_MODEL)

    def _field(self, name: bytes) -> str | None:
        value = self.fields.get(name) if self.fields is not None else None
        return value.decode("latin-1").strip() if value is not None else None


class Tap(Protocol):
    """Sees what one variant answers."""

    def answered(self, exchange: Exchange) -> None:
        """A reply was handed to its client's connection."""


TapMaker = Callable[[EndpointRoute, VariantRoute], Tap | None]  # None: this variant needs none


class Taps:
    """Several taps of one variant."""

    __slots__ = ("_taps",)

    def __init__(self, taps: Sequence[Tap]) -> None:
        self._taps = tuple(taps)

    def answered(self, exchange: Exchange) -> None:
        """Each of them hears it."""
        for tap in self._taps:
            tap.answered(exchange)


def tap_of(makers: Iterable[TapMaker], table: EndpointRoute, route: VariantRoute) -> Tap | None:
    """The tap of a variant; None where nobody wants to see."""
    taps = [tap for make in makers if (tap := make(table, route)) is not None]
    if len(taps) > 1:
        return Taps(taps)
    return taps[0] if taps else None
