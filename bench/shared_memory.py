"""Memory of an instance with several workers of a large model against an instance with one.

    python bench/shared_memory.py [--rounds 1] [--megabytes 500] [--workers 4] [--report]

The model is scikit-learn's, of the size that is asked for, deployed twice: with MODEL_SERVER_WORKERS=1 and =4. Measured
is the proportional memory (PSS) summed over all processes of the instance, after every worker has answered often enough
to have touched all of the model.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.neighbors import KNeighborsRegressor

import frame
import world
from eyrie.adapters import usage
from eyrie.adapters.processes import pss_bytes
from eyrie.cli.client import ControlClient

GOAL = 2.0
FEATURES = 16
ASKED = 12  # requests a worker, before memory is read
STEADY = 0.02  # two readings in a row that differ by less
READINGS_MAX = 20


def train(folder: Path, megabytes: int) -> Path:
    """A model that holds its training rows; the file."""
    rows = megabytes * 1_000_000 // (8 * FEATURES)
    known = np.tile(np.arange(FEATURES, dtype=np.float64), (rows, 1))
    known[:, 0] = np.arange(rows) % 997
    model = KNeighborsRegressor(1, algorithm="brute", metric="sqeuclidean").fit(known, known[:, 0])
    path = folder / "model.joblib"
    joblib.dump(model, path)
    return path


def instance_pids(eyrie: world.Eyrie, endpoint: str) -> list[int]:
    """Every process of an endpoint's one instance."""
    told = ControlClient(eyrie.data, eyrie.env["AWS_REGION"]).status()["endpoints"]
    (instance,) = next(e["instances"] for e in told if e["name"] == endpoint)
    return [process.pid for process in usage.below(usage.process_table(), int(instance["pid"]))]


def memory(eyrie: world.Eyrie, url: str, endpoint: str, workers: int) -> float:
    """Deploy, let every worker answer, and sum what the processes hold, in MB; the endpoint is removed."""
    environment = {"MODEL_SERVER_WORKERS": str(workers)}
    container = {"Image": "eyrie/sklearn", "ModelDataUrl": url, "Environment": environment}
    eyrie.deploy(endpoint, [container], "ml.m5.xlarge")
    runtime = eyrie.client("sagemaker-runtime")
    row = ",".join(map(str, range(FEATURES)))
    for _ in range(ASKED * workers):
        runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=row)["Body"].read()
    held = steady(eyrie, endpoint)
    eyrie.remove(endpoint)
    return held


def steady(eyrie: world.Eyrie, endpoint: str) -> float:
    """The memory of an instance once it changes no more."""
    before = 0.0
    for _ in range(READINGS_MAX):
        now = sum(map(pss_bytes, instance_pids(eyrie, endpoint))) / 1e6
        if abs(now - before) < STEADY * now:
            return now
        before = now
        time.sleep(0.5)
    raise SystemExit(f"the memory of {endpoint} does not become steady")


def main() -> int:
    options = frame.arguments(__doc__, rounds=1)
    options.add_argument("--megabytes", type=int, default=500, help="size of the model")
    options.add_argument("--workers", type=int, default=4, help="workers of the larger instance")
    chosen = options.parse_args()
    print(frame.machine(), frame.versions("scikit-learn", "joblib", "numpy"), sep="\n")
    with tempfile.TemporaryDirectory() as folder, world.eyrie() as eyrie:
        file = train(Path(folder), chosen.megabytes)
        size = file.stat().st_size / 1e6
        url = eyrie.upload(world.pack(Path(folder) / "model.tar.gz", {file.name: file}), "shared.tar.gz")
        sides = {n: (lambda n=n: memory(eyrie, url, f"of{n}", n)) for n in (1, chosen.workers)}
        found = frame.rounds(chosen.rounds, {str(n): side for n, side in sides.items()})
    one, many = found["1"], found[str(chosen.workers)]
    detail = f"{chosen.workers} workers {min(many):.0f} MB, one {min(one):.0f} MB, model {size:.0f} MB"
    name = f"memory of an instance with {chosen.workers} workers against one"
    return frame.finish([frame.Ratio.of(name, many, one, GOAL, at_most=True, detail=detail)], chosen.report)


if __name__ == "__main__":
    sys.exit(main())
