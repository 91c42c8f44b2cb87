"""Where the instances of a job are: control says it in `seats.json`, and says it again when one was replaced."""

from __future__ import annotations

import os
import time
from http.client import HTTPException
from pathlib import Path

import msgspec

from eyrie.domain.transform import Seat
from eyrie.transform.wire import Wire, socket_of

FILE = "seats.json"
LOOK_S = 0.05
PING_TIMEOUT_S = 2.0
OK = 200


class NotReady(Exception):
    """An instance does not answer pings in time; the message is for people."""


class Seats:
    """The newest word of control on where instances are. Used by many threads."""

    def __init__(self, folder: Path, startup_s: float) -> None:
        self._path, self._startup_s = folder / FILE, startup_s
        self._stamp: tuple[int, int] | None = None
        self._known: tuple[Seat, ...] = ()

    def all(self) -> tuple[Seat, ...]:
        """Every seat."""
        try:
            facts = os.stat(self._path)
            stamp = (facts.st_ino, facts.st_mtime_ns)
            if stamp != self._stamp:
                self._known = msgspec.json.decode(self._path.read_bytes(), type=tuple[Seat, ...])
                self._stamp = stamp
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return self._known  # between two of control's writes there is always a whole one
        return self._known

    def ready(self, number: int) -> Seat:
        """The seat, once whoever sits there answers pings. Raises NotReady."""
        until = time.monotonic() + self._startup_s
        while time.monotonic() < until:
            seat = next((seat for seat in self.all() if seat.number == number), None)
            if seat is not None and seat.socket and _answers(seat):
                return seat
            time.sleep(LOOK_S)
        raise NotReady(
            "ClientError: the primary container did not pass the ping health check within "
            f"{self._startup_s:.0f} s. See the job's log."
        )


def _answers(seat: Seat) -> bool:
    wire = Wire(socket_of(seat.socket, 0), PING_TIMEOUT_S)
    try:
        return wire.ask("GET", "/ping").status == OK
    except (OSError, HTTPException):
        return False
    finally:
        wire.close()
