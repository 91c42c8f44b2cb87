"""The instance's log: a file that it opens itself, stamped lines, two files that never grow beyond their bound.

`print` and `logging` arrive line by line with a UTC time stamp; what native code or a child process writes to
descriptors 1 and 2, and what faulthandler says of a crash, lands in the same file without one and belongs to the line
before it.
"""

from __future__ import annotations

import faulthandler
import fcntl
import io
import logging
import os
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

LINE_CHARS_MAX = 65_536  # a longer line is cut into several
LOG, OLDER = "log", "log.1"
SPEAKER: ContextVar[str] = ContextVar("SPEAKER", default="")  # the container whose line it is, of several


class LogFile:
    """`log`, renamed to `log.1` at half the bound; descriptors 1 and 2 always point to the newest.

    The processes of an instance write to the same file, each through a descriptor of its own: `reopen` after a fork.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._path = folder / LOG
        self._older = folder / OLDER
        self._half = max(bytes_max // 2, 4096)
        self._lock = threading.Lock()
        self._fd = -1
        self._redirected = False
        self._open()

    def write(self, data: bytes) -> None:
        """Append whole lines; rotates before it would pass the bound."""
        with self._lock:
            if os.fstat(self._fd).st_size + len(data) > self._half:
                self._rotate()
            _write_all(self._fd, data)

    def check(self) -> None:
        """Rotate when those who write to the descriptors themselves have passed the bound, and follow when another
        process has; called every second.
        """
        with self._lock:
            if os.fstat(self._fd).st_size > self._half or not self._newest():
                self._rotate()

    def reopen(self) -> None:
        """Write through a descriptor of this process's own: after a fork, in the child."""
        self._lock = threading.Lock()
        self._replace()

    def redirect(self) -> None:
        """Point descriptors 1 and 2 here, now and after each rotation; descriptor 0 reads nothing."""
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if null > 2:
            os.close(null)
        self._redirected = True
        self._point()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _rotate(self) -> None:
        """Rename the file that this process writes to, unless another process has done so, and open the newest."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        if self._newest():
            os.replace(self._path, self._older)
        self._replace()

    def _newest(self) -> bool:
        """Whether the file that this process writes to is still called `log`."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False  # renamed; whoever did so is about to open the next one

    def _replace(self) -> None:
        old = self._fd
        self._open()
        self._point()
        fcntl.flock(old, fcntl.LOCK_UN)  # closing is not enough: a child may have inherited the descriptor
        os.close(old)

    def _point(self) -> None:
        if self._redirected:
            os.dup2(self._fd, 1)
            os.dup2(self._fd, 2)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class StampedStream(io.TextIOBase):
    """A text stream that stamps lines. Newlines inside one write belong to one event: only its first line has it."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._bytes: BinaryIO = open(1, "wb", buffering=0, closefd=False)  # noqa: SIM115
        self._pending = threading.local()  # of each thread: a line that has not ended yet

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What libraries ask a console for."""
        return "utf-8"

    def writable(self) -> bool:
        """Always."""
        return True

    @property
    def buffer(self) -> BinaryIO:
        """Descriptor 1 for bytes, which arrive in the log without a stamp."""
        return self._bytes

    def fileno(self) -> int:
        """Descriptor 1, for those who insist on writing past the stream."""
        return 1

    def write(self, text: str) -> int:
        """Take text; what ends with a newline goes to the file."""
        pending = getattr(self._pending, "text", "") + text
        if "\n" not in text and len(pending) < LINE_CHARS_MAX:
            self._pending.text = pending
            return len(text)
        whole, newline, rest = pending.rpartition("\n")
        if not newline:
            whole, rest = pending, ""
        self._pending.text = rest
        speaker = SPEAKER.get()
        mark = f"[{speaker}] " if speaker else ""
        self._file.write(f"{stamp(time.time())} {mark}{_cut(whole)}\n".encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Nothing to do: a line is written when it ends."""

    def finish(self) -> None:
        """Write out this thread's unended line."""
        if getattr(self._pending, "text", ""):
            self.write("\n")


def _cut(text: str) -> str:
    if len(text) <= LINE_CHARS_MAX:
        return text
    return "\n".join(text[i : i + LINE_CHARS_MAX] for i in range(0, len(text), LINE_CHARS_MAX))


def stamp(now_s: float) -> str:
    """A time as log lines begin with it: `2026-11-21T08:40:02.123Z`."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
    return f"{whole}.{int(now_s * 1000) % 1000:03d}Z"


def open_log(folder: Path, bytes_max: int) -> LogFile:
    """Send everything this process says, from here on, to `folder/log`."""
    file = LogFile(folder, bytes_max)
    file.redirect()
    stream = StampedStream(file)
    sys.stdout = sys.stderr = stream
    faulthandler.enable(file=2, all_threads=True)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    return file
