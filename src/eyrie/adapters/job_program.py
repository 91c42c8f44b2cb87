"""How a program of Eyrie's own that works on a job begins and ends: `eyrie.transform`, `eyrie.recommender`.

Control starts it as a slot's server is started, with the same command line: it holds the lock of its run and logs into
the box. Exit code 0: the job is done; 1: `result.json` says why not.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

from eyrie.adapters import process_lock
from eyrie.adapters.durable import write_whole

LINE_MAX = 4_000


class ProgramFailed(Exception):
    """The job has failed; the message is the reason for people."""


def main(name: str, work: Callable[[Path], None]) -> None:
    """Do the work on the run of the command line, given its folder, and end the process."""
    code = _main(name, work)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # threads that wait for an answer must not keep the run alive


def _main(name: str, work: Callable[[Path], None]) -> int:
    options = _options(name)
    box: Path = options.box
    _log_into(box, options.log_bytes_max)
    log = logging.getLogger(name)
    if options.lock_fd is not None and not _hold_lock(options.lock_fd):
        log.error("the lock of this run is held by another process")
        return 1
    try:
        work(box.parent)
    except ProgramFailed as error:
        log.error("%s", error)
        write_whole(box / "result.json", json.dumps({"error": str(error)}).encode(), 0o644)
        return 1
    except BaseException:
        log.exception("the run ends with a mistake of its own")
        return 70
    log.info("done")
    return 0


def _options(name: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--box", type=Path, required=True)
    parser.add_argument("--ml", type=Path)
    parser.add_argument("--lock-fd", type=int)
    parser.add_argument("--imports", default="")
    parser.add_argument("--log-bytes-max", type=int, default=16_777_216)
    return parser.parse_args()


def _hold_lock(fd: int) -> bool:
    """Make sure that the inherited descriptor holds its lock."""
    os.set_inheritable(fd, False)
    return process_lock.try_lock(fd)


def _log_into(box: Path, bytes_max: int) -> None:
    handler = RotatingFileHandler(box / "log", maxBytes=max(bytes_max // 2, 65_536), backupCount=1, encoding="utf-8")
    form = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s %(message).{LINE_MAX}s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
