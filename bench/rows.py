"""Rows a second at 100 CSV rows a request: an endpoint against the same model called in process.

    python bench/rows.py [--rounds 3] [--seconds 3]

The endpoint has everything that a request costs: signatures, the gateway, CSV, sockets, and the load generator beside
it on the same cores. In process means a Python program a core that does nothing but call the model on the same
batches, parsed beforehand.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

import frame
import measure
import rival
import world

GOAL = 0.5
ROWS = 100  # a request
BATCHES = 50
ENDPOINT = "bench"
TOLERANCE = 1e-5

IN_PROCESS = """
import sys, time
import numpy, xgboost
booster = xgboost.Booster(model_file=sys.argv[1])
booster.set_param({"nthread": 1})
batches = list(numpy.load(sys.argv[2]))
booster.inplace_predict(batches[0])
print("ready", flush=True)
sys.stdin.readline()
done, end = 0, time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    for batch in batches:
        booster.inplace_predict(batch)
    done += sum(map(len, batches))
print(done / (time.monotonic() - end + float(sys.argv[3])))
"""


def in_process(model: rival.Rival, batches: Path, seconds: float) -> float:
    """Rows a second of a process a core, all at once."""
    argv = [sys.executable, "-c", IN_PROCESS, str(model.file), str(batches), str(seconds)]
    workers = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in os.sched_getaffinity(0)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return sum(float(worker.communicate()[0]) for worker in workers)


def main() -> int:
    options = frame.arguments(__doc__, seconds=3.0)
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--gateways", type=int, default=1)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as name, world.eyrie(gateways=chosen.gateways) as eyrie:
        folder = Path(name)
        model = rival.train(folder)
        bodies, parsed = batches_of(model)
        kept = folder / "batches.npy"
        numpy.save(kept, parsed)
        archive = world.pack(folder / "model.tar.gz", {model.file.name: model.file})
        eyrie.deploy(ENDPOINT, [{"Image": "eyrie/xgboost", "ModelDataUrl": eyrie.upload(archive, "model.tar.gz")}])
        requests = measure.signed_requests(eyrie.port, ENDPOINT, bodies, eyrie.signer)
        answers_rightly(eyrie, model, bodies[0])
        script = measure.wrk_script(folder / "rows.lua", requests)

        def served() -> float:
            load = measure.wrk(eyrie.port, script, chosen.seconds, chosen.connections, None)
            if load.errors:
                raise SystemExit(f"{load.errors} of {load.requests} requests failed")
            print(f"endpoint   {load.rate * ROWS:9,.0f} rows/s  {load.rate:7,.0f} requests/s  p50 {load.p50_ms:.2f} ms")
            return load.rate * ROWS

        def called() -> float:
            rate = in_process(model, kept, chosen.seconds)
            print(f"in process {rate:9,.0f} rows/s", flush=True)
            return rate

        measure.wrk(eyrie.port, script, 2.0, chosen.connections, None)
        found = frame.rounds(chosen.rounds, {"endpoint": served, "in process": called})
    detail = " against ".join(f"{statistics.median(found[side]):,.0f}" for side in ("endpoint", "in process"))
    ratio = frame.Ratio.of(
        f"{ROWS} CSV rows a request: rows/s against the same model called in process, both cores",
        found["endpoint"],
        found["in process"],
        GOAL,
        detail=f"{detail} rows/s",
    )
    return frame.finish([ratio], chosen.report)


def batches_of(model: rival.Rival) -> tuple[list[bytes], numpy.ndarray]:
    """The bodies, and the same rows parsed."""
    rows = [[model.rows[(n * 37 + i) % len(model.rows)] for i in range(ROWS)] for n in range(BATCHES)]
    parsed = numpy.array([[line.split(",") for line in batch] for batch in rows]).astype(numpy.float32)
    return ["\n".join(batch).encode() for batch in rows], parsed


def answers_rightly(eyrie: world.Eyrie, model: rival.Rival, body: bytes) -> None:
    """The first batch is the model's first rows. Exits where an answer differs."""
    reply = eyrie.client("sagemaker-runtime").invoke_endpoint(EndpointName=ENDPOINT, ContentType="text/csv", Body=body)
    said = [float(answer) for answer in reply["Body"].read().split(b",")]
    if any(abs(a - b) > TOLERANCE for a, b in zip(said, model.answers[:ROWS], strict=True)):
        raise SystemExit("the endpoint's answers are not the model's")


if __name__ == "__main__":
    sys.exit(main())
