"""Follows a container that an engine (dockerd, podman) runs: what it says, when it ends, and the way into its network.

It speaks the few words of the engine's HTTP API that this takes, over the engine's Unix socket, so that no library has
to be loaded a second time for every instance. An engine that does not answer for a while is not a container that ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

log = logging.getLogger("eyrie.container")

AGAIN_S = 1.0
LAST_WORDS_S = 1.0
ANSWER_TIMEOUT_S = 10.0
BODY_BYTES_MAX = 4_194_304
CLONE_NEWNET = 0x40000000
_FRAME = struct.Struct(">BxxxL")  # stream and length, before each piece of a container's output
_GONE = 404


class EngineSilent(Exception):
    """The engine did not answer, or not in HTTP."""


class Followed:
    """A container of an engine's. Times out of nothing: it ends when the engine says so."""

    def __init__(self, socket: str, container: str, init_pid: int, network_pid: int) -> None:
        """`init_pid`: its first process as seen from here, 0 where it has ended; `network_pid`: whose network to
        enter, 0 where its port is published.
        """
        self._socket, self._container = socket, container
        self._init_pid, self.network_pid = init_pid, network_pid
        self._tasks: list[asyncio.Task[None]] = []
        self._heard_all = asyncio.Event()

    def tell(self, status_fd: int | None) -> None:
        """Let whoever ends instances know which process to kill for all of it, and which one this is."""
        if status_fd is None:
            return
        try:
            namespace = os.stat(f"/proc/{self._init_pid}/ns/pid").st_ino
        except OSError:
            return  # it has ended: there is nothing to kill
        told = {"child-pid": self._init_pid, "pid-namespace": namespace, "server-pid": os.getpid()}
        os.write(status_fd, json.dumps(told).encode() + b"\n")
        os.close(status_fd)

    def start(self, feed: Callable[[bytes], None], ended: asyncio.Future[int]) -> None:
        """Pass on what it says and said; `ended` gets its exit code."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._listen(feed)), loop.create_task(self._await_end(ended))]

    def terminate(self) -> None:
        """SIGTERM."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._signal("SIGTERM")))

    async def last_words(self) -> None:
        """Until its output has ended."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._heard_all.wait()
        except TimeoutError:
            return
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _signal(self, name: str) -> None:
        path = f"kill?signal={name}"
        while True:
            try:
                await self._ask("POST", path, ANSWER_TIMEOUT_S)
                return
            except EngineSilent as fault:
                log.warning("the engine was asked for %s: %s", name, fault)
                await asyncio.sleep(AGAIN_S)

    async def _await_end(self, ended: asyncio.Future[int]) -> None:
        while True:
            try:
                status, found = await self._ask("POST", "wait", None)
            except EngineSilent as fault:
                log.warning("waiting for the container's end: %s", fault)
                await asyncio.sleep(AGAIN_S)
                continue
            if status == _GONE:
                log.error("the engine knows no container %s any more", self._container)
                code = 1
            else:
                code = int(found.get("StatusCode", 1))
                await self._tell_why(code)
            if not ended.done():
                ended.set_result(code)
            return

    async def _tell_why(self, code: int) -> None:
        """What the exit code does not say."""
        try:
            _, found = await self._ask("GET", "json", ANSWER_TIMEOUT_S)
        except EngineSilent:
            return
        state = found.get("State") or {}
        if state.get("OOMKilled"):
            log.error("killed by the kernel: its memory limit was reached")
        elif state.get("Error"):
            log.error("the engine says: %s", state["Error"])

    async def _listen(self, feed: Callable[[bytes], None]) -> None:
        since_s = 0.0
        while True:
            try:
                await self._read_log(feed, since_s)
                self._heard_all.set()
                return
            except (OSError, EngineSilent, asyncio.IncompleteReadError) as fault:
                log.warning("the container's output is asked for again: %s", fault)
            since_s = time.time()
            await asyncio.sleep(AGAIN_S)

    async def _read_log(self, feed: Callable[[bytes], None], since_s: float) -> None:
        query = f"logs?follow=1&stdout=1&stderr=1&since={since_s:.3f}"
        reader, writer = await self._connect()
        try:
            writer.write(self._head("GET", query))
            status = await _status(reader)
            if status != 200:
                raise EngineSilent(f"status {status}")
            while frame := await reader.read(1):
                frame += await reader.readexactly(_FRAME.size - 1)
                _, length = _FRAME.unpack(frame)
                while length:
                    piece = await reader.read(min(length, 65_536))
                    if not piece:
                        return
                    length -= len(piece)
                    feed(piece)
        finally:
            writer.transport.abort()

    async def _ask(self, method: str, what: str, timeout_s: float | None) -> tuple[int, dict[str, Any]]:
        """One request about the container. Raises EngineSilent."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await self._connect()
                try:
                    writer.write(self._head(method, what))
                    status = await _status(reader)
                    body = await _rest(reader)
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
            raise EngineSilent(f"{type(fault).__name__}: {fault}") from None
        try:
            found = json.loads(body or b"{}")
        except ValueError:
            raise EngineSilent(f"status {status} without JSON") from None
        return status, found if isinstance(found, dict) else {}

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._socket)

    def _head(self, method: str, what: str) -> bytes:
        """HTTP/1.0: the reply is not chunked, and ends with the connection."""
        path = f"/containers/{quote(self._container, safe='')}/{what}"
        return f"{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Length: 0\r\n\r\n".encode()


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split()
    if len(words) < 2 or not words[1].isdigit():
        raise EngineSilent(f"no HTTP: {head[:40]!r}")
    return int(words[1])


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """The body: all that comes. Raises EngineSilent for one that is too long."""
    body = b""
    while piece := await reader.read(65_536):
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise EngineSilent(f"an answer of more than {BODY_BYTES_MAX} bytes")
    return body


def enter_network(pid: int) -> bool:
    """Make the network of a process on this host one's own; False: it has ended. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if libc.setns(fd, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"the container's network could not be entered: {os.strerror(number)}")
    finally:
        os.close(fd)
    return True
