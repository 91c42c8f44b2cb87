"""The real control process, which kills itself with SIGKILL at a point that a test has armed: the file DATA/die-at
holds the beginning of the point's name, and is removed as it dies. There is a point before and after each commit, named
after the events that it stores, and each action.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eyrie import app
from eyrie.adapters.artifacts import S3Artifacts
from eyrie.adapters.compute_process import ProcessCompute
from eyrie.adapters.feed import Feed
from eyrie.adapters.store_sql import SqlStore
from eyrie.ports import Commit

ARMED = Path(os.environ["EYRIE_DATA"]) / "die-at"


def point(name: str) -> None:
    """Die here, if this is the armed point."""
    try:
        armed = ARMED.read_text()
    except FileNotFoundError:
        return
    if armed and name.startswith(armed):
        ARMED.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def mortal(kind: type, verb: str) -> None:
    """Put a point before and after a method."""
    whole: Callable[..., Any] = getattr(kind, verb)

    def act(*arguments: Any, **named: Any) -> Any:
        point(f"before {verb}")
        result = whole(*arguments, **named)
        point(f"after {verb}")
        return result

    setattr(kind, verb, act)


def mortal_commits() -> None:
    whole = SqlStore.commit

    def commit(store: SqlStore, commit: Commit) -> None:
        for event in commit.events:
            point(f"before commit {event.what}")
        whole(store, commit)
        for event in commit.events:
            point(f"after commit {event.what}")

    SqlStore.commit = commit  # type: ignore[method-assign]


if __name__ == "__main__":
    mortal_commits()
    for kind, verbs in (
        (ProcessCompute, ("ensure", "stop", "forget")),
        (Feed, ("publish", "withdraw")),
        (S3Artifacts, ("fetch", "keep")),
    ):
        for verb in verbs:
            mortal(kind, verb)
    sys.exit(app.main(sys.argv[1:]))
