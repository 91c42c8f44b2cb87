"""How soon a model answers after the decision to start it.

    python bench/cold_start.py [--rounds 5] [--report]

An endpoint of one instance; the instance is killed, and a client asks at once: the gateway holds the request until the
replacement serves. Measured is from the moment at which control decided to start the replacement (the event in the
endpoint's story) to the client's first prediction. Starts from a warm slot and starts that found none (a miss: the
server is started and imports its framework first) are shown apart.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from botocore.exceptions import ClientError

import frame
import world
from demo_models import Model, build_models
from eyrie.cli.client import ControlClient

GOAL_MS = 100.0
STABLE_S = 5.2  # an instance that lived for less has crashed, and the next one waits
MISSES = 3
DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Start:
    """One replacement, in milliseconds since the decision."""

    started: float
    ready: float
    answered: float


class Bench:
    """One Eyrie, and the endpoint that is killed again and again."""

    def __init__(self, eyrie: world.Eyrie, row: str) -> None:
        self._control = ControlClient(eyrie.data, eyrie.env["AWS_REGION"])
        self._runtime = eyrie.client("sagemaker-runtime")
        self._row = row

    def pool(self) -> dict[str, Any]:
        """The warm slots, as control tells."""
        return dict(self._control.status()["slots"])

    def instance(self, endpoint: str) -> dict[str, Any] | None:
        """The endpoint's instance, where one is routed."""
        found = [e for e in self._control.status()["endpoints"] if e["name"] == endpoint]
        return next((i for i in found[0]["instances"] if i["routed"]), None)

    def start(self, endpoint: str) -> Start:
        """Kill the instance and wait for the first prediction of its replacement."""
        victim = until(lambda: self.instance(endpoint))
        kill(int(victim["pid"]))
        answers = self._answers(endpoint, lambda: (i := self.instance(endpoint)) and i["id"] != victim["id"] and i)
        now = self.instance(endpoint)
        assert now is not None
        events = [e for e in self._control.story(endpoint) if now["id"] in e["what"]]
        at = {state: e["at_ms"] for e in events for state in ("REQUESTED", "STARTING", "READY") if state in e["what"]}
        decided = at["REQUESTED"]
        answered = min(ms for ms in answers if ms > at["READY"])  # an earlier one is of a worker that was still dying
        return Start(at["STARTING"] - decided, at["READY"] - decided, answered - decided)

    def _answers(self, endpoint: str, enough: Callable[[], Any]) -> list[float]:
        """When each answer to one request after the other came, in milliseconds since the epoch, until `enough`."""
        found: list[float] = []
        deadline = time.monotonic() + DEADLINE_S
        while not enough():
            if time.monotonic() > deadline:
                raise SystemExit("the killed instance was not replaced")
            for _ in range(5):
                try:
                    asked = self._runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=self._row)
                    asked["Body"].read()
                    found.append(time.time() * 1000)
                except ClientError:
                    continue
        return found


def kill(pid: int) -> None:
    """End an instance as a crash would."""
    os.kill(pid, signal.SIGKILL)


def until(seen: Callable[[], Any], seconds: float = DEADLINE_S) -> Any:
    """What `seen` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        if time.monotonic() > deadline:
            raise SystemExit("what the benchmark waits for did not happen")
        time.sleep(0.02)
    return found


def rounds(bench: Bench, endpoint: str, count: int, warm: bool) -> list[Start]:
    """Starts in a row, each after the pool has settled."""
    found = []
    for _ in range(count):
        time.sleep(STABLE_S)
        if warm:
            until(lambda: (pool := bench.pool())["warm"] >= 1 and not pool["starting"])
        found.append(bench.start(endpoint))
    return found


def show(name: str, starts: list[Start]) -> str:
    """Median and worst of each step."""
    parts = []
    for step in ("started", "ready", "answered"):
        values = [getattr(start, step) for start in starts]
        parts.append(f"{step} {statistics.median(values):.0f} (worst {max(values):.0f})")
    line = f"{name:<24} {len(starts):>3} starts, ms after the decision: {', '.join(parts)}"
    print(line, flush=True)
    return line


def measure(models: list[Model], row: str, count: int, warm: bool) -> dict[str, list[Start]]:
    """Every model's starts in an Eyrie with warm slots, or without any."""
    found = {}
    os.environ["EYRIE_WARM_SLOTS"] = "2" if warm else "0"
    with world.eyrie() as eyrie:
        bench = Bench(eyrie, row)
        for model in models:
            url = eyrie.upload(model.archive, f"{model.name}.tar.gz")
            eyrie.deploy(model.name, [{"Image": model.image, "ModelDataUrl": url}])
            found[model.name] = rounds(bench, model.name, count, warm)
            show(f"{model.name}, {'warm slot' if warm else 'missed slot'}", found[model.name])
            eyrie.remove(model.name)
    return found


def main() -> int:
    options = frame.arguments(__doc__, rounds=5)
    chosen = options.parse_args()
    print(frame.machine(), frame.versions("xgboost-cpu", "scikit-learn"), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        models, rows, _ = build_models(Path(folder))
        warm = measure(models, rows[0], chosen.rounds, warm=True)
        missed = measure(models, rows[0], min(MISSES, chosen.rounds), warm=False)
    ratios = []
    for name, starts in warm.items():
        took = [start.answered for start in starts]
        detail = f"{statistics.median(took):.0f} ms, worst {max(took):.0f}; missed slot "
        detail += f"{statistics.median([start.answered for start in missed[name]]):.0f} ms"
        value, worst = statistics.median(took) / GOAL_MS, max(took) / GOAL_MS
        ratios.append(frame.Ratio(f"first prediction of {name} against 100 ms", value, 1.0, worst, True, detail))
    return frame.finish(ratios, chosen.report)


if __name__ == "__main__":
    sys.exit(main())
