"""InvokeEndpointWithResponseStream: the same invocation, its reply framed as event-stream messages as it comes.

Each piece that the instance sends is a PayloadPart at once; nothing is gathered, and a client that reads slowly holds
the instance back. What fails before the first byte is a plain error; what fails after it is an exception event, for the
head has gone out by then. The deadline of an invocation is that of the first byte here; the whole has another.
"""

from __future__ import annotations

from time import perf_counter

from eyrie.gateway import errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.headers import CUSTOM_ATTRIBUTES, returned
from eyrie.gateway.invocation import StreamEnd
from eyrie.gateway.request import InvokeRequest
from eyrie.gateway.routes import Endpoint, Instance, Kinds
from eyrie.gateway.sessions import NEW
from eyrie.http1.upstream import ReplyHead
from eyrie.wire.eventstream import CONTENT_TYPE, internal_stream_failure, model_stream_error, parts

_ACCEPT = b"x-amzn-sagemaker-accept"
_KIND_LINE = b"content-type: %b\r\n" % CONTENT_TYPE
_MODEL_KIND_LINE = b"x-amzn-sagemaker-content-type: %b\r\n"
_ENDINGS = {
    StreamEnd.BROKEN: model_stream_error("StreamBroken", "The container ended its reply before it was complete."),
    StreamEnd.LATE: model_stream_error(
        "ModelInvocationTimeExceeded", "The container did not complete its reply in time."
    ),
    StreamEnd.LEAVING: internal_stream_failure("The gateway stops. Ask again."),
}


class StreamInvocation(InvokeRequest):
    """One InvokeEndpointWithResponseStream request."""

    _may_target = False
    _gathers = False
    _keeps = False
    _first_s = 0.0  # how long its first byte took

    def _look(self, endpoint: Endpoint) -> Reply | None:
        return self._check_fields(endpoint)

    def _check_session(self, endpoint: Endpoint, said: bytes) -> Reply | None:
        if said.strip() == NEW:
            return errors.validation("SessionId NEW_SESSION is for InvokeEndpoint: a stream joins a session.")
        return super()._check_session(endpoint, said)

    def _kinds(self) -> Kinds:
        fields = self._connection.fields
        return fields.get(b"content-type"), fields.get(_ACCEPT)

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The reply of a model that does not stream, or of one that was quick: parts too."""
        if head.status >= 300:
            super().reply_whole(head, body)
        else:
            self._first_s = perf_counter() - self.sent_at
            self._reply_apart(head, body)

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The reply begins: from here on it has the time of a stream."""
        super().reply_head(status, headers)
        endpoint = self._endpoint
        if status < 300 and endpoint is not None:
            self._first_s = perf_counter() - self.sent_at
            self.deadline_s += self._invoker.settings.stream_timeout_ms / 1000 - endpoint.timeout_s

    def _reply_lines(self, instance: Instance) -> bytes:
        """As of any invocation, but for the content type, which is the frames' own."""
        variant_line, headers = instance.variant.invoked_line, self._headers
        kinds = b"".join([_MODEL_KIND_LINE % value for name, value in headers if name == b"content-type"])
        return variant_line + self._invoker.ids.line() + returned(headers, CUSTOM_ATTRIBUTES) + kinds + _KIND_LINE

    def _reply_length(self) -> int | None:
        return None

    def _write(self, piece: bytes) -> None:
        if piece:
            self._connection.write(parts(piece))

    def _break_off(self, why: StreamEnd) -> None:
        """The failure is the last event of the stream, which then ends well."""
        self._connection.write(_ENDINGS[why])
        self._connection.finish()

    def _account(self, status: int, instance: Instance | None) -> None:
        """Whether an instance is silent is told by how long first bytes take, not whole streams."""
        slowest_s = instance.variant.slowest_s if instance is not None else 0.0
        super()._account(status, instance)
        if instance is not None:
            instance.variant.slowest_s = max(slowest_s, self._first_s)
            if self._first_s:
                waited_us = int((self.sent_at - self._began_at) * 1e6)
                instance.rollup.of_streams().add(int(self._first_s * 1e6), waited_us, status >= 300)
