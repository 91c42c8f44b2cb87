"""One row a request, both cores: an Eyrie endpoint beside Ray Serve, BentoML, KServe, MLServer, LitServe and FastAPI.

    python bench/endpoint_vs_peers.py [--peers fastapi ray ...] [--rounds 3] [--seconds 2]

All serve the same XGBoost model file (100 trees of depth 6, 20 features); every server's answers are compared with the
model's own before it is measured. Eyrie checks signatures and meters, and its requests pass a gateway; its peers check
nothing, and only Ray has a proxy in front. While Eyrie is measured the peer's processes stand still (Ray's and KServe's
are busy when nobody asks them); Eyrie's idle while the peer is. A peer gets as many workers as there are cores, and
batches where it can and that is faster for it. Peers come one at a time, Eyrie and the peer in turn; one that does not
start is a row that says why. `bench/peers/` holds their programs and locks, `make bench-peers` installs them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import frame
import measure
import rival
import world

CORES = len(os.sched_getaffinity(0))
PEERS = Path(__file__).with_name("peers")
LATENCY_GOAL = 0.85
START_LIMIT_S = 180.0
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Wording:
    """How a server is asked for one row, and how its answer is read."""

    path: str
    content_type: str
    ask: Callable[[str], str]
    read: Callable[[bytes], float]

    def request(self, port: int, row: str) -> bytes:
        body = self.ask(row).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {self.content_type}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def cells(row: str) -> list[float]:
    return [float(cell) for cell in row.split(",")]


CSV = Wording("/invocations", "text/csv", lambda row: row, lambda body: float(body))
KSERVE = Wording(
    "/v1/models/rows:predict",
    "application/json",
    lambda row: json.dumps({"instances": [cells(row)]}),
    lambda body: float(json.loads(body)["predictions"][0]),
)
TENSOR = {"name": "rows", "datatype": "FP32", "shape": [1, rival.FEATURES]}
MLSERVER = Wording(
    "/v2/models/rows/infer",
    "application/json",
    lambda row: json.dumps({"inputs": [{**TENSOR, "data": cells(row)}]}),
    lambda body: float(json.loads(body)["outputs"][0]["data"][0]),
)
LITSERVE = Wording(
    "/predict",
    "application/json",
    lambda row: json.dumps({"input": cells(row)}),
    lambda body: float(json.loads(body)["output"]),
)
BENTOML = Wording(
    "/predict",
    "application/json",
    lambda row: json.dumps({"rows": [cells(row)]}),
    lambda body: float(json.loads(body)[0]),
)


@dataclass(frozen=True, slots=True)
class Peer:
    """One server to compare with: how it is started, asked, and by how much Eyrie should be faster."""

    name: str
    environment: str  # of bench/peers/ENVIRONMENT.lock
    package: str
    goal: float
    argv: Callable[[rival.Rival, Path, int], list[str]]  # model, its folder, port
    wording: Wording
    env: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.name} {measure.peer_version(self.environment, self.package)}"


def script(environment: str, *more: str) -> Callable[[rival.Rival, Path, int], list[str]]:
    """`serve_ENVIRONMENT.py MODEL PORT WORKERS`."""

    def argv(model: rival.Rival, folder: Path, port: int) -> list[str]:
        program = PEERS / f"serve_{environment}.py"
        python = measure.peer_program(environment, "python")
        return [python, str(program), str(model.file), str(port), str(CORES), *more]

    return argv


def bentoml(model: rival.Rival, folder: Path, port: int) -> list[str]:
    argv = [measure.peer_program("bentoml", "bentoml"), "serve", "serve_bentoml:Rows"]
    return [*argv, "--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", str(port)]


def mlserver(model: rival.Rival, folder: Path, port: int) -> list[str]:
    ports = {"http_port": port, "grpc_port": measure.free_port(), "metrics_port": measure.free_port()}
    settings = {"host": "127.0.0.1", **ports, "parallel_workers": CORES, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    served = {"name": "rows", "implementation": "mlserver_xgboost.XGBoostModel", "parameters": {"uri": str(model.file)}}
    (folder / "model-settings.json").write_text(json.dumps(served))
    return [measure.peer_program("mlserver", "mlserver"), "start", str(folder)]


FAST_RAY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_HAPROXY_NBTHREAD": "2"}
ALL = (
    Peer("Ray Serve, default,", "ray", "ray", 100, script("ray"), CSV),
    Peer("Ray Serve, HAProxy and throughput-optimised,", "ray", "ray", 12, script("ray"), CSV, FAST_RAY),
    Peer("BentoML", "bentoml", "bentoml", 45, bentoml, BENTOML),
    Peer("KServe", "kserve", "kserve", 20, script("kserve"), KSERVE),
    Peer("MLServer", "mlserver", "mlserver", 25, mlserver, MLSERVER),
    Peer("LitServe", "litserve", "litserve", 25, script("litserve"), LITSERVE),
    Peer("FastAPI + uvicorn", "fastapi", "fastapi", 8, script("fastapi"), CSV),
)


class PeerFailed(Exception):
    """A peer that cannot be measured; the message says why."""


@contextlib.contextmanager
def running(peer: Peer, model: rival.Rival) -> Iterator[tuple[int, int]]:
    """A peer, answering rightly; its port, and its first process. Raises PeerFailed."""
    port = measure.free_port()
    with tempfile.TemporaryDirectory(prefix="eyrie-peer-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        env = {
            **peer.env,
            "MODEL": str(model.file),
            "OMP_NUM_THREADS": "1",
            "BENTOML_HOME": name,
            "BENTOML_DO_NOT_TRACK": "True",
            "RAY_TMPDIR": name,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{name}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{name}/haproxy.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": name,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{name}/haproxy.state",
        }
        log = stack.enter_context((folder / "log").open("w+b"))
        try:
            argv = peer.argv(model, folder, port)
        except SystemExit as missing:
            raise PeerFailed(str(missing)) from None
        pid = stack.enter_context(measure.process_group(argv, env, log))
        try:
            answers_rightly(peer.wording, port, model)
        except PeerFailed as failed:
            log.seek(0)
            said = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
            raise PeerFailed(f"{failed}; it said: {said[-1][:160] if said else 'nothing'}") from None
        yield port, pid


def answers_rightly(wording: Wording, port: int, model: rival.Rival) -> None:
    """Wait until it answers, then compare a sample with the model. Raises PeerFailed."""
    deadline = time.monotonic() + START_LIMIT_S
    while (why := wrong(wording, port, model.rows[:1], model.answers[:1])) is not None:
        if time.monotonic() > deadline:
            raise PeerFailed(f"not ready within {START_LIMIT_S:g} s: {why}")
        time.sleep(0.25)
    if (why := wrong(wording, port, model.rows[:100], model.answers[:100])) is not None:
        raise PeerFailed(why)


def wrong(wording: Wording, port: int, rows: list[str], answers: list[float]) -> str | None:
    """Why its answers to these rows are not the model's; None where they are."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        for row, answer in zip(rows, answers, strict=True):
            connection.request("POST", wording.path, wording.ask(row), {"Content-Type": wording.content_type})
            reply = connection.getresponse()
            body = reply.read()
            if reply.status != 200:
                return f"status {reply.status}: {body[:100]!r}"
            if abs(wording.read(body) - answer) > TOLERANCE:
                return f"{wording.read(body)} where the model says {answer}"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return None


