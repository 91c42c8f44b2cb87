"""Which instances are in the route, by what this worker sees: routing only; to kill and to replace is control's
business.

An instance that is dead (nobody listens on its socket) leaves at once. One that answers nothing for longer than its
model
ever takes is asked for a pong on a fresh connection; none within the time-out, and it leaves too, unless it is the last
that could answer or most are silent together (law 13). Its unanswered requests move with it. Whatever was ejected is
probed back every second, so that a worker heals with control dead as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from eyrie.decide.routing import may_eject_silent, silence_limit_s
from eyrie.gateway.meter import Meter
from eyrie.gateway.routes import Endpoint, Instance, RouteBook, Variant
from eyrie.http1.sweep import Sweep
from eyrie.http1.unix import connect_unix
from eyrie.http1.upstream import Channel, ConnectFailed, Failure, ReplyHead
from eyrie.settings import Settings

log = logging.getLogger(__name__)

_PING = b"GET /ping HTTP/1.1\r\nhost: eyrie\r\nconnection: close\r\n\r\n"
_ASK_AGAIN_S = 1.0
_FORGET = 0.99  # a turn, of a variant's slowest answer: half of it in about 17 s


class Ping:
    """One GET /ping on a connection of its own."""

    __slots__ = ("_answered", "_status", "channel", "until_s")

    def __init__(self, instance: Instance, until_s: float, answered: Callable[[int], None]) -> None:
        """`answered` hears the status, or 0 when nobody listens. Raises ConnectFailed."""
        self.channel: Channel | None = None
        self.until_s = until_s
        self._answered = answered
        self._status = 0
        instance.pool.send(self, _PING, fresh=True, replay=False)

    def reply_whole(self, head: ReplyHead, body: bytes) -> None:
        """A pong in one piece."""
        self._answered(head.status)

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The instance lives; the status says whether it is well."""
        self._status = status

    def reply_data(self, piece: bytes) -> None:
        """A pong needs no body."""

    def reply_end(self) -> None:
        """The pong is whole."""
        self._answered(self._status)

    def reply_failed(self, failure: Failure, began: bool) -> None:
        """No pong."""
        self._answered(self._status or (0 if failure is Failure.LOST else 599))

    def writable(self, writable: bool) -> None:
        """A ping is small."""


class Health:
    """Ejects and re-admits the instances of one worker."""

    def __init__(
        self, settings: Settings, book: RouteBook, meter: Meter, sweep: Sweep, tell: Callable[[Instance, str], None]
    ) -> None:
        self._book = book
        self._meter = meter
        self._sweep = sweep
        self._tell = tell
        self._silence_s = settings.silence_ms / 1000
        self._timeout_s = settings.ping_timeout_ms / 1000
        self._pings: dict[Instance, Ping] = {}
        self._silent: set[Instance] = set()

    # --- what invocations find out ----------------------------------------------------------------------------------

    def dead(self, instance: Instance, why: str) -> None:
        """Nobody listens on its socket."""
        self._eject(instance, why)

    def lost(self, instance: Instance) -> None:
        """A connection with a request on it ended: has the whole instance?"""
        if instance.ejected or instance.retired:
            return
        try:
            connect_unix(instance.socket).close()
        except BlockingIOError:
            self.suspect(instance)
        except OSError:
            self._eject(instance, "its connections ended and nobody listens on its socket")

    def suspect(self, instance: Instance) -> None:
        """Something is odd: ask it for a pong soon."""
        if instance not in self._pings and self._sweep.now - instance.asked_at_s >= _ASK_AGAIN_S:
            self._ask(instance)

    # --- the sweep --------------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Called by the sweep: ask those that are silent, judge those that did not answer, probe the ejected."""
        overdue = [instance for instance, ping in self._pings.items() if now >= ping.until_s]
        for instance in overdue:
            self._no_pong(instance)
        for variant in self._variants():
            variant.slowest_s *= _FORGET
            limit_s = silence_limit_s(self._silence_s, variant.slowest_s, variant.answered)
            for instance in tuple(variant.instances):
                if instance.ejected:
                    self.suspect(instance)
                elif instance.invocations and now - instance.heard_at_s > limit_s:
                    oldest_s = min(invocation.sent_at_s for invocation in instance.invocations)
                    if now - max(oldest_s, instance.heard_at_s) > limit_s:
                        self.suspect(instance)
        self._judge_silent()

    def _variants(self) -> Iterable[Variant]:
        for endpoint in tuple(self._book.endpoints.values()):
            yield from endpoint.everyone

    def _ask(self, instance: Instance) -> None:
        now = self._sweep.now
        instance.asked_at_s = now
        try:
            ping = Ping(instance, now + self._timeout_s, lambda status: self._pong(instance, status))
        except ConnectFailed as error:
            if error.failure is Failure.REFUSED:
                self._eject(instance, "nobody listens on its socket")
            else:
                self._silent.add(instance)  # its backlog is full: it has not accepted for long
            return
        self._pings[instance] = ping

    def _pong(self, instance: Instance, status: int) -> None:
        self._pings.pop(instance, None)
        if status == 0:
            self.lost(instance)
            return
        self._silent.discard(instance)
        instance.heard_at_s = self._sweep.now
        if instance.ejected and status == 200 and not instance.retired:
            log.warning("%s of %s answers again: back in the route", instance.name, instance.endpoint.slug)
            self._meter.count("readmissions")
            instance.ejected = ""
            self._rerouted(instance.endpoint)

    def _no_pong(self, instance: Instance) -> None:
        ping = self._pings.pop(instance)
        if ping.channel is not None:
            ping.channel.cancel()
        if not instance.ejected and not instance.retired:
            self._silent.add(instance)

    def _judge_silent(self) -> None:
        """All that fell silent are judged together, so that a stall of this worker's own ejects nobody."""
        self._silent = {i for i in self._silent if not i.ejected and not i.retired}
        for instance in tuple(self._silent):
            variant = instance.variant
            silent = sum(1 for other in variant.routed if other in self._silent)
            if may_eject_silent(silent, len(variant.routed)):
                self._silent.discard(instance)
                self._eject(instance, f"it answers nothing, nor /ping within {self._timeout_s:g} s", dead=False)

    def _eject(self, instance: Instance, why: str, dead: bool = True) -> None:
        """Out of the route, and all its unanswered requests to others. Silent is not dead: a request that has moved
        before stays with a silent one, which may be busy with it and answer yet.
        """
        if not instance.ejected:
            instance.ejected = why
            if not instance.retired:
                log.warning("%s of %s is out of the route: %s", instance.name, instance.endpoint.slug, why)
                self._meter.count("ejections")
                self._tell(instance, why)
                instance.endpoint.reweigh()
        for invocation in tuple(instance.invocations):
            if invocation.movable and invocation.instance is instance and (dead or not invocation.moved):
                invocation.move(why, dead)

    def _rerouted(self, endpoint: Endpoint) -> None:
        endpoint.reweigh()
        self._book.on_change(endpoint)
