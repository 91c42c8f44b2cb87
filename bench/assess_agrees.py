"""Whether `eyrie assess` tells what independent tools tell: wrk, and a plain kill -9, on the demo's endpoint.

    python bench/assess_agrees.py [--rounds 1] [--seconds 6]

Each round: wrk with as many connections as assess has users, `eyrie assess --in-place` with five kills, wrk again; then
five kills of our own under wrk, timed by the route table's file alone. A ratio is the larger over the smaller of two.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))  # the demo's models

import measure
import world
from demo import processes_of
from demo_models import build_models
from eyrie.cli.assess_load import USERS
from frame import Ratio, arguments, finish, machine, versions

ENDPOINT = "breast-cancer"
KILLS = 5
WITHIN_S = 120.0
LOOK_S = 0.01


def main() -> int:
    """Deploy, measure in turn, compare."""
    chosen = arguments(__doc__, rounds=1, seconds=6.0).parse_args()
    print(f"{machine()}; {versions('xgboost-cpu', 'scikit-learn')}", flush=True)
    with world.eyrie() as eyrie:
        row = deployed(eyrie)
        found = [one_round(eyrie, row, chosen.seconds) for _ in range(chosen.rounds)]
    names = {
        "requests/s": "assess against wrk, requests/s",
        "p50": "assess against wrk, p50",
        "whole": "assess against a plain kill -9, seconds until whole",
    }
    ratios = [
        Ratio.of(
            name,
            [max(pair[key]) for pair in found],
            [min(pair[key]) for pair in found],
            goal=1.2,
            at_most=True,
            detail="; ".join(f"{pair[key][0]:.4g} and {pair[key][1]:.4g}" for pair in found),
        )
        for key, name in names.items()
    ]
    return finish(ratios, chosen.report)


def deployed(eyrie: world.Eyrie) -> str:
    """The demo's endpoint: two variants, two instances each. A row of its test data."""
    models, rows, _ = build_models(eyrie.data / "demo")
    sagemaker = eyrie.client("sagemaker")
    for model in models:
        url = eyrie.upload(model.archive, f"{model.name}.tar.gz")
        container = {"Image": model.image, "ModelDataUrl": url}
        sagemaker.create_model(ModelName=model.name, PrimaryContainer=container, ExecutionRoleArn=world.ROLE)
    variants = [
        {
            "VariantName": model.name,
            "ModelName": model.name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 2,
            "InitialVariantWeight": 1.0,
        }
        for model in models
    ]
    sagemaker.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=ENDPOINT, WaiterConfig=world.IN_SERVICE)
    return str(rows[0])


def one_round(eyrie: world.Eyrie, row: str, seconds: float) -> dict[str, tuple[float, float]]:
    """By figure: what assess told, and what the other did."""
    script = measure.wrk_script(
        eyrie.data / "assess.lua", measure.signed_requests(eyrie.port, ENDPOINT, [row.encode()], eyrie.signer)
    )
    before = measure.wrk(eyrie.port, script, seconds, USERS, None)
    told = assessed(eyrie, row)
    script = measure.wrk_script(
        script, measure.signed_requests(eyrie.port, ENDPOINT, [row.encode()], eyrie.signer)
    )  # signed anew: a signature is good for five minutes
    after = measure.wrk(eyrie.port, script, seconds, USERS, None)
    kills = [run["whole_s"] for run in told["faults"]]
    ours = killed(eyrie, script)
    performance = told["performance"]
    return {
        "requests/s": (performance["users_rps"], (before.rate + after.rate) / 2),
        "p50": (performance["users_p50_ms"], (before.p50_ms + after.p50_ms) / 2),
        "whole": (statistics.median(kills), statistics.median(ours)),
    }


def assessed(eyrie: world.Eyrie, row: str) -> dict[str, Any]:
    """`eyrie assess` on the endpoint itself, its instances being those that wrk meets."""
    command = [sys.executable, "-m", "eyrie", "assess", ENDPOINT, "--in-place", "--yes", "--json", "--send", row]
    command += ["--faults", "kill-instance", "--runs", str(KILLS), "--instances", "2", "--data", str(eyrie.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def killed(eyrie: world.Eyrie, script: Path) -> list[float]:
    """Seconds from a kill -9 until the route table names as many targets again, the victim not among them."""
    over = threading.Event()
    load = threading.Thread(target=keep_loading, args=(eyrie.port, script, over))
    load.start()
    try:
        return [one_kill(eyrie) for _ in range(KILLS)]
    finally:
        over.set()
        load.join()


def keep_loading(port: int, script: Path, over: threading.Event) -> None:
    """wrk with two connections, again and again."""
    while not over.is_set():
        measure.wrk(port, script, 2.0, 2, None)


def one_kill(eyrie: world.Eyrie) -> float:
    """Kill an instance, process by process, and watch the file."""
    time.sleep(4.0)  # a warm slot is made meanwhile
    before = targets(eyrie)
    told = eyrie.run("status", "--json")
    instances = [i for e in json.loads(told)["endpoints"] for i in e["instances"] if i["routed"]]
    victim = instances[0]
    for pid in reversed(processes_of(int(victim["pid"]))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    while victim["id"] in (now := targets(eyrie)) or len(now) < len(before):
        if time.monotonic() - began > WITHIN_S:
            raise SystemExit(f"not whole within {WITHIN_S:g} s")
        time.sleep(LOOK_S)
    return time.monotonic() - began


def targets(eyrie: world.Eyrie) -> set[str]:
    """The instances in the route table's file."""
    return set(_targets(eyrie.data))


def _targets(data: Path) -> Iterator[str]:
    path = next(path for path in (data / "routes").glob("*.json") if path.stem.endswith(f".{ENDPOINT}"))
    for variant in json.loads(path.read_bytes())["variants"]:
        for target in variant["targets"]:
            yield str(target["instance_id"])


if __name__ == "__main__":
    sys.exit(main())