@dataclass(frozen=True, slots=True)
class Side:
    """One server as wrk meets it."""

    name: str
    port: int
    script: Path
    other: int | None = None  # the first process of the other server, which stands still meanwhile

    def load(self, seconds: float, connections: int) -> measure.Load:
        """Raises PeerFailed where a request failed."""
        with measure.stopped(self.other) if self.other else contextlib.nullcontext():
            load = measure.wrk(self.port, self.script, seconds, connections, None)
        if load.errors or not load.requests:
            raise PeerFailed(f"{self.name}: {load.errors} of {load.requests} requests failed at c = {connections}")
        return load


@dataclass(frozen=True, slots=True)
class Duel:
    """Eyrie and one peer: requests a second at c = 32 (also of the compiled model), and the median latency in
    milliseconds at c = 1.
    """

    ours: list[float]
    theirs: list[float]
    compiled: list[float]
    ours_p50: list[float]
    theirs_p50: list[float]


def duel(ours: Side, compiled: Side, theirs: Side, rounds: int, seconds: float, connections: int) -> Duel:
    """Measure them in turn, after a warm-up of each."""
    sides = (ours, theirs, compiled)
    for side in sides:
        side.load(1.0, connections)
    rates = frame.rounds(rounds, {side.name: lambda side=side: side.load(seconds, connections).rate for side in sides})
    latencies = frame.rounds(
        rounds, {side.name: lambda side=side: side.load(seconds / 2, 1).p50_ms for side in (ours, theirs)}
    )
    seen = (rates[ours.name], rates[theirs.name], rates[compiled.name])
    return Duel(*seen, latencies[ours.name], latencies[theirs.name])


