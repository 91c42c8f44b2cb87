"""Workers forked ahead of need: while a slot waits, they have paid already for what a fork costs, which is that every
page is copied before it is first written.

`slot` forks them after its imports; told of a claim for several workers of a light model, they become those workers
(`crew`), else they are dismissed. A spare waits for one message: its order, or the end of its channel.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eyrie.modelserver.environment import Claim
from eyrie.modelserver.family import fork

SPARES_MAX = 2  # of one slot: each holds memory of its own
ORDER_BYTES_MAX = 65_536  # a longer claim is loaded by workers that are forked then


@dataclass(frozen=True, slots=True)
class Order:
    """What a spare is told: which worker of which instance it becomes, with the socket and the pipe that go with it."""

    number: int
    claim: Claim
    listener: socket.socket
    tell: int


@dataclass(frozen=True, slots=True)
class Spare:
    """A child that waits; `channel` is the keeper's end."""

    pid: int
    channel: socket.socket

    def order(self, number: int, claim: Claim, listener: socket.socket, tell: int) -> bool:
        """Make it a worker. False: it is no more, or cannot be told; it ends then, and another has to be forked."""
        told = pickle.dumps((number, claim, resource.getrlimit(resource.RLIMIT_DATA)))
        try:
            if len(told) > ORDER_BYTES_MAX:
                return False
            socket.send_fds(self.channel, [told], [listener.fileno(), tell])
        except OSError:
            return False
        finally:
            self.channel.close()
        return True


def fork_ahead(count: int, body: Callable[[Callable[[], Order | None]], int]) -> list[Spare]:
    """Fork spares. `body` is the life of one; what it is given waits for the order, None: it is to end."""
    made: list[Spare] = []
    for _ in range(min(count, SPARES_MAX)):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def live(ours: socket.socket = ours, theirs: socket.socket = theirs) -> int:
            for channel in (ours, *(spare.channel for spare in made)):  # else the end of one would be seen by nobody
                channel.close()
            return body(lambda: _await(theirs))

        pid = fork(live)
        theirs.close()
        made.append(Spare(pid, ours))
    return made


def dismiss(spares: Sequence[Spare]) -> Iterator[int]:
    """Let spares end; a pidfd of each that is there, for whoever waits for children."""
    for spare in spares:
        spare.channel.close()
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(spare.pid)


def _await(channel: socket.socket) -> Order | None:
    with channel:
        told, descriptors, _, _ = socket.recv_fds(channel, ORDER_BYTES_MAX, 2)
    if not told:
        return None
    number, claim, limit = _read(told)
    resource.setrlimit(resource.RLIMIT_DATA, limit)  # the keeper's, which was capped after this process was forked
    return Order(number, claim, socket.socket(fileno=descriptors[0]), descriptors[1])


def _read(told: bytes) -> tuple[int, Claim, tuple[int, int]]:
    """The keeper's message; it alone has the other end."""
    order: Any = pickle.loads(told)
    return order[0], order[1], order[2]
