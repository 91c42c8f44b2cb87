"""One invocation on its way: sent to an instance, moved to another, answered; callbacks only, no task.

On the path: `request` has read and checked it. The route table chooses an instance; the reply goes back with what
SageMaker lets through. An instance that ends or goes silent before the first byte of its reply costs the client
nothing: its requests move to another, once each, within a budget (`health` tells them to).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import Enum
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from eyrie.decide.gathering import WEIGHT
from eyrie.gateway import errors
from eyrie.gateway.bundles import BODY_BYTES_MAX
from eyrie.gateway.errors import Reply
from eyrie.gateway.headers import SPEAKER, TARGET_CONTAINER, TARGET_MODEL, returned
from eyrie.gateway.routes import Endpoint, Instance, Kinds
from eyrie.gateway.sessions import Session, SessionError, session_lines
from eyrie.gateway.taps import KEPT_BYTES_MAX, Exchange, Headers
from eyrie.http1.server import Connection
from eyrie.http1.upstream import Channel, ConnectFailed, Failure, ReplyHead

if TYPE_CHECKING:
    from eyrie.gateway.bundles import Bundle
    from eyrie.gateway.invoker import Invoker
    from eyrie.gateway.request import Known, Proof
    from eyrie.gateway.serverless import Gate

log = logging.getLogger(__name__)
_NEVER = float("inf")
HELD_MAX = 1_024  # requests an endpoint that wait for a target, a worker
JOINED_BYTES_MAX = 65_536  # a body up to here goes out in one piece with its head
_exchange = partial(tuple.__new__, Exchange)  # what Exchange(...) does after it has sorted its arguments


class StreamEnd(Enum):
    """Why a reply that had begun was broken off."""

    BROKEN = "the container ended it"
    LATE = "its time was up"
    LEAVING = "this worker stops"


class Invocation:
    """One request. It hears from its client's connection and, as a sink, from its instance."""

    # What only some requests need: set on the object where it differs.
    channel: Channel | None = None
    bundle: Bundle | None = None  # it goes in one message with others, and has no channel of its own
    instance: Instance | None = None
    hold_until_s = _NEVER
    _avoid: Instance | None = None
    moved = False  # to another instance, after the first was lost to it
    _generation = 0  # of the route table by which it was sent
    _status = 0
    deadline_s: float  # by the sweep's clock
    _began_at: float  # when its body was whole
    _headers: Sequence[tuple[bytes, bytes]] = ()  # of the reply
    _gathers = True  # it may go together with others
    _special = False  # the request has headers of the runtime's own
    _extra = b""  # those of them that the instance gets too, as lines
    _sticky = False  # it is of a session, or begins one
    _session: Session | None = None
    _streaming = False
    _variant = ""
    _key = ""  # that ties its client to a variant
    _keeps = True  # a tap gets its reply
    _kept: list[bytes] | None = None  # of a reply in pieces, for a tap
    _kept_bytes = 0
    gate: Gate | None = None  # of a serverless endpoint: it was let in by it, or waits before it

    def __init__(
        self,
        invoker: Invoker,
        connection: Connection,
        claim: Proof,
        endpoint: Endpoint | None,
        name: str,
        reserved: int,
        known: Known | None,
    ) -> None:
        self._invoker = invoker
        self._connection = connection
        self._claim = claim
        self._endpoint = endpoint
        self._name = name
        self._reserved = reserved
        self._known = known
        self._body = b""
        self._pieces: list[bytes] = []

    # --- the client's side ------------------------------------------------------------------------------------------

    def gone(self, connection: Connection) -> None:
        """The client left: its work is cancelled."""
        self._invoker.meter.count("clients_gone")
        self._leave()
        self._release()

    def paused(self, connection: Connection) -> None:
        """The client does not keep up."""
        if self.channel is not None:
            self.channel.pause_reading()

    def resumed(self, connection: Connection) -> None:
        """The client has caught up."""
        if self.channel is not None:
            self.channel.resume_reading()

    # --- sending ----------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Send the request to an instance, or hold it until there is one."""
        endpoint = self._endpoint
        assert endpoint is not None
        variant = None
        if self._session is not None:
            self._rejoin(endpoint, self._session)
            return
        if self._variant:
            variant = endpoint.named(self._variant)
            if variant is None:
                self._finish(errors.unavailable(f"Variant {self._variant} is being withdrawn."))
                return
        elif self._key:
            variant = endpoint.assigned(self._key)
        full: Instance | None = None
        gathers = self._gathers and not self._special and 0 < len(self._body) <= BODY_BYTES_MAX
        while True:
            instance = endpoint.choose(variant, self._avoid or full, gathers)
            if instance is None and self._key:  # better another variant than none
                instance = endpoint.choose(None, self._avoid or full)
            if instance is None or instance is full:
                self._hold(endpoint)
                return
            if gathers and instance.gathering is not None:
                self._sent_to(instance)
                instance.gathering.add(self, self._kinds_known(), self._body)
                return
            failure = self._send(instance)
            if failure is None or not self._another(instance, failure, full):
                return
            if failure is Failure.FULL:
                full = instance

    def _another(self, instance: Instance, failure: Failure, full: Instance | None) -> bool:
        """The instance did not take the request: whether to try another. After a second full one it is answered: each
        further try would add to what overloads them.
        """
        if failure is not Failure.FULL:
            self._invoker.health.dead(instance, "nobody listens on its socket")
            return True
        self._invoker.meter.count("instances_full")
        self._invoker.health.suspect(instance)
        if full is not None:
            self._finish(errors.unavailable(f"The instances of endpoint {self._name} take no more requests."))
        return full is None

    def _rejoin(self, endpoint: Endpoint, session: Session) -> None:
        """Send the request to the target that holds its session; wait for one that is out of the route."""
        target = endpoint.target(session.target)
        if target is None:
            self._finish(self._session_gone())
            return
        failure = self._send(target) if not target.ejected else Failure.REFUSED
        if failure is Failure.FULL:
            self._invoker.meter.count("instances_full")
            self._finish(errors.unavailable(f"The instance of session {session.token} takes no more requests."))
        elif failure is not None:
            if not target.ejected:
                self._invoker.health.dead(target, "nobody listens on its socket")
            self._hold(endpoint)

    def _kinds(self) -> Kinds:
        """Content-Type and Accept that the instance is sent, of a head that is not known."""
        fields = self._connection.fields
        return fields.get(b"content-type"), fields.get(b"accept")

    def _kinds_known(self) -> Kinds:
        return self._known.kinds if self._known is not None else self._kinds()

    def _send(self, instance: Instance) -> Failure | None:
        body = self._body
        kinds = self._kinds_known()
        head = instance.heads.get(kinds) or instance.head(kinds)
        if self._special:
            head += self._extra
        try:
            if len(body) <= JOINED_BYTES_MAX:
                instance.pool.send(self, b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
            else:
                instance.pool.send(self, b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body)
        except ConnectFailed as error:
            return error.failure
        self._sent_to(instance)
        return None

    def _sent_to(self, instance: Instance) -> None:
        self.instance = instance
        self._generation = instance.endpoint.generation
        self.hold_until_s = _NEVER
        instance.invocations.add(self)
        self.sent_at_s = self._invoker.sweep.now
        self.sent_at = perf_counter()

    def go_alone(self) -> None:
        """There is nobody to go with."""
        instance, self.bundle = self.instance, None
        assert instance is not None
        if self._send(instance) is not None:
            self.part()
            self.dispatch()

    def part(self) -> None:
        """It goes with nobody, and begins again: nothing of it was sent, or understood."""
        self.bundle = None
        self._gathers = False
        self._leave()

    def _hold(self, endpoint: Endpoint) -> None:
        """No instance can take the request now; one may come soon."""
        invoker = self._invoker
        if self._invoker.book.endpoints.get(endpoint.key) is not endpoint:
            self._finish(errors.unknown_endpoint(self._name, endpoint.key.account))
        elif self.gate is not None and (reply := self.gate.trouble()) is not None:
            self._finish(reply)
        elif len(endpoint.held) >= HELD_MAX:
            invoker.meter.count("held_limit")
            self._finish(errors.unavailable(f"Too many requests wait for an instance of endpoint {self._name}."))
        else:
            invoker.meter.count("held")
            hold_s = invoker.settings.hold_ms / 1000 if self.gate is None else self.gate.hold_s()
            self.hold_until_s = invoker.sweep.now + hold_s
            endpoint.held.append(self)

    def move(self, why: str, dead: bool) -> None:
        """The instance is lost to this request, of whose reply no byte has come: try another, once, within the
        budget. Only one that is dead, not one that is silent, speaks against the request.
        """
        invoker, instance, endpoint = self._invoker, self.instance, self._endpoint
        assert instance is not None
        assert endpoint is not None
        unsent = self.bundle is not None and not self.bundle.sent
        self._leave()
        now = invoker.sweep.now
        if unsent:
            self.dispatch()
        elif dead and invoker.poison.died(self._hash(), instance.instance_id, now):
            invoker.meter.count("poison")
            log.error("a request to %s ended two instances (%s): refused for a while", endpoint.slug, why)
            self._finish(self._poisoned(endpoint))
        elif self._session is not None:
            self._finish(self._session_gone())
        elif self.moved:
            self._finish(errors.unavailable(f"Two instances were lost to this request: {why}."))
        elif not invoker.budget.withdraw(now):
            invoker.meter.count("retry_budget_limit")
            said = f"An instance was lost to this request, and the retry budget is spent: {why}."
            self._finish(errors.unavailable(said))
        else:
            invoker.meter.count("retries")
            self.moved = True
            self._gathers = False
            self._avoid = instance
            self.dispatch()

    def _session_gone(self) -> Reply:
        token = self._session.token if self._session is not None else ""
        return errors.validation(f"Session {token} not found: the instance that held it is gone.")

    @property
    def movable(self) -> bool:
        """Whether the reply has not begun."""
        exchange = self.channel or self.bundle
        return exchange is not None and not exchange.began

    # --- the instance's side ----------------------------------------------------------------------------------------

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The reply, in one piece."""
        invoker, instance = self._invoker, self.instance
        assert instance is not None
        instance.heard_at_s = invoker.sweep.now
        status = head.status
        if status >= 300:
            self._status = status
            self._headers = head.headers
            self._pieces.append(body)
            self.reply_end()
            return
        if self._sticky:
            self._reply_apart(head, body)
            return
        self.channel = None
        if not invoker.poison.empty:
            invoker.poison.answered(self._hash())
        lines = head.derived
        if lines is None:
            lines = head.derived = returned(head.headers)
            instance.learn(head.headers)
        self._account(status, instance)
        variant = instance.variant
        lines = variant.invoked_line + invoker.ids.line() + lines
        if variant.tap is None:
            self._connection.reply(status, lines, body)
        else:
            self._status = status
            exchange = self._exchange(instance, status, head.headers, body)
            self._connection.reply(status, lines, body)
            variant.tap.answered(exchange)

    def _reply_apart(self, head: ReplyHead, body: bytes) -> None:
        """A whole reply, answered as one that comes in pieces: its head cannot be made from the container's alone."""
        self.channel = None
        self.reply_head(head.status, head.headers)
        if self._start():
            self._write(body)
            if self._kept is not None:
                self._keep(body)
            self.reply_end()

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the reply."""
        self._status = status
        self._headers = headers
        instance = self.instance
        if instance is not None:
            instance.heard_at_s = self._invoker.sweep.now

    def reply_data(self, piece: bytes) -> None:
        """A piece of the reply: of an error it is kept, else passed on."""
        if self._status >= 300:
            if sum(map(len, self._pieces)) <= errors.MODEL_MESSAGE_BYTES_MAX:
                self._pieces.append(piece)
        elif self._streaming or self._start():
            self._write(piece)
            if self._kept is not None:
                self._keep(piece)

    def _write(self, piece: bytes) -> None:
        """A piece of the reply goes out."""
        self._connection.write(piece)

    def _start(self) -> bool:
        """The head of the reply goes out. False where it cannot be passed on, and was answered with an error."""
        instance, endpoint = self.instance, self._endpoint
        assert instance is not None
        assert endpoint is not None
        try:
            lines = self._reply_lines(instance)
            if self._sticky:
                lines += self._session_lines(instance)
        except SessionError as error:
            self._leave(keep_instance=True)
            self._finish(errors.model_error(endpoint.key, instance.variant.container, 0, str(error).encode()))
            return False
        self._streaming = True
        if self._keeps and instance.variant.tap is not None:
            self._kept = []
        self._connection.start(self._status, lines, self._reply_length())
        return True

    def reply_end(self) -> None:
        """The reply is whole."""
        self.channel = None
        if not self._invoker.poison.empty:
            self._invoker.poison.answered(self._hash())
        if self._status >= 300:
            endpoint, instance = self._endpoint, self.instance
            assert endpoint is not None
            assert instance is not None
            said = b"".join(self._pieces)
            self._finish(errors.model_error(endpoint.key, self._speaker(instance), self._status, said))
            return
        if self._streaming or self._start():
            instance = self.instance
            self._account(self._status, instance)
            if instance is None or instance.variant.tap is None:
                self._connection.finish()
                return
            kept = b"".join(self._kept) if self._kept is not None else None
            exchange = self._exchange(instance, self._status, self._headers, kept)
            self._connection.finish()
            instance.variant.tap.answered(exchange)

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """There is no (whole) reply."""
        self.channel = None
        instance, endpoint = self.instance, self._endpoint
        assert instance is not None
        assert endpoint is not None
        if failure is Failure.GARBAGE:
            self._invoker.meter.count("unreadable_replies")
            said = b"The reply of the container is not HTTP."
        elif began:
            self._invoker.health.lost(instance)
            said = b"".join(self._pieces)
        else:
            self._invoker.health.lost(instance)
            if self.instance is instance:  # else the ejection has moved it already
                self.move("its connection ended", dead=not instance.retired)
            return
        if self._connection.reply_started:
            self._cut(StreamEnd.BROKEN)
        else:
            self._finish(errors.model_error(endpoint.key, self._speaker(instance), self._status, said, False))

    def leave_begun(self) -> None:
        """This worker stops: where the reply has begun, it ends here."""
        if self.instance is not None and self._connection.reply_started:
            self._leave(keep_instance=True)
            self._cut(StreamEnd.LEAVING)

    def _cut(self, why: StreamEnd) -> None:
        """A reply that has begun ends in its middle."""
        instance = self.instance
        assert instance is not None
        self._account(599, instance)
        tap = instance.variant.tap
        exchange = self._exchange(instance, 599, self._headers, None) if tap is not None else None
        self._break_off(why)
        if tap is not None and exchange is not None:
            tap.answered(exchange)

    def _break_off(self, why: StreamEnd) -> None:
        """A reply that has begun cannot be ended well: the client sees that it is cut."""
        self._connection.abort()

    def writable(self, writable: bool) -> None:
        """The body is held whole in any case, and its size is bounded: nothing to pause."""

    def time_is_up(self, now: float) -> None:
        """The deadline, or the end of the hold, has come."""
        endpoint = self._endpoint
        assert endpoint is not None
        if self.instance is None:
            stop_waiting(endpoint, self)
            self._invoker.meter.count("hold_timeouts")
            said = f"Endpoint {self._name} has no instance that can take the request now."
            self._finish(errors.unavailable(said) if self.gate is None else self.gate.expired(self))
            return
        container = self._speaker(self.instance)
        self._invoker.meter.count("timeouts")
        self._leave(keep_instance=True)
        if self._connection.reply_started:
            self._cut(StreamEnd.LATE)
        else:
            self._finish(errors.timed_out(endpoint.key, container))

    # --- endings ----------------------------------------------------------------------------------------------------

    @property
    def target_model(self) -> bytes:
        """The TargetModel that it names, as it came; b"" where it names none."""
        return self._connection.fields.get(TARGET_MODEL, b"")

    def _speaker(self, instance: Instance) -> str:
        """Host name of the container that an error is from: it says so itself, or the request named it."""
        said = next((value for name, value in self._headers if name == SPEAKER), None)
        if said is None and self._special:
            said = self._connection.fields.get(TARGET_CONTAINER)
        return said.decode("latin-1") if said is not None else instance.variant.container

    def _reply_lines(self, instance: Instance) -> bytes:
        return instance.variant.invoked_line + self._invoker.ids.line() + returned(self._headers)

    def _session_lines(self, instance: Instance) -> bytes:
        """What the reply tells of a session begun or closed. Raises SessionError."""
        sessions, now_s = self._invoker.sessions, self._invoker.now_ms // 1000
        return session_lines(self._headers, self._session, sessions, instance.endpoint.slug, instance.name, now_s)

    def _reply_length(self) -> int | None:
        for name, value in self._headers:
            if name == b"content-length":
                return int(value)
        return None

    def _hash(self) -> int:
        return hash((self._name, self._body))

    def _poisoned(self, endpoint: Endpoint) -> Reply:
        said = b"Two instances ended while they worked on this request; it is refused for a while."
        container = next((v.container for v in endpoint.variants.values()), "primary")
        return errors.model_error(endpoint.key, container, 0, said)

    def _refuse(self, reply: Reply) -> None:
        """Answer before anything was sent."""
        self._release()
        self._invoker.answer(self._connection, reply)

    def _finish(self, reply: Reply) -> None:
        """Answer with an error, and account for it."""
        status, lines, body = reply
        instance = self.instance
        if instance is not None:
            lines += instance.variant.invoked_line
        lines += self._invoker.ids.line()
        self._account(status, instance)
        if instance is None or instance.variant.tap is None:
            self._connection.reply(status, lines, body)
            return
        said = b"".join(self._pieces) if self._status >= 300 else None
        exchange = self._exchange(instance, status, self._headers, said)
        self._connection.reply(status, lines, body)
        instance.variant.tap.answered(exchange)

    def _account(self, status: int, instance: Instance | None) -> None:
        """Everything that ends with a request, before its reply goes out (which may begin the next one)."""
        done_at = perf_counter()
        invoker = self._invoker
        if instance is not None:
            took = done_at - self.sent_at
            variant = instance.variant
            if took > variant.slowest_s:
                variant.slowest_s = took
            variant.answered += 1
            instance.answers_s += (took - instance.answers_s) * WEIGHT
            rollup = instance.rollup
            if rollup.taken:
                slug = instance.endpoint.slug
                rollup = instance.rollup = invoker.meter.rollup(slug, variant.name, instance.instance_id)
            waited_us = int((self.sent_at - self._began_at) * 1e6)
            rollup.add(status, int(took * 1e6), waited_us, len(instance.invocations), self._status, self._generation)
            instance.invocations.discard(self)
            if (gathering := instance.gathering) is not None and gathering.waiting:
                gathering.heard()
        elif self._endpoint is not None:
            variant_name = self._variant if self.gate is None else self.gate.variant
            rollup = invoker.meter.rollup(self._endpoint.slug, variant_name, "")
            waited_us = int((done_at - self._began_at) * 1e6)
            rollup.add(status, 0, waited_us, 0, generation=self._endpoint.generation)
        invoker.active.discard(self)
        invoker.reserved_bytes -= self._reserved
        self._reserved = 0
        if self.gate is not None:
            self.gate.leave(self)

    # --- taps -------------------------------------------------------------------------------------------------------

    def _exchange(self, instance: Instance, status: int, headers: Headers, reply: bytes | None) -> Exchange:
        """What a tap is told. Made before the reply goes out, which may begin the connection's next request."""
        invoker, known = self._invoker, self._known
        if known is not None and not self._special:
            kinds, fields = known.kinds, None
        else:
            kinds, fields = self._kinds(), self._connection.fields
        model_us = int((perf_counter() - self.sent_at) * 1e6)
        request_id = invoker.ids.last()
        return _exchange((
            instance, kinds, fields, self._body, status, self._status, headers, reply, model_us, invoker.now_ms,
            request_id, None,
        ))  # fmt: skip

    def _keep(self, piece: bytes) -> None:
        """A piece of the reply for the tap, within its bound and that of all bodies in flight; beyond it none is."""
        invoker, kept = self._invoker, self._kept
        assert kept is not None
        self._kept_bytes += len(piece)
        room = invoker.settings.bodies_in_flight_bytes_max - invoker.reserved_bytes
        if self._kept_bytes > KEPT_BYTES_MAX or len(piece) > room:
            self._kept = None
            invoker.meter.count("replies_not_kept")
        else:
            kept.append(piece)
            invoker.reserved_bytes += len(piece)
            self._reserved += len(piece)

    def _leave(self, keep_instance: bool = False) -> None:
        """Let go of the instance."""
        if self.channel is not None:
            self.channel.cancel()
            self.channel = None
        elif self.bundle is not None:
            bundle, self.bundle = self.bundle, None
            bundle.leave()
        if self.instance is not None:
            self.instance.invocations.discard(self)
            if not keep_instance:
                self.instance = None
        elif self._endpoint is not None:
            stop_waiting(self._endpoint, self)

    def refuse_in_time(self, reply: Reply) -> None:
        """Answer with an error a request that was read and checked, and not sent."""
        self._finish(reply)

    def _release(self) -> None:
        self._invoker.active.discard(self)
        self._invoker.reserved_bytes -= self._reserved
        self._reserved = 0
        if self.gate is not None:
            self.gate.leave(self)


def stop_waiting(endpoint: Endpoint, invocation: Invocation) -> None:
    """Take a request out of those that wait, if it is there."""
    if invocation in endpoint.held:
        endpoint.held.remove(invocation)
