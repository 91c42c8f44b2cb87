"""The processes that `eyrie up` keeps: their names, how each is started, and how to see that one is ready."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters import process_lock
from eyrie.http1.unix import connect_unix

LISTEN_FD = 3  # where a gateway finds the listening socket
_ALL_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Part:
    """One process of Eyrie: `control`, `objects`, `dispatch`, `console` or a gateway worker by its index."""

    kind: str
    index: int = 0

    @property
    def name(self) -> str:
        """The name of its lock, log and socket."""
        return f"{self.kind}-{self.index}" if self.kind == "gateway" else self.kind

    def lock(self, data: Path) -> Path:
        """The file whose flock it holds while it lives."""
        return data / "run" / f"{self.name}.lock"

    def socket(self, data: Path) -> Path:
        """The Unix socket that it answers on once it is ready."""
        return data / "run" / f"{self.name}.sock"

    def log(self, data: Path) -> Path:
        """What it says."""
        return data / "logs" / f"{self.name}.log"


CONTROL = Part("control")
OBJECTS = Part("objects")
DISPATCH = Part("dispatch")
CONSOLE = Part("console")

Command = Callable[[Part], list[str]]


def eyrie_command(part: Part) -> list[str]:
    """The command line of a part; -P keeps the current folder from shadowing modules."""
    command = [sys.executable, "-P", "-m", "eyrie.app", part.kind, "--index", str(part.index)]
    return [*command, "--listen-fd", str(LISTEN_FD)] if part.kind == "gateway" else command


def spawn(part: Part, command: Command, env: Mapping[str, str], data: Path, listener: socket.socket) -> int:
    """Start a part in a session of its own: Ctrl-C at the terminal reaches only the supervisor. Returns its pid."""
    argv = command(part)
    log = os.open(part.log(data), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # above LISTEN_FD: dup2 onto itself would leave it closed at exec
    shared = fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD_CLOEXEC, LISTEN_FD + 1)
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    if part.kind == "gateway":
        actions.append((os.POSIX_SPAWN_DUP2, shared, LISTEN_FD))
    try:
        with open(os.devnull, "rb") as nothing:
            actions.insert(0, (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0))
            return os.posix_spawn(
                argv[0], argv, dict(env), file_actions=actions, setsid=True, setsigmask=(), setsigdef=_ALL_SIGNALS
            )
    finally:
        os.close(log)
        os.close(shared)


def ready(part: Part, data: Path, pid: int) -> bool:
    """True when this very process holds its lock and its socket accepts."""
    if process_lock.holder(part.lock(data)) != pid:
        return False
    try:
        connect_unix(str(part.socket(data))).close()
    except OSError:
        return False
    return True


def living(data: Path) -> list[process_lock.Running]:
    """Every part that runs now, whoever started it; the caller closes them."""
    found = (process_lock.pin(path) for path in sorted((data / "run").glob("*.lock")))
    return [running for running in found if running is not None]


def last_words(part: Part, data: Path, lines: int = 3) -> str:
    """The end of a part's log, for the reason why it does not come up."""
    try:
        with open(part.log(data), "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            text = log.read().decode(errors="replace").strip()
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:])
