"""What `eyrie up` does about the processes that a killed one left behind: it takes their listener and replaces them.

The listening socket never closes, so no connection is refused on the way.
"""

from __future__ import annotations

import array
import logging
import socket
from pathlib import Path

from eyrie.adapters.process_lock import Running
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import CONSOLE, CONTROL, DISPATCH, OBJECTS, Part
from eyrie.cli.supervisor import Child, Supervisor
from eyrie.http1.unix import connect_unix

_GRACE_S = 9.0  # of control, dispatch and objects to end: less than their successors wait for their locks
_BACKLOG = 4096

log = logging.getLogger("takeover")


def listen(host: str, port: int, data: Path, survivors: list[Running]) -> socket.socket:
    """The listening socket: a surviving worker's where it is the one that was asked for, else a new one.

    Raises CommandError where another program has the port, or the host is no address of this machine.
    """
    for survivor in survivors:
        if survivor.name.startswith("gateway-"):
            inherited = receive_listener(data / "run" / f"{survivor.name}.sock")
            if inherited is not None:
                if serves(inherited, host, port):
                    return inherited
                inherited.close()
    return bind(host, port)


def bind(host: str, port: int) -> socket.socket:
    """A new listening socket. Raises CommandError in one clear line."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CommandError(f"cannot listen on {host}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise CommandError(_why_not(host, port, error)) from None
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"port {port} may not be opened by this user: choose one above 1023 with --port"
    if error.errno == 98:
        return f"port {port} on {host} is in use by another program: choose another with --port"
    return f"cannot listen on {host} port {port}: {error.strerror}"


def receive_listener(path: Path) -> socket.socket | None:
    """The listening socket of a live worker, by SCM_RIGHTS over its own socket; None where it does not answer."""
    try:
        with connect_unix(str(path)) as line:
            line.settimeout(2.0)
            line.sendall(b"listener\n")
            _, ancillary, _, _ = line.recvmsg(4096, socket.CMSG_SPACE(array.array("i").itemsize))
    except OSError:
        return None
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return socket.socket(fileno=fds[0]) if fds else None


def serves(listener: socket.socket, host: str, port: int) -> bool:
    """Whether this socket listens where we were asked to (port 0 asks for any)."""
    try:
        wanted = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = listener.getsockname()
    except OSError:
        return False
    return listener.family == wanted[0] and bound[0] == wanted[4][0] and port in (0, bound[1])


def bring_up(supervisor: Supervisor, gateways: int, survivors: list[Running], wait_s: float) -> None:
    """Start every part; where some run already: new gateways first, then the old ones drain, then control and dispatch
    are replaced side by side, each successor starting while the old process ends, and objects once both have ended.

    Raises CommandError where a part does not come up, unless an earlier Eyrie's endpoints are being served meanwhile.
    """
    old = {survivor.name: survivor for survivor in survivors}
    fresh = {part: supervisor.start(part) for part in (CONTROL, OBJECTS, DISPATCH) if part.name not in old}
    workers = supervisor.start_gateways(gateways)
    supervisor.wait_ready(workers, wait_s)
    for survivor in survivors:
        if survivor.name.startswith("gateway-") or survivor.name == CONSOLE.name:
            supervisor.retire(survivor, supervisor.drain_grace_s)

    def begun(part: Part) -> Child:
        return fresh.get(part) or supervisor.replace(part, old[part.name], _GRACE_S)

    children = [begun(CONTROL), begun(DISPATCH)]
    supervisor.wait_retired((CONTROL, DISPATCH))  # which bring to objects what they still have when they end
    for child in [*children, begun(OBJECTS)]:
        try:
            supervisor.wait_ready([child], wait_s)
        except CommandError as error:
            if supervisor.stop_asked or not old:
                raise
            log.warning("%s; going on without it, since serving needs no control plane", error)
