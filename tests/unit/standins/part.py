"""A stand-in for one part of Eyrie: holds its lock, answers on its socket and the shared one, ends on SIGTERM.

Run as `part.py KIND INDEX DATA`. `DATA/die-KIND` makes it end at once with code 7, after saying why. `DATA/after-KIND`
names others: it ends only when they have, and is killed where they were not told to.
"""

from __future__ import annotations

import array
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

from eyrie.adapters import process_lock
from eyrie.cli.parts import LISTEN_FD, Part


def main() -> None:
    part, data = Part(sys.argv[1], int(sys.argv[2])), Path(sys.argv[3])
    if (data / f"die-{part.kind}").exists():
        sys.exit("the stand-in was told to die")
    process_lock.take(part.lock(data), 5.0)
    part.socket(data).unlink(missing_ok=True)
    own = socket.socket(socket.AF_UNIX)
    own.bind(str(part.socket(data)))
    own.listen()
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    watch = selectors.DefaultSelector()
    watch.register(woken, selectors.EVENT_READ, "stop")
    watch.register(own, selectors.EVENT_READ, "line")
    shared = socket.socket(fileno=LISTEN_FD) if part.kind == "gateway" else None
    if shared is not None:
        watch.register(shared, selectors.EVENT_READ, "serve")
    while True:
        for key, _ in watch.select():
            if key.data == "stop":
                wait_for_others(data, data / f"after-{part.kind}")
                with open(data / "order", "a") as order:
                    order.write(f"{part.name}\n")
                return
            if key.data == "line":
                line(own, shared)
            elif shared is not None:
                serve(shared)


def wait_for_others(data: Path, after: Path) -> None:
    while after.exists() and not set(after.read_text().split()) <= set((data / "order").read_text().split()):
        time.sleep(0.01)


def line(own: socket.socket, shared: socket.socket | None) -> None:
    connection, _ = own.accept()
    with connection:
        if connection.recv(100) == b"listener\n" and shared is not None:
            fds = array.array("i", [shared.fileno()])
            connection.sendmsg([b'{"listener": true}\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])


def serve(shared: socket.socket) -> None:
    try:
        connection, _ = shared.accept()
    except BlockingIOError:
        return  # another worker was quicker
    with connection:
        connection.setblocking(True)
        connection.recv(1000)
        connection.sendall(f"{os.getpid()}\n".encode())


if __name__ == "__main__":
    main()
