"""Unix sockets at paths of any length: the kernel takes 107 bytes, so a longer path goes by way of its folder's
descriptor.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

PATH_BYTES_MAX = 100


@contextlib.contextmanager
def _address(path: str) -> Iterator[str]:
    """An address for `path` that is short enough, valid inside the context. Raises OSError when the folder is
    missing.
    """
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def listen_unix(path: str, backlog: int = 1024, mode: int = 0o666) -> socket.socket:
    """A non-blocking listening socket at `path`, in place of whatever socket file a dead owner left there. Raises
    OSError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)
            listener.bind(address)
            os.chmod(address, mode)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def connect_unix(path: str) -> socket.socket:
    """A connected non-blocking socket. Connecting to a Unix socket never waits.

    Raises ConnectionRefusedError or FileNotFoundError when nobody listens, BlockingIOError when the listener's
    backlog is full.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.setblocking(False)
        with _address(path) as address:
            client.connect(address)
    except BaseException:
        client.close()
        raise
    return client
