"""InvokeEndpoint as it comes in: the body is collected and proves the signature, and what the head asks for is checked.

On the path: `invoker` has let the head in; this hears its body, refuses it or sends it on its way (`invocation`). A
request that names one model of many goes on as a ModelInvocation.
"""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple, Protocol

from eyrie.domain.sticky import key_of
from eyrie.gateway import directions, errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.headers import FORWARDED, NOT_BUILT, SESSION, SPECIAL, TARGET_MODEL, TARGET_VARIANT, too_long
from eyrie.gateway.invocation import Invocation
from eyrie.gateway.routes import Endpoint, Kinds
from eyrie.gateway.sessions import NEW, SessionError
from eyrie.http1.server import Connection
from eyrie.wire.auth import Form
from eyrie.wire.credentials import Identity
from eyrie.wire.errors import ApiError

_VARIES = frozenset((TARGET_MODEL,))


class Proof(Protocol):
    """Whose request it is, and the last step of proving it."""

    @property
    def identity(self) -> Identity:
        """Whose request the head says it is."""

    def check_body(self, body: bytes) -> Identity:
        """Prove it over the whole body. Raises ApiError."""


class Known(NamedTuple):
    """What a worker knows of a head beforehand by its shape: an accepted one, of the runtime's own headers with the
    TargetModel at most.
    """

    name: str  # of the endpoint
    form: Form | None  # None: every signature is checked from the beginning
    kinds: Kinds
    model: int  # the group of the varying values that is its TargetModel, to be looked at each time; 0: it names none


class InvokeRequest(Invocation):
    """One InvokeEndpoint request, as its client's connection tells of it."""

    _may_target = True  # it may name one model of many

    def data(self, connection: Connection, piece: bytes) -> None:
        """Never called: bodies are collected."""

    def end(self, connection: Connection) -> None:
        """Never called: bodies are collected."""

    def body(self, connection: Connection, data: bytes) -> None:
        """The body is whole: prove the signature, check the rest, send it."""
        invoker, endpoint = self._invoker, self._endpoint
        self._began_at = perf_counter()
        try:
            identity = self._claim.check_body(data)
        except ApiError as refused:
            self._refuse(errors.from_api_error(refused))
            return
        if endpoint is None:
            self._refuse(errors.unknown_endpoint(self._name, identity.account))
            return
        taken = self
        known = self._known
        if known is None or known.model or endpoint.picky:
            looked_at = self._looked_at(endpoint, known)
            if looked_at is None:
                return
            taken = looked_at
        taken._body = data
        invoker.budget.request()
        now = invoker.sweep.now
        if not invoker.poison.empty and invoker.poison.refused(taken._hash(), now):
            taken._refuse(self._poisoned(endpoint))
            return
        taken.deadline_s = now + endpoint.timeout_s
        invoker.active.add(taken)
        if endpoint.gate is None or endpoint.gate.enter(taken):
            taken.dispatch()

    def _looked_at(self, endpoint: Endpoint, known: Known | None) -> InvokeRequest | None:
        """The request, or what takes its place where it names a model; None for one that was refused."""
        connection, models = self._connection, self._invoker.models
        if known is not None and known.model and endpoint.of_models:
            self._special = True
            known_model = models.take_known(self, connection.values[known.model])
            if known_model is not None:
                connection.listener = known_model
                return known_model
        reply = self._look(endpoint)
        if reply is not None:
            self._refuse(reply)
            return None
        if not self._special or TARGET_MODEL not in connection.fields:
            return self
        taken = connection.listener = models.take(self)
        return taken

    def _look(self, endpoint: Endpoint) -> Reply | None:
        """A head that is looked at, for the first time or since it names a model; a refusal, or None."""
        special = SPECIAL.intersection(self._connection.fields)
        if self._known is None:  # what is known was looked at when it came for the first time
            wrong = too_long(self._connection.fields)
            if wrong is not None:
                return errors.validation(wrong)
        if endpoint.picky or special:
            reply = self._check_fields(endpoint)
            if reply is not None:
                return reply
        plain = special <= _VARIES and not endpoint.sticky  # a sticky key is likely to make every head another
        if plain and self._known is None and b"?" not in self._connection.target:
            self._invoker.remember(self._connection, self._claim, self._name)
        return None

    def _check_fields(self, endpoint: Endpoint) -> Reply | None:
        """What the headers of the runtime's own mean for this request; a refusal, or None."""
        self._special = True
        fields = self._connection.fields
        for name, feature in NOT_BUILT.items():
            if name in fields:
                return errors.validation(f"Endpoint {self._name} does not support {feature}: not built yet.")
        self._extra = b"".join([b"%b: %b\r\n" % (name, fields[name]) for name in FORWARDED if name in fields])
        if TARGET_VARIANT in fields:
            self._variant = fields[TARGET_VARIANT].decode("latin-1")
            if self._variant not in endpoint.names:
                return self._unknown_variant(endpoint)
        if TARGET_MODEL in fields and not self._may_target:
            return errors.validation("TargetModel is not for InvokeEndpointWithResponseStream.")
        refused = directions.refusal(endpoint, self._variant, fields, self._invoker.ids.next())
        if refused is not None:
            return refused
        if SESSION in fields:
            return self._check_session(endpoint, fields[SESSION])
        if endpoint.sticky and not self._variant:
            self._key = key_of(endpoint.sticky, fields)
        return None

    def _unknown_variant(self, endpoint: Endpoint) -> Reply:
        return errors.validation(
            f"Variant {self._variant} not found for endpoint {self._name} of account {endpoint.key.account}."
        )

    def _check_session(self, endpoint: Endpoint, said: bytes) -> Reply | None:
        """A session begins (its container will name it), or this request belongs to one."""
        self._sticky = True
        said = said.strip()
        if said == NEW:
            self._extra += b"%b: %b\r\n" % (SESSION, NEW)
            return None
        try:
            self._session = session = self._invoker.sessions.find(
                said.decode("latin-1"), endpoint.slug, self._invoker.now_ms // 1000
            )
        except SessionError as error:
            return errors.validation(str(error))
        target = endpoint.target(session.target)
        if target is None:
            return self._session_gone()
        if self._variant and target.variant.name != self._variant:
            return errors.validation(f"Session {session.token} is not one of variant {self._variant}.")
        self._extra += b"%b: %b\r\n" % (SESSION, session.container_id.encode())
        self.moved = True  # it cannot: no other instance knows the session
        return None

    def too_large(self, connection: Connection) -> None:
        """The body passed the limit while it came in."""
        self._invoker.meter.count("bodies_too_large")
        endpoint = self._endpoint
        limit = endpoint.body_bytes_max if endpoint is not None else self._invoker.settings.body_bytes_max
        self._refuse(errors.body_too_large(limit))
