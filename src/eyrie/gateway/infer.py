"""The infer request of the Open Inference Protocol: an invocation whose body and reply are tensors.

Routing, deadlines, retries, sessions and metering are those of InvokeEndpoint; what differs is what stands here: the
body is translated before it is sent, the reply gathered (within the endpoint's limit) and translated back, and errors
have the protocol's form. A container that does not take .npy (415) or cannot answer in it (406) is asked again in text,
and the next request of the same table begins there.
"""

from __future__ import annotations

from typing import NamedTuple

from eyrie.gateway import errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.headers import CUSTOM_ATTRIBUTES, returned
from eyrie.gateway.request import InvokeRequest
from eyrie.gateway.routes import Endpoint, Instance, Kinds
from eyrie.gateway.sessions import SessionError
from eyrie.gateway.taps import Face
from eyrie.http1.server import Connection
from eyrie.http1.upstream import Failure, ReplyHead
from eyrie.wire import openinference
from eyrie.wire.credentials import Identity
from eyrie.wire.openinference import CSV, JSON, NPY, ProtocolError, Request, UnreadableReply

_HEADER_LENGTH = b"inference-header-content-length"
_ID_HEADER = b"x-amzn-sagemaker-inference-id"
_ID_CHARS_MAX = 64
_JSON_LINES = b"content-type: application/json\r\n"
_BINARY_LINES = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
_BINARY = "application/octet-stream"
_FORMS_MAX = 1_024

Form = tuple[str, str]  # the content type that a container is given ("" for the best) and the Accept
_FORMS: tuple[Form, ...] = (("", NPY), (CSV, CSV), (JSON, JSON))  # in this order
_ACCEPTS = (JSON, CSV)


class Opened(NamedTuple):
    """Who was let in by an API key (or because nothing is verified): there is nothing left to prove."""

    identity: Identity

    def check_body(self, body: bytes) -> Identity:
        """Whose request it is."""
        return self.identity


