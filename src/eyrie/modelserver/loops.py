"""The event loops of an instance's processes: each runs from its start to whatever ends it, and leaves nothing behind,
so that a process may fork afterwards.

`slot` runs the loop that waits for a claim; with one worker that is the instance's whole life. With several, `crew`
runs the keeper's loop while the model is loaded, and each worker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from eyrie.http1.limits import Limits
from eyrie.http1.server import Server, listen
from eyrie.modelserver.ahead import Spare, dismiss
from eyrie.modelserver.app import ModelServer
from eyrie.modelserver.board import Board
from eyrie.modelserver.crew import News, Wait
from eyrie.modelserver.environment import Claim
from eyrie.modelserver.hosting import Hosted
from eyrie.modelserver.log import LogFile
from eyrie.modelserver.shelf import VARYING
from eyrie.modelserver.threads import Pools

if TYPE_CHECKING:
    from eyrie.modelserver.guests import Guest, Guests

log = logging.getLogger("eyrie.modelserver")

T = TypeVar("T")
DRAIN_MS_MAX = 3_600_000  # whoever sent SIGTERM sends SIGKILL when its own patience ends
HAND_OVER_MS = 1_000  # what a loop that ends for another one still has to answer is small
NEWS_BYTES_MAX = 4_096
SPARE_S = 1.0  # after the claim: a model's loading comes first


@dataclass(frozen=True, slots=True)
class Ground:
    """What every loop of a process stands on."""

    ml: Path
    file: LogFile
    pools: Pools
    guests: Sequence[Guest] = ()  # containers of the user's own that were started beside


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run one loop to its end."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


async def serve_slot(ground: Ground, listener: socket.socket, spares: Sequence[Spare] = ()) -> int | Claim:
    """A slot's loop: until SIGTERM or a model that does not load, the exit code; or until it is claimed for several
    workers, the claim, and the listener is still open. Claimed for one, it lets its spares go after a while.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int | Claim] = loop.create_future()

    def end(outcome: int | Claim) -> None:
        if not ended.done():
            ended.set_result(outcome)

    _on_signals(lambda: end(0))
    guests = _guests(ground, end)

    def alone() -> None:
        loop.call_later(SPARE_S, _let_go, loop, spares)

    application = ModelServer(ground.ml, loop, ground.pools, end, several=end, alone=alone, guests=guests)
    server = await listen(application, listener.dup(), Limits(idle_ms=600_000), varying=VARYING)
    log.info("waiting for a model")
    async with _watching(ground.file):
        outcome = await ended
        if not isinstance(outcome, Claim):
            listener.close()  # while it is open, connections are accepted that nobody will answer
        if outcome == 0:
            await _drain(server)
            if guests is not None:
                await guests.stop()
        elif isinstance(outcome, Claim):
            application.let_go()
            await server.close(HAND_OVER_MS)
    if guests is not None:
        guests.kill()
    return outcome


def _guests(ground: Ground, end: Callable[[int | Claim], None]) -> Guests | None:
    """The containers of the user's own in this instance, listened to; one that ends, ends it."""
    if not ground.guests:
        return None
    from eyrie.modelserver.guests import Guests  # with what only those need

    guests = Guests(ground.guests, ground.file, end)
    guests.start()
    return guests


async def hold_off(ground: Ground, claim: Claim, board: Board, listener: socket.socket, wait: Wait) -> News:
    """The keeper's loop: answers that the model is still loading, until there are news."""
    loop = asyncio.get_running_loop()
    news: asyncio.Future[News] = loop.create_future()

    def tell(found: News | None) -> None:
        if found is not None and not news.done():
            news.set_result(found)

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            tell(wait.judge(os.read(wait.pipe, NEWS_BYTES_MAX)))

    _on_signals(lambda: tell(News.STOP))
    application = ModelServer(ground.ml, loop, ground.pools, lambda code: None, board=board)
    application.await_workers(claim)
    server = await listen(application, listener, Limits(idle_ms=600_000), varying=VARYING)
    with contextlib.ExitStack() as watched:
        _watch(loop, watched, wait.pipe, read)
        for pid in wait.pids:
            pidfd = os.pidfd_open(pid)
            watched.callback(os.close, pidfd)
            _watch(loop, watched, pidfd, lambda: tell(News.ENDED))
        tell(wait.judge(b""))  # told before we listened
        found = await news
    application.let_go(well=found is News.ALL_SERVE)
    await server.close(HAND_OVER_MS)
    return found


async def work(
    ground: Ground, hosted: Hosted, number: int, board: Board, listener: socket.socket, listening: Callable[[], None]
) -> int:
    """A worker's loop: until SIGTERM; its exit code."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    _on_signals(ended.set)
    application = ModelServer(ground.ml, loop, ground.pools, lambda code: None, board=board, number=number)
    application.serve(hosted, board.loaded_ms or 0)
    server = await listen(application, listener, Limits(idle_ms=600_000), varying=VARYING)
    listening()
    async with _watching(ground.file):
        await ended.wait()
        await _drain(server)
    return 0


def _let_go(loop: asyncio.AbstractEventLoop, spares: Sequence[Spare]) -> None:
    """End the spares that nobody needs."""
    for pidfd in dismiss(spares):
        _reap(loop, pidfd)


def _reap(loop: asyncio.AbstractEventLoop, pidfd: int) -> None:
    """Take in a child's end when it comes."""

    def ended() -> None:
        loop.remove_reader(pidfd)
        with contextlib.suppress(ChildProcessError):  # whoever else waited for children had it
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)

    loop.add_reader(pidfd, ended)


def _on_signals(leave: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, leave)


def _watch(loop: asyncio.AbstractEventLoop, watched: contextlib.ExitStack, fd: int, heard: Callable[[], None]) -> None:
    loop.add_reader(fd, heard)
    watched.callback(loop.remove_reader, fd)


async def _drain(server: Server) -> None:
    log.info("stopping: answering what was begun")
    await server.close(DRAIN_MS_MAX)
    log.info("stopped")  # not after a failure: its reason is to be the last line


@contextlib.asynccontextmanager
async def _watching(file: LogFile) -> Any:
    """Keep the log in its bound also against those who write past Python's streams."""
    task = asyncio.get_running_loop().create_task(_watch_log(file))
    try:
        yield
    finally:
        task.cancel()


async def _watch_log(file: LogFile) -> None:
    while True:
        await asyncio.sleep(1.0)
        file.check()
