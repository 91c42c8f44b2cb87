"""What a shadow costs production: CPU time a request, and latency, with copies of all requests against without.

    python bench/shadow.py [--rounds 7] [--seconds 1] [--connections 32]      (a minute and a half)

A real Eyrie of one gateway worker; XGBoost as the production variant, the same model as its shadow; and beside it an
endpoint whose shadow never answers. The sides are measured in turn, by weights alone: the sampled share is set to 0 and
to 1 before each. CPU seconds are those of the gateway and of the production instance, from /proc; the shadow's own
instance is another's bill, though on a machine of two cores it takes from everyone's latency: what latency says is
therefore told of the shadow that hangs, which uses no CPU, by a lone client (under full load latency only repeats what
CPU says): p50 and p99 with and without, and their ratio. A copy that was dropped costs little: how many of them were
sent is told, and of the shadow that answers it has to be most of them.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frame
import measure
import rival
import world
from path import used

CPU_GOAL, LATENCY_GOAL = 1.35, 1.05
HUNG = "hangs"  # the endpoint whose shadow never answers
ALONE_S = 2.0  # of the lone client
SENT_MIN = 0.75  # of the copies that are due: with fewer, the shadow that answers was not one of all requests
HANGS = """
import time
def model_fn(model_dir):
    return 1
def input_fn(data, content_type):
    return data
def predict_fn(data, model):
    time.sleep(3600)
def output_fn(prediction, accept):
    return prediction
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One run: CPU microseconds a request of gateway and production instance under load, and a lone client's latencies
    where they are asked for.
    """

    cpu_us: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def hanging(path: Path) -> Path:
    """The archive of a model that never answers."""
    code = HANGS.encode()
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(code)
        tar.addfile(entry, io.BytesIO(code))
    return path


def deploy(eyrie: world.Eyrie, name: str, model: str, shadow: str) -> None:
    """An endpoint of one instance with a shadow of one; returns when it is InService."""
    sagemaker = eyrie.client("sagemaker")

    def variant(of: str, what: str) -> dict[str, Any]:
        return {"VariantName": of, "ModelName": what, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}

    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[variant("v", model)],
        ShadowProductionVariants=[{**variant("s", shadow), "InitialVariantWeight": 0.0}],
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=world.IN_SERVICE)


def sent(eyrie: world.Eyrie, name: str) -> float:
    """Which part of the copies that were due was sent."""
    told = json.loads(eyrie.run("shadow", "report", name, "--json"))["requests"]
    due = told["sent"] + sum(told["dropped"].values())
    return float(told["sent"] / due) if due else 0.0


def sample(eyrie: world.Eyrie, name: str, share: float) -> None:
    """Set the share of the requests that is copied; returns when it holds."""
    sagemaker = eyrie.client("sagemaker")
    wanted = [{"VariantName": "s", "DesiredWeight": share}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
    until = time.monotonic() + 20
    while sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] != "InService":
        if time.monotonic() > until:
            raise SystemExit(f"{name} is not InService 20 s after its weights were changed")
        time.sleep(0.05)


class Side:
    """One endpoint with one share of its requests copied."""

    def __init__(self, eyrie: world.Eyrie, name: str, share: float, script: Path, chosen: Any) -> None:
        self.eyrie, self.name, self.share, self.script, self.chosen = eyrie, name, share, script, chosen
        self.pids = measure.processes(eyrie.data, name)
        self.costs: list[Cost] = []

    def measure(self) -> float:
        """CPU microseconds a request."""
        sample(self.eyrie, self.name, self.share)
        if not self.costs:
            self._wrk(1.0, self.chosen.connections)
        before = used(self.pids)
        load = self._wrk(self.chosen.seconds, self.chosen.connections)
        after = used(self.pids)
        spent = {part: (after[part] - before[part]) / load.requests * 1e6 for part in self.pids}
        told = "  ".join(f"{part} {us:.1f} us" for part, us in spent.items())
        cost = Cost(sum(spent.values()))
        if self.name == HUNG:
            alone = self._wrk(ALONE_S, 1)
            cost = Cost(cost.cpu_us, alone.p50_ms, alone.p99_ms)
            told += f"  alone p50 {cost.p50_ms:.3f} p99 {cost.p99_ms:.3f} ms"
        self.costs.append(cost)
        print(f"{self.name} {self.share:4.0%}: {cost.cpu_us:.1f} us  {told}  {load.rate:,.0f} requests/s", flush=True)
        return cost.cpu_us

    def _wrk(self, seconds: float, connections: int) -> measure.Load:
        load = measure.wrk(self.eyrie.port, self.script, seconds, connections, None)
        if load.errors:
            raise SystemExit(f"{load.errors} of {load.requests} requests failed")
        return load


def main() -> int:
    options = frame.arguments(__doc__, rounds=7, seconds=1.0)
    options.add_argument("--connections", type=int, default=32)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as name, world.eyrie(gateways=1) as eyrie:
        folder, sagemaker = Path(name), eyrie.client("sagemaker")
        model = rival.train(folder)
        packed = world.pack(folder / "model.tar.gz", {model.file.name: model.file})
        archives = {"xgboost": packed, "python": hanging(folder / "hangs.tar.gz")}
        for image, archive in archives.items():
            container = {"Image": f"eyrie/{image}", "ModelDataUrl": eyrie.upload(archive, f"{image}.tar.gz")}
            sagemaker.create_model(ModelName=image, PrimaryContainer=container, ExecutionRoleArn=world.ROLE)
        sides: dict[str, Side] = {}
        for endpoint, shadow in (("answers", "xgboost"), (HUNG, "python")):
            deploy(eyrie, endpoint, "xgboost", shadow)
            bodies = [row.encode() for row in model.rows]
            requests = measure.signed_requests(eyrie.port, endpoint, bodies, eyrie.signer)
            script = measure.wrk_script(folder / f"{endpoint}.lua", requests)
            for share in (0.0, 1.0):
                sides[f"{endpoint} {share:g}"] = Side(eyrie, endpoint, share, script, chosen)
        frame.rounds(chosen.rounds, {each: side.measure for each, side in sides.items()})
        parts = {endpoint: sent(eyrie, endpoint) for endpoint in ("answers", HUNG)}
        print(*(f"{endpoint}: {part:.1%} of the copies were sent" for endpoint, part in parts.items()), sep="\n")
        if parts["answers"] < SENT_MIN:
            raise SystemExit("too many copies were dropped for a shadow of all requests")
        return frame.finish([*_ratios(sides)], chosen.report)


def _ratios(sides: dict[str, Side]) -> list[frame.Ratio]:
    def of(side: str, what: str) -> list[float]:
        return [getattr(cost, what) for cost in sides[side].costs]

    def ratio(name: str, endpoint: str, what: str, goal: float, unit: str) -> frame.Ratio:
        with_, without = of(f"{endpoint} 1", what), of(f"{endpoint} 0", what)
        detail = f"{statistics.median(with_):.3g} against {statistics.median(without):.3g} {unit}"
        return frame.Ratio.of(name, with_, without, goal, at_most=True, detail=detail)

    return [
        ratio("production with a shadow of all requests, against without", "answers", "cpu_us", CPU_GOAL, "us of CPU"),
        ratio("production with a shadow that hangs, against without", HUNG, "cpu_us", CPU_GOAL, "us of CPU"),
        ratio("p50 with a shadow that hangs, against without", HUNG, "p50_ms", LATENCY_GOAL, "ms"),
        ratio("p99 with a shadow that hangs, against without", HUNG, "p99_ms", LATENCY_GOAL, "ms"),
    ]


if __name__ == "__main__":
    sys.exit(main())
