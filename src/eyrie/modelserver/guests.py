"""Containers of the user's own that share an instance with models of ours: their programs, their words, their pings.

In an instance of several containers the model server starts those that are not ours before anything else, each on a
port of the loopback (SAGEMAKER_BIND_TO_PORT), inside its own root file system where it has one. `loopback` carries
requests to them. When one of them ends, the instance ends with it, as an instance of one container would.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eyrie.modelserver import program
from eyrie.modelserver.contained import BIND_TO_PORT, TOLD_BYTES_MAX, Lines, Program, free_port
from eyrie.modelserver.log import LogFile
from eyrie.modelserver.loopback import ping

log = logging.getLogger("eyrie.container")

PING_PERIOD_S = 1.0
PING_FIRST_S = 0.02  # between two pings until the first one is answered
PING_TIMEOUT_S = 2.0
STOP_S = 2.0  # from SIGTERM to the end of the instance, which kills what is left


@dataclass(frozen=True, slots=True)
class Told:
    """One program to start, as the launcher tells it."""

    hostname: str
    port: int  # 0: any free one, since the network is the host's
    command: tuple[str, ...]
    environment: Mapping[str, str]
    workdir: str = "/"
    root: str = ""  # a root file system to step into


@dataclass(slots=True)
class Guest:
    """A container of the user's own that was started, and how it does."""

    hostname: str
    port: int
    running: Program
    well: bool = False  # its last ping was answered with 200
    exit_code: int | None = None
    last: str = ""  # what it said last


def begin(fd: int) -> tuple[Guest, ...]:
    """Start every program that is told on an inherited descriptor, after stepping down to the user that is named there;
    afterwards this process has no right to step anywhere. Raises OSError, ValueError.
    """
    with open(fd, "rb") as file:
        given = json.loads(file.read(TOLD_BYTES_MAX))
    told = [Told(**{**one, "command": tuple(one["command"])}) for one in given["guests"]]
    program.step_down(given["uid"], keep=any(one.root for one in told))
    try:
        return tuple(_started(one) for one in told)
    finally:
        program.drop_rights()


def _started(told: Told) -> Guest:
    port = told.port or free_port()
    environment = {**told.environment, BIND_TO_PORT: str(port)}
    try:
        return Guest(told.hostname, port, Program(program.start(told.command, environment, told.workdir, told.root)))
    except OSError as fault:
        raise OSError(f"[{told.hostname}] {told.command[0]} could not be started: {fault}") from fault


class Words(Lines):
    """The lines of one guest in the instance's log, marked as its own."""

    def __init__(self, file: LogFile, guest: Guest) -> None:
        super().__init__(file, f"[{guest.hostname}] ")
        self._guest = guest

    def feed(self, data: bytes) -> None:
        """Take bytes, and remember the last line that says something."""
        said = data.decode(errors="replace").strip()
        if said:
            self._guest.last = said.splitlines()[-1][:500]
        super().feed(data)


@dataclass(slots=True)
class Guests:
    """The guests of an instance, on its event loop."""

    members: Sequence[Guest]
    file: LogFile
    ended: Callable[[int], None]  # ends the instance, with an exit code
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    _words: list[Words] = field(default_factory=list)
    _stopping: bool = False

    @property
    def well(self) -> bool:
        """Whether all of them answered their last ping with 200."""
        return all(guest.well for guest in self.members)

    @property
    def names(self) -> frozenset[str]:
        """Their host names."""
        return frozenset(guest.hostname for guest in self.members)

    def start(self) -> None:
        """Listen to what they say, wait for their ends and ask how they are."""
        loop = asyncio.get_running_loop()
        for guest in self.members:
            words = Words(self.file, guest)
            self._words.append(words)
            end: asyncio.Future[int] = loop.create_future()
            guest.running.start(words.feed, end)
            self._tasks += [loop.create_task(self._wait(guest, words, end)), loop.create_task(_ask(guest))]

    async def stop(self) -> None:
        """SIGTERM to all; returns when they have ended, or after a moment."""
        self._stopping = True
        for guest in self.members:
            if guest.exit_code is None:
                guest.running.terminate()
        waits = self._tasks[::2]  # for their ends
        if waits:
            await asyncio.wait(waits, timeout=STOP_S)
        for task in self._tasks:
            task.cancel()

    def kill(self) -> None:
        """SIGKILL to those that run still: without a sandbox nothing else ends them."""
        for guest in self.members:
            if guest.exit_code is None:
                guest.running.signal(signal.SIGKILL)

    async def _wait(self, guest: Guest, words: Words, end: asyncio.Future[int]) -> None:
        guest.exit_code = await end
        guest.well = False
        await guest.running.last_words()
        words.finish()
        if not self._stopping:
            told = f"; it said last: {guest.last}" if guest.last else ""
            words.say(f"The container has ended with exit code {guest.exit_code}{told}")
            self.ended(guest.exit_code or 1)


async def _ask(guest: Guest) -> None:
    """Keep `guest.well` true to what its pings say."""
    pause_s = PING_FIRST_S
    while True:
        well = await ping(guest.port, PING_TIMEOUT_S)
        if well and not guest.well:
            log.info("container %s answers on port %d", guest.hostname, guest.port)
        guest.well = well
        pause_s = PING_PERIOD_S if well else min(PING_PERIOD_S, pause_s * 1.5)
        await asyncio.sleep(pause_s)
