"""`python -m eyrie.transform`: one run of a transform job, started by control as a slot's server is, with the same
command line: it holds the lock and logs into the box. Exit code 0: every object has its output; 1: `result.json` says
why not.

It is Eyrie's own code and may read the account's key, so it needs no sandbox; the models that answer it have theirs.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

LINE_MAX = 4_000


def main() -> int:
    """Run the job to its end; the exit code."""
    options = _options()
    box: Path = options.box
    _log_into(box, options.log_bytes_max)
    log = logging.getLogger("eyrie.transform")
    if options.lock_fd is not None and not _hold_lock(options.lock_fd):
        log.error("the lock of this run is held by another process")
        return 1
    from eyrie.transform.run import Failed, Run
    from eyrie.transform.share import write_whole

    try:
        Run(box.parent).run()
    except Failed as error:
        log.error("%s", error)
        write_whole(box / "result.json", json.dumps({"error": str(error)}).encode())
        return 1
    log.info("done")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eyrie.transform")
    parser.add_argument("--box", type=Path, required=True)
    parser.add_argument("--ml", type=Path)
    parser.add_argument("--lock-fd", type=int)
    parser.add_argument("--imports", default="")
    parser.add_argument("--log-bytes-max", type=int, default=16_777_216)
    return parser.parse_args()


def _hold_lock(fd: int) -> bool:
    """Make sure that the inherited descriptor holds its lock."""
    os.set_inheritable(fd, False)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _log_into(box: Path, bytes_max: int) -> None:
    handler = RotatingFileHandler(box / "log", maxBytes=max(bytes_max // 2, 65_536), backupCount=1, encoding="utf-8")
    form = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s %(message).{LINE_MAX}s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # threads that wait for an answer must not keep the run alive
