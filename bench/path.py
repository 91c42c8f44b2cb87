"""Where the CPU time of a request goes: microseconds of the gateway and of the instance, one row a request.

    python bench/path.py [--connections 32] [--rounds 3] [--seconds 3] [--rows 1]

The same endpoint as in `endpoint_vs_peers.py` (or, with --rows 100, as in `rows.py`). Microseconds of CPU, from /proc,
are what a busy machine cannot spoil much, where requests a second and latencies are worth nothing.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import frame
import measure
import rival
import world

ENDPOINT = "bench"


def used(pids: dict[str, list[int]]) -> dict[str, float]:
    """CPU seconds of each part so far."""
    return {part: sum(map(measure.cpu_s, each)) for part, each in pids.items()}


def main() -> int:
    options = frame.arguments(__doc__, seconds=3.0)
    options.add_argument("--connections", type=int, nargs="+", default=[32, 1])
    options.add_argument("--gateways", type=int, default=1)
    options.add_argument("--rows", type=int, default=1, help="of a request's body")
    options.add_argument("--workers", type=int, default=0, help="of the instance; 0: as Eyrie decides")
    options.add_argument("--hold", action="store_true", help="print the pids and load them until interrupted")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as name, world.eyrie(gateways=chosen.gateways) as eyrie:
        folder = Path(name)
        model = rival.train(folder)
        archive = world.pack(folder / "model.tar.gz", {model.file.name: model.file})
        container: dict[str, object] = {"Image": "eyrie/xgboost", "ModelDataUrl": eyrie.upload(archive, "model.tar.gz")}
        if chosen.workers:
            container["Environment"] = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(chosen.workers)}
        eyrie.deploy(ENDPOINT, [container])
        count, size = len(model.rows), chosen.rows
        bodies = ["\n".join(model.rows[(n + i) % count] for i in range(size)).encode() for n in range(count)]
        requests = measure.signed_requests(eyrie.port, ENDPOINT, bodies, eyrie.signer)
        script = measure.wrk_script(folder / "path.lua", requests)
        pids = measure.processes(eyrie.data, ENDPOINT)
        print(f"gateway {pids['gateway']}, instance {pids['instance']}", flush=True)
        measure.wrk(eyrie.port, script, 2.0, 32, None)
        while True:
            for connections in chosen.connections:
                measured(eyrie.port, script, pids, connections, chosen.rounds, chosen.seconds)
            if not chosen.hold:
                return 0


def measured(
    port: int, script: Path, pids: dict[str, list[int]], connections: int, rounds: int, seconds: float
) -> None:
    """Print what a request costs each part, round by round, and the medians."""
    costs: dict[str, list[float]] = {part: [] for part in pids}
    for _ in range(rounds):
        before = used(pids)
        load = measure.wrk(port, script, seconds, connections, None)
        after = used(pids)
        if load.errors:
            raise SystemExit(f"{load.errors} of {load.requests} requests failed")
        for part in pids:
            costs[part].append((after[part] - before[part]) / load.requests * 1e6)
        told = "  ".join(f"{part} {cost[-1]:6.1f} us" for part, cost in costs.items())
        print(f"c = {connections:3}  {load.rate:9,.0f} requests/s  p50 {load.p50_ms:.3f} ms  {told}", flush=True)
    medians = "  ".join(f"{part} {statistics.median(cost):6.1f} us" for part, cost in costs.items())
    print(f"c = {connections:3}  median of CPU a request: {medians}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
