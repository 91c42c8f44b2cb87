"""Blocking connections to Unix sockets at paths of any length, and the standard library's HTTP client upon them: for
threads and commands that ask a process of Eyrie or an instance.
"""

from __future__ import annotations

import os
import socket
from http.client import HTTPConnection
from pathlib import Path

PATH_BYTES_MAX = 107  # what the kernel takes


def connected(path: Path, timeout_s: float) -> socket.socket:
    """A socket connected to `path`; one that is longer than the kernel takes goes by way of its folder. Raises
    OSError.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(timeout_s)
        if len(os.fsencode(path)) <= PATH_BYTES_MAX:
            made.connect(str(path))
            return made
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            made.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    except BaseException:
        made.close()
        raise
    return made


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        super().__init__("localhost")
        self._path, self._timeout_s = path, timeout_s

    def connect(self) -> None:
        """Connect to the socket. Raises OSError."""
        self.sock = connected(self._path, self._timeout_s)
