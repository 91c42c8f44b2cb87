"""The Open Inference Protocol (KServe's and Triton's version 2) over REST: the second face of every endpoint.

    GET  /v2   /v2/health/live   /v2/health/ready                      without a key: they tell of the worker alone
    GET  /v2/models/ENDPOINT[/versions/VARIANT][/ready]
    POST /v2/models/ENDPOINT[/versions/VARIANT]/infer                  -> `infer.InferInvocation`

A model is an endpoint, a version one of its variants. An API key tells account and region, and which endpoints it opens
(`wire/api_keys`); with authentication off they are the settings' own.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from eyrie import __version__
from eyrie.gateway import errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.infer import InferInvocation, Opened
from eyrie.gateway.invoker import Invoker
from eyrie.gateway.routes import Endpoint
from eyrie.gateway.signature import Question, Signature
from eyrie.http1.server import Connection
from eyrie.settings import Settings
from eyrie.wire.api_keys import KeyRefused, KeyRing, check_endpoint
from eyrie.wire.credentials import Identity

_JSON_LINE = b"content-type: application/json\r\n"
_ASKING = (b"GET", b"HEAD")
_QUESTIONS_MAX = 256  # that wait for an instance, a worker


class Place(NamedTuple):
    """A path below /v2/models/."""

    endpoint: str
    version: str  # the variant; "" where none is named
    action: str  # "" (metadata), "ready" or "infer"


class OpenInference:
    """Answers what begins with /v2."""

    def __init__(self, settings: Settings, invoker: Invoker) -> None:
        self._settings = settings
        self._invoker = invoker
        self._questions: set[Question] = set()
        self.keys = KeyRing(settings.data / "keys.json")

    def head(self, connection: Connection, path: bytes) -> None:
        """A head of the protocol was read."""
        parts = [unquote_to_bytes(part).decode("utf-8", "replace") for part in path.strip(b"/").split(b"/")]
        if parts[1:2] == ["models"] and len(parts) > 2:
            self._model(connection, parts[2:])
            return
        pages: dict[tuple[str, ...], dict[str, Any]] = {
            ("v2",): {"name": "eyrie", "version": __version__, "extensions": ["binary_tensor_data"]},
            ("v2", "health", "live"): {"live": True},
            ("v2", "health", "ready"): {"ready": True},  # a worker accepts only once it has read its route tables
        }
        known = pages.get(tuple(parts))
        if known is None:
            self._refuse(connection, errors.inference_error("there is no such path below /v2", 404))
        elif connection.method not in _ASKING:
            self._refuse(connection, errors.inference_error("this path is asked with GET", 405))
        else:
            self._say(connection, known)

    def _model(self, connection: Connection, parts: list[str]) -> None:
        place = _place(parts)
        if place is None:
            self._refuse(connection, errors.inference_error("a model has /ready, /infer and /versions/V/...", 404))
            return
        try:
            identity = self._identity(connection, place.endpoint)
        except KeyRefused as refused:
            reply = errors.inference_error(str(refused), refused.status)
            self._refuse(connection, reply, b"www-authenticate: Bearer\r\n" if refused.status == 401 else b"")
            return
        endpoint = self._invoker.book.find(identity.account, identity.region, place.endpoint)
        if endpoint is None:
            said = f"model {place.endpoint[:64]!a} not found in account {identity.account}, region {identity.region}"
            self._refuse(connection, errors.inference_error(said, 404))
        elif place.version and place.version not in endpoint.names:
            said = f"model {place.endpoint!a} has no version {place.version[:64]!a}: {', '.join(endpoint.names)}"
            self._refuse(connection, errors.inference_error(said, 404))
        elif connection.method not in (_ASKING if place.action != "infer" else (b"POST",)):
            how = "POST" if place.action == "infer" else "GET"
            self._refuse(connection, errors.inference_error(f"this path is asked with {how}", 405))
        elif place.action == "infer":
            self._infer(connection, Opened(identity), place)
        elif place.action == "ready":
            self._ready(connection, endpoint, place)
        else:
            self._metadata(connection, endpoint, place)

    def _identity(self, connection: Connection, name: str) -> Identity:
        """Whose endpoint is meant. Raises KeyRefused."""
        settings = self._settings
        if not settings.auth:
            return Identity("", settings.account, settings.region, "sagemaker")
        key = self.keys.check(connection.fields.get(b"authorization"), self._invoker.now_ms)
        check_endpoint(key, name)
        return Identity(key.key_id, key.account, key.region, "sagemaker")

    def _infer(self, connection: Connection, opened: Opened, place: Place) -> None:
        refusal = self._invoker.admit(connection, opened, place.endpoint, None, InferInvocation)
        if refusal is not None:
            self._refuse(connection, errors.as_inference(refusal))
            return
        invocation = connection.listener
        assert isinstance(invocation, InferInvocation)
        invocation.version = place.version

    def _ready(self, connection: Connection, endpoint: Endpoint, place: Place) -> None:
        """200 where a request would find an instance; the protocol has a 4xx for where none would."""
        routed = [i for v in endpoint.variants.values() if place.version in ("", v.name) for i in v.routed]
        if routed:
            self._say(connection, {"name": place.endpoint, "ready": True})
        else:
            self._refuse(
                connection, errors.inference_error(f"model {place.endpoint} has no instance that is ready", 400)
            )

    def _metadata(self, connection: Connection, endpoint: Endpoint, place: Place) -> None:
        """Name, versions, and the inputs and outputs that an instance tells of."""
        document: dict[str, Any] = {
            "name": place.endpoint,
            "versions": [place.version] if place.version else endpoint.names,
            "platform": "eyrie",
            "inputs": [],
            "outputs": [],
        }
        variants = [v for v in endpoint.variants.values() if place.version in ("", v.name) and v.routed]
        if not variants or len(self._questions) >= _QUESTIONS_MAX:
            self._say(connection, document)
            return

        def told(signature: Signature) -> None:
            self._questions.discard(question)
            self._say(connection, {**document, **signature.as_json()})

        until_s = self._invoker.sweep.now + self._settings.ping_timeout_ms / 1000
        question = Question(variants[0].routed[0], until_s, told)
        self._questions.add(question)
        connection.listener = question
        connection.collect(0)

    def turn(self, now: float) -> None:
        """Called by the sweep: keys that have changed, questions that take too long."""
        self.keys.refresh()
        for question in tuple(self._questions):
            if question.answered:  # its client left
                self._questions.discard(question)
            elif now >= question.until_s:
                question.give_up()

    def _say(self, connection: Connection, document: dict[str, Any]) -> None:
        connection.reply(200, self._invoker.ids.line() + _JSON_LINE, msgspec.json.encode(document))

    def _refuse(self, connection: Connection, reply: Reply, more: bytes = b"") -> None:
        status, lines, body = reply
        self._invoker.answer(connection, (status, lines + more, body))


def _place(parts: list[str]) -> Place | None:
    """NAME, then /versions/V, then /ready or /infer; None for any other path."""
    name, *rest = parts
    version = ""
    if rest[:1] == ["versions"] and len(rest) > 1:
        version, rest = rest[1], rest[2:]
        if not version:
            return None
    action = rest[0] if rest else ""
    return Place(name, version, action) if len(rest) < 2 and action in ("", "ready", "infer") and name else None
