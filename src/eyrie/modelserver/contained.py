"""`python -m eyrie.modelserver.contained`: the life of an instance that runs a container of the user's own.

It stands where the model server stands in an instance of ours: it holds the lock, owns BOX/s and the log, and ends when
the container ends, with its exit code. What it has to start (or, with an engine, to follow) is told as JSON on an
inherited descriptor: docs/concepts/processes.md has the members. BOX/s appears once the container's port accepts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eyrie.modelserver import engine, program
from eyrie.modelserver.bridge import LOOPBACK, Bridge, accepts
from eyrie.modelserver.log import LogFile, open_log, stamp
from eyrie.modelserver.slot import bind, hold_lock

log = logging.getLogger("eyrie.container")

BIND_TO_PORT = "SAGEMAKER_BIND_TO_PORT"
PORT_LOOK_FIRST_S, PORT_LOOK_MAX_S = 0.01, 0.1
LAST_WORDS_S = 0.5  # how long the log may go on after the program has ended: a child may hold the pipe open
LINE_BYTES_MAX = 65_536
TOLD_BYTES_MAX = 4_194_304


@dataclass(frozen=True, slots=True)
class Told:
    """What to run or to follow."""

    port: int  # 0: any free one, since the network is the host's; the container is told by SAGEMAKER_BIND_TO_PORT
    command: tuple[str, ...] = ()  # empty: an engine runs it
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    root: str = ""  # a root file system to step into
    uid: int | None = None  # the user to become; None: that was done before
    engine: Mapping[str, Any] | None = None

    @staticmethod
    def read(fd: int) -> Told:
        """Read it from an inherited descriptor. Raises ValueError."""
        with open(fd, "rb") as file:
            given = json.loads(file.read(TOLD_BYTES_MAX))
        given["command"] = tuple(given.get("command", ()))
        if given["port"] == 0:
            given["port"] = free_port()
            given["environment"] = {**given["environment"], BIND_TO_PORT: str(given["port"])}
        return Told(**given)


class Running(Protocol):
    """A container that was started, by us or by an engine."""

    def start(self, feed: Callable[[bytes], None], ended: asyncio.Future[int]) -> None:
        """Begin to pass on what it says; `ended` gets its exit code (128 + N: killed by signal N)."""

    def terminate(self) -> None:
        """SIGTERM."""

    async def last_words(self) -> None:
        """Wait, a moment at the most, for what it said last."""


class Lines:
    """Turns a stream of bytes into stamped lines of the log."""

    def __init__(self, file: LogFile, mark: str = "") -> None:
        """`mark` stands before each line: whose it is, where others write too."""
        self._file = file
        self._mark = mark.encode()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes; whole lines go to the log."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > LINE_BYTES_MAX:
            whole.append(self._rest[:LINE_BYTES_MAX])
            self._rest = self._rest[LINE_BYTES_MAX:]
        if whole:
            at = stamp(time.time()).encode()
            for line in whole:
                self._file.write(b"%b %b%b\n" % (at, self._mark, line.rstrip(b"\r")))

    def say(self, text: str) -> None:
        """Write a line of ours beside its own."""
        self.finish()
        self._file.write(b"%b %b%b\n" % (stamp(time.time()).encode(), self._mark, text.encode()))

    def finish(self) -> None:
        """Write the line that did not end."""
        if self._rest:
            self.feed(b"\n")


class Program:
    """The container as a process of ours."""

    def __init__(self, started: program.Started) -> None:
        self._pid, self._output = started.pid, started.output
        self._done: asyncio.Event = asyncio.Event()

    def start(self, feed: Callable[[bytes], None], ended: asyncio.Future[int]) -> None:
        """Read its output as it comes, and its exit code when it ends."""
        loop = asyncio.get_running_loop()
        os.set_blocking(self._output, False)
        loop.add_reader(self._output, self._read, feed)
        pidfd = os.pidfd_open(self._pid)
        loop.add_reader(pidfd, self._reap, pidfd, ended)

    def terminate(self) -> None:
        """SIGTERM."""
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Any signal, before it has ended: while it is not reaped, the number is its own."""
        os.kill(self._pid, number)

    async def last_words(self) -> None:
        """Until its output has ended."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._done.wait()
        except TimeoutError:
            return

    def _read(self, feed: Callable[[bytes], None]) -> None:
        try:
            data = os.read(self._output, LINE_BYTES_MAX)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._output)
            self._done.set()
            return
        feed(data)

    def _reap(self, pidfd: int, ended: asyncio.Future[int]) -> None:
        _, status = os.waitpid(self._pid, 0)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(status)
        if not ended.done():
            ended.set_result(code if code >= 0 else 128 - code)


def free_port() -> int:
    """A port of the loopback where nobody listens now."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; argparse answers a wrong one with exit code 2."""
    parser = argparse.ArgumentParser("python -m eyrie.modelserver.contained")
    parser.add_argument("--box", required=True, type=Path, help="folder for the socket `s` and the log")
    parser.add_argument("--lock-fd", type=int, help="inherited descriptor whose flock is held while this lives")
    parser.add_argument("--told-fd", required=True, type=int, help="inherited descriptor with what to run, as JSON")
    parser.add_argument("--status-fd", type=int, help="inherited descriptor for what the launcher has to know")
    parser.add_argument("--log-bytes-max", type=int, default=16_777_216, help="bound of the two log files together")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run a container to its end; its exit code."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))  # nothing was begun yet
    told = Told.read(options.told_fd)
    program.step_down(told.uid, keep=bool(told.root))
    file = open_log(options.box, options.log_bytes_max)
    if options.lock_fd is not None and not hold_lock(options.lock_fd):
        log.error("the lock of this slot is held by another process")
        return 1
    try:
        running, port = _begin(told, options.status_fd)
    except OSError as fault:
        log.error("%s", fault)
        return 1
    code = _loop(options.box, port, file, running)
    sys.stdout.flush()
    return code


