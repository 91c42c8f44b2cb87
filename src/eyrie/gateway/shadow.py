"""Shadows: copies of a variant's requests for another one, whose answers nobody waits for.

On the path: a tap of the production variant hears each exchange once its reply is handed to the client's connection; a
sampled one is sent to the shadow at the end of that turn of the loop, when the replies of the turn have gone out. Those
that follow within a moment are gathered and sent together: as one message where they are small and the shadow takes
such (`bundles` says what they are), else one after the other, so that the first wakes the instance and the others find
it awake. Either costs a busy gateway, and the shadow, less than each by itself. What the shadow answers is measured
under its own name, compared (`shadow_pairs`), told to its own tap (data capture), and forgotten.

Nothing of it can cost production more than the sending: a copy has its own bounds (requests of a shadow, bytes of the
worker), beyond which it is dropped and counted; it is never tried again; it takes nothing from the retry budget and is
not remembered as poison; an instance of a shadow that dies or hangs is no instance of the production variant.
"""

from __future__ import annotations

import random
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Sequence
from time import perf_counter

from eyrie.domain.routing import EndpointRoute, VariantRoute
from eyrie.gateway.bundles import BODY_BYTES_MAX, KIND, TOGETHER_MAX, answers_of, message_of
from eyrie.gateway.headers import FORWARDED, SESSION, returned
from eyrie.gateway.health import Health
from eyrie.gateway.invocation import JOINED_BYTES_MAX
from eyrie.gateway.meter import Meter
from eyrie.gateway.routes import Instance, Kinds, Variant
from eyrie.gateway.shadow_pairs import Pairs
from eyrie.gateway.taps import Exchange, Headers, Tap
from eyrie.http1.sweep import Sweep
from eyrie.http1.upstream import Channel, ConnectFailed, Failure, ReplyHead
from eyrie.settings import Settings

_OWN_HEADERS = frozenset((*FORWARDED, SESSION))  # with one of these a copy goes alone
_MODEL_ERROR = 424
_NOT_UNDERSTOOD = (404, 405)  # of a message: there are no such, each request goes alone
GATHERED_S = 0.004  # how long copies are gathered that follow another
GATHERED_MAX = 32  # so many are sent at the end of the turn, likewise so many
GATHERED_BYTES_MAX = 1_048_576  # of requests and replies
LEAVING_S = 1.0  # a copy holds an instance that has left the tables for so long at most
REPLY_BYTES_MAX = 6_291_456  # of a shadow's reply that comes in pieces: a longer one is not kept

Answer = tuple[int, Headers, bytes | None]  # of one copy: status, 0 for none; headers; body, None if it is not kept


class ShadowTap:
    """Hears what a production variant answers, and has its share of it copied."""

    __slots__ = ("_mirror", "_share")

    def __init__(self, mirror: Mirror, share: float) -> None:
        self._mirror = mirror
        self._share = share

    def answered(self, exchange: Exchange) -> None:
        """A reply was handed to its client's connection."""
        if self._share >= 1.0 or random.random() < self._share:
            self._mirror.copy(exchange)