class InferInvocation(InvokeRequest):
    """One POST /v2/models/ENDPOINT/infer."""

    _gathers = False
    version = ""  # the variant that the path names
    _request: Request
    _sent_type = ""
    _gathered = 0  # bytes of the reply so far
    _asked = b""  # the body that the client sent, for a tap
    _inference_id = b""  # that only the body names

    # --- the client's side ------------------------------------------------------------------------------------------

    def body(self, connection: Connection, data: bytes) -> None:
        """The body is whole: read the tensors; from there on it is an invocation like any other."""
        endpoint = self._endpoint
        try:
            if b"content-encoding" in connection.fields:
                raise ProtocolError("compressed bodies are not supported")
            self._request = request = openinference.read_request(data, connection.fields.get(_HEADER_LENGTH))
            known = self._invoker.forms.get((endpoint.slug, endpoint.generation)) if endpoint is not None else None
            if request.content_type or request.accept:
                known = (request.content_type, request.accept or NPY)
            translated = self._translate(known or _FORMS[0])
        except ProtocolError as error:
            self._refuse(errors.validation(str(error)))
            return
        self._tried = {self._form}
        if endpoint is not None and endpoint.tapped:
            self._asked = data
        super().body(connection, translated)

    def _translate(self, form: Form) -> bytes:
        """The body in a form. Raises ProtocolError."""
        self._sent_type, body = openinference.model_input(self._request.given(form[0]))
        self._form = form
        return body

    def _look(self, endpoint: Endpoint) -> Reply | None:
        self._variant = self.version
        refusal = self._check_fields(endpoint)
        if refusal is not None:
            return refusal
        if self.version and self._variant != self.version:
            return errors.validation(f"The path names the variant {self.version}, a header {self._variant}.")
        request_id = self._request.request_id
        if _ID_HEADER not in self._connection.fields and 0 < len(request_id) <= _ID_CHARS_MAX and _plain(request_id):
            self._inference_id = request_id.encode()
            self._extra += b"%b: %b\r\n" % (_ID_HEADER, self._inference_id)
        return None

    def _kinds(self) -> Kinds:
        return self._sent_type.encode(), self._form[1].encode()

    # --- the instance's side ----------------------------------------------------------------------------------------

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The reply, in one piece."""
        self.reply_head(head.status, head.headers)
        self._pieces.append(body)
        self.reply_end()

    def reply_data(self, piece: bytes) -> None:
        """A piece of the reply: gathered, within the limit of the endpoint and of all bodies in flight."""
        invoker, endpoint = self._invoker, self._endpoint
        assert endpoint is not None
        invoker.reserved_bytes += len(piece)
        self._reserved += len(piece)
        self._gathered += len(piece)
        self._pieces.append(piece)
        if self._gathered > endpoint.body_bytes_max:
            said = f"The model's reply is longer than the limit of {endpoint.body_bytes_max} bytes."
            self._too_much(errors.error("InternalFailure", said, 500))
        elif invoker.reserved_bytes > invoker.settings.bodies_in_flight_bytes_max:
            invoker.meter.count("bodies_in_flight_limit")
            self._too_much(errors.unavailable("Too many bodies are in flight. Try again."))

    def _too_much(self, reply: Reply) -> None:
        self._leave(keep_instance=True)
        self._finish(reply)

    def reply_end(self) -> None:
        """The reply is whole: as tensors to the client."""
        self.channel = None
        form = self._next_form()
        if form is not None:
            self._ask_again(form)
        elif self._status >= 300:
            super().reply_end()
        else:
            self._answer()

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """There is no (whole) reply: what was gathered of it is no message."""
        if self._status < 300:
            self._pieces = []
        super().reply_failed(failure, began)

    def _answer(self) -> None:
        instance, endpoint = self.instance, self._endpoint
        assert instance is not None
        assert endpoint is not None
        if not self._invoker.poison.empty:
            self._invoker.poison.answered(self._hash())
        if self._form != _FORMS[0] and not self._request.content_type and not self._request.accept:
            self._remember(endpoint)
        try:
            kind = next((value for name, value in self._headers if name == b"content-type"), b"")
            found = openinference.model_output(kind.decode("latin-1"), b"".join(self._pieces))
            length, body = openinference.encode_reply(self._request, found, self._name, instance.variant.name)
            lines = self._reply_lines(instance) + (_JSON_LINES if length is None else _BINARY_LINES % length)
            if self._sticky:
                lines += self._session_lines(instance)
        except ProtocolError as error:
            self._finish(errors.validation(str(error)))
        except (UnreadableReply, SessionError) as error:
            self._finish(errors.error("InternalFailure", str(error), 500))
        else:
            self._account(200, instance)
            self._send_back(instance, lines, length, body)

    def _send_back(self, instance: Instance, lines: bytes, length: int | None, body: bytes) -> None:
        """The reply goes out, and then to the tap: as the container gave it, and as the client got it."""
        tap = instance.variant.tap
        if tap is None:
            self._connection.reply(200, lines, body)
            return
        fields = self._connection.fields
        asked_type = fields.get(b"content-type", b"application/json").decode("latin-1").strip()
        face = Face(asked_type, self._asked, JSON if length is None else _BINARY, body)
        if self._inference_id:
            fields = {**fields, _ID_HEADER: self._inference_id}
        exchange = self._exchange(instance, 200, self._headers, b"".join(self._pieces))
        exchange = exchange._replace(fields=fields, face=face)
        self._connection.reply(200, lines, body)
        tap.answered(exchange)

    def _reply_lines(self, instance: Instance) -> bytes:
        return instance.variant.invoked_line + self._invoker.ids.line() + returned(self._headers, CUSTOM_ATTRIBUTES)

    # --- other forms ------------------------------------------------------------------------------------------------

    def _next_form(self) -> Form | None:
        """Another form, where the container refused this one for its type; None where it did not, or none is left."""
        if self._status not in (406, 415) or self._request.content_type or self._request.accept:
            return None
        kind = self._form[0]
        given = {tried[0] for tried in self._tried}
        left = [f for f in _FORMS if f[0] not in given] if self._status == 415 else [(kind, a) for a in _ACCEPTS]
        return next((form for form in left if form not in self._tried), None)

    def _ask_again(self, form: Form) -> None:
        """The same tensors in another form, to any instance."""
        self._tried.add(form)
        try:
            body = self._translate(form)
        except ProtocolError:  # these tensors do not have this form: the refusal stands, unless there is another
            self._form = form
            self.reply_end()
            return
        self._invoker.meter.count("infer_other_form")
        self._leave()
        self._pieces, self._gathered, self._status = [], 0, 0
        self._body = body
        self.dispatch()

    def _remember(self, endpoint: Endpoint) -> None:
        forms = self._invoker.forms
        if len(forms) >= _FORMS_MAX:
            forms.clear()
        forms[endpoint.slug, endpoint.generation] = self._form

    # --- errors -----------------------------------------------------------------------------------------------------

    def _finish(self, reply: Reply) -> None:
        super()._finish(errors.as_inference(reply))

    def _refuse(self, reply: Reply) -> None:
        super()._refuse(errors.as_inference(reply))


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and text[0] != " "
