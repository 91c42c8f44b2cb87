"""Takes away what an assessment made, when the assessment is over in any way: `python -m eyrie.cli.assess_guard`.

It waits, in a session of its own, until its standard input closes, which it does when the command ends, and then
deletes the copy or restores the numbers of instances, by the public API. It goes on trying for a
while: the endpoint may be in the middle of a change, and control may be what was just broken.

What it has to do lies in the journal (`chaos_journal`) before the copy is made. Should it be killed too, another one is
started with the data directory and the file of the journal, and does it at once.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyrie.cli.chaos_journal import ENDPOINT, Entry
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public, Where

WITHIN_S = 300.0
PAUSE_S = 0.3
READY = "ready"
LONGEST_S = 86_400.0  # of an assessment
ABSENT_S = 3.0  # for so long a request that makes the endpoint may still be under way


def main() -> int:
    """Wait, undo. Returns the exit code."""
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)  # what it does at its end is what it is for
    try:
        if len(sys.argv) > 1:
            return again(Path(sys.argv[1]), Path(sys.argv[2]))
        return first(json.loads(sys.stdin.readline()))
    except (CommandError, OSError) as error:
        print(f"eyrie: {error}", file=sys.stderr)
        return 1


def first(told: Mapping[str, Any]) -> int:
    """The guard that the command started. Returns the exit code."""
    where = Where(told["url"], told["region"], told["key"], told["secret"], told["token"])
    kept = {"kind": ENDPOINT, **{name: told[name] for name in ("undo", "endpoint", "counts") if name in told}}
    entry = Entry.begun(Path(told["data"]), kept, LONGEST_S)
    print(READY, flush=True)
    while sys.stdin.read(65_536):
        pass
    undone(Public(where, timeout_s=20.0), told)
    entry.over()
    return 0


def again(data: Path, path: Path) -> int:
    """One that comes after it. Returns the exit code."""
    entry = Entry.adopted(path, overdue=False)
    if entry is not None:
        undone(Public.of(data, timeout_s=20.0), entry.told)
        entry.over()
    return 0


def undone(public: Public, told: Mapping[str, Any]) -> None:
    """Undo what is told, trying again for a while. Raises CommandError where it cannot be done."""
    name, deadline, said = str(told["endpoint"]), time.monotonic() + WITHIN_S, "it was not tried"
    absent_s = None
    while time.monotonic() < deadline:
        try:
            found = public.endpoint(name)
            if found is None:
                absent_s = absent_s or time.monotonic()
                if told["undo"] == "counts" or time.monotonic() - absent_s > ABSENT_S:
                    return
            elif told["undo"] == "counts" and _restored(public, found, told["counts"]):
                return
            elif told["undo"] == "delete" and found["EndpointStatus"] != "Deleting":
                absent_s = 1.0  # from now on it is gone when it is gone
                public.ask("sagemaker", "delete_endpoint", EndpointName=name)
        except CommandError as error:  # control is away, or the endpoint is in the middle of a change
            said = str(error)
        time.sleep(PAUSE_S)
    raise CommandError(f"endpoint {name} could not be put back within {WITHIN_S:g} s: {said}")


def capacities(public: Public, endpoint: str, counts: Mapping[str, int]) -> None:
    """UpdateEndpointWeightsAndCapacities. Raises CommandError."""
    wanted = [{"VariantName": name, "DesiredInstanceCount": count} for name, count in counts.items()]
    public.ask(
        "sagemaker",
        "update_endpoint_weights_and_capacities",
        EndpointName=endpoint,
        DesiredWeightsAndCapacities=wanted,
    )


def _restored(public: Public, found: Mapping[str, Any], counts: Mapping[str, int]) -> bool:
    """Whether every variant is to have what it had; else it is asked for."""
    now = {str(v["VariantName"]): v.get("DesiredInstanceCount") for v in found["ProductionVariants"]}
    lacking = {name: count for name, count in counts.items() if name in now and now[name] != count}
    if lacking:
        capacities(public, str(found["EndpointName"]), lacking)
    return not lacking


if __name__ == "__main__":
    sys.exit(main())