class Mirror:
    """All copies of one worker."""

    def __init__(
        self, settings: Settings, loop: AbstractEventLoop, meter: Meter, sweep: Sweep, health: Health, pairs: Pairs
    ) -> None:
        self.meter = meter
        self.sweep = sweep
        self.health = health
        self.pairs = pairs
        self.bytes = 0  # of requests and replies that copies hold
        self.active: set[Copy] = set()
        self._loop = loop
        self._requests_max = settings.shadow_requests_max
        self._bytes_max = settings.shadow_bytes_max
        self._waiting: list[Exchange] = []
        self._waiting_bytes = 0
        self._next: TimerHandle | None = None  # when what is gathered is sent

    @property
    def idle(self) -> bool:
        """No copy waits to be sent, or to be answered."""
        return not self._waiting and not self.active

    def tap_for(self, table: EndpointRoute, route: VariantRoute) -> Tap | None:
        """The tap of a variant that a shadow gets copies of."""
        for shadow in table.shadows:
            if (shadow.source, shadow.variant.fleet) == (route.name, route.fleet) and shadow.share > 0:
                return ShadowTap(self, shadow.share)
        return None

    def copy(self, exchange: Exchange) -> None:
        """Send a copy of this request, at the end of the turn or with others a moment later, if there is room then."""
        waiting = self._waiting
        waiting.append(exchange)
        self._waiting_bytes += len(exchange.body) + len(exchange.reply_body or b"")
        if self._next is None:
            self._next = self._loop.call_later(GATHERED_S, self._send_gathered)
            self._loop.call_soon(self._send_all)
        elif len(waiting) == GATHERED_MAX or self._waiting_bytes > GATHERED_BYTES_MAX:
            self._waiting_bytes = 0
            self._loop.call_soon(self._send_all)

    def turn(self, now: float) -> None:
        """Called by the sweep: give up what has had its time."""
        for copy in [c for c in self.active if now >= c.deadline_s]:
            copy.give_up()
        for copy in [c for c in self.active if c.leaving and now >= c.sent_at_s + LEAVING_S]:
            copy.cancel()

    def close(self) -> None:
        """The worker stops: nothing of this is waited for."""
        self._waiting = []
        if self._next is not None:
            self._next.cancel()
        for copy in tuple(self.active):
            copy.cancel()

    def _send_gathered(self) -> None:
        """A moment is over; where it brought any, another begins."""
        self._next = self._loop.call_later(GATHERED_S, self._send_gathered) if self._waiting else None
        self._send_all()

    def _send_all(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        small: dict[tuple[Variant, Kinds], list[Exchange]] = {}
        for exchange in waiting:
            source = exchange.instance.variant
            shadow = source.endpoint.shadows.get(source.key)
            if shadow is None:
                continue
            plain = exchange.fields is None or _OWN_HEADERS.isdisjoint(exchange.fields)
            if plain and 0 < len(exchange.body) <= BODY_BYTES_MAX:
                small.setdefault((shadow, exchange.kinds), []).append(exchange)
            else:
                self._send(shadow, [exchange])
        for (shadow, _), exchanges in small.items():
            for start in range(0, len(exchanges), TOGETHER_MAX):
                self._send_small(shadow, exchanges[start : start + TOGETHER_MAX])

    def _send_small(self, shadow: Variant, exchanges: list[Exchange]) -> None:
        """Send copies of small requests of one kind: as one message where an instance takes it."""
        room = max(0, self._requests_max - _outstanding(shadow))
        if len(exchanges) > room:
            self._drop(shadow, "requests", len(exchanges) - room)
            exchanges = exchanges[:room]
        if len(exchanges) > 1 and any(instance.gathering is not None for instance in shadow.routed):
            self._send(shadow, exchanges)
        else:
            self.send_each(shadow, exchanges)

    def send_each(self, shadow: Variant, exchanges: Sequence[Exchange]) -> None:
        """Send copies one by one."""
        for exchange in exchanges:
            self._send(shadow, [exchange])

    def _send(self, shadow: Variant, exchanges: list[Exchange]) -> None:
        """Send copies, a single one or some that may go together; or drop them."""
        why = self._try(shadow, exchanges)
        if why:
            self._drop(shadow, why, len(exchanges))

    def _drop(self, shadow: Variant, why: str, copies: int) -> None:
        self.meter.count(f"shadow_dropped_{why}", copies)
        self.pairs.dropped(shadow, why, copies)

    def _try(self, shadow: Variant, exchanges: list[Exchange]) -> str:
        """Why they were not sent, or ""."""
        first = exchanges[0]
        if len(exchanges) == 1 and _outstanding(shadow) >= self._requests_max:
            return "requests"
        held = sum([len(exchange.body) + len(exchange.reply_body or b"") for exchange in exchanges])
        if self.bytes + held > self._bytes_max:
            return "bytes"
        if first.fields is not None and SESSION in first.fields:
            return "session"  # no instance of the shadow knows it
        instance = shadow.choose(None, gathers=len(exchanges) > 1)
        if instance is None:
            return "no_instance"
        if len(exchanges) > 1 and instance.gathering is None:
            self.send_each(shadow, exchanges)
            return ""
        try:
            Copy(self, exchanges, instance, held).send()
        except ConnectFailed as error:
            if error.failure is Failure.REFUSED:
                self.health.dead(instance, "nobody listens on its socket")
                return "no_instance"
            self.health.suspect(instance)
            return "full"
        self.bytes += held
        return ""


def _outstanding(shadow: Variant) -> int:
    """How many copies a shadow has that it has not answered."""
    instances = shadow.instances
    return instances[0].outstanding if len(instances) == 1 else sum([i.outstanding for i in instances])


class Copy:
    """One request's copy on its way, or those of several in one message. It is outstanding on its instance as any
    request is, and never moves.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_exchanges",
        "_headers",
        "_held",
        "_mirror",
        "_sent_at",
        "_status",
        "channel",
        "deadline_s",
        "instance",
        "requests",
        "sent_at_s",
    )

    movable = False
    moved = True

    def __init__(self, mirror: Mirror, exchanges: Sequence[Exchange], instance: Instance, held: int) -> None:
        self.channel: Channel | None = None
        self.instance: Instance | None = instance
        self.requests = len(exchanges)
        self._mirror = mirror
        self._exchanges = exchanges
        self._held = held
        self._status = 0
        self._headers: Headers = ()
        self._body: list[bytes] | None = []
        self._body_bytes = 0
        self._sent_at = 0.0
        self.sent_at_s = mirror.sweep.now
        self.deadline_s = self.sent_at_s + exchanges[0].variant.endpoint.timeout_s

    def send(self) -> None:
        """Send it. Raises ConnectFailed."""
        instance = self.instance
        assert instance is not None
        if self.requests > 1:
            gathering = instance.gathering
            assert gathering is not None
            bodies = [exchange.body for exchange in self._exchanges]
            instance.pool.send(self, message_of(gathering.head(self._exchanges[0].kinds), bodies))
        else:
            self._send_alone(instance, self._exchanges[0])
        instance.invocations.add(self)
        instance.accompanied += self.requests - 1
        self._mirror.active.add(self)
        self._sent_at = perf_counter()

    def _send_alone(self, instance: Instance, exchange: Exchange) -> None:
        head = instance.heads.get(exchange.kinds) or instance.head(exchange.kinds)
        fields, body = exchange.fields, exchange.body
        if fields is not None:
            head += b"".join([b"%b: %b\r\n" % (name, fields[name]) for name in FORWARDED if name in fields])
        if len(body) <= JOINED_BYTES_MAX:
            instance.pool.send(self, b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        else:
            instance.pool.send(self, b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body)

    @property
    def leaving(self) -> bool:
        """Its instance is about to be ended."""
        return self.instance is not None and self.instance.retired

    def move(self, why: str, dead: bool) -> None:
        """Never called: a copy is not movable."""

    # --- the instance's side ----------------------------------------------------------------------------------------

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """The reply, in one piece."""
        if head.derived is None and self.requests == 1 and self.instance is not None:
            head.derived = returned(head.headers)
            self.instance.learn(head.headers)
        self._answered(head.status, head.headers, body)

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the reply."""
        self._status, self._headers = status, headers
        if self.instance is not None:
            self.instance.heard_at_s = self._mirror.sweep.now

    def reply_data(self, piece: bytes) -> None:
        """A piece of the reply, kept within the bound."""
        self._body_bytes += len(piece)
        if self._body is not None and self._body_bytes <= REPLY_BYTES_MAX:
            self._body.append(piece)
        else:
            self._body = None

    def reply_end(self) -> None:
        """The reply is whole."""
        self._answered(self._status, self._headers, b"".join(self._body) if self._body is not None else None)

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """There is no (whole) reply: an error of the shadow, and a reason to look at its instance."""
        if failure is not Failure.GARBAGE and self.instance is not None:
            self._mirror.health.lost(self.instance)
        self._answered(0, (), None)

    def writable(self, writable: bool) -> None:
        """The body is held whole in any case."""

    # --- endings ----------------------------------------------------------------------------------------------------

    def give_up(self) -> None:
        """Its time is up."""
        self._mirror.meter.count("shadow_timeouts", self.requests)
        self._cut()
        self._answered(0, (), None)

    def cancel(self) -> None:
        """It is of no interest any more."""
        self._cut()
        self._leave()

    def _cut(self) -> None:
        if self.channel is not None:
            self.channel.cancel()

    def _leave(self) -> None:
        self.channel = None
        mirror, instance = self._mirror, self.instance
        mirror.active.discard(self)
        mirror.bytes -= self._held
        self._held = 0
        if instance is not None and self in instance.invocations:
            instance.invocations.discard(self)
            instance.accompanied -= self.requests - 1

    def _answered(self, origin: int, headers: Headers, body: bytes | None) -> None:
        """The shadow's answer, or that there is none (`origin` 0)."""
        done_at = perf_counter()
        took = done_at - self._sent_at
        mirror, instance = self._mirror, self.instance
        assert instance is not None
        outstanding = instance.outstanding
        self._leave()
        shadow = instance.variant
        if origin:
            instance.heard_at_s = mirror.sweep.now
            if took > shadow.slowest_s:
                shadow.slowest_s = took
            shadow.answered += self.requests
        if self.requests == 1:
            answers: list[Answer] = [(origin, headers, body)]
        elif origin in _NOT_UNDERSTOOD and instance.gathering is not None:
            instance.gathering.give_up()
            mirror.send_each(shadow, self._exchanges)
            return
        else:
            answers = self._answers(instance, origin, headers, body)
        self._account(instance, answers, int(took * 1e6), outstanding, done_at)

    def _answers(self, instance: Instance, origin: int, headers: Headers, body: bytes | None) -> list[Answer]:
        """The answers in that to a message; one that cannot be read is none to any of them."""
        gathering = instance.gathering
        if origin != 200 or gathering is None:
            return [(origin, headers, body)] * self.requests
        found = answers_of(body) if body is not None else []
        if len(found) != self.requests:
            gathering.give_up()  # they are too long, or no answers to what was asked: each alone from now on
            return [(0, (), None)] * self.requests
        kind = next((value for name, value in headers if name == KIND), b"")
        return [(status, gathering.answer_head(status, kind).headers, said) for status, said in found]

    def _account(
        self, instance: Instance, answers: list[Answer], model_us: int, outstanding: int, done_at: float
    ) -> None:
        """Count every answer, and tell it to whoever wants to see it."""
        mirror, shadow = self._mirror, instance.variant
        rollup = instance.rollup
        if rollup.taken:
            slug = instance.endpoint.slug
            rollup = instance.rollup = mirror.meter.rollup(slug, shadow.name, instance.instance_id, shadow=True)
        tap = shadow.tap
        for exchange, (origin, headers, body) in zip(self._exchanges, answers, strict=True):
            status = origin if 0 < origin < 300 else _MODEL_ERROR
            rollup.add(status, model_us, 0, outstanding, origin)
            compared = mirror.pairs.add(shadow, exchange.status >= 400, status >= 400, done_at)
            if compared is None and tap is None:
                continue
            answer = Exchange(
                instance, exchange.kinds, exchange.fields, exchange.body, status, origin, headers, body, model_us,
                exchange.at_ms, exchange.request_id,
            )  # fmt: skip
            if compared is not None:
                mirror.pairs.compare(compared, exchange, answer)
            if tap is not None:
                tap.answered(answer)
