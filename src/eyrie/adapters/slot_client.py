"""Asks a slot's server one thing over its Unix socket, bounded in time and bytes however the other side behaves."""

from __future__ import annotations

import os
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters.unix_http import connected
from eyrie.ports import NoAnswer

__all__ = ["NoAnswer", "Reply", "ask"]

REPLY_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and a body."""

    status: int
    body: bytes


def ask(
    path: Path,
    method: str,
    target: str,
    body: bytes = b"",
    timeout_s: float = 1.0,
    reply_bytes_max: int = REPLY_BYTES_MAX,
) -> Reply:
    """One HTTP/1.1 request with `Connection: close`. Raises NoAnswer."""
    deadline = time.monotonic() + timeout_s
    head = f"{method} {target} HTTP/1.1\r\nHost: instance\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    kind = "Content-Type: application/json\r\n" if body else ""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise NoAnswer(f"{path} is not a socket")
        with connected(path, timeout_s) as conversation:
            conversation.sendall(f"{head}{kind}\r\n".encode() + body)
            return _parse(_receive(conversation, deadline, reply_bytes_max))
    except OSError as fault:
        raise NoAnswer(f"{path}: {fault or type(fault).__name__}") from None


def _receive(conversation: socket.socket, deadline: float, reply_bytes_max: int) -> bytes:
    received = b""
    while not _complete(received):
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoAnswer("no whole answer in time")
        conversation.settimeout(left)
        part = conversation.recv(REPLY_BYTES_MAX)
        received += part
        if len(received) > reply_bytes_max:
            raise NoAnswer(f"the answer is larger than {reply_bytes_max} bytes")
        if not part:
            break
    return received


def _complete(received: bytes) -> bool:
    """Whether the body that the head announces is there."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value.strip())
    return False


def _parse(received: bytes) -> Reply:
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise NoAnswer("the answer is not HTTP")
    return Reply(int(words[1]), body)
