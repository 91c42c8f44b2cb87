"""Has an instance answer payloads: tries again what may get better, waits for an instance that is being replaced.

An answer of 5xx and a time-out are tried again, as often as the job says (InvocationsMaxRetries); an instance that
ends while it has a request is replaced by control, and the request is sent to the next one, once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

from eyrie.domain.transform import Agreed, Seat, TransformSpec
from eyrie.transform import source
from eyrie.transform.seats import OK, Seats
from eyrie.transform.wire import Reply, ReplyTooLong, Wire, socket_of

log = logging.getLogger("eyrie.transform")

DEATHS_MAX = 2  # of instances that had a request; a third one does not get it
CUTS_MAX = 5  # of connections, to whatever instance
PAUSE_S = 0.2
SERVER_ERROR = 500


class NoReply(Exception):
    """An instance gave no answer to a request, for good; the message is for people."""


@dataclass(slots=True)
class _Seated:
    """A thread's connection, and to whom."""

    socket: str = ""
    wire: Wire | None = None


class Caller:
    """The requests of one share, to the instance at its seat."""

    def __init__(self, seats: Seats, number: int, spec: TransformSpec) -> None:
        self._seats, self._number, self._spec = seats, number, spec
        kind = source.sent_type(spec)
        self._headers = {"Content-Type": kind} if kind else {}
        self._headers |= {"Accept": spec.accept} if spec.accept else {}
        self._own = threading.local()
        self._turns = threading.Lock()
        self._turn = 0

    def seat(self) -> Seat:
        """The seat, once its instance answers pings. Raises NotReady."""
        return self._seats.ready(self._number)

    def execution_parameters(self, seat: Seat) -> bytes:
        """What its container says of itself; empty where it says nothing."""
        wire = Wire(socket_of(seat.socket, 0), 5.0)
        try:
            reply = wire.ask("GET", "/execution-parameters")
            return reply.body if reply.status == OK else b""
        except (OSError, HTTPException, ReplyTooLong):
            return b""
        finally:
            wire.close()

    def ask(self, bodies: Sequence[bytes]) -> list[Reply]:
        """The answers to requests: one alone, or many in one message. Raises NoReply, NotReady."""
        answers = self._answers(bodies)
        for _ in range(self._spec.retries):
            again = [number for number, reply in enumerate(answers) if reply.status >= SERVER_ERROR]
            if not again:
                break
            log.warning("%d of %d answers were %d or above: asked again", len(again), len(bodies), SERVER_ERROR)
            time.sleep(PAUSE_S)
            for number, reply in zip(again, self._answers([bodies[number] for number in again]), strict=True):
                answers[number] = reply
        return answers

    def _answers(self, bodies: Sequence[bytes]) -> list[Reply]:
        """An answer to each, whatever it is. Raises NoReply, NotReady."""
        late, cuts, had = self._spec.retries, CUTS_MAX, set[str]()
        while True:
            wire = self._wire()
            if len(had | {self._seated().socket}) > DEATHS_MAX:
                raise NoReply(f"{DEATHS_MAX} instances ended while they had the request")
            try:
                if len(bodies) == 1:
                    return [wire.ask("POST", "/invocations", bodies[0], self._headers)]
                return wire.batch(bodies, self._headers)
            except TimeoutError:
                if not late:
                    raise NoReply(f"the model did not answer within {self._spec.timeout_s} s") from None
                late -= 1
            except ReplyTooLong:
                raise NoReply("the model's answer is too long") from None
            except (OSError, HTTPException) as error:
                log.warning("instance %d gave no answer: %s: %s", self._number, type(error).__name__, error)
                had.add(self._seated().socket)
                cuts -= 1
                if not cuts:
                    raise NoReply(f"the connection to the instance broke {CUTS_MAX} times") from None
                self.lost()
            time.sleep(PAUSE_S)

    @contextmanager
    def stream(self, pieces: Iterator[bytes]) -> Iterator[HTTPResponse]:
        """A request of any length. Raises NoReply, NotReady."""
        try:
            with self._wire().stream(pieces, self._headers) as response:
                yield response
        except TimeoutError:
            raise NoReply(f"the model did not answer within {self._spec.timeout_s} s") from None
        except (OSError, HTTPException) as error:
            raise NoReply(f"the instance gave no whole answer: {type(error).__name__}: {error}") from None

    def _wire(self) -> Wire:
        """This thread's connection to whoever sits there now, one of its workers."""
        own = self._seated()
        seat = next((seat for seat in self._seats.all() if seat.number == self._number), None)
        if own.wire is None or seat is None or seat.socket != own.socket:
            seat = self.seat()
            if own.wire is not None:
                own.wire.close()
            with self._turns:
                self._turn += 1
                worker = self._turn % max(seat.workers, 1)
            own.socket = seat.socket
            own.wire = Wire(socket_of(seat.socket, worker), float(self._spec.timeout_s))
        return own.wire

    def _seated(self) -> _Seated:
        known: _Seated | None = getattr(self._own, "seated", None)
        if known is None:
            known = self._own.seated = _Seated()
        return known

    def lost(self) -> None:
        """This thread's connection is of no use any more."""
        own = self._seated()
        if own.wire is not None:
            own.wire.close()
        own.wire = None


def agreed_workers(seat: Seat, agreed: Agreed, asked: bool) -> int:
    """How many requests an instance is given at once: what the job says, else what each worker takes."""
    return agreed.concurrent if asked else min(agreed.concurrent * max(seat.workers, 1), 100)
