"""What one of Eyrie's own processes says: `logs/NAME.log`, bounded, with the one before it as `NAME.log.1`.

Standard output and error point at the same file, so that a traceback of the interpreter itself lands there too; on
rotation they are moved to the new file.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path


class ProcessLog(logging.Handler):
    """Writes records to the file behind standard error and starts a new file at `bytes_max`."""

    def __init__(self, path: Path, bytes_max: int = 8_388_608) -> None:
        super().__init__()
        self._path = path
        self._bytes_max = bytes_max
        self.setFormatter(Stamped())
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, whole."""
        try:
            os.write(2, (self.format(record) + "\n").encode(errors="replace"))
            if os.fstat(2).st_size > self._bytes_max:
                self._rotate()
        except OSError:  # a full disk must not stop the process that reports it
            return

    def _rotate(self) -> None:
        os.replace(self._path, self._path.with_name(self._path.name + ".1"))
        self._open()

    def _open(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for standard in (1, 2):
            os.dup2(fd, standard, inheritable=True)
        os.close(fd)


class Stamped(logging.Formatter):
    """`2026-11-21T08:40:02.123Z LEVEL name: message`, in UTC."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The time of a record with its milliseconds."""
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def log_to(path: Path) -> None:
    """Send everything that this process says to `path`, from now on."""
    sys.stdout.flush()
    root = logging.getLogger()
    root.handlers[:] = [ProcessLog(path)]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