def _begin(told: Told, status_fd: int | None) -> tuple[Running, int]:
    """Start or find the container; it, and the port on this process's loopback where it will listen. Raises OSError."""
    if told.engine is not None:
        return _follow(engine.Followed(**told.engine), told.port, status_fd)
    try:
        return Program(program.start(told.command, told.environment, told.workdir, told.root)), told.port
    except OSError as fault:
        raise OSError(f"{told.command[0]} could not be started: {fault}") from fault
    finally:
        program.drop_rights()


def _follow(followed: engine.Followed, port: int, status_fd: int | None) -> tuple[Running, int]:
    followed.tell(status_fd)
    entered = not followed.network_pid or engine.enter_network(followed.network_pid)
    program.drop_rights()
    return followed, port if entered else free_port()  # one where nobody listens: this host's 8080 is another's


def _loop(box: Path, port: int, file: LogFile, running: Running) -> int:
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_serve(box, port, file, running))


async def _serve(box: Path, port: int, file: LogFile, running: Running) -> int:
    """Pass on what comes until the container has ended."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    lines = Lines(file)

    def leave() -> None:
        if not ended.done():
            log.info("SIGTERM is passed on")
            running.terminate()

    loop.add_signal_handler(signal.SIGTERM, leave)
    running.start(lines.feed, ended)
    bridge = Bridge(port)
    opening = loop.create_task(_open(bridge, box, port))
    code = await ended
    opening.cancel()
    await running.last_words()
    lines.finish()
    await bridge.close()
    return code


async def _open(bridge: Bridge, box: Path, port: int) -> None:
    """Let the gateway in once the container listens."""
    pause_s = PORT_LOOK_FIRST_S
    while not await accepts(port):
        await asyncio.sleep(pause_s)
        pause_s = min(PORT_LOOK_MAX_S, pause_s * 1.5)
    await bridge.start(bind(box))
    log.info("the container listens on port %d", port)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
