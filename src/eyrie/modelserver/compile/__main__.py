"""`python -m eyrie.modelserver.compile`: one compilation job, in a sandbox that has the libraries and no network.

It stands where a model server stands in a slot, with the same command line: it holds the lock, logs into the box,
reads `ML/job.json` and `ML/model`, and leaves `output.tar.gz` and `result.json` in the box. Exit code 0: it made
something; 1: `result.json` says why not.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyrie.modelserver.compile.errors import ClientError
from eyrie.modelserver.log import open_log
from eyrie.modelserver.slot import Options, hold_lock, parse
from eyrie.modelserver.threads import start_single

log = logging.getLogger("eyrie.compile")

RESULT = "result.json"


def main() -> int:
    """Run the job to its end; the exit code."""
    options = parse(sys.argv[1:])
    start_single()  # before the numeric libraries are imported
    open_log(options.box, options.log_bytes_max)
    if options.lock_fd is not None and not hold_lock(options.lock_fd):
        log.error("the lock of this job is held by another process")
        return 1
    try:
        _write(options.box, _run(options))
    except ClientError as error:
        log.error("ClientError: %s", error)
        _write(options.box, {"error": f"ClientError: {error}"})
        return 1
    except MemoryError:
        _write(options.box, {"error": "InternalError: the job ran out of memory"})
        return 1
    return 0


def _run(options: Options) -> Mapping[str, Any]:
    from eyrie.modelserver.compile.job import run

    given = json.loads((options.ml / "job.json").read_bytes())
    log.info("compiling for %s", given["target"])
    made = run(options.ml, options.box, given)
    log.info("done: %s", made.report["reason"])
    return {"report": made.report, "size": made.size}


def _write(box: Path, result: Mapping[str, Any]) -> None:
    new = box / f".{RESULT}"
    new.write_text(json.dumps(result, default=str))
    new.rename(box / RESULT)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of libraries must not keep the job alive
