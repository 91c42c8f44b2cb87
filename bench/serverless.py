"""How soon a serverless endpoint answers that has no instance at all, and what a burst at zero costs.

    python bench/serverless.py [--rounds 20] [--report]

One scikit-learn model. A client asks while nothing runs; measured is from sending the request to its answer. Starts
that find a warm slot, and starts that find none (the server is started and imports its framework first), are shown
apart. Then 200 requests at once, at zero: how many failed, and how many instances were started for them.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import frame
import world
from cold_start import until
from demo_models import Model, build_models
from eyrie.cli.client import ControlClient

GOAL_MS = 200.0
MISSES = 3
BURST = 200
BURSTS = 3
NAME = "serverless"
EACH = 16  # requests at once that an instance of 1024 MB serves


class Bench:
    """One Eyrie with the endpoint."""

    def __init__(self, eyrie: world.Eyrie, model: Model, row: str) -> None:
        self.eyrie = eyrie
        self.control = ControlClient(eyrie.data, eyrie.env["AWS_REGION"])
        self.row = row
        self.runtime = eyrie.client("sagemaker-runtime")
        sagemaker = eyrie.client("sagemaker")
        url = eyrie.upload(model.archive, f"{model.name}.tar.gz")
        container = {"Image": model.image, "ModelDataUrl": url}
        sagemaker.create_model(ModelName=NAME, ExecutionRoleArn=world.ROLE, PrimaryContainer=container)
        allowed = {"MemorySizeInMB": 1024, "MaxConcurrency": BURST}
        variant = {"VariantName": "v", "ModelName": NAME, "ServerlessConfig": allowed}
        sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=NAME, WaiterConfig=world.IN_SERVICE)

    def rest(self, warm: bool) -> None:
        """Until nothing runs, and a slot waits where one is to be found."""
        until(lambda: not self.instances())
        if warm:
            until(lambda: (slots := self.control.status()["slots"])["warm"] >= 2 and not slots["starting"])

    def instances(self) -> list[dict[str, object]]:
        """Those of the endpoint."""
        return [i for e in self.control.status()["endpoints"] if e["name"] == NAME for i in e["instances"]]

    def starts(self) -> int:
        """How many instances were ever asked for."""
        return sum("REQUESTED" in event["what"] for event in self.control.story(NAME))

    def ask(self) -> float:
        """One request; milliseconds to its answer."""
        began = time.perf_counter()
        reply = self.runtime.invoke_endpoint(EndpointName=NAME, ContentType="text/csv", Body=self.row)
        reply["Body"].read()
        return (time.perf_counter() - began) * 1000

    def burst(self) -> tuple[int, float]:
        """Many requests at once: how many failed, and milliseconds to the last answer."""
        return asyncio.run(at_once(self.eyrie.port, self._signed(), BURST))

    def _signed(self) -> bytes:
        """One signed request."""
        port, signer = self.eyrie.port, self.eyrie.signer
        path, host = f"/endpoints/{NAME}/invocations", f"127.0.0.1:{port}"
        request = AWSRequest("POST", f"http://{host}{path}", {"Content-Type": "text/csv"}, self.row.encode())
        SigV4Auth(Credentials(signer.access, signer.secret), "sagemaker", signer.region).add_auth(request)
        lines = {"Host": host, **dict(request.headers.items()), "Content-Length": str(len(self.row))}
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return (head + "\r\n" + self.row).encode()


async def at_once(port: int, request: bytes, count: int) -> tuple[int, float]:
    """The same request on so many connections."""

    async def one() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            return b" 200 " in await reader.readline()
        finally:
            writer.close()

    began = time.perf_counter()
    done = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    return sum(answer is not True for answer in done), (time.perf_counter() - began) * 1000


def show(name: str, took: list[float]) -> None:
    """Median and worst."""
    print(
        f"{name:<24} {len(took):>3} first answers, ms: {statistics.median(took):.0f} (worst {max(took):.0f})",
        flush=True,
    )


def firsts(model: Model, row: str, count: int, warm: bool) -> tuple[list[float], list[tuple[int, int, float]]]:
    """First answers from zero; with warm slots also bursts: failed, started, milliseconds to the last answer."""
    os.environ["EYRIE_WARM_SLOTS"] = "2" if warm else "0"
    os.environ["EYRIE_SERVERLESS_IDLE_MS"] = "300"
    with world.eyrie(gateways=2) as eyrie:
        bench = Bench(eyrie, model, row)
        took, bursts = [], []
        for _ in range(count):
            bench.rest(warm)
            took.append(bench.ask())
        show(f"{model.name}, {'slot there' if warm else 'slot missed'}", took)
        for _ in range(BURSTS if warm else 0):
            bench.rest(warm)
            before = bench.starts()
            failed, last_ms = bench.burst()
            bursts.append((failed, bench.starts() - before, last_ms))
            print(f"burst of {BURST} at zero: {failed} failed, {bursts[-1][1]} started, last answer {last_ms:.0f} ms")
        return took, bursts


def main() -> int:
    options = frame.arguments(__doc__, rounds=20)
    chosen = options.parse_args()
    print(frame.machine(), frame.versions("scikit-learn"), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        models, rows, _ = build_models(Path(folder))
        model = next(m for m in models if m.name == "sklearn")
        warm, bursts = firsts(model, rows[0], chosen.rounds, warm=True)
        missed, _ = firsts(model, rows[0], min(MISSES, chosen.rounds), warm=False)
    median, worst = statistics.median(warm), max(warm)
    detail = f"{median:.0f} ms, worst {worst:.0f} of {len(warm)}; slot missed {statistics.median(missed):.0f} ms"
    first = frame.Ratio("first answer from zero against 200 ms", median / GOAL_MS, 1.0, worst / GOAL_MS, True, detail)
    failed, started = sum(b[0] for b in bursts), max(b[1] for b in bursts)
    needed = -(-BURST // EACH)
    detail = f"{failed} of {BURST * len(bursts)} failed; {started} started at most, {needed} would serve all at once"
    value = started / needed if not failed else None
    return frame.finish(
        [first, frame.Ratio("starts of a burst at zero", value, 1.0, None, True, detail)], chosen.report
    )


if __name__ == "__main__":
    sys.exit(main())
