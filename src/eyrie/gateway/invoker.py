"""What all invocations of a worker share, and who is let in: one Invoker a worker.

On the path: `app` hands over the head of an InvokeEndpoint. Its signature is checked and room for its body reserved, or
it is refused; then an InvokeRequest (`request`) waits for the body. A head like one that was accepted before needs
fewer looks. The deadline of all requests is kept by one sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eyrie.decide.routing import PoisonMemory, RetryBudget
from eyrie.gateway import errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.headers import TARGET_MODEL
from eyrie.gateway.meter import Meter
from eyrie.gateway.request import InvokeRequest, Known, Proof
from eyrie.gateway.request_ids import RequestIds
from eyrie.gateway.routes import Endpoint, RouteBook
from eyrie.gateway.sessions import Sessions
from eyrie.http1.server import Connection
from eyrie.http1.sweep import Sweep
from eyrie.settings import Settings
from eyrie.wire.auth import Claim, Verifier
from eyrie.wire.errors import ApiError

if TYPE_CHECKING:
    from eyrie.gateway.health import Health
    from eyrie.gateway.invocation import Invocation
    from eyrie.gateway.models import Models


class Invoker:
    """What all invocations of a worker share."""

    def __init__(
        self,
        settings: Settings,
        verifier: Verifier,
        sessions: Sessions,
        book: RouteBook,
        meter: Meter,
        sweep: Sweep,
    ) -> None:
        self.settings = settings
        self.sessions = sessions
        self.verifier = verifier
        self.book = book
        self.meter = meter
        self.sweep = sweep
        self.health: Health
        self.models: Models
        self.budget = RetryBudget(sweep.now)
        self.poison = PoisonMemory()
        self.ids = RequestIds()
        self.active: set[Invocation] = set()  # their body is here, their reply is not complete
        self.reserved_bytes = 0  # of bodies in flight
        self.forms: dict[tuple[str, int], tuple[str, str]] = {}  # what of `infer` an endpoint's containers understood
        self.now_ms = 0  # wall clock, as of the last sweep
        book.on_change = self.reconsider

    def head(
        self, connection: Connection, name: str, path: bytes, query: bytes, kind: type[InvokeRequest] | None = None
    ) -> None:
        """A head of InvokeEndpoint was read: everything that can be refused without its body, is. `kind` answers where
        it is not plain InvokeEndpoint.
        """
        fields = connection.fields
        try:
            claim = self.verifier.check_head(b"POST", path, query, fields, "sagemaker-runtime", self.now_ms)
        except ApiError as refused:
            self.answer(connection, errors.from_api_error(refused))
            return
        refusal = self.admit(connection, claim, name, None, kind)
        if refusal is not None:
            self.answer(connection, refusal)

    def admit(
        self,
        connection: Connection,
        claim: Proof,
        name: str,
        known: Known | None = None,
        kind: type[InvokeRequest] | None = None,
    ) -> Reply | None:
        """The head proves itself; is there an endpoint, and room for the body? None: an invocation waits for it."""
        identity = claim.identity
        endpoint = self.book.find(identity.account, identity.region, name)
        limit = endpoint.body_bytes_max if endpoint is not None else self.settings.body_bytes_max
        length = connection.content_length
        if length is None:
            length = limit
        elif length > limit:
            self.meter.count("bodies_too_large")
            return errors.body_too_large(limit)
        if self.reserved_bytes + length > self.settings.bodies_in_flight_bytes_max:
            self.meter.count("bodies_in_flight_limit")
            return errors.unavailable("Too many request bodies are in flight. Try again.")
        self.reserved_bytes += length
        connection.listener = (kind or InvokeRequest)(self, connection, claim, endpoint, name, length, known)
        connection.collect(limit)
        return None

    def again(self, connection: Connection, known: Known) -> None:
        """A head came that differs from an accepted one in its varying values alone."""
        claim = known.form.claim(connection.values, self.now_ms) if known.form is not None else None
        if claim is None:
            self.head(connection, known.name, connection.target, b"")
        else:
            refusal = self.admit(connection, claim, known.name, known)
            if refusal is not None:
                self.answer(connection, refusal)

    def remember(self, connection: Connection, claim: Proof, name: str) -> None:
        """The current request was accepted: the next one like it needs fewer looks."""
        assert isinstance(claim, Claim)
        shape = connection.remember()
        if shape is not None and shape.derived is None:
            fields = connection.fields
            form = self.verifier.form(claim, shape.method, shape.target, fields, shape.groups)
            kinds = fields.get(b"content-type"), fields.get(b"accept")
            shape.derived = Known(name, form, kinds, shape.groups.get(TARGET_MODEL, 0))

    def answer(self, connection: Connection, reply: Reply) -> None:
        """Answer a request that never became an invocation."""
        self.meter.count("refused")
        status, lines, body = reply
        connection.reply(status, self.ids.line() + lines, body)

    def reconsider(self, endpoint: Endpoint) -> None:
        """The endpoint's targets have changed: what waited for one may go on."""
        waiting = list(endpoint.held)
        endpoint.held.clear()
        for invocation in waiting:
            invocation.dispatch()

    def break_off(self) -> None:
        """This worker stops: end the replies that have begun and could not end in time."""
        for invocation in tuple(self.active):
            invocation.leave_begun()

    def turn(self, now: float) -> None:
        """Called by the sweep: answer those whose time is up."""
        for invocation in [i for i in self.active if now >= i.deadline_s or now >= i.hold_until_s]:
            invocation.time_is_up(now)
        if not self.poison.empty:
            self.poison.forget(now)