def main() -> int:
    options = frame.arguments(__doc__)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--gateways", type=int, default=1)
    options.add_argument("--workers", type=int, default=0, help="of our instance; 0: as Eyrie decides")
    options.add_argument("--peers", nargs="+", default=[], help="only these, by the name of their lock")
    chosen = options.parse_args()
    peers = [peer for peer in ALL if not chosen.peers or peer.environment in chosen.peers]
    ratios: list[frame.Ratio] = []
    duels: dict[str, Duel] = {}
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as name, world.eyrie(gateways=chosen.gateways) as eyrie:
        folder = Path(name)
        model = rival.train(folder)
        ours, compiled = endpoints(eyrie, model, folder, chosen.workers)
        for peer in peers:
            try:
                with running(peer, model) as (port, pid):
                    requests = [peer.wording.request(port, row) for row in model.rows]
                    theirs = Side(peer.title, port, measure.wrk_script(folder / "peer.lua", requests))
                    mine = (replace(ours, other=pid), replace(compiled, other=pid))
                    found = duel(*mine, theirs, chosen.rounds, chosen.seconds, chosen.connections)
            except PeerFailed as failed:
                ratios.append(frame.Ratio(row_name(peer), None, peer.goal, detail=str(failed)))
            else:
                duels[peer.title] = found
                ratios.append(throughput(peer, found))
            print(ratios[-1].line().replace("ratio", "so far", 1), flush=True)
    return frame.finish([*ratios, latency(duels)], chosen.report)


def endpoints(eyrie: world.Eyrie, model: rival.Rival, folder: Path, workers: int) -> tuple[Side, Side]:
    """Deploy the model, as it is and compiled."""
    archive = world.pack(folder / "model.tar.gz", {model.file.name: model.file})
    address = eyrie.upload(archive, "model.tar.gz")
    made = eyrie.compile(address, "XGBOOST", rival.FEATURES)
    return endpoint(eyrie, "bench", address, model, folder, workers), endpoint(
        eyrie, "compiled", made, model, folder, workers
    )


def endpoint(eyrie: world.Eyrie, name: str, address: str, model: rival.Rival, folder: Path, workers: int) -> Side:
    """Deploy a model, compare what the endpoint answers with the original, and sign the requests."""
    environment = {"MODEL_SERVER_WORKERS": str(workers)} if workers else {}
    eyrie.deploy(name, [{"Image": "eyrie/xgboost", "ModelDataUrl": address, "Environment": environment}])
    runtime = eyrie.client("sagemaker-runtime")
    for row, answer in zip(model.rows[:100], model.answers, strict=False):
        reply = runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=row)
        if abs(float(reply["Body"].read()) - answer) > TOLERANCE:
            raise SystemExit(f"the answers of the endpoint {name} are not the model's")
    bodies = [row.encode() for row in model.rows]
    requests = measure.signed_requests(eyrie.port, name, bodies, eyrie.signer)
    side = Side(name, eyrie.port, measure.wrk_script(folder / f"{name}.lua", requests))
    side.load(2.0, 32)
    return side


def row_name(peer: Peer) -> str:
    return f"XGBoost, one row a request, both cores, c = 32, against {peer.title}"


def throughput(peer: Peer, found: Duel) -> frame.Ratio:
    ours, theirs = statistics.median(found.ours), statistics.median(found.theirs)
    ours_p50, theirs_p50 = statistics.median(found.ours_p50), statistics.median(found.theirs_p50)
    made = statistics.median(found.compiled)
    detail = (
        f"{ours:,.0f} against {theirs:,.0f} requests/s ({made:,.0f}, {made / theirs:.3g} x, after compilation); "
        f"c = 1 p50 {ours_p50:.2f} against {theirs_p50:.2f} ms"
    )
    return frame.Ratio.of(row_name(peer), found.ours, found.theirs, peer.goal, detail=detail)


def latency(duels: dict[str, Duel]) -> frame.Ratio:
    """At c = 1 against whichever peer was quickest."""
    name = "the same, c = 1, p50 latency through the gateway against the best of these peers"
    if not duels:
        return frame.Ratio(name, None, LATENCY_GOAL, at_most=True, detail="no peer was measured")
    title, best = min(duels.items(), key=lambda item: statistics.median(item[1].theirs_p50))
    detail = (
        f"{statistics.median(best.ours_p50):.3f} against {statistics.median(best.theirs_p50):.3f} ms of {title.strip()}"
    )
    return frame.Ratio.of(name, best.ours_p50, best.theirs_p50, LATENCY_GOAL, at_most=True, detail=detail)


if __name__ == "__main__":
    sys.exit(main())
